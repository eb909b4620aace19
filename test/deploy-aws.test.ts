import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  AttachRolePolicyCommand,
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  CreateRoleCommand,
  DeletePolicyVersionCommand,
  DeleteRolePermissionsBoundaryCommand,
  DeleteRolePolicyCommand,
  GetAccountSummaryCommand,
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  IAMClient,
  ListPolicyVersionsCommand,
  ListRolePoliciesCommand,
  PutRolePermissionsBoundaryCommand,
  PutRolePolicyCommand,
  SetDefaultPolicyVersionCommand,
  UpdateAssumeRolePolicyCommand,
} from '@aws-sdk/client-iam'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { AssumeRoleCommand, type AssumeRoleCommandInput, AssumeRoleWithWebIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../src/base/time.ts'
import { type Assertions, openAssertions } from '../src/providers/assertion.ts'
import { awsKind } from '../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../src/providers/aws-sts/grant.ts'
import { openIdentities, type Part } from '../src/providers/aws-sts/identity.ts'
import { awsSettings } from '../src/providers/aws-sts/settings.ts'
import type { Minted } from '../src/providers/provider.ts'
import { reservationOf } from './providers/reservation.ts'
import { type AwsClients, clientsOf } from './support/aws/clients.ts'
import { deployAws, type DeployedAws, externalId, issuer, killList, shipped, taskRole } from './support/aws/deployed.ts'
import { policyOf } from './support/aws/site.ts'

const patient = new AbortController().signal
const grant = awsGrant.parse({ role: taskRole, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }] })
const roleArn = (role: string): string => `arn:aws:iam::123456789012:role/${role}`
const everything = { Effect: 'Allow', Action: '*', Resource: '*' }
const denies = (userid: string): object => ({
  Effect: 'Deny',
  Action: '*',
  Resource: '*',
  Condition: { StringLike: { 'aws:userid': [`*:${userid}`] } },
})

describe.each(['boundary', 'inline'] as const)('deploy/aws, with the kill list in the %s', (carrier) => {
  describe.each(['default', 'web_identity'] as const)('and a broker by %s', (method) => {
    let aws: DeployedAws
    let keys: string
    let assertions: Assertions

    beforeEach(async () => {
      aws = await deployAws({ carrier, identity: method })
      keys = await mkdtemp(path.join(tmpdir(), 'mayfly-deploy-aws-'))
      const surroundings = { publicUrl: issuer, keys, clock: systemClock }
      assertions = await openAssertions('aws', { audience: 'sts.amazonaws.com', life: 60 }, surroundings)
      if (method === 'default') for (const [name, value] of Object.entries(aws.platform)) vi.stubEnv(name, value)
      publish(assertions)
    })
    afterEach(async () => {
      vi.unstubAllGlobals()
      vi.unstubAllEnvs()
      await aws.peer.stop()
      await rm(keys, { recursive: true })
    })

    const settings = () =>
      awsSettings.parse({
        region: aws.peer.region,
        account: aws.peer.account,
        endpoint: aws.peer.url,
        external_id: externalId,
        identity: { method },
        minter: 'mayfly-minter',
        revoker: 'mayfly-revoker',
      })
    const surroundings = () => ({ publicUrl: issuer, keys, clock: systemClock, production: true })

    async function as(part: Part): Promise<AwsClients> {
      const identities = await openIdentities('aws', settings(), surroundings(), () => {})
      const { accessKeyId, secretAccessKey, sessionToken } = await identities[part]()
      return clientsOf(aws.peer, { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken, Expiration: undefined })
    }

    async function mint(): Promise<{ session: AwsClients; name: string }> {
      let name = ''
      const provider = await awsKind.connect('aws', settings(), surroundings())
      const minted = await provider.mint(reservationOf(grant), async (handle) => void (name = String(handle['session_name'])), patient)
      return { session: use(minted), name }
    }
    function use({ credential }: Minted): AwsClients {
      if (credential.type !== 'aws_session') throw new Error('not a session')
      const { access_key_id, secret_access_key, session_token, expiration } = credential
      return clientsOf(aws.peer, {
        AccessKeyId: access_key_id,
        SecretAccessKey: secret_access_key.open(),
        SessionToken: session_token.open(),
        Expiration: new Date(expiration),
      })
    }
    const read = async ({ s3 }: AwsClients, Key: string): Promise<string> =>
      await outcomeOf(s3.send(new GetObjectCommand({ Bucket: 'invoices', Key })))

    /** As the writer of kill lists does. */
    async function deny(iam: IAMClient, name: string): Promise<void> {
      if (carrier === 'inline') {
        const policy = { RoleName: 'invoices', PolicyName: 'mayfly-kill-list', PolicyDocument: policyOf(denies(name)) }
        await iam.send(new PutRolePolicyCommand(policy))
        return
      }
      const PolicyDocument = policyOf(everything, denies(name))
      await iam.send(new CreatePolicyVersionCommand({ PolicyArn: killList, PolicyDocument, SetAsDefault: true }))
    }

    test('lets the broker mint, and deny one session and no other', async () => {
      const [one, other] = [await mint(), await mint()]
      expect([await read(one.session, 'acme/1'), await read(one.session, 'globex/1')]).toEqual(['ok', 'AccessDenied'])
      await deny((await as('revoker')).iam, one.name)
      expect([await read(one.session, 'acme/1'), await read(other.session, 'acme/1')]).toEqual(['AccessDenied', 'ok'])
    })

    test('lets the revoker do all that a kill list needs, and look at what heeds it', async () => {
      const { iam } = await as('revoker')
      await deny(iam, 'aaaaaaaa')
      const role = { RoleName: 'invoices' }
      const asked =
        carrier === 'boundary'
          ? [
              iam.send(new GetPolicyCommand({ PolicyArn: killList })),
              iam.send(new ListPolicyVersionsCommand({ PolicyArn: killList })),
              iam.send(new GetPolicyVersionCommand({ PolicyArn: killList, VersionId: 'v2' })),
              iam.send(new DeletePolicyVersionCommand({ PolicyArn: killList, VersionId: 'v1' })),
            ]
          : [
              iam.send(new ListRolePoliciesCommand(role)),
              iam.send(new GetRolePolicyCommand({ ...role, PolicyName: 'mayfly-kill-list' })),
              iam.send(new DeleteRolePolicyCommand({ ...role, PolicyName: 'mayfly-kill-list' })),
            ]
      const looks = [iam.send(new GetRoleCommand(role)), iam.send(new GetAccountSummaryCommand({}))]
      expect(await Promise.all([...asked, ...looks].map(outcomeOf))).toEqual(Array.from({ length: asked.length + 2 }, () => 'ok'))
    })

    test('lets the revoker grant nothing, to itself or to anybody', async () => {
      const { iam, sts, s3 } = await as('revoker')
      await aws.owner.iam.send(new CreatePolicyCommand({ PolicyName: 'mayfly-work', PolicyDocument: policyOf(everything) }))
      const elsewhere = 'arn:aws:iam::123456789012:policy/mayfly-work'
      const PolicyDocument = policyOf(everything)
      const boundary = { PermissionsBoundary: elsewhere }
      const AssumeRolePolicyDocument = await shipped('task-role-trust')
      const PolicyName = 'more'
      const tries = [
        ...['mayfly-revoker', 'mayfly-minter', 'mayfly-broker', ...(carrier === 'boundary' ? ['invoices'] : [])].map((RoleName) =>
          iam.send(new PutRolePolicyCommand({ RoleName, PolicyName, PolicyDocument })),
        ),
        ...['mayfly-revoker', 'invoices'].flatMap((RoleName) => [
          iam.send(new AttachRolePolicyCommand({ RoleName, PolicyArn: elsewhere })),
          iam.send(new PutRolePermissionsBoundaryCommand({ RoleName, ...boundary })),
          iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName })),
          iam.send(new UpdateAssumeRolePolicyCommand({ RoleName, PolicyDocument: policyOf({ ...everything, Resource: undefined, Principal: '*' }) })),
        ]),
        ...[elsewhere, 'arn:aws:iam::123456789012:policy/mayfly-task-boundary'].flatMap((PolicyArn) => [
          iam.send(new CreatePolicyVersionCommand({ PolicyArn, PolicyDocument, SetAsDefault: true })),
          iam.send(new SetDefaultPolicyVersionCommand({ PolicyArn, VersionId: 'v1' })),
        ]),
        iam.send(new CreatePolicyCommand({ PolicyName: 'mayfly-kill-list-mine', PolicyDocument })),
        iam.send(new CreateRoleCommand({ RoleName: 'mine', Path: '/mayfly/', AssumeRolePolicyDocument })),
        sts.send(new AssumeRoleCommand(assumption())),
        sts.send(new AssumeRoleCommand({ ...assumption(), RoleArn: roleArn('mayfly-minter') })),
        s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' })),
      ]
      expect(new Set(await Promise.all(tries.map(outcomeOf)))).toEqual(new Set(['AccessDenied']))
    })

    test('lets a list that allows everything add nothing to what the role was given', async () => {
      const { iam } = await as('revoker')
      const { session } = await mint()
      const RoleName = 'invoices'
      const PolicyDocument = policyOf(everything)
      if (carrier === 'boundary') await iam.send(new CreatePolicyVersionCommand({ PolicyArn: killList, PolicyDocument, SetAsDefault: true }))
      else await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: 'mayfly-kill-list', PolicyDocument }))
      expect(await read(session, 'globex/1')).toBe('AccessDenied')
      const { sts } = await as('minter')
      const { Credentials } = await sts.send(new AssumeRoleCommand(assumption()))
      expect(await outcomeOf(clientsOf(aws.peer, Credentials!).iam.send(new GetAccountSummaryCommand({})))).toBe('AccessDenied')
    })

    test('lets the minter write no policy, and see none', async () => {
      const { iam, sts } = await as('minter')
      const PolicyDocument = policyOf(everything)
      const tries = [
        iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'mayfly-kill-list', PolicyDocument })),
        iam.send(new DeleteRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'mayfly' })),
        iam.send(new CreatePolicyVersionCommand({ PolicyArn: killList, PolicyDocument, SetAsDefault: true })),
        iam.send(new DeletePolicyVersionCommand({ PolicyArn: killList, VersionId: 'v1' })),
        iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName: 'invoices' })),
        iam.send(new PutRolePolicyCommand({ RoleName: 'mayfly-minter', PolicyName: 'more', PolicyDocument })),
        iam.send(new GetRoleCommand({ RoleName: 'invoices' })),
        iam.send(new GetAccountSummaryCommand({})),
        sts.send(new AssumeRoleCommand({ ...assumption(), RoleArn: roleArn('mayfly-revoker') })),
        sts.send(new AssumeRoleCommand({ ...assumption(), RoleArn: roleArn('mayfly-broker') })),
      ]
      expect(new Set(await Promise.all(tries.map(outcomeOf)))).toEqual(new Set(['AccessDenied']))
    })

    test.each<[string, Partial<AssumeRoleCommandInput>]>([
      ['no external id', { ExternalId: undefined }],
      ['another external id', { ExternalId: 'somebody-else' }],
      ['a session name that no lease has', { RoleSessionName: 'administrator' }],
      ['no source identity', { SourceIdentity: undefined }],
      ['a source identity that is no digest', { SourceIdentity: 'invoice-bot' }],
    ])("lets nobody take a role of tasks with %s, the minter's own key or not", async (_, changes) => {
      const { sts } = await as('minter')
      expect(await outcomeOf(sts.send(new AssumeRoleCommand(assumption())))).toBe('ok')
      expect(await outcomeOf(sts.send(new AssumeRoleCommand({ ...assumption(), ...changes })))).toBe('AccessDenied')
    })

    test('lets the minter take no role beside those of tasks, though one trusts whoever the account lets', async () => {
      const trust = policyOf({ Effect: 'Allow', Principal: { AWS: '123456789012' }, Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'] })
      await aws.owner.iam.send(new CreateRoleCommand({ RoleName: 'other', AssumeRolePolicyDocument: trust }))
      const { sts } = await as('minter')
      expect(await outcomeOf(sts.send(new AssumeRoleCommand({ ...assumption(), RoleArn: roleArn('other') })))).toBe('AccessDenied')
    })

    test('lets the revoker write to no role of tasks that no boundary limits', async () => {
      const about = { RoleName: 'bare', Path: '/mayfly/', AssumeRolePolicyDocument: await shipped('task-role-trust') }
      await aws.owner.iam.send(new CreateRoleCommand(about))
      const { iam } = await as('revoker')
      const policy = { RoleName: 'bare', PolicyName: 'mayfly-kill-list' }
      expect(await outcomeOf(iam.send(new PutRolePolicyCommand({ ...policy, PolicyDocument: policyOf(everything) })))).toBe('AccessDenied')
      expect(await outcomeOf(iam.send(new DeleteRolePolicyCommand(policy)))).toBe('AccessDenied')
    })

    test('lets nobody else take a role of tasks, whatever else that one may do', async () => {
      await aws.owner.iam.send(new CreateRoleCommand({ RoleName: 'admin', AssumeRolePolicyDocument: await shipped('task-role-trust') }))
      await aws.owner.iam.send(new PutRolePolicyCommand({ RoleName: 'admin', PolicyName: 'all', PolicyDocument: policyOf(everything) }))
      const { sts } = await as('minter')
      await aws.owner.iam.send(
        new PutRolePolicyCommand({ RoleName: 'mayfly-minter', PolicyName: 'test', PolicyDocument: policyOf({ ...everything, Action: 'sts:*' }) }),
      )
      const { Credentials: admin } = await sts.send(new AssumeRoleCommand({ ...assumption(), RoleArn: roleArn('admin') }))
      expect(await outcomeOf(clientsOf(aws.peer, admin!).sts.send(new AssumeRoleCommand(assumption())))).toBe('AccessDenied')
    })

    if (method === 'web_identity') {
      test.each<[string, string, { audience?: string; subject?: string; session?: string }]>([
        ['minter', 'InvalidIdentityToken', { audience: 'somebody.else' }],
        ['minter', 'AccessDenied', { subject: 'mayfly:aws:revoker' }],
        ['revoker', 'AccessDenied', { subject: 'mayfly:aws:minter' }],
        ['minter', 'AccessDenied', { subject: 'mayfly:other:minter' }],
        ['minter', 'AccessDenied', { subject: issuer }],
        ['minter', 'AccessDenied', { session: 'administrator' }],
      ])('lets nobody become the %s, but answers %s, with %o', async (part, refusal, { audience = 'sts.amazonaws.com', subject, session }) => {
        const signing = await openAssertions('aws', { audience, life: 60 }, { publicUrl: issuer, keys, clock: systemClock })
        const sts = new STSClient({ region: aws.peer.region, endpoint: aws.peer.url, maxAttempts: 1 })
        const command = new AssumeRoleWithWebIdentityCommand({
          RoleArn: roleArn(`mayfly-${part}`),
          RoleSessionName: session ?? `mayfly-${part}`,
          WebIdentityToken: await signing.sign(subject ?? `mayfly:aws:${part}`),
        })
        expect(await outcomeOf(sts.send(command))).toBe(refusal)
      })
    }
  })
})

const folder = path.join(import.meta.dirname, '../deploy/aws')

test('every policy of deploy/aws is one that IAM has room for', async () => {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.json'))
  expect(names.length).toBeGreaterThan(10)
  for (const name of names) {
    const text = await readFile(path.join(folder, name), 'utf8')
    expect(JSON.parse(text)).toMatchObject({ Version: '2012-10-17' })
    expect(text.replace(/\s/g, '').length, name).toBeLessThan(2_048)
  }
})

test('Terraform puts the values of an account in the place of what the policies name, in one pass, so that no value is taken for a name', async () => {
  const text = await readFile(path.join(folder, 'terraform/main.tf'), 'utf8')
  const [, map] = /^ {2}names = tomap\({\n([^]*?)\n {2}}\)$/m.exec(text)!
  const names = map!.split('\n').map((line) => /^ +"([^"]+)" += /.exec(line)?.[1])
  const policies = await Promise.all(
    (await readdir(folder)).filter((name) => name.endsWith('.json')).map((name) => shipped(name.slice(0, -'.json'.length))),
  )
  for (const name of names)
    expect(
      policies.filter((policy) => policy.includes(name!)),
      name,
    ).not.toEqual([])
  expect(names).toEqual(expect.arrayContaining([externalId, '123456789012', new URL(issuer).host]))
  expect(text, 'one value after the other').not.toContain('replace(')
})

/** What AWS reads of a broker at its public address. */
function publish(assertions: Assertions): void {
  const elsewhere = globalThis.fetch
  vi.stubGlobal('fetch', async (...[input, init]: Parameters<typeof fetch>) => {
    const url = input instanceof Request ? input.url : String(input)
    if (url === `${issuer}/.well-known/openid-configuration`) return Response.json({ issuer, jwks_uri: `${issuer}/keys` })
    return url === `${issuer}/keys` ? Response.json({ keys: await assertions.tokens.keys() }) : await elsewhere(input, init)
  })
}

const assumption = (): AssumeRoleCommandInput => ({
  RoleArn: roleArn(taskRole),
  RoleSessionName: 'abcdefgh',
  SourceIdentity: '0123456789abcdef0123456789abcdef',
  ExternalId: externalId,
})

const outcomeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'ok',
    (error: Error) => error.name.replace(/Exception$/, ''),
  )
