import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Catalogue } from '../../src/policy/catalogue.ts'
import { type Action, type Declared, lastingOf, nowhere, type Pointers } from '../../src/policy/inquiry.ts'
import { actor, catalogueOf } from './given.ts'

const text = `agents:
  bot: { issuer: local, match: { sub: x }, owner: o@example.com }
kinds:
  sync: { owner: o@example.com, max_duration: 30m, grants: [plain, export] }
  short: { owner: o@example.com, max_duration: 2m, grants: [plain] }
grants:
  plain: { provider: tokens, audience: https://a.example.com, scope: s, max_ttl: 10m }
  export: { provider: tokens, audience: https://a.example.com, scope: s, max_ttl: 10m, parameters: { customer: { pattern: "[a-z]{1,8}" }, region: { pattern: "eu|us" } } }
`

const resolve = (catalogue: Catalogue, declared: Partial<Declared>, action: Action = 'issue', pointers?: Pointers) =>
  catalogue.resolve(catalogue.agents.get('bot')!, actor(), action, { kind: 'sync', grants: [], ...declared }, pointers)

function refusal(ask: () => unknown): { code: string; errors: readonly { pointer: string; message: string }[] } {
  try {
    ask()
  } catch (error) {
    if (error instanceof BrokerError) return { code: error.code, errors: error.errors }
    throw error
  }
  throw new Error('nothing was refused')
}

const plain = { name: 'plain', parameters: {} }
const acme = { name: 'export', parameters: { customer: 'acme', region: 'eu' } }

describe('a declaration', () => {
  test('gets the most that kind and grant allow where it does not say', async () => {
    const catalogue = await catalogueOf(text)
    const { duration, grants, kind } = resolve(catalogue, { grants: [plain, acme] })
    expect({ duration, kind: kind.name }).toEqual({ duration: 1_800_000, kind: 'sync' })
    expect(grants.map(({ grant, parameters, ttl }) => ({ name: grant.name, parameters, ttl }))).toEqual([
      { name: 'plain', parameters: {}, ttl: 600_000 },
      { name: 'export', parameters: { customer: 'acme', region: 'eu' }, ttl: 600_000 },
    ])
  })

  test('never gets a credential that outlives the task', async () => {
    const catalogue = await catalogueOf(text)
    const lasts = (declared: Parameters<typeof resolve>[1]): number => {
      const inquiry = resolve(catalogue, declared)
      return lastingOf(inquiry, inquiry.grants[0]!)
    }
    expect(lasts({ duration: 60_000, grants: [plain] })).toBe(60_000)
    expect(lasts({ duration: 60_000, grants: [{ ...plain, ttl: 300_000 }] })).toBe(60_000)
    expect(lasts({ kind: 'short', grants: [plain] })).toBe(120_000)
  })

  test('of an unknown kind is refused', async () => {
    const catalogue = await catalogueOf(text)
    for (const kind of ['nothing', '__proto__', '']) {
      expect(refusal(() => resolve(catalogue, { kind }))).toEqual({ code: 'unknown_kind', errors: [{ pointer: '/kind', message: 'unknown' }] })
    }
  })

  test('is refused alike for a grant that nobody has and one that its kind may not ask for', async () => {
    const catalogue = await catalogueOf(text)
    expect(refusal(() => resolve(catalogue, { kind: 'short', grants: [plain, acme, { ...plain, name: 'nothing' }] }))).toEqual({
      code: 'unknown_grant',
      errors: [
        { pointer: '/grants/1/name', message: 'unknown for this kind of task' },
        { pointer: '/grants/2/name', message: 'unknown for this kind of task' },
      ],
    })
  })

  test('is refused with every faulty field at once, and no value is repeated', async () => {
    const catalogue = await catalogueOf(text)
    const { code, errors } = refusal(() =>
      resolve(catalogue, {
        duration: 1_800_001,
        grants: [
          { name: 'export', parameters: { customer: '../secret', 'a/b~c': 'x' }, ttl: 600_001 },
          { ...plain, ttl: 0 },
        ],
      }),
    )
    expect(code).toBe('invalid_request')
    expect(errors).toEqual([
      { pointer: '/duration', message: 'must be at most 30m' },
      { pointer: '/grants/0/ttl', message: 'must be at most 10m' },
      { pointer: '/grants/0/parameters/customer', message: 'must match the pattern that the catalogue gives for it' },
      { pointer: '/grants/0/parameters/region', message: 'is missing' },
      { pointer: '/grants/0/parameters/a~1b~0c', message: 'the grant has no such parameter' },
      { pointer: '/grants/1/ttl', message: 'must be longer than nothing' },
    ])
    expect(JSON.stringify(errors)).not.toContain('secret')
  })

  for (const duration of [0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    test(`is refused for a duration of ${duration} ms`, async () => {
      const catalogue = await catalogueOf(text)
      expect(refusal(() => resolve(catalogue, { duration, grants: [plain] })).errors[0]).toMatchObject({ pointer: '/duration' })
    })
  }

  for (const customer of ['acme\n', '\nacme', 'acme corp', 'ACME', '', '*', '..', 'a/b', 'acmeacmea', 'acmé', 'acme\u0000', 'acme\u200B', '\uD800']) {
    test(`is refused for the customer ${JSON.stringify(customer)}`, async () => {
      const catalogue = await catalogueOf(text)
      const grants = [{ name: 'export', parameters: { customer, region: 'eu' } }]
      expect(refusal(() => resolve(catalogue, { grants })).errors).toMatchObject([{ pointer: '/grants/0/parameters/customer' }])
    })
  }

  test('is held to both ends of a pattern with alternatives', async () => {
    const catalogue = await catalogueOf(text)
    for (const region of ['eux', 'xus', 'eu|us']) {
      const grants = [{ name: 'export', parameters: { customer: 'acme', region } }]
      expect(refusal(() => resolve(catalogue, { grants })).code).toBe('invalid_request')
    }
  })

  test('may ask for one grant twice with other parameters, not with the same', async () => {
    const catalogue = await catalogueOf(text)
    const other = { name: 'export', parameters: { region: 'us', customer: 'acme' } }
    expect(resolve(catalogue, { grants: [acme, other] }).grants).toHaveLength(2)
    const twin = { name: 'export', parameters: { region: 'eu', customer: 'acme' } }
    expect(refusal(() => resolve(catalogue, { grants: [acme, other, twin] })).errors).toEqual([
      { pointer: '/grants/2', message: 'is asked for twice with the same parameters' },
    ])
  })

  test('is refused at the places where the request says it, and at none for what it does not say', async () => {
    const catalogue = await catalogueOf(text)
    const foreign = { name: 'export', parameters: { customer: 'ACME', region: 'eu' }, ttl: 600_001 }
    const alone = { ...nowhere, grant: () => '' }
    expect(refusal(() => resolve(catalogue, { grants: [foreign] }, 'issue', alone)).errors.map(({ pointer }) => pointer)).toEqual([
      '/ttl',
      '/parameters/customer',
    ])
    expect(refusal(() => resolve(catalogue, { grants: [{ ...plain, name: 'nothing' }] }, 'issue', alone)).errors).toMatchObject([
      { pointer: '/name' },
    ])

    const timed = { ...nowhere, duration: '/deadline' }
    expect(refusal(() => resolve(catalogue, { duration: 1_800_001, grants: [foreign] }, 'renew', timed))).toEqual({
      code: 'invalid_request',
      errors: [{ pointer: '/deadline', message: 'must be at most 30m' }],
    })
    expect(refusal(() => resolve(catalogue, { grants: [foreign] }, 'renew', timed))).toEqual({ code: 'conflict', errors: [] })
    expect(refusal(() => resolve(catalogue, { kind: 'gone' }, 'renew', timed))).toEqual({ code: 'unknown_kind', errors: [] })
    expect(refusal(() => resolve(catalogue, { kind: 'short', grants: [acme] }, 'renew', timed))).toEqual({ code: 'unknown_grant', errors: [] })
  })

  test('renews two alike leases that came one after the other', async () => {
    const catalogue = await catalogueOf(text)
    expect(resolve(catalogue, { grants: [plain, plain] }, 'renew').grants).toHaveLength(2)
  })
})
