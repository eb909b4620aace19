import { describe, expect, test } from 'vitest'
import { decide, replay } from '../../src/policy/decide.ts'
import type { Inquiry } from '../../src/policy/inquiry.ts'
import { actor, agent, grant, inquiry, kind, night, noon, setOf } from './given.ts'

const permit = (id: string, when = 'true', annotations = ''): string =>
  `@id("${id}") ${annotations} permit(principal, action in [Action::"issue", Action::"renew"], resource) when { ${when} };`
const forbid = (id: string, when: string): string =>
  `@id("${id}") forbid(principal, action in [Action::"issue", Action::"renew"], resource) when { ${when} };`

const high = { ...grant, name: 'export', sensitivity: 'high' }
const asking = (...grants: readonly Inquiry['grants'][number][]): Inquiry => inquiry({ grants })

describe('a decision', () => {
  test('permits what a policy permits, and names the policies that determined it', async () => {
    const set = await setOf(permit('second'), permit('first'), permit('other', 'resource.sensitivity == "high"'))
    const { outcome, policies, policyDigest, obligations, answers } = decide(set, inquiry(), noon)
    expect({ outcome, policies, policyDigest, obligations }).toEqual({
      outcome: 'permit',
      policies: ['first', 'second'],
      policyDigest: set.digest,
      obligations: {},
    })
    expect(answers).toMatchObject([{ action: 'issue', resource: 'invoices-api', outcome: 'permit', policies: ['first', 'second'], diagnostics: [] }])
  })

  test('denies what no policy permits, and what any policy forbids', async () => {
    const nothing = await setOf(permit('other', 'resource.sensitivity == "high"'))
    expect(decide(nothing, inquiry(), noon)).toMatchObject({ outcome: 'deny', policies: [] })
    const forbidden = await setOf(permit('all'), forbid('never', 'context.ttl > duration("1m")'))
    expect(decide(forbidden, inquiry(), noon)).toMatchObject({ outcome: 'deny', policies: ['never'], obligations: {} })
  })

  test('permits only if every grant is permitted, and keeps each answer', async () => {
    const set = await setOf(permit('normal', 'resource.sensitivity != "high"', '@max_ttl("5m")'))
    const { outcome, policies, obligations, answers } = decide(
      set,
      asking({ grant, parameters: {}, ttl: 600_000 }, { grant: high, parameters: {}, ttl: 600_000 }),
      noon,
    )
    expect({ outcome, policies, obligations }).toEqual({ outcome: 'deny', policies: ['normal'], obligations: {} })
    expect(answers.map(({ resource, outcome }) => `${resource}: ${outcome}`)).toEqual(['invoices-api: permit', 'export: deny'])
  })

  test('shortens to the least @max_ttl of the permits that determined it', async () => {
    const set = await setOf(
      permit('ten', 'true', '@max_ttl("10m")'),
      permit('two', 'resource.sensitivity == "high"', '@max_ttl("2m")'),
      permit('one', 'context.pop != "none"', '@max_ttl("1m")'),
      permit('any'),
    )
    const ask = (...grants: Inquiry['grants']) => decide(set, inquiry({ grants }), noon)
    expect(ask({ grant, parameters: {}, ttl: 1 }).obligations).toEqual({ maxTtl: 600_000 })
    const both = ask({ grant, parameters: {}, ttl: 1 }, { grant: high, parameters: {}, ttl: 1 })
    expect(both.obligations).toEqual({ maxTtl: 120_000 })
    expect(both.answers.map(({ obligations }) => obligations)).toEqual([{ maxTtl: 600_000 }, { maxTtl: 120_000 }])
  })

  test('is about the kind where a task has no grants, whichever action was meant', async () => {
    const set = await setOf('@id("empty") permit(principal, action == Action::"declare", resource == Kind::"invoice-sync");')
    for (const action of ['declare', 'renew', 'issue'] as const) {
      expect(decide(set, inquiry({ action, grants: [] }), noon)).toMatchObject({
        outcome: 'permit',
        answers: [{ action: 'declare', resource: 'invoice-sync', policies: ['empty'] }],
      })
    }
    expect(decide(await setOf(permit('grants')), inquiry({ action: 'declare', grants: [] }), noon).outcome).toBe('deny')
  })

  test('distinguishes issuing from renewing', async () => {
    const set = await setOf('@id("once") permit(principal, action == Action::"issue", resource);')
    expect(decide(set, inquiry({ action: 'issue' }), noon).outcome).toBe('permit')
    expect(decide(set, inquiry({ action: 'renew' }), noon).outcome).toBe('deny')
  })
})

describe('a policy sees', () => {
  const verdictOn = async (when: string, changes: Partial<Inquiry> = {}) => decide(await setOf(permit('p', when)), inquiry(changes), noon)

  const seen: readonly (readonly [string, string, Partial<Inquiry>])[] = [
    [
      'the agent, its owner, issuer and groups',
      'principal == Agent::"invoice-bot" && principal.owner == "finance@example.com" && principal.issuer == "local" && principal in Group::"finance"',
      {},
    ],
    [
      'the trust domain where there is one',
      'principal has trust_domain && principal.trust_domain == "prod.example.com"',
      { actor: actor({ sub: 'x' }, 'prod.example.com') },
    ],
    ['no trust domain where there is none', '!(principal has trust_domain)', {}],
    [
      'the provider, sensitivity and standing of the grant',
      'resource.provider == "tokens" && resource.sensitivity == "normal" && !resource.standing',
      {},
    ],
    [
      'the kind of the task and its owner',
      'context.kind == Kind::"invoice-sync" && context.kind.owner == "finance@example.com" && resource in Kind::"invoice-sync"',
      {},
    ],
    ['that the grant is asked for by no other kind', '!(resource in Kind::"report")', {}],
    ['how long task and credential are to last', 'context.duration == duration("30m") && context.ttl == duration("10m")', {}],
    [
      'the parameters that were asked for',
      'context.ask.hasTag("customer") && context.ask.getTag("customer") == "acme"',
      { grants: [{ grant, parameters: { customer: 'acme' }, ttl: 1 }] },
    ],
    ['that a parameter is absent', '!context.ask.hasTag("customer")', {}],
    ['the time, and how possession was proven', 'context.now == datetime("2026-11-24T12:00:00Z") && context.pop == "none"', {}],
    [
      'the attributes that the catalogue lists, a list as its JSON text',
      'principal.hasTag("env") && principal.getTag("env") == "prod" && principal.hasTag("aud") && principal.getTag("aud") == "[\\"a\\",\\"b\\"]"',
      { agent: { ...agent, tags: ['env', 'aud', 'missing'] }, actor: actor({ sub: 'x', env: 'prod', aud: ['a', 'b'] }) },
    ],
    ['no attribute that the catalogue does not list', '!principal.hasTag("sub")', {}],
  ]
  for (const [what, when, changes] of seen) {
    test(what, async () => {
      expect(await verdictOn(when, changes)).toMatchObject({ outcome: 'permit', answers: [{ diagnostics: [] }] })
    })
  }
})

describe('a policy that fails while it is evaluated', () => {
  // 600,000 ms times the greatest Long: an overflow that only evaluation finds.
  const overflows = 'context.ttl.toMilliseconds() * 9223372036854775807 > 0'

  test('denies, although Cedar would skip the forbid and allow', async () => {
    const set = await setOf(permit('all', 'true', '@max_ttl("1m")'), forbid('never', overflows))
    expect(decide(set, inquiry(), noon)).toMatchObject({
      outcome: 'deny',
      policies: [],
      obligations: {},
      answers: [{ outcome: 'deny', policies: [], obligations: {}, diagnostics: ['never'] }],
    })
  })

  test('denies, although another permit would be enough', async () => {
    const set = await setOf(permit('all'), permit('more', overflows))
    expect(decide(set, inquiry(), noon).answers).toMatchObject([{ outcome: 'deny', diagnostics: ['more'] }])
  })
})

describe('an engine that gives no answer', () => {
  test('denies', async () => {
    const set = await setOf(permit('all'))
    const { answers } = decide(set, inquiry(), noon)
    for (const input of [
      '{}',
      '{"principal":1}',
      answers[0]!.input.replace('"pop":"none"', '"pop":7'),
      answers[0]!.input.replace(',"standing":false', ''),
    ]) {
      expect(input).not.toBe(answers[0]!.input)
      expect(replay(set, [{ ...answers[0]!, input }])).toMatchObject([{ outcome: 'deny', policies: [], diagnostics: ['engine'] }])
    }
    expect(decide(set, inquiry(), noon).outcome).toBe('permit')
  })

  test('denies an action that does not apply to what is asked for', async () => {
    const set = await setOf('@id("all") permit(principal, action, resource);')
    expect(decide(set, inquiry({ action: 'declare' }), noon).answers).toMatchObject([{ outcome: 'deny', diagnostics: ['engine'] }])
  })
})

describe('the record of an answer', () => {
  test('is the whole input as canonical JSON, with the time and without purpose, labels or token', async () => {
    const set = await setOf(permit('all'))
    const [answer] = decide(set, inquiry({ grants: [{ grant, parameters: { customer: 'acme' }, ttl: 60_000 }] }), noon).answers
    expect(JSON.parse(answer!.input)).toEqual({
      principal: { type: 'Agent', id: 'invoice-bot' },
      action: { type: 'Action', id: 'issue' },
      resource: { type: 'Grant', id: 'invoices-api' },
      context: {
        kind: { __entity: { type: 'Kind', id: 'invoice-sync' } },
        duration: { __extn: { fn: 'duration', arg: '1800000ms' } },
        ttl: { __extn: { fn: 'duration', arg: '60000ms' } },
        ask: { __entity: { type: 'Ask', id: 'ask' } },
        pop: 'none',
        now: { __extn: { fn: 'datetime', arg: '2026-11-24T12:00:00.000Z' } },
      },
      entities: [
        {
          uid: { type: 'Agent', id: 'invoice-bot' },
          attrs: { owner: 'finance@example.com', issuer: 'local' },
          parents: [{ type: 'Group', id: 'finance' }],
          tags: {},
        },
        { uid: { type: 'Group', id: 'finance' }, attrs: {}, parents: [] },
        { uid: { type: 'Kind', id: 'invoice-sync' }, attrs: { owner: 'finance@example.com' }, parents: [] },
        {
          uid: { type: 'Grant', id: 'invoices-api' },
          attrs: { provider: 'tokens', sensitivity: 'normal', standing: false },
          parents: [{ type: 'Kind', id: 'invoice-sync' }],
        },
        { uid: { type: 'Ask', id: 'ask' }, attrs: {}, parents: [], tags: { customer: 'acme' } },
      ],
    })
    expect(decide(set, inquiry({ kind, grants: [{ grant, parameters: { customer: 'acme' }, ttl: 60_000 }] }), noon).answers[0]!.input).toBe(
      answer!.input,
    )
  })
})

describe('a remembered answer', () => {
  test('is given again with the time at which it was asked again', async () => {
    const set = await setOf(permit('all', 'context.ttl <= duration("10m")', '@max_ttl("1m")'))
    expect(set.readsNow).toBe(false)
    const first = decide(set, inquiry(), noon)
    const second = decide(set, inquiry(), night)
    expect(second.answers[0]!.input).not.toBe(first.answers[0]!.input)
    expect(second.answers[0]!.input).toContain('2026-11-24T23:00:00.000Z')
    expect({ ...second, answers: [] }).toEqual({ ...first, answers: [] })
  })

  test('is never given to another question', async () => {
    const set = await setOf(
      permit('short', 'context.ttl <= duration("5m")'),
      forbid('acme', 'context.ask.hasTag("customer") && context.ask.getTag("customer") == "acme"'),
    )
    const ask = (ttl: number, parameters: Record<string, string> = {}) => decide(set, asking({ grant, parameters, ttl }), noon).outcome
    for (const round of [1, 2]) {
      expect([round, ask(300_000), ask(300_001), ask(300_000, { customer: 'acme' }), ask(300_000, { customer: 'other' })]).toEqual([
        round,
        'permit',
        'deny',
        'deny',
        'permit',
      ])
    }
  })

  test('stays while it is asked for, however many other questions come in between, and goes before those that are', async () => {
    const set = await setOf(permit('all'))
    const ask = (seconds: number, milliseconds = 0) => decide(set, inquiry({ duration: seconds * 1_000 + milliseconds }), noon).answers[0]!.policies
    // An answer that is remembered is the very same.
    const [nightly, once] = [ask(1), ask(2)]
    for (let other = 0; other < 2_500; other++) {
      ask(3 + other)
      if (other % 500 === 0) expect(ask(1)).toBe(nightly)
    }
    expect(ask(1)).toBe(nightly)
    const anew = ask(2)
    expect(anew).toEqual(once)
    expect(anew).not.toBe(once)
  })

  test('is not what was said of the rest of a task: it would not be asked again, and take the place of what is', async () => {
    const set = await setOf(permit('all'))
    const ask = (duration: number) => decide(set, inquiry({ duration }), noon).answers[0]!.policies
    const nightly = ask(60_000)
    const left = ask(59_999)
    for (let passed = 1; passed < 2_500; passed++) ask(59_999 - passed)
    expect(ask(59_999)).toEqual(left)
    expect(ask(59_999)).not.toBe(left)
    expect(ask(60_000)).toBe(nightly)
  })

  const timely = [
    'context.now < datetime("2026-11-24T20:00:00Z")',
    'context.now.toTime() < duration("20h")',
    '(if resource.standing then context else context).now.toTime() < duration("20h")',
    '{ "Var": context.now.toTime() }["Var"] < duration("20h")',
    '{ ".": context.now.toTime() }["."] < duration("20h")',
  ]
  for (const when of timely) {
    test(`is asked anew where a policy reads the time: ${when}`, async () => {
      const set = await setOf(permit('by-day', when))
      expect(set.readsNow).toBe(true)
      expect([noon, night, noon].map((now) => decide(set, inquiry(), now).outcome)).toEqual(['permit', 'deny', 'permit'])
    })
  }
})

describe('replaying', () => {
  test('gives the same answers, byte for byte, on the same set', async () => {
    const set = await setOf(permit('by-day', 'context.now.toTime() < duration("20h")', '@max_ttl("1m")'))
    for (const now of [noon, night]) {
      const { answers } = decide(set, inquiry(), now)
      expect(replay(set, answers)).toEqual(answers)
    }
  })

  test('says what another set would have answered', async () => {
    const { answers } = decide(await setOf(permit('all')), inquiry(), noon)
    expect(replay(await setOf(permit('all'), forbid('no-more', 'true')), answers)).toEqual([
      { ...answers[0], outcome: 'deny', policies: ['no-more'] },
    ])
  })
})
