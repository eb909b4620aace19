import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  AttachRolePolicyCommand,
  CreateAccessKeyCommand,
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  CreateUserCommand,
  DeletePolicyCommand,
  DeleteRoleCommand,
  DeleteRolePermissionsBoundaryCommand,
  DeleteRolePolicyCommand,
  PutRolePermissionsBoundaryCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
  UpdateAssumeRolePolicyCommand,
  UpdateRoleCommand,
} from '@aws-sdk/client-iam'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../../src/base/time.ts'
import { awsKind } from '../../../src/providers/aws-sts/aws-sts.ts'
import { judgeClock } from '../../../src/providers/aws-sts/examine/clock.ts'
import { examineQuotas } from '../../../src/providers/aws-sts/examine/quotas.ts'
import { judgeTrust } from '../../../src/providers/aws-sts/examine/trust.ts'
import { type AwsGrant, awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import type { Finding, ProviderSurroundings, TrialGrant } from '../../../src/providers/provider.ts'
import { deployAws, type DeployedAws, externalId, killList, shipped, taskRole } from '../../support/aws/deployed.ts'
import { policyOf } from '../../support/aws/site.ts'

const grant = awsGrant.parse({ role: taskRole, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }] })
const trial: TrialGrant<AwsGrant> = { name: 'invoices-bucket', settings: grant, maxTtl: 900_000, parameters: { customer: 'acme' } }
const everything = { Effect: 'Allow', Action: '*', Resource: '*' }
const RoleName = 'invoices'

describe.each(['boundary', 'inline'] as const)('an account with kill lists in the %s', (carrier) => {
  let aws: DeployedAws
  let keys: string

  beforeEach(async () => {
    aws = await deployAws({ carrier, identity: 'default' })
    keys = await mkdtemp(path.join(tmpdir(), 'mayfly-examine-aws-'))
    for (const [name, value] of Object.entries(aws.platform)) vi.stubEnv(name, value)
  })
  afterEach(async () => {
    vi.unstubAllEnvs()
    await aws.peer.stop()
    await rm(keys, { recursive: true })
  })

  async function examined(
    changes: object = {},
    surroundings: Partial<ProviderSurroundings> = {},
    trials: readonly TrialGrant<AwsGrant>[] = [trial],
  ): Promise<readonly Finding[]> {
    const settings = awsSettings.parse({
      region: aws.peer.region,
      account: aws.peer.account,
      endpoint: aws.peer.url,
      iam_endpoint: aws.peer.url,
      external_id: externalId,
      minter: 'mayfly-minter',
      revoker: 'mayfly-revoker',
      kill_list: { carrier },
      ...changes,
    })
    const about = { publicUrl: 'https://broker.example.com', keys, clock: systemClock, ...surroundings }
    const provider = await awsKind.connect('aws', settings, about)
    return await provider.examine!(trials)
  }
  const bad = (findings: readonly Finding[]) => findings.filter(({ level }) => level === 'fault' || level === 'warning')
  const trustWith = async (change: (text: string) => string): Promise<void> => {
    await aws.owner.iam.send(new UpdateAssumeRolePolicyCommand({ RoleName, PolicyDocument: change(await shipped('task-role-trust')) }))
  }

  test('that is set up with the files of deploy/aws has no fault, and nothing to warn of', async () => {
    const findings = await examined()
    expect(bad(findings)).toEqual([])
    expect(findings.map(({ level, subject }) => `${level} ${subject}`)).toEqual([
      'ok account',
      'ok minter',
      'ok revoker',
      'ok own role mayfly-minter',
      'ok own role mayfly-revoker',
      'ok clock',
      `ok grant invoices-bucket, role ${taskRole}`,
      `ok mode of ${taskRole}`,
      `ok role ${taskRole}`,
      `ok kill list of ${taskRole}`,
      `unchecked kill list of ${taskRole}`,
      'ok quotas',
    ])
    expect(JSON.stringify(findings)).not.toMatch(/AKIA|ASIA|arn:aws:sts/)
  })

  test('is looked at without a single write', async () => {
    await examined()
    const asked = new Set(aws.peer.calls.filter(({ key }) => key !== aws.peer.root.accessKeyId).map(({ action }) => action))
    expect([...asked].filter((action) => !/^(Get|List|AssumeRole$)/.test(action))).toEqual([])
  })

  if (carrier === 'inline')
    test('has the room that its kill list takes itself, also where that is called by its role', async () => {
      const Resource = Array.from({ length: 170 }, (_, at) => `arn:aws:s3:::a-bucket-with-a-longish-name-${at}/*`)
      const PolicyDocument = policyOf({ Effect: 'Deny', Action: 's3:GetObject', Resource })
      await aws.owner.iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: `mayfly-${RoleName}`, PolicyDocument }))
      const findings = await examined({ kill_list: { carrier, policy: 'mayfly-{role}' } })
      expect(bad(findings).filter(({ subject }) => subject === `kill list of ${taskRole}`)).toEqual([])
    })

  describe('is found to be wrong where', () => {
    test.each<[string, object, string, RegExp]>([
      ['the credentials are of another account', { account: '999999999999', minter: undefined, revoker: undefined }, 'account', /credentials/],
      ['the minter cannot be taken', { minter: 'nobody' }, 'account', /role of the minter/],
      ['the revoker cannot be taken', { revoker: 'nobody' }, 'revoker', /role of the revoker.*nothing can be denied/],
      ['there is no kill list', { kill_list: undefined }, `kill list of ${taskRole}`, /configure kill_list/],
      ['the roles know another external id', { external_id: 'another' }, 'account', /role of the minter/],
      ['the roles give shorter sessions than the settings count on', { minter: undefined, longest_session: '2h' }, 'account', /longest_session/],
    ])('%s', async (_, changes, subject, message) => {
      const found = bad(await examined(changes))
      expect(found).toContainEqual({ level: expect.any(String), subject, message: expect.stringMatching(message) })
    })

    test('minter and revoker are one and the same', async () => {
      const findings = await examined({ minter: undefined, revoker: undefined })
      expect(bad(findings)).toContainEqual({ level: 'warning', subject: 'revoker', message: expect.stringContaining('is the minter') })
    })

    test('the broker has a key that never ends', async () => {
      await aws.owner.iam.send(new CreateUserCommand({ UserName: 'old' }))
      await aws.owner.iam.send(new PutUserPolicyCommand({ UserName: 'old', PolicyName: 'all', PolicyDocument: policyOf(everything) }))
      const { AccessKey: key } = await aws.owner.iam.send(new CreateAccessKeyCommand({ UserName: 'old' }))
      vi.stubEnv('AWS_ACCESS_KEY_ID', key!.AccessKeyId)
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', key!.SecretAccessKey)
      vi.stubEnv('AWS_SESSION_TOKEN', undefined)
      const findings = await examined({ minter: undefined, revoker: undefined })
      expect(bad(findings)).toContainEqual({ level: 'warning', subject: 'minter', message: expect.stringContaining('key that never ends') })
    })

    test('the broker is root', async () => {
      vi.stubEnv('AWS_ACCESS_KEY_ID', aws.peer.root.accessKeyId)
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', aws.peer.root.secretAccessKey)
      vi.stubEnv('AWS_SESSION_TOKEN', undefined)
      const findings = await examined({ minter: undefined, revoker: undefined })
      expect(bad(findings)).toContainEqual({ level: 'fault', subject: 'minter', message: expect.stringContaining('is root') })
    })

    test('a grant lasts longer than a session', async () => {
      const findings = await examined({ mode: 'direct' }, {}, [{ ...trial, maxTtl: 7_200_000 }])
      expect(bad(findings)).toMatchObject([{ level: 'fault', subject: `grant invoices-bucket, role ${taskRole}` }])
    })

    test('a role is not there', async () => {
      await aws.owner.iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName: 'mayfly' }))
      await aws.owner.iam.send(new DeleteRoleCommand({ RoleName }))
      const closed = await examined()
      expect(closed).toContainEqual({ level: 'unchecked', subject: `role ${taskRole}`, message: expect.stringContaining('or is not there') })
      const findings = bad(closed)
      expect(findings).toContainEqual(expect.objectContaining({ level: 'fault', subject: `grant invoices-bucket, role ${taskRole}` }))
    })

    test('a role has another path than the catalogue says', async () => {
      const settings = awsGrant.parse({ role: 'invoices', allow: grant.allow })
      const findings = await examined({}, {}, [{ ...trial, settings }])
      expect(bad(findings)).toContainEqual({ level: 'fault', subject: 'role invoices', message: expect.stringContaining('another path') })
    })

    test('a role has no boundary', async () => {
      await aws.owner.iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName }))
      const level = carrier === 'boundary' ? 'fault' : 'warning'
      expect(bad(await examined())).toContainEqual({
        level,
        subject: `role ${taskRole}`,
        message: expect.stringContaining('no permissions boundary'),
      })
    })

    if (carrier === 'boundary')
      test('a role has the boundary of something else', async () => {
        const { Policy: other } = await aws.owner.iam.send(new CreatePolicyCommand({ PolicyName: 'other', PolicyDocument: policyOf(everything) }))
        await aws.owner.iam.send(new PutRolePermissionsBoundaryCommand({ RoleName, PermissionsBoundary: other!.Arn }))
        expect(bad(await examined())).toEqual([
          { level: 'fault', subject: `role ${taskRole}`, message: expect.stringContaining('another permissions boundary') },
        ])
      })

    if (carrier === 'boundary')
      test('the policy of the kill list is not there', async () => {
        await aws.owner.iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName }))
        await aws.owner.iam.send(new DeletePolicyCommand({ PolicyArn: killList }))
        expect(bad(await examined())).toContainEqual({
          level: 'fault',
          subject: `kill list of ${taskRole}`,
          message: expect.stringContaining('no such policy'),
        })
      })

    if (carrier === 'boundary')
      test('the policy of the kill list allows less than everything', async () => {
        const PolicyDocument = policyOf({ ...everything, Action: 's3:*' })
        await aws.owner.iam.send(new CreatePolicyVersionCommand({ PolicyArn: killList, PolicyDocument, SetAsDefault: true }))
        expect(bad(await examined())).toContainEqual({
          level: 'fault',
          subject: `kill list of ${taskRole}`,
          message: expect.stringContaining('less than everything'),
        })
      })

    if (carrier === 'boundary')
      test('the policy of the kill list is attached to somebody', async () => {
        await aws.owner.iam.send(new AttachRolePolicyCommand({ RoleName: 'mayfly-revoker', PolicyArn: killList }))
        expect(bad(await examined())).toContainEqual({
          level: 'fault',
          subject: `kill list of ${taskRole}`,
          message: expect.stringContaining('attached to somebody'),
        })
      })

    if (carrier === 'inline')
      test('the other policies of a role leave a kill list no room', async () => {
        const Resource = Array.from({ length: 170 }, (_, at) => `arn:aws:s3:::a-bucket-with-a-longish-name-${at}/*`)
        const PolicyDocument = policyOf({ Effect: 'Allow', Action: 's3:GetObject', Resource })
        await aws.owner.iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: 'work', PolicyDocument }))
        expect(bad(await examined())).toEqual([
          { level: 'warning', subject: `kill list of ${taskRole}`, message: expect.stringContaining('characters') },
        ])
      })

    test('the revoker may not read what it writes', async () => {
      await aws.owner.iam.send(
        new PutRolePolicyCommand({ RoleName: 'mayfly-revoker', PolicyName: 'mayfly', PolicyDocument: await shipped('minter-policy') }),
      )
      const findings = await examined()
      expect(bad(findings)).toEqual([{ level: 'fault', subject: `kill list of ${taskRole}`, message: expect.stringContaining('may not be read') }])
      const closed = findings.filter(({ level }) => level === 'unchecked').map(({ subject }) => subject)
      expect(closed).toEqual(['own role mayfly-minter', 'own role mayfly-revoker', `role ${taskRole}`, 'quotas'])
    })

    test('a role gives shorter sessions than the settings count on', async () => {
      await aws.owner.iam.send(new UpdateRoleCommand({ RoleName: 'mayfly-broker', MaxSessionDuration: 3_600 }))
      const user = await asUser()
      await trustWith((text) => text.replaceAll('arn:aws:iam::123456789012:role/mayfly-minter', user))
      const findings = await examined({ minter: undefined, longest_session: '2h' })
      expect(bad(findings)).toContainEqual({ level: 'warning', subject: `role ${taskRole}`, message: expect.stringContaining('Make them agree') })
    })

    test('a role trusts everybody', async () => {
      const Condition = { StringEquals: { 'sts:ExternalId': externalId } }
      const trust = { Effect: 'Allow', Principal: '*', Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'], Condition }
      await trustWith(() => policyOf(trust))
      expect(bad(await examined())).toEqual([
        { level: 'warning', subject: `role ${taskRole}`, message: expect.stringContaining('trusts everybody who') },
      ])
    })

    test('a role asks for no external id though one is configured', async () => {
      await trustWith((text) => text.replace('"StringEquals": { "sts:ExternalId": "mayfly-prod" },', ''))
      expect(bad(await examined())).toEqual([
        { level: 'fault', subject: `role ${taskRole}`, message: expect.stringContaining('asks for no sts:ExternalId') },
      ])
    })

    test('a role trusts another besides the minter', async () => {
      await trustWith((text) =>
        text.replaceAll(
          '"arn:aws:iam::123456789012:role/mayfly-minter"',
          '["arn:aws:iam::123456789012:role/mayfly-minter", "arn:aws:iam::123456789012:role/mayfly-broker"]',
        ),
      )
      expect(bad(await examined())).toContainEqual({
        level: 'warning',
        subject: `role ${taskRole}`,
        message: expect.stringContaining('others than the minter'),
      })
    })

    test("one of the broker's own roles is open to whatever its issuer signs", async () => {
      const trust = (await shipped('revoker-trust-web-identity')).replace('"broker.example.com:sub": "mayfly:aws:revoker",', '')
      const open = `{"Version":"2012-10-17","Statement":[${[await shipped('revoker-trust'), trust].map((text) => JSON.stringify(JSON.parse(text).Statement[0])).join()}]}`
      await aws.owner.iam.send(new UpdateAssumeRolePolicyCommand({ RoleName: 'mayfly-revoker', PolicyDocument: open }))
      expect(bad(await examined())).toEqual([
        { level: 'fault', subject: 'own role mayfly-revoker', message: expect.stringContaining('condition on sub') },
      ])
    })

    test('STS has no children of sessions', async () => {
      aws.peer.faults.unsupported.add('GetScopedCredentials')
      expect(bad(await examined())).toEqual([{ level: 'warning', subject: `mode of ${taskRole}`, message: expect.stringContaining('direct') }])
    })

    test('STS has no children of sessions, and a grant lasts longer than a session', async () => {
      const long = { ...trial, maxTtl: 7_200_000 }
      expect(bad(await examined({}, {}, [long])), 'children carry it').toEqual([])
      aws.peer.faults.unsupported.add('GetScopedCredentials')
      expect(bad(await examined({}, {}, [long]))).toEqual([
        { level: 'fault', subject: `grant invoices-bucket, role ${taskRole}`, message: expect.stringContaining('longest_session') },
        { level: 'warning', subject: `mode of ${taskRole}`, message: expect.stringContaining('direct') },
      ])
    })

    test.each([
      [120_000, 'warning', 'behind'],
      [-120_000, 'warning', 'ahead'],
      [600_000, 'fault', 'behind'],
      [-600_000, 'fault', 'ahead'],
    ] as const)('the clock is off by %i ms', async (skew, level, where) => {
      aws.peer.faults.skew = skew
      expect(bad(await examined())).toEqual([{ level, subject: 'clock', message: expect.stringContaining(where) }])
    })

    test('IAM is down', async () => {
      aws.peer.faults.down('iam')
      const findings = await examined()
      expect(bad(findings).map(({ level, subject }) => `${level} ${subject}`)).toEqual([
        `fault role ${taskRole}`,
        `fault kill list of ${taskRole}`,
        'fault quotas',
      ])
    })

    test('the public address is no issuer to IAM', async () => {
      const findings = await examined(
        { identity: { method: 'web_identity' }, endpoint: 'https://127.0.0.1:1' },
        { publicUrl: 'https://broker.example.com:8443' },
      )
      expect(findings).toMatchObject([
        { level: 'fault', subject: 'public_url' },
        { level: 'fault', subject: 'account' },
      ])
    })
  })

  /** Whoever runs the platform, with a key of its own: no role chaining. @returns its ARN */
  async function asUser(): Promise<string> {
    const { User: user } = await aws.owner.iam.send(new CreateUserCommand({ UserName: 'direct' }))
    await aws.owner.iam.send(new PutUserPolicyCommand({ UserName: 'direct', PolicyName: 'all', PolicyDocument: policyOf(everything) }))
    const { AccessKey: key } = await aws.owner.iam.send(new CreateAccessKeyCommand({ UserName: 'direct' }))
    vi.stubEnv('AWS_ACCESS_KEY_ID', key!.AccessKeyId)
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', key!.SecretAccessKey)
    vi.stubEnv('AWS_SESSION_TOKEN', undefined)
    const trust = { Effect: 'Allow', Principal: { AWS: user!.Arn }, Action: 'sts:AssumeRole' }
    await aws.owner.iam.send(new UpdateAssumeRolePolicyCommand({ RoleName: 'mayfly-revoker', PolicyDocument: policyOf(trust) }))
    return user!.Arn!
  }
})

describe('a trust policy', () => {
  const judged = (statement: object, expected = {}) =>
    judgeTrust('role r', { Version: '2012-10-17', Statement: statement } as never, expected).map(({ level }) => level)
  const oidc = { Federated: 'arn:aws:iam::123456789012:oidc-provider/broker.example.com' }
  const web = (Condition: object) => ({ Effect: 'Allow', Principal: oidc, Action: 'sts:AssumeRoleWithWebIdentity', Condition })

  test.each<[string, object, string[]]>([
    ['that trusts everybody on no condition', { Effect: 'Allow', Principal: '*', Action: 'sts:AssumeRole' }, ['fault']],
    ['that trusts all accounts', { Effect: 'Allow', Principal: { AWS: '*' }, Action: 'sts:*' }, ['fault']],
    ['that trusts an account', { Effect: 'Allow', Principal: { AWS: '123456789012' }, Action: 'sts:AssumeRole' }, ['warning']],
    ['that trusts a service', { Effect: 'Allow', Principal: { Service: 'ec2.amazonaws.com' }, Action: 'sts:AssumeRole' }, ['warning']],
    ['that shuts everybody out', [{ Effect: 'Deny', Principal: '*', Action: 'sts:AssumeRole' }], []],
    ['that lets everybody tag', [{ Effect: 'Allow', Principal: '*', Action: 'sts:TagSession' }], []],
    ['of an issuer on no condition', web({}), ['fault']],
    ['of an issuer that pins aud alone', web({ StringEquals: { 'broker.example.com:aud': 'a' } }), ['fault']],
    ['of an issuer that pins sub to anything', web({ StringEquals: { 'b:aud': 'a' }, StringLike: { 'b:sub': '*' } }), ['fault']],
    [
      'of an issuer that pins sub only where there is one',
      web({ StringEquals: { 'b:aud': 'a' }, StringEqualsIfExists: { 'b:sub': 's' } }),
      ['fault'],
    ],
    ['of an issuer that says who not', web({ StringEquals: { 'b:aud': 'a' }, StringNotEquals: { 'b:sub': 's' } }), ['fault']],
    ['of an issuer that pins both', web({ StringEquals: { 'b:aud': 'a', 'b:sub': ['s'] } }), []],
    ['that is none', [{ Effect: 'Perhaps' }], ['unchecked']],
  ])('%s is seen for what it is', (_, statement, levels) => {
    expect(judged(statement)).toEqual(levels)
  })

  test('that asks for another external id than the one configured is a fault', () => {
    const statement = {
      Effect: 'Allow',
      Principal: { AWS: 'arn' },
      Action: 'sts:AssumeRole',
      Condition: { StringEquals: { 'sts:ExternalId': 'other' } },
    }
    expect(judged(statement, { externalId: 'mine' })).toEqual(['fault'])
    expect(judged(statement, { externalId: 'other' })).toEqual([])
  })
})

test.each([
  [0, 'ok'],
  [60, 'ok'],
  [61, 'warning'],
  [-61, 'warning'],
  [300, 'warning'],
  [301, 'fault'],
])('a clock that is %i s off is %s', (seconds, level) => {
  expect(judgeClock(seconds * 1_000, 0)).toMatchObject([{ level }])
})

describe('quotas', () => {
  const judged = (carrier: string, quotas: object, capacity?: number) => {
    const settings = awsSettings.parse({ region: 'eu-central-1', account: '111122223333', kill_list: { carrier, ...(capacity && { capacity }) } })
    return examineQuotas({ settings, iam: { quotas: async () => quotas } } as never)
  }
  test('that are less than what kill lists are drawn for are a fault, and a smaller kill list mends it', async () => {
    expect(await judged('boundary', { PolicySizeQuota: 4_000 })).toMatchObject([{ level: 'fault', message: expect.stringContaining('4000') }])
    expect(await judged('boundary', { PolicySizeQuota: 4_000 }, 4_000)).toMatchObject([{ level: 'ok' }])
    expect(await judged('inline', { RolePolicySizeQuota: 8_000, PolicySizeQuota: 6_144 })).toMatchObject([{ level: 'fault' }])
  })
  test('that keep one version of a policy are a fault', async () => {
    expect(await judged('boundary', { PolicySizeQuota: 6_144, VersionsPerPolicyQuota: 1 })).toMatchObject([{ level: 'fault' }])
  })
})
