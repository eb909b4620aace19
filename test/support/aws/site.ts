import {
  CreateAccessKeyCommand,
  CreateRoleCommand,
  CreateUserCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
  UpdateAssumeRolePolicyCommand,
} from '@aws-sdk/client-iam'
import { AssumeRoleCommand, GetCallerIdentityCommand } from '@aws-sdk/client-sts'
import { CreateBucketCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { type AwsClients, clientsOf } from './clients.ts'
import { type AwsPeer, startAwsPeer } from './peer.ts'
import type { RunningAws } from './peers.ts'

/** An AWS account as its owner prepares it for a broker: a user that may assume one role, and a bucket with a prefix for each of two customers. */
export interface AwsSite<Peer extends RunningAws = AwsPeer> extends AsyncDisposable {
  readonly peer: Peer
  readonly owner: AwsClients
  readonly role: string
  readonly externalId: string
  /** What the broker's process finds in its environment. */
  readonly environment: Readonly<Record<string, string>>
}

export const policyOf = (...Statement: object[]): string => JSON.stringify({ Version: '2012-10-17', Statement })

/** @param clock of the peer; the machine's where absent */
export const startAwsSite = async (clock?: () => number): Promise<AwsSite> => await prepareSite(await startAwsPeer({ ...(clock && { clock }) }))

/** A clock that stands still but for what a peer is told to advance, so that no time passes by itself that a test counts on. */
export const stillClock = (): (() => number) => {
  const now = Date.now()
  return () => now
}

/** @param peer of an account in which there is nothing yet; it stops with the site */
export async function prepareSite<Peer extends RunningAws>(peer: Peer): Promise<AwsSite<Peer>> {
  const owner = clientsOf(peer, peer.root)
  const [path, name, externalId] = ['/mayfly/', 'invoices', 'mayfly-test']
  const { User: user } = await owner.iam.send(new CreateUserCommand({ UserName: 'mayfly' }))
  const may = { Effect: 'Allow', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'], Resource: `arn:aws:iam::*:role${path}*` }
  await owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'assume', PolicyDocument: policyOf(may) }))
  const { AccessKey: key } = await owner.iam.send(new CreateAccessKeyCommand({ UserName: 'mayfly' }))
  const trust = {
    Effect: 'Allow',
    Principal: { AWS: user!.Arn },
    Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'],
    Condition: { StringEquals: { 'sts:ExternalId': externalId } },
  }
  await owner.iam.send(new CreateRoleCommand({ RoleName: name, Path: path, AssumeRolePolicyDocument: policyOf(trust) }))
  const work = { Effect: 'Allow', Action: '*', Resource: '*' }
  await owner.iam.send(new PutRolePolicyCommand({ RoleName: name, PolicyName: 'work', PolicyDocument: policyOf(work) }))
  await owner.s3.send(new CreateBucketCommand({ Bucket: 'invoices' }))
  for (const Key of ['acme/1', 'globex/1']) await owner.s3.send(new PutObjectCommand({ Bucket: 'invoices', Key, Body: Key }))
  return {
    peer,
    owner,
    role: `${path}${name}`.slice(1),
    externalId,
    environment: {
      AWS_ACCESS_KEY_ID: key!.AccessKeyId!,
      AWS_SECRET_ACCESS_KEY: key!.SecretAccessKey!,
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
    },
    [Symbol.asyncDispose]: () => peer.stop(),
  }
}

/**
 * What a broker in production finds in its environment: a session of a role, for it refuses keys that never end. The role may do everything, and the
 * site's own trusts it.
 */
export async function inProduction({ peer, owner, role, externalId, environment }: AwsSite<RunningAws>): Promise<Record<string, string>> {
  const user = { accessKeyId: environment['AWS_ACCESS_KEY_ID']!, secretAccessKey: environment['AWS_SECRET_ACCESS_KEY']! }
  const { Arn: userArn } = await clientsOf(peer, user).sts.send(new GetCallerIdentityCommand({}))
  const trusting = (AWS: string, more: object = {}) =>
    policyOf({ Effect: 'Allow', Principal: { AWS }, Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'], ...more })
  const broker = { RoleName: 'broker', Path: '/mayfly/', AssumeRolePolicyDocument: trusting(userArn!) }
  const { Role: made } = await owner.iam.send(new CreateRoleCommand(broker))
  const PolicyDocument = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
  await owner.iam.send(new PutRolePolicyCommand({ RoleName: 'broker', PolicyName: 'work', PolicyDocument }))
  const trust = trusting(made!.Arn!, { Condition: { StringEquals: { 'sts:ExternalId': externalId } } })
  await owner.iam.send(new UpdateAssumeRolePolicyCommand({ RoleName: role.split('/').at(-1), PolicyDocument: trust }))
  const asked = new AssumeRoleCommand({ RoleArn: made!.Arn, RoleSessionName: '@mayfly' })
  const { Credentials: given } = await clientsOf(peer, user).sts.send(asked)
  return {
    ...environment,
    AWS_ACCESS_KEY_ID: given!.AccessKeyId!,
    AWS_SECRET_ACCESS_KEY: given!.SecretAccessKey!,
    AWS_SESSION_TOKEN: given!.SessionToken!,
  }
}
