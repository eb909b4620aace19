import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { decide, replay } from '../../src/policy/decide.ts'
import { type Declared, type Inquiry, lastingOf, resolve } from '../../src/policy/inquiry.ts'
import { readPattern, valueFault } from '../../src/policy/pattern.ts'
import { actor, agent, grant, inquiry, kind, noon, setOf } from './given.ts'

/** Text of every sort: near the pattern, with one foreign character somewhere, and anything at all. */
const nearly = fc
  .tuple(fc.stringMatching(/^[a-z0-9-]{0,34}$/), fc.string({ unit: 'binary', maxLength: 2 }), fc.stringMatching(/^[a-z0-9-]{0,3}$/))
  .map((parts) => parts.join(''))
const text = fc.oneof(nearly, fc.string({ unit: 'binary', maxLength: 300 }), fc.stringMatching(/^[a-z0-9-]{1,32}$/))

describe('parameters', () => {
  test('let nothing through but whole values of the pattern', () => {
    const pattern = readPattern('[a-z0-9-]{1,32}')
    if (!pattern.ok) throw new Error(pattern.fault)
    const allowed = new Set('abcdefghijklmnopqrstuvwxyz0123456789-')
    fc.assert(
      fc.property(text, (value) => {
        const belongs = value.length >= 1 && value.length <= 32 && Array.from(value).every((character) => allowed.has(character))
        expect(valueFault(pattern.value, value) === undefined).toBe(belongs)
      }),
      { numRuns: 2_000 },
    )
  })

  test('that are texts with special meaning elsewhere reach the policy as they are, or not at all', async () => {
    const set = await setOf(
      '@id("same") permit(principal, action, resource is Grant) when { context.ask.hasTag("p") && principal.hasTag("p") && context.ask.getTag("p") == principal.getTag("p") };',
    )
    const characters = fc.string({ unit: fc.constantFrom(...Array.from('"\\\'{}[]$()*|?`:;,é🐟a ')), maxLength: 20 })
    const visible = characters.filter((text) => !text.startsWith('['))
    fc.assert(
      fc.property(visible, visible, (one, other) => {
        const ask = (tag: string, parameter: string) =>
          decide(
            set,
            inquiry({
              agent: { ...agent, tags: ['p'] },
              actor: actor({ sub: 'x', p: tag }),
              grants: [{ grant, parameters: { p: parameter }, ttl: 1_000 }],
            }),
            noon,
          ).outcome
        expect(ask(one, one)).toBe('permit')
        expect(ask(one, other)).toBe(one === other ? 'permit' : 'deny')
      }),
      { numRuns: 150 },
    )
  })

  test('have patterns that either are refused or never take long', () => {
    const piece = fc.constantFrom('a', '[ab]', '.', '(?:', '(', ')', '|', '*', '+', '?', '{2}', '{1,9}', '{0,}', '\\d', 'b', '[a-z]+')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 24 }), (pieces) => {
        const pattern = readPattern(pieces.join(''))
        if (!pattern.ok) return
        const started = process.cpuUsage()
        for (const value of ['a'.repeat(256), 'ab'.repeat(128), `${'a'.repeat(255)}!`]) valueFault(pattern.value, value)
        // Of the processor, in microseconds.
        expect(process.cpuUsage(started).user).toBeLessThan(10_000_000)
      }),
      { numRuns: 3_000 },
    )
  })
})

describe('a claim that is a list', () => {
  // Without quote and backslash, and no lone comma, which stands between any two.
  const asked = ['admins', 'a', '', '*', '[', ']', ',a', 'a,', '],[', 'u0022', 'é🐟', ' ']
  const literal = (text: string): string => text.replaceAll('*', String.raw`\*`)
  const holds = asked.map(
    (one, at) =>
      `@id("${at}") permit(principal, action, resource) when { principal.hasTag("g") && principal.getTag("g") like "[*\\"${literal(one)}\\"*]" };`,
  )
  const piece = fc.constantFrom(...asked, '"', '\\', '\\"', ',', '","', '["', '"]', '\\u0022', '\\u005c')
  const anyText = fc.oneof(
    fc.array(piece, { maxLength: 5 }).map((pieces) => pieces.join('')),
    fc.constantFrom(...asked),
  )

  test('holds for a policy exactly the texts that are its elements, whatever stands in them', async () => {
    const set = await setOf(...holds)
    fc.assert(
      fc.property(fc.array(anyText, { maxLength: 4 }), (list) => {
        const [answer] = decide(set, inquiry({ agent: { ...agent, tags: ['g'] }, actor: actor({ sub: 'x', g: list }) }), noon).answers
        expect(new Set(answer!.policies.map((id) => asked[Number(id)]))).toEqual(new Set(asked.filter((one) => list.includes(one))))
        const { entities } = JSON.parse(answer!.input) as { entities: { tags: { g: string } }[] }
        expect(JSON.parse(entities[0]!.tags.g)).toEqual(list)
      }),
      { numRuns: 1_000 },
    )
  })

  test('is nothing that a text can be taken for', async () => {
    const set = await setOf(...holds)
    fc.assert(
      fc.property(
        anyText.map((text) => `[${text}`),
        anyText,
        (...texts) => {
          for (const g of texts) {
            const { answers } = decide(set, inquiry({ agent: { ...agent, tags: ['g'] }, actor: actor({ sub: 'x', g }) }), noon)
            expect(answers[0]!.policies, g).toEqual([])
          }
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('what a declaration resolves to', () => {
  const milliseconds = fc.oneof(fc.integer({ min: -1_000, max: 4_000_000 }), fc.double(), fc.constantFrom(0, 1, 599_999, 600_000, 600_001, 1_800_000))
  const declared: fc.Arbitrary<Declared> = fc.record(
    {
      kind: fc.constant('sync'),
      duration: milliseconds,
      grants: fc.uniqueArray(
        fc.record({ name: fc.constantFrom('a', 'b'), parameters: fc.constant({}), ttl: milliseconds }, { requiredKeys: ['name', 'parameters'] }),
        {
          selector: ({ name }) => name,
          maxLength: 2,
        },
      ),
    },
    { requiredKeys: ['kind', 'grants'] },
  )
  const entries = {
    kinds: new Map([['sync', { ...kind, name: 'sync', grants: ['a', 'b'] }]]),
    grants: new Map([
      ['a', { ...grant, name: 'a', parameters: {} }],
      ['b', { ...grant, name: 'b', parameters: {}, maxTtl: 3_600_000 }],
    ]),
  }

  test('never lives longer than the grant, the task and what was asked, and is never nothing', () => {
    let resolved = 0
    fc.assert(
      fc.property(declared, (asked) => {
        let inquiry: Inquiry
        try {
          inquiry = resolve(entries, agent, actor(), 'issue', asked)
        } catch (error) {
          expect(error).toBeInstanceOf(BrokerError)
          return
        }
        resolved++
        expect(inquiry.duration).toBeGreaterThan(0)
        expect(inquiry.duration).toBeLessThanOrEqual(Math.min(kind.maxDuration, asked.duration ?? Number.POSITIVE_INFINITY))
        inquiry.grants.forEach((granted, index) => {
          const lasts = lastingOf(inquiry, granted)
          expect(Number.isInteger(lasts) && lasts > 0).toBe(true)
          expect(lasts).toBeLessThanOrEqual(Math.min(granted.grant.maxTtl, inquiry.duration, asked.grants[index]!.ttl ?? Number.POSITIVE_INFINITY))
        })
      }),
      { numRuns: 2_000 },
    )
    expect(resolved).toBeGreaterThan(100)
  })

  test('is refused only for what is out of bounds', () => {
    fc.assert(
      fc.property(declared, (asked) => {
        const sound = (limit: number, value: number | undefined): boolean => value === undefined || (value >= 1 && value < limit + 1)
        const limits = { a: 600_000, b: 3_600_000 }
        const fits = sound(1_800_000, asked.duration) && asked.grants.every(({ name, ttl }) => sound(limits[name as 'a' | 'b'], ttl))
        let refused = false
        try {
          resolve(entries, agent, actor(), 'issue', asked)
        } catch {
          refused = true
        }
        expect(refused).toBe(!fits)
      }),
      { numRuns: 2_000 },
    )
  })
})

test('a decision remembered, decided anew and replayed is the same decision', async () => {
  const policies = [
    '@id("short") @max_ttl("3m") permit(principal, action == Action::"issue", resource) when { context.ttl <= duration("5m") };',
    '@id("acme") @max_ttl("2m") permit(principal, action, resource is Grant) when { context.ask.hasTag("c") && context.ask.getTag("c") like "ac*" };',
    '@id("not-long") forbid(principal, action, resource) when { context.duration > duration("20m") };',
  ]
  const remembering = await setOf(...policies)
  const asking = await setOf(...policies, '@id("reads-now") forbid(principal, action, resource) when { context.now < datetime("2000-01-01") };')
  expect([remembering.readsNow, asking.readsNow]).toEqual([false, true])
  const inquiries = fc
    .record({
      ttl: fc.constantFrom(60_000, 300_000, 300_001, 600_000),
      duration: fc.constantFrom(600_000, 1_200_000, 1_200_001),
      parameters: fc.constantFrom({}, { c: 'acme' }, { c: 'other' }),
      action: fc.constantFrom('issue' as const, 'renew' as const),
      at: fc.date({ min: new Date('2020-01-01'), max: new Date('2030-01-01'), noInvalidDate: true }),
    })
    .map(({ ttl, duration, parameters, action, at }) => ({ at, inquiry: inquiry({ action, duration, grants: [{ grant, parameters, ttl }] }) }))
  fc.assert(
    fc.property(inquiries, ({ at, inquiry }) => {
      const remembered = decide(remembering, inquiry, at)
      expect(decide(asking, inquiry, at)).toEqual({ ...remembered, policyDigest: asking.digest })
      expect(replay(remembering, remembered.answers)).toEqual(remembered.answers)
    }),
    { numRuns: 150 },
  )
})
