import { readFile } from 'node:fs/promises'
import path from 'node:path'
import {
  CreateAccessKeyCommand,
  CreateOpenIDConnectProviderCommand,
  CreatePolicyCommand,
  CreateRoleCommand,
  CreateUserCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam'
import { CreateBucketCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import { AssumeRoleCommand } from '@aws-sdk/client-sts'
import { type AwsClients, clientsOf } from './clients.ts'
import { type AwsPeer, startAwsPeer } from './peer.ts'
import type { RunningAws } from './peers.ts'
import { policyOf } from './site.ts'

const folder = path.join(import.meta.dirname, '../../../deploy/aws')

/** A file of deploy/aws, as it stands. */
export const shipped = (name: string): Promise<string> => readFile(path.join(folder, `${name}.json`), 'utf8')

/** What the shipped files name. */
export const externalId = 'mayfly-prod'
export const issuer = 'https://broker.example.com'
export const taskRole = 'mayfly/invoices'
export const killList = 'arn:aws:iam::123456789012:policy/mayfly-kill-list-invoices'

/** An account that was set up with the files of deploy/aws, and a bucket with a prefix for each of two customers. */
export interface DeployedAws<Peer extends RunningAws = AwsPeer> extends AsyncDisposable {
  readonly peer: Peer
  readonly owner: AwsClients
  /** What a broker finds in its environment that runs on a platform of this AWS: a session of the role `mayfly-broker`. */
  readonly platform: Readonly<Record<string, string>>
}

/** `carrier` of the kill list; `identity`: how minter and revoker are taken. */
interface Deployment {
  readonly carrier: 'boundary' | 'inline'
  readonly identity: 'default' | 'web_identity'
}

export const deployAws = async (about: Deployment): Promise<DeployedAws> => await deployAt(await startAwsPeer(), about)

/** @param peer of an account in which there is nothing yet; it stops with what is deployed */
export async function deployAt<Peer extends RunningAws>(peer: Peer, about: Deployment): Promise<DeployedAws<Peer>> {
  const owner = clientsOf(peer, peer.root)
  const platform = await startPlatform(peer, owner)
  const role = async (name: string, trust: string, policy: string, boundary?: string, at = '/'): Promise<void> => {
    const document = await shipped(trust)
    const made = { RoleName: name, Path: at, AssumeRolePolicyDocument: document, PermissionsBoundary: boundary }
    await owner.iam.send(new CreateRoleCommand(made))
    await owner.iam.send(new PutRolePolicyCommand({ RoleName: name, PolicyName: 'mayfly', PolicyDocument: await shipped(policy) }))
  }
  await owner.iam.send(new CreateOpenIDConnectProviderCommand({ Url: issuer, ClientIDList: ['sts.amazonaws.com'] }))
  const suffix = about.identity === 'default' ? '' : '-web-identity'
  await role('mayfly-minter', `minter-trust${suffix}`, 'minter-policy')
  await role('mayfly-revoker', `revoker-trust${suffix}`, about.carrier === 'boundary' ? 'revoker-policy' : 'revoker-policy-inline')
  const boundary = about.carrier === 'boundary' ? ['mayfly-kill-list-invoices', 'kill-list-boundary'] : ['mayfly-task-boundary', 'task-boundary']
  const document = await shipped(boundary[1]!)
  const { Policy: policy } = await owner.iam.send(new CreatePolicyCommand({ PolicyName: boundary[0], PolicyDocument: document }))
  await role('invoices', 'task-role-trust', 'invoices-policy', policy!.Arn, '/mayfly/')
  await owner.s3.send(new CreateBucketCommand({ Bucket: 'invoices' }))
  for (const Key of ['acme/1', 'globex/1']) await owner.s3.send(new PutObjectCommand({ Bucket: 'invoices', Key, Body: Key }))
  return { peer, owner, platform, [Symbol.asyncDispose]: () => peer.stop() }
}

/** What AWS does for a pod, a task or an instance: it hands the session of a role to what runs there. */
async function startPlatform(peer: RunningAws, { iam }: AwsClients): Promise<Record<string, string>> {
  const { User: user } = await iam.send(new CreateUserCommand({ UserName: 'platform' }))
  const may = { Effect: 'Allow', Action: 'sts:AssumeRole', Resource: '*' }
  await iam.send(new PutUserPolicyCommand({ UserName: 'platform', PolicyName: 'run', PolicyDocument: policyOf(may) }))
  const { AccessKey: key } = await iam.send(new CreateAccessKeyCommand({ UserName: 'platform' }))
  const trust = policyOf({ Effect: 'Allow', Principal: { AWS: user!.Arn }, Action: 'sts:AssumeRole' })
  const { Role: role } = await iam.send(new CreateRoleCommand({ RoleName: 'mayfly-broker', AssumeRolePolicyDocument: trust }))
  const policy = { RoleName: 'mayfly-broker', PolicyName: 'mayfly', PolicyDocument: await shipped('broker-policy') }
  await iam.send(new PutRolePolicyCommand(policy))
  const { sts } = clientsOf(peer, { accessKeyId: key!.AccessKeyId!, secretAccessKey: key!.SecretAccessKey! })
  const { Credentials: given } = await sts.send(new AssumeRoleCommand({ RoleArn: role!.Arn, RoleSessionName: 'pod-1' }))
  return {
    AWS_ACCESS_KEY_ID: given!.AccessKeyId!,
    AWS_SECRET_ACCESS_KEY: given!.SecretAccessKey!,
    AWS_SESSION_TOKEN: given!.SessionToken!,
  }
}
