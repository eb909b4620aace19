import {
  CreateAccessKeyCommand,
  CreateOpenIDConnectProviderCommand,
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  CreateRoleCommand,
  CreateUserCommand,
  DeleteRolePolicyCommand,
  GetRolePolicyCommand,
  ListRolesCommand,
  PutRolePermissionsBoundaryCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam'
import { CreateBucketCommand, GetObjectCommand, ListObjectsV2Command, PutBucketPolicyCommand, PutObjectCommand } from '@aws-sdk/client-s3'
import {
  AssumeRoleCommand,
  AssumeRoleWithWebIdentityCommand,
  type AssumeRoleCommandInput,
  type Credentials,
  DecodeAuthorizationMessageCommand,
  GetCallerIdentityCommand,
  GetScopedCredentialsCommand,
} from '@aws-sdk/client-sts'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type CryptoKey, exportJWK, generateKeyPair, SignJWT } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type AwsClients, clientsOf } from './support/aws/clients.ts'
import { holds } from './support/aws/conditions.ts'
import { type AwsPeer, startAwsPeer } from './support/aws/peer.ts'
import { parsePolicy } from './support/aws/policy.ts'

const policy = (...Statement: object[]) => JSON.stringify({ Version: '2012-10-17', Statement })
const everything = { Effect: 'Allow', Action: '*', Resource: '*' }
const denyWhen = (Condition: object) => ({ Effect: 'Deny', Action: '*', Resource: '*', Condition })
const readsIn = { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::files/in/*' }

let peer: AwsPeer
let broker: AwsClients
let user: string
let roles: number

beforeEach(async () => {
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED = 'true'
  peer = await startAwsPeer()
  roles = 0
  const root = clientsOf(peer, peer.root)
  user = (await root.iam.send(new CreateUserCommand({ UserName: 'broker' }))).User!.Arn!
  await root.iam.send(new PutUserPolicyCommand({ UserName: 'broker', PolicyName: 'all', PolicyDocument: policy(everything) }))
  const { AccessKey } = await root.iam.send(new CreateAccessKeyCommand({ UserName: 'broker' }))
  broker = clientsOf(peer, { accessKeyId: AccessKey!.AccessKeyId!, secretAccessKey: AccessKey!.SecretAccessKey! })
  await broker.s3.send(new CreateBucketCommand({ Bucket: 'files' }))
  for (const Key of ['in/a', 'out/a']) await broker.s3.send(new PutObjectCommand({ Bucket: 'files', Key, Body: 'x' }))
})
afterEach(() => peer.stop())

interface Trust {
  readonly actions?: readonly string[]
  readonly condition?: object
  readonly principal?: string
}
async function role(
  document: string = policy(everything),
  { actions, condition, principal }: Trust = {},
  most = 3600,
): Promise<{ name: string; arn: string }> {
  const name = `role-${(roles += 1)}`
  const trust = {
    Effect: 'Allow',
    Principal: { AWS: principal ?? user },
    Action: actions ?? ['sts:AssumeRole', 'sts:TagSession', 'sts:SetSourceIdentity'],
    ...(condition && { Condition: condition }),
  }
  const made = await broker.iam.send(new CreateRoleCommand({ RoleName: name, AssumeRolePolicyDocument: policy(trust), MaxSessionDuration: most }))
  await broker.iam.send(new PutRolePolicyCommand({ RoleName: name, PolicyName: 'work', PolicyDocument: document }))
  return { name, arn: made.Role!.Arn! }
}
async function assume(role: { arn: string }, name: string, more: Partial<AssumeRoleCommandInput> = {}, by = broker): Promise<Credentials> {
  return (await by.sts.send(new AssumeRoleCommand({ RoleArn: role.arn, RoleSessionName: name, ...more }))).Credentials!
}
const get = (credentials: Credentials, Key: string) => clientsOf(peer, credentials).s3.send(new GetObjectCommand({ Bucket: 'files', Key }))
const put = (credentials: Credentials, Key: string) => clientsOf(peer, credentials).s3.send(new PutObjectCommand({ Bucket: 'files', Key, Body: 'y' }))
const identity = (credentials: Credentials) => clientsOf(peer, credentials).sts.send(new GetCallerIdentityCommand({}))
const deny = ({ name }: { name: string }, Condition: object) =>
  broker.iam.send(new PutRolePolicyCommand({ RoleName: name, PolicyName: 'kill', PolicyDocument: policy(denyWhen(Condition)) }))

const works = (call: Promise<unknown>) => expect(call).resolves.toBeDefined()
const refuses = (call: Promise<unknown>, name: string, words = '') =>
  expect(call).rejects.toMatchObject({ name, message: expect.stringContaining(words) as string })

describe('who asks', () => {
  test('a key is worth nothing without its own secret and its own token', async () => {
    const worker = await role()
    const [one, other] = [await assume(worker, 'one'), await assume(worker, 'other')]
    await works(identity(one))
    const { SessionToken: _, ...bare } = one
    await refuses(identity({ ...one, SecretAccessKey: other.SecretAccessKey }), 'SignatureDoesNotMatch')
    await refuses(identity({ ...one, SessionToken: other.SessionToken }), 'InvalidClientTokenId')
    await refuses(identity(bare as Credentials), 'InvalidClientTokenId')
    await refuses(get({ ...one, SecretAccessKey: other.SecretAccessKey }, 'in/a'), 'SignatureDoesNotMatch')
    await refuses(get({ ...one, SessionToken: other.SessionToken }, 'in/a'), 'InvalidToken')
    await refuses(get(bare as Credentials, 'in/a'), 'InvalidAccessKeyId')
  })

  test('a body that is not the one that was signed is refused', async () => {
    const { sts } = broker
    sts.middlewareStack.add(
      (next) => (args) => {
        const request = args.request as { body: string }
        request.body = request.body.replace('GetCallerIdentity', 'GetCallerIdentitY')
        return next(args)
      },
      { step: 'finalizeRequest', priority: 'low' },
    )
    await refuses(sts.send(new GetCallerIdentityCommand({})), 'SignatureDoesNotMatch')
  })

  test('a signature is good for five minutes at STS and for fifteen at S3', async () => {
    const [fresh, old, older] = [4, 6, 16].map((minutes) => clientsOf(peer, peer.root, -minutes * 60_000))
    await works(fresh!.sts.send(new GetCallerIdentityCommand({})))
    await refuses(old!.sts.send(new GetCallerIdentityCommand({})), 'SignatureDoesNotMatch')
    await works(clientsOf(peer, peer.root, -6 * 60_000).s3.send(new ListObjectsV2Command({ Bucket: 'files' })))
    await refuses(older!.s3.send(new ListObjectsV2Command({ Bucket: 'files' })), 'RequestTimeTooSkewed')
  })

  test('a session ends when its time is up, by the clock of this AWS', async () => {
    const session = await assume(await role(), 'short', { DurationSeconds: 900 })
    peer.advance(899_000)
    await works(get(session, 'in/a'))
    peer.advance(1_000)
    await refuses(identity(session), 'ExpiredToken')
    await refuses(get(session, 'in/a'), 'ExpiredToken')
  })
})

describe('who may become a role', () => {
  test('a role is assumed by whom it trusts, under the conditions that it sets', async () => {
    const strict = await role(policy(everything), { condition: { StringEquals: { 'sts:ExternalId': 'tenant-1' } } })
    await refuses(assume(strict, 'sess'), 'AccessDenied')
    await refuses(assume(strict, 'sess', { ExternalId: 'tenant-2' }), 'AccessDenied')
    await works(assume(strict, 'sess', { ExternalId: 'tenant-1' }))
    const bare = await role(policy(everything), { actions: ['sts:AssumeRole'] })
    await works(assume(bare, 'sess'))
    await refuses(assume(bare, 'sess', { Tags: [{ Key: 'lease', Value: '1' }] }), 'AccessDenied', 'sts:TagSession')
    await refuses(assume(bare, 'sess', { SourceIdentity: 'agent' }), 'AccessDenied', 'sts:SetSourceIdentity')
  })

  test('a session that becomes another role is that for an hour at most, keeps who started it, and passes on the tags it was told to', async () => {
    const [first, second] = [await role(), await role(policy(everything), { principal: peer.account }, 43_200)]
    const through = clientsOf(
      peer,
      await assume(first, 'first', { SourceIdentity: 'agent-1', Tags: [{ Key: 'lease', Value: 'L' }], TransitiveTagKeys: ['lease'] }),
    )
    await refuses(assume(second, 'second', { DurationSeconds: 3601 }, through), 'ValidationError')
    await refuses(assume(second, 'second', { SourceIdentity: 'agent-2' }, through), 'AccessDenied')
    const chained = await assume(second, 'second', { DurationSeconds: 3600 }, through)
    await works(get(chained, 'in/a'))
    await deny(second, { StringEquals: { 'aws:SourceIdentity': 'agent-1', 'aws:PrincipalTag/lease': 'L' } })
    await refuses(get(chained, 'in/a'), 'AccessDenied')
  })
})

describe('who comes with a token of an issuer', () => {
  const keys = generateKeyPair('RS256')
  const issuer = createServer((request, response) => {
    const configuration = { issuer: url(), jwks_uri: `${url()}/keys` }
    void keys
      .then(async ({ publicKey }) =>
        request.url === '/keys' ? { keys: [{ ...(await exportJWK(publicKey)), kid: 'k', alg: 'RS256' }] } : configuration,
      )
      .then((body) => response.end(JSON.stringify(body)))
  })
  const url = () => `http://127.0.0.1:${(issuer.address() as AddressInfo).port}`
  const token = async (sub: string, about: { aud?: string; key?: CryptoKey; more?: object } = {}) =>
    await new SignJWT({ ...about.more, sub, aud: about.aud ?? 'aws', iss: url(), exp: Math.floor(peer.now() / 1000) + 300 })
      .setProtectedHeader({ alg: 'RS256', kid: 'k' })
      .sign(about.key ?? (await keys).privateKey)
  let worker: string
  const enter = async (WebIdentityToken: string) =>
    (await broker.sts.send(new AssumeRoleWithWebIdentityCommand({ RoleArn: worker, RoleSessionName: 'web', WebIdentityToken }))).Credentials!

  beforeEach(async () => {
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve))
    const made = await broker.iam.send(new CreateOpenIDConnectProviderCommand({ Url: url(), ClientIDList: ['aws'] }))
    const trust = {
      Effect: 'Allow',
      Principal: { Federated: made.OpenIDConnectProviderArn },
      Action: ['sts:AssumeRoleWithWebIdentity', 'sts:SetSourceIdentity'],
      Condition: { StringEquals: { [`${url().slice('http://'.length)}:sub`]: 'broker' } },
    }
    const created = await broker.iam.send(new CreateRoleCommand({ RoleName: 'web', AssumeRolePolicyDocument: policy(trust) }))
    await broker.iam.send(new PutRolePolicyCommand({ RoleName: 'web', PolicyName: 'work', PolicyDocument: policy(everything) }))
    worker = created.Role!.Arn!
  })
  afterEach(() => {
    issuer.closeAllConnections()
    issuer.close()
  })

  test('a token that the role trusts is a session, and one of another subject, audience or key is not', async () => {
    await works(get(await enter(await token('broker')), 'in/a'))
    await refuses(enter(await token('somebody')), 'AccessDenied')
    await refuses(enter(await token('broker', { aud: 'another' })), 'InvalidIdentityTokenException')
    await refuses(enter(await token('broker', { key: (await generateKeyPair('RS256')).privateKey })), 'InvalidIdentityTokenException')
  })

  test('a token brings the identity that its session started from, and tags only where the role lets it', async () => {
    const session = await enter(await token('broker', { more: { 'https://aws.amazon.com/source_identity': 'agent-1' } }))
    await works(get(session, 'in/a'))
    await deny({ name: 'web' }, { StringEquals: { 'aws:SourceIdentity': 'agent-1' } })
    await refuses(get(session, 'in/a'), 'AccessDenied')
    const tags = { 'https://aws.amazon.com/tags': { principal_tags: { lease: ['L'] }, transitive_tag_keys: ['lease'] } }
    await refuses(enter(await token('broker', { more: tags })), 'AccessDenied', 'sts:TagSession')
  })

  test('a token ends by the clock of this AWS, and an issuer that is gone can vouch for none', async () => {
    const ended = await token('broker')
    peer.advance(301_000)
    await refuses(enter(ended), 'ExpiredTokenException')
    const good = await token('broker')
    issuer.closeAllConnections()
    await new Promise((resolve) => issuer.close(resolve))
    await refuses(enter(good), 'IDPCommunicationErrorException')
  })
})

describe('what a session may do', () => {
  test('a session policy narrows a role and never widens it', async () => {
    const session = await assume(await role(), 'narrow', { Policy: policy(readsIn) })
    await works(get(session, 'in/a'))
    await refuses(get(session, 'out/a'), 'AccessDenied', 'because no session policy allows the s3:GetObject action')
    await refuses(put(session, 'in/a'), 'AccessDenied')
    await refuses(clientsOf(peer, session).iam.send(new ListRolesCommand({})), 'AccessDenied')
    const wide = await assume(await role(policy(readsIn)), 'wide', { Policy: policy(everything) })
    await refuses(get(wide, 'out/a'), 'AccessDenied', 'because no identity-based policy allows the s3:GetObject action')
  })

  test('a bucket that names a session lets it past its session policy, and past no deny', async () => {
    const worker = await role()
    const session = await assume(worker, 'named', { Policy: policy(readsIn) })
    const Principal = { AWS: `arn:aws:sts::${peer.account}:assumed-role/${worker.name}/named` }
    await broker.s3.send(
      new PutBucketPolicyCommand({ Bucket: 'files', Policy: policy({ ...readsIn, Principal, Resource: 'arn:aws:s3:::files/out/*' }) }),
    )
    await works(get(session, 'out/a'))
    await deny(worker, { StringLike: { 'aws:userid': '*:named' } })
    await refuses(get(session, 'out/a'), 'AccessDenied', 'with an explicit deny in an identity-based policy')
  })

  test('a deny by user id stops one session at once, for as long as it stands, and no other session of the role', async () => {
    const worker = await role()
    const [one, alike] = [await assume(worker, 'lease-1'), await assume(worker, 'lease-11')]
    await deny(worker, { StringLike: { 'aws:userid': ['*:lease-1'] } })
    await refuses(get(one, 'in/a'), 'AccessDenied', 'with an explicit deny in an identity-based policy')
    await works(get(alike, 'in/a'))
    // No policy reaches it.
    await works(identity(one))
    await broker.iam.send(new DeleteRolePolicyCommand({ RoleName: worker.name, PolicyName: 'kill' }))
    await works(get(one, 'in/a'))
  })

  test('a boundary limits a role and grants nothing, and a deny in it is told apart from the others', async () => {
    const reader = await role(policy(readsIn))
    const session = await assume(reader, 'lease-1')
    const { Policy } = await broker.iam.send(new CreatePolicyCommand({ PolicyName: 'edge', PolicyDocument: policy(everything) }))
    await broker.iam.send(new PutRolePermissionsBoundaryCommand({ RoleName: reader.name, PermissionsBoundary: Policy!.Arn }))
    await works(get(session, 'in/a'))
    await refuses(put(session, 'in/a'), 'AccessDenied', 'because no identity-based policy')
    const version = (...statements: object[]) =>
      broker.iam.send(new CreatePolicyVersionCommand({ PolicyArn: Policy!.Arn, SetAsDefault: true, PolicyDocument: policy(...statements) }))
    await version({ ...everything, Action: 'iam:*' })
    await refuses(get(session, 'in/a'), 'AccessDenied', 'because no permissions boundary allows')
    await version(everything, denyWhen({ StringLike: { 'aws:userid': '*:lease-1' } }))
    await refuses(get(session, 'in/a'), 'AccessDenied', 'with an explicit deny in a permissions boundary')
    for (const _ of [4, 5]) await version(everything)
    await refuses(role(policy(everything), { condition: { StringEquals: { 'sts:ExternalId': 'x'.repeat(2048) } } }), 'LimitExceededException')
    await refuses(version(everything), 'LimitExceededException')
  })

  test('a message is decoded for whom a policy allows it, and a no says which policy refuses', async () => {
    const decode = (by: AwsClients) => by.sts.send(new DecodeAuthorizationMessageCommand({ EncodedMessage: 'garbage' }))
    const worker = await role(policy({ ...everything, Action: 'sts:DecodeAuthorizationMessage' }))
    const as = async (name: string, Policy?: string) => clientsOf(peer, await assume(worker, name, { ...(Policy !== undefined && { Policy }) }))
    const [one, other] = [await as('lease-1'), await as('lease-2')]
    await refuses(decode(broker), 'InvalidAuthorizationMessageException')
    await refuses(decode(one), 'InvalidAuthorizationMessageException')
    await refuses(decode(await as('narrow', policy(readsIn))), 'AccessDenied', 'because no session policy allows the sts:DecodeAuthorizationMessage')
    await deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })
    await refuses(decode(one), 'AccessDenied', 'sts:DecodeAuthorizationMessage on resource: * with an explicit deny in an identity-based policy')
    await refuses(decode(other), 'InvalidAuthorizationMessageException')
    const { Policy } = await broker.iam.send(
      new CreatePolicyCommand({ PolicyName: 'edge', PolicyDocument: policy(everything, denyWhen({ StringLike: { 'aws:userid': '*:lease-2' } })) }),
    )
    await broker.iam.send(new PutRolePermissionsBoundaryCommand({ RoleName: worker.name, PermissionsBoundary: Policy!.Arn }))
    await refuses(decode(other), 'AccessDenied', 'with an explicit deny in a permissions boundary')
  })

  test('a session policy can carry its own end', async () => {
    const end = new Date(peer.now() + 60_000).toISOString()
    const session = await assume(await role(), 'planned', { Policy: policy(everything, denyWhen({ DateGreaterThan: { 'aws:CurrentTime': end } })) })
    await works(get(session, 'in/a'))
    peer.advance(61_000)
    await refuses(get(session, 'in/a'), 'AccessDenied', 'with an explicit deny in a session policy')
  })
})

describe('narrower credentials of a session', () => {
  const scoped = async (session: Credentials, Policy: string | undefined, DurationSeconds?: number) =>
    await clientsOf(peer, session).sts.send(new GetScopedCredentialsCommand({ Policy, DurationSeconds }))

  test('a child is the same session with fewer rights and an earlier end, and is stopped by the same deny', async () => {
    const worker = await role()
    const parent = await assume(worker, 'lease-1', { DurationSeconds: 900 })
    const child = (await scoped(parent, policy(readsIn), 60)).Credentials as Credentials
    expect((await identity(child)).UserId).toBe((await identity(parent)).UserId)
    await works(get(child, 'in/a'))
    await refuses(get(child, 'out/a'), 'AccessDenied', 'because no session policy')
    peer.advance(60_000)
    await refuses(get(child, 'in/a'), 'ExpiredToken')
    await works(get(parent, 'out/a'))
    const next = await scoped(parent, policy(readsIn))
    expect(next.Credentials!.Expiration).toEqual(parent.Expiration)
    await deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })
    await refuses(get(next.Credentials as Credentials, 'in/a'), 'AccessDenied', 'with an explicit deny in an identity-based policy')
  })

  test('a child asks for something, outlives no parent, has at most three policies, and is of no long-term key', async () => {
    const parent = await assume(await role(), 'lease-1', { DurationSeconds: 900 })
    await refuses(scoped(parent, undefined), 'ValidationError')
    await refuses(scoped(parent, undefined, 901), 'InsufficientSessionLifetimeException')
    await refuses(broker.sts.send(new GetScopedCredentialsCommand({ DurationSeconds: 60 })), 'InvalidSubjectCredentialsException')
    let child = parent
    for (const _ of [1, 2, 3]) child = (await scoped(child, policy(everything))).Credentials as Credentials
    await refuses(scoped(child, policy(everything)), 'ValidationError')
    peer.faults.unsupported.add('GetScopedCredentials')
    await refuses(scoped(parent, undefined, 60), 'InvalidAction')
  })
})

describe('what AWS does not say of narrower credentials', () => {
  const child = async (parent: Credentials) =>
    (await clientsOf(peer, parent).sts.send(new GetScopedCredentialsCommand({ DurationSeconds: 600 }))).Credentials as Credentials

  test('they are as old as their parent, or as new as they are, as this AWS is told', async () => {
    const worker = await role()
    const parent = await assume(worker, 'lease-1')
    peer.advance(10_000)
    const cutoff = new Date(peer.now() - 5_000).toISOString()
    const old = await child(parent)
    peer.undocumented.issueTimeOfChild = 'its own'
    const fresh = await child(parent)
    await deny(worker, { DateLessThan: { 'aws:TokenIssueTime': cutoff } })
    for (const stopped of [parent, old]) await refuses(get(stopped, 'in/a'), 'AccessDenied', 'with an explicit deny')
    await works(get(fresh, 'in/a'))
    peer.undocumented.childOfDenied = 'is denied'
    await refuses(get(fresh, 'in/a'), 'AccessDenied', 'with an explicit deny in an identity-based policy')
  })
})

describe('what goes wrong', () => {
  test('a request that hangs is neither done nor answered, until the client leaves', async () => {
    const worker = await role()
    const session = await assume(worker, 'lease-1')
    peer.faults.next('DeleteRolePolicy', 'hangs')
    const patience = new AbortController()
    const left = broker.iam.send(new DeleteRolePolicyCommand({ RoleName: worker.name, PolicyName: 'work' }), { abortSignal: patience.signal })
    left.catch(() => {})
    await expect.poll(() => peer.calls.at(-1)?.action).toBe('DeleteRolePolicy')
    await works(get(session, 'in/a'))
    patience.abort()
    await refuses(left, 'AbortError')
    await works(get(session, 'in/a'))
  })

  test('a peer that stops keeps nobody waiting', async () => {
    peer.faults.next('ListRoles', 'hangs')
    const waiting = broker.iam.send(new ListRolesCommand({}))
    waiting.catch(() => {})
    await expect.poll(() => peer.calls.at(-1)?.action).toBe('ListRoles')
    await peer.stop()
    await expect(waiting).rejects.toThrow()
  })

  test('an action is throttled once its bucket is empty, and fills again by the clock of this AWS', async () => {
    const worker = await role()
    peer.faults.limit('AssumeRole', { burst: 2, perSecond: 0.5 })
    for (const _ of [1, 2]) await works(assume(worker, 'sess'))
    peer.advance(1_000)
    const refused = assume(worker, 'sess')
    await refuses(refused, 'Throttling', 'Rate exceeded')
    await expect(refused).rejects.toMatchObject({ $metadata: { httpStatusCode: 400 } })
    await works(broker.iam.send(new ListRolesCommand({})))
    peer.advance(1_000)
    await works(assume(worker, 'sess'))
    await refuses(assume(worker, 'sess'), 'Throttling')
    peer.faults.limit('AssumeRole', undefined)
    await works(assume(worker, 'sess'))
  })

  test('two writes of one object are a conflict', async () => {
    const worker = await role()
    peer.faults.next('PutRolePolicy', 'conflicts')
    await expect(deny(worker, {})).rejects.toMatchObject({
      name: expect.stringContaining('ConcurrentModification'),
      $metadata: { httpStatusCode: 409 },
    })
  })

  test('an AWS whose clock is another refuses signatures, and says what time it has', async () => {
    peer.faults.skew = 10 * 60_000
    const refused = broker.sts.send(new GetCallerIdentityCommand({}))
    await refuses(refused, 'SignatureDoesNotMatch', 'Signature expired')
    await works(clientsOf(peer, peer.root, 10 * 60_000).sts.send(new GetCallerIdentityCommand({})))
    // A client that asks twice has learnt the time from the first answer.
    await works(broker.sts.send(new GetCallerIdentityCommand({})))
  })

  test('each write spreads at a pace of its own, and none is overtaken by an older one', async () => {
    const worker = await role()
    const session = await assume(worker, 'lease-1')
    const delays = [5_000, 1_000]
    peer.faults.propagation = () => delays.shift()!
    await deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })
    await broker.iam.send(new DeleteRolePolicyCommand({ RoleName: worker.name, PolicyName: 'kill' }))
    for (const _ of [1, 2]) {
      peer.advance(2_500)
      await works(get(session, 'in/a'))
    }
  })

  test('a policy is read at once, and heeded when it has spread', async () => {
    const worker = await role()
    const session = await assume(worker, 'lease-1')
    peer.faults.propagation = 5_000
    await deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })
    const { PolicyDocument } = await broker.iam.send(new GetRolePolicyCommand({ RoleName: worker.name, PolicyName: 'kill' }))
    expect(decodeURIComponent(PolicyDocument!)).toContain('*:lease-1')
    await works(get(session, 'in/a'))
    peer.advance(5_000)
    await refuses(get(session, 'in/a'), 'AccessDenied')
  })

  test('an answer that is lost was acted on, and a request that is reset was not', async () => {
    const worker = await role()
    const session = await assume(worker, 'lease-1')
    peer.faults.next('PutRolePolicy', 'resets')
    await expect(deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })).rejects.toThrow()
    await works(get(session, 'in/a'))
    peer.faults.next('PutRolePolicy', 'loses the answer')
    await expect(deny(worker, { StringLike: { 'aws:userid': '*:lease-1' } })).rejects.toThrow()
    await refuses(get(session, 'in/a'), 'AccessDenied')
    expect(peer.faults.pending).toBe(0)
  })

  test('a service is throttled or down by itself', async () => {
    const worker = await role()
    peer.faults.next('AssumeRole', 'throttles')
    await refuses(assume(worker, 'sess'), 'Throttling')
    peer.faults.down('iam')
    await expect(broker.iam.send(new ListRolesCommand({}))).rejects.toMatchObject({ $metadata: { httpStatusCode: 503 } })
    await works(assume(worker, 'sess'))
    peer.faults.up('iam')
    await works(broker.iam.send(new ListRolesCommand({})))
  })
})

test.each([
  ['a plain operator fails where the key is absent', { StringEquals: { 'aws:absent': 'x' } }, false],
  ['a negated one holds', { StringNotEquals: { 'aws:absent': 'x' } }, true],
  ['with IfExists a plain one holds', { StringEqualsIfExists: { 'aws:absent': 'x' } }, true],
  ['none of an absent list is any', { 'ForAnyValue:StringEquals': { 'aws:absent': 'x' } }, false],
  ['all of an absent list are whatever is asked', { 'ForAllValues:StringEquals': { 'aws:absent': 'x' } }, true],
  ['Null asks for absence', { Null: { 'aws:absent': 'true' } }, true],
  ['a negated operator holds when no value of the list is the one', { StringNotLike: { 'aws:userid': ['a*', 'b*'] } }, true],
  ['and fails when one is', { StringNotLike: { 'aws:userid': ['a*', 'R:*'] } }, false],
  ['a key is found whatever its case', { StringEquals: { 'AWS:UserID': 'R:lease' } }, true],
  ['a value is not', { StringEquals: { 'aws:userid': 'r:lease' } }, false],
  ['a variable stands for what it names', { StringEquals: { 'aws:copy': '${aws:userid}' } }, true],
  ['a variable without a value matches nothing', { StringLike: { 'aws:userid': '${aws:absent}*' } }, false],
  ['a wildcard in the value of a variable is none', { StringLike: { 'aws:userid': '${aws:star}' } }, false],
  ['numbers compare as numbers', { NumericLessThan: { 'aws:number': '10' } }, true],
  ['a wildcard does not cross the parts of an ARN', { ArnLike: { 'aws:arn': 'arn:aws:*:role/x' } }, false],
])('of conditions, %s', (_, Condition, expected) => {
  const context = new Map([
    ['aws:userid', ['R:lease']],
    ['aws:copy', ['R:lease']],
    ['aws:star', ['R:*']],
    ['aws:number', ['9']],
    ['aws:arn', ['arn:aws:iam::1:role/x']],
  ])
  const [statement] = parsePolicy(policy({ ...everything, Condition }), 'identity').statements
  expect(statement!.conditions.every((condition) => holds(condition, context))).toBe(expected)
})
