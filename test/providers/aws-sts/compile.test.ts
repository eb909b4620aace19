import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile, longestPolicy } from '../../../src/providers/aws-sts/compile.ts'
import { type AwsGrant, awsGrant, awsGrantFaults } from '../../../src/providers/aws-sts/grant.ts'
import { ProviderError } from '../../../src/providers/provider.ts'
import { whyNot } from '../../support/aws/evaluate.ts'
import { parsePolicy } from '../../support/aws/policy.ts'

const until = new Date('2026-11-25T08:00:00.000Z')
const readable = {
  role: 'mayfly-invoices',
  allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }],
}

const grantOf = (own: object): AwsGrant => awsGrant.parse(own)
const statementsOf = (grant: AwsGrant, parameters: Record<string, string>) =>
  (JSON.parse(compile(grant, parameters, until)) as { Statement: Record<string, unknown>[] }).Statement

describe('a session policy', () => {
  test('allows what the grant allows with the parameters of the task, denies what would outlive it, and everything after the end of the lease', () => {
    expect(statementsOf(grantOf(readable), { customer: 'acme' })).toEqual([
      { Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::invoices/acme/*' },
      { Effect: 'Deny', Action: expect.arrayContaining(['sts:Assume*', 'sts:GetScopedCredentials', 'iam:*', 'ssm:StartSession']), Resource: '*' },
      { Effect: 'Deny', Action: '*', Resource: '*', Condition: { DateGreaterThan: { 'aws:CurrentTime': '2026-11-25T08:00:00Z' } } },
    ])
  })

  test('denies all that outlives a session but what its grant lifts, by whatever name a resource knows the session', () => {
    const rights = (own: object) => {
      const policy = parsePolicy(compile(grantOf({ ...readable, ...own }), { customer: 'acme' }, until), 'identity')
      const anything = parsePolicy('{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}', 'identity')
      return { root: false, identity: [anything], boundary: undefined, session: [[policy]], names: new Map([['the session', 'exact' as const]]) }
    }
    const allow = [{ actions: ['rds-db:connect'], resources: ['*'] }]
    const resourcePolicy = parsePolicy('{"Statement":[{"Effect":"Allow","Principal":{"AWS":"the session"},"Action":"*","Resource":"*"}]}', 'resource')
    const at = (moment: string) => new Map([['aws:currenttime', [moment]]])
    const may = (action: string, own: object, moment = '2026-11-25T07:59:59Z'): boolean =>
      whyNot(rights(own), { action, resource: 'x', context: at(moment), resourcePolicy }) === undefined
    const kept = [
      'sts:AssumeRole',
      'sts:AssumeRoleWithWebIdentity',
      'sts:AssumeRoot',
      'sts:GetDelegatedAccessToken',
      'sts:GetScopedCredentials',
      'sts:GetWebIdentityToken',
      'sts:GetFederationToken',
      'sts:GetSessionToken',
      'iam:PassRole',
      'organizations:LeaveOrganization',
      'ecr:GetAuthorizationToken',
      'kms:CreateGrant',
      'codeartifact:GetAuthorizationToken',
      'ssm:StartSession',
      's3express:CreateSession',
    ]
    expect(kept.filter((action) => may(action, {}) || may(action, { allow, outlives_revocation: ['rds-db:connect'] }))).toEqual([])
    expect(may('rds-db:connect', {})).toBe(false)
    expect(may('rds-db:connect', { allow, outlives_revocation: ['rds-db:CONNECT'] })).toBe(true)
    expect(may('rds-db:connect', { allow, outlives_revocation: ['rds-db:connect'] }, '2026-11-25T08:00:01Z'), 'after its end').toBe(false)
  })

  test('fills parameters into values of conditions, and leaves the variables of IAM alone', () => {
    const grant = grantOf({
      role: 'r',
      allow: [
        {
          actions: ['s3:ListBucket'],
          resources: ['arn:aws:s3:::home-${aws:username}'],
          conditions: { StringLike: { 's3:prefix': ['{customer}/*', '${aws:userid}/*'] } },
        },
      ],
    })
    expect(statementsOf(grant, { customer: 'a/b' })[0]).toEqual({
      Effect: 'Allow',
      Action: 's3:ListBucket',
      Resource: 'arn:aws:s3:::home-${aws:username}',
      Condition: { StringLike: { 's3:prefix': ['a/b/*', '${aws:userid}/*'] } },
    })
  })

  test('takes a value for itself, whatever it means in a policy', () => {
    const [allowed] = statementsOf(grantOf(readable), { customer: '*?${aws:username}"{customer}'.replace(':', '.') })
    expect(allowed!['Resource']).toBe('arn:aws:s3:::invoices/${*}${?}${$}{aws.username}"{customer}/*')
  })

  test.each([[''], ['a/b'], ['a:b'], ['a\u0000b'], ['a\u2028b'], ['λ']])(
    'refuses a value that would leave its segment or STS would not take: %j',
    (customer) => {
      expect(() => compile(grantOf(readable), { customer }, until)).toThrow(ProviderError)
    },
  )

  test('matches nothing outside of the segment that a value fills, whatever the value is', () => {
    const grant = grantOf(readable)
    fc.assert(
      fc.property(
        fc.string({ maxLength: 40, unit: fc.constantFrom('*', '?', '$', '/', '{', '}', ':', '"', '\\', '.', 'a', 'A', 'é', '-') }),
        fc.string({ maxLength: 20 }),
        (customer, other) => {
          let resource: string
          try {
            resource = statementsOf(grant, { customer })[0]!['Resource'] as string
          } catch (error) {
            expect(error).toBeInstanceOf(ProviderError)
            return
          }
          const asked = `arn:aws:s3:::invoices/${other}/key`
          expect(matches(resource, asked)).toBe(other === customer || asked.startsWith(`arn:aws:s3:::invoices/${customer}/`))
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

/** Whether a resource of a policy stands for an ARN, by the rules of IAM and independent of how policies are compiled. */
function matches(resource: string, arn: string): boolean {
  const parts = resource.split(/(\$\{[*?$]\}|\*|\?)/)
  const pattern = parts.map((part, at) => {
    if (at % 2 === 0) return part.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
    return part === '*' ? '.*' : part === '?' ? '.' : `\\${part[2]}`
  })
  return new RegExp(`^${pattern.join('')}$`, 's').test(arn)
}

describe('a grant of the catalogue', () => {
  const faultsOf = (own: object, parameters: Record<string, number> = { customer: 32 }) =>
    awsGrantFaults(grantOf(own), { parameters: new Map(Object.entries(parameters)) })

  test('without a fault has none', () => {
    expect(faultsOf(readable)).toEqual([])
  })

  test('cannot name a parameter that it does not have', () => {
    expect(faultsOf(readable, {})).toEqual([{ path: ['parameters'], message: 'must have "customer", which allow names' }])
  })

  test('cannot have a parameter that narrows nothing', () => {
    expect(faultsOf(readable, { customer: 32, region: 16 })).toMatchObject([{ path: ['parameters', 'region'] }])
  })

  test('whose pattern lets nothing but an empty value pass loads, and issues nothing', () => {
    expect(faultsOf(readable, { customer: 0 })).toEqual([])
    expect(() => compile(grantOf(readable), { customer: '' }, until)).toThrow(ProviderError)
  })

  const allowing = (action: string, ...lifted: string[]) => ({
    role: 'r',
    allow: [{ actions: ['s3:GetObject', action], resources: ['arn:aws:s3:::{customer}'] }],
    outlives_revocation: lifted,
  })

  test.each(['ssm:StartSession', 'kms:creategrant', 'rds-db:connect', 's3:PutBucketPolicy', 's3:GetDataAccess', 'ecs:ExecuteCommand'])(
    'cannot allow what goes on when the session is dead, unless it lifts that by name: %s',
    (action) => {
      expect(faultsOf(allowing(action))).toMatchObject([
        { path: ['allow', 0, 'actions', 1], message: expect.stringContaining('outlives_revocation') },
      ])
      expect(faultsOf(allowing(action, action))).toEqual([])
    },
  )

  test.each([
    'sts:AssumeRole',
    'sts:assumerolewithwebidentity',
    'sts:AssumeRoot',
    'sts:GetDelegatedAccessToken',
    'sts:GetWebIdentityToken',
    'iam:PassRole',
    'organizations:LeaveOrganization',
  ])('cannot allow what makes another identity or changes who may do what, and cannot lift it: %s', (action) => {
    expect(faultsOf(allowing(action, action))).toMatchObject([{ path: ['allow', 0, 'actions', 1] }, { path: ['outlives_revocation', 0] }])
  })

  test('cannot lift what it does not allow, nor what ends with the session anyway', () => {
    expect(faultsOf(allowing('s3:PutObject', 'rds-db:connect'))).toMatchObject([
      { path: ['outlives_revocation', 0], message: 'is not allowed by this grant' },
    ])
    expect(faultsOf(allowing('s3:PutObject', 's3:PutObject'))).toMatchObject([{ path: ['outlives_revocation', 0] }])
  })

  test('is refused where the longest parameters would not fit, each character of them escaped', () => {
    const fitting = 200
    const policyOf = (length: number): string => compile(grantOf(readable), { customer: '*'.repeat(length) }, until)
    expect(policyOf(fitting).length).toBeLessThanOrEqual(longestPolicy)
    expect(faultsOf(readable, { customer: fitting })).toEqual([])
    const tooLong = fitting + Math.ceil((longestPolicy + 1 - policyOf(fitting).length) / 4)
    expect(faultsOf(readable, { customer: tooLong })).toMatchObject([{ path: ['allow'], message: expect.stringContaining('STS takes 2048') }])
  })

  test.each([
    ['a wildcard for an action', { ...readable, allow: [{ actions: ['s3:*'], resources: ['*'] }] }],
    ['a wildcard within an action', { ...readable, allow: [{ actions: ['s3:Get*'], resources: ['*'] }] }],
    ['an ARN for a role', { ...readable, role: 'arn:aws:iam::111122223333:role/x' }],
    ['no role', { allow: readable.allow }],
    ['a role and a pool', { ...readable, roles: ['x'] }],
    ['a parameter before the last part of an ARN', { ...readable, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:{customer}:::x'] }] }],
    ['a wildcard right after a parameter', { ...readable, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::x/{customer}*'] }] }],
    ['a wildcard right before a parameter', { ...readable, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::x/*{customer}/a'] }] }],
    ['a misspelt parameter', { ...readable, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::x/{Customer}/a'] }] }],
    ['a "$" before a parameter', { ...readable, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::x/${customer}/a'] }] }],
    ['an operator that IAM does not have', { ...readable, allow: [{ ...readable.allow[0], conditions: { StringIs: { 's3:prefix': ['a'] } } }] }],
    ['a pool that names a role twice', { roles: ['x', 'x'], allow: readable.allow }],
    ['a wildcard to be lifted', { ...readable, outlives_revocation: ['ssm:*'] }],
    ['an action that is lifted twice', { ...readable, outlives_revocation: ['rds-db:connect', 'rds-db:Connect'] }],
    ['a key that it does not know', { ...readable, duration: '1h' }],
  ])('refuses %s', (_, own) => {
    expect(awsGrant.safeParse(own).success).toBe(false)
  })
})
