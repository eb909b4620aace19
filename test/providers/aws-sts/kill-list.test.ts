import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { killList, type Session, type World } from '../../../src/providers/aws-sts/kill-list/ladder.ts'

const boundary = [{ Effect: 'Allow', Action: '*', Resource: '*' }]
const noon = Date.UTC(2026, 10, 25, 12)

describe('the kill list', () => {
  test('has room for several hundred sessions one by one, and for nearly as many beside twelve closed cohorts', () => {
    expect(most({ capacity: 10_240, base: [] }, 0)).toBe(777)
    expect(most({ capacity: 6_144, base: boundary }, 0)).toBe(459)
    expect(most({ capacity: 10_240, base: [] }, 12)).toBe(758)
    expect(most({ capacity: 6_144, base: boundary }, 12)).toBe(440)
  })

  test('is no document where nobody is denied, and the base alone in a boundary', () => {
    expect(killList(world({ living: named('aaa', 3) }))).toMatchObject({ document: undefined, size: 0, rung: 1, refuseMints: false })
    const { document } = killList(world({ base: boundary, capacity: 6_144 }))
    expect(JSON.parse(document!)).toEqual({ Version: '2012-10-17', Statement: boundary })
  })

  test('lists its canaries, whatever else is denied', () => {
    const { document } = killList(world({ canaries: ['@canary-1'] }))
    expect(denies(document, '@canary-1')).toBe(true)
    expect(denies(document, '@canary-10')).toBe(false)
  })

  test('is the same bytes in whatever order the sessions come', () => {
    const given = world({ denied: [...named('aaa', 30), ...named('bbb', 9)], living: named('aaa', 4, 100), killed: ['bbb', 'aaa'] })
    const turned = { ...given, denied: given.denied.toReversed(), living: given.living.toReversed(), killed: given.killed.toReversed() }
    expect(killList(turned)).toEqual(killList(given))
  })

  test('leaves a name alone that only looks like a denied one', () => {
    const { document } = killList(world({ denied: [...named('aaa', 9), ...named('zzz', 1)], living: named('aaa', 1, 50) }))
    for (const name of ['zzz00001', 'zzz000000', 'xzzz00000', 'ZZZ00000', 'aaa000000', 'xaaa00000', 'aaa0001e', '@aaa0000'])
      expect([name, denies(document, name)]).toEqual([name, false])
    for (const name of ['zzz00000', 'aaa00008', 'aaa0zzzz']) expect([name, denies(document, name)]).toEqual([name, true])
  })

  test.each(['aaa*0000', 'aaa0000', 'AAA00000', 'aaa0000?', '${aws:us'])('refuses %s as the name of a session', (name) => {
    expect(() => killList(world({ denied: [{ name, earliest: new Date(noon) }] }))).toThrow(RangeError)
  })

  test('climbs: lists, closes the open cohort, gives up cohorts, cuts the role off, shuts it', () => {
    const living = [...named('aaa', 20, 500), ...named('zzz', 40, 500)]
    const rungs = [10, 70, 100].map((count) => {
      const denied = [...named('aaa', 25), ...named('zzz', count)]
      return killList(world({ denied, living, capacity: 1_300 })).rung
    })
    expect(rungs).toEqual([1, 2, 2])
    const crowded = world({ denied: [...named('aaa', 25), ...named('zzz', 70)], living, capacity: 900 })
    expect(killList(crowded)).toMatchObject({ rung: 4, killed: ['zzz'], closeCohort: true, refuseMints: false })
    expect(killList(crowded).sacrificed).toEqual(named('zzz', 40, 500).map(({ name }) => name))
    // As many cohorts as sessions: no cohort saves anything, age does.
    const spread = Array.from({ length: 40 }, (_, i) => session(`${cohort(i)}00000`, i))
    expect(killList(world({ denied: spread, capacity: 400 }))).toMatchObject({ rung: 5, refuseMints: false })
    const ageless = spread.map(({ name, earliest }) => ({ name, earliest }))
    expect(killList(world({ denied: ageless, living, capacity: 400 }))).toMatchObject({
      rung: 6,
      refuseMints: true,
      sacrificed: living.map(({ name }) => name).toSorted(),
    })
    expect(() => killList(world({ denied: ageless, capacity: 50 }))).toThrow(RangeError)
  })

  test('never takes back what was given up while a session of it is left', () => {
    const given = { killed: ['aaa'], cutoff: new Date(noon) }
    const left = killList(world({ ...given, living: [session('aaa00000', -5)] }))
    expect(left).toMatchObject({ rung: 5, cutoff: given.cutoff, sacrificed: ['aaa00000'] })
    expect(killList(world({ killed: ['aaa'], living: named('aaa', 1) }))).toMatchObject({ rung: 4, killed: ['aaa'], sacrificed: ['aaa00000'] })
    expect(killList(world({ ...given, living: named('bbb', 1) }))).toMatchObject({
      document: undefined,
      killed: [],
      cutoff: undefined,
      sacrificed: [],
    })
  })

  test('denies every ended session and no living one that is not sacrificed, within its capacity, in any world', () => {
    const reached = new Set<number>()
    fc.assert(
      fc.property(worlds, (given) => {
        const { document, size, rung, sacrificed } = killList(given)
        reached.add(rung)
        expect(document?.length ?? 0).toBe(size)
        expect(size).toBeLessThanOrEqual(given.capacity)
        const ended = new Set(given.denied.map(({ name }) => name))
        const spared = given.living.filter(({ name }) => !ended.has(name) && !sacrificed.includes(name))
        for (const { name, latest } of given.denied) expect(denies(document, name, latest)).toBe(true)
        for (const { name, earliest } of spared) expect(denies(document, name, earliest)).toBe(false)
        for (const name of sacrificed) expect(ended.has(name)).toBe(false)
        for (const canary of given.canaries) expect(denies(document, canary)).toBe(true)
      }),
      { numRuns: 1_000, seed: 20_261_125 },
    )
    expect([...reached].toSorted((a, b) => a - b)).toEqual([1, 2, 4, 5, 6])
  })
})

function world(of: Partial<World>): World {
  return { denied: [], living: [], open: 'zzz', canaries: [], killed: [], capacity: 10_240, base: [], ...of }
}

function session(name: string, second: number): Session {
  const at = new Date(noon + second * 1_000)
  return { name, earliest: at, latest: at }
}

function named(cohortName: string, count: number, from = 0): Session[] {
  return Array.from({ length: count }, (_, i) => session(cohortName + (from + i).toString(36).padStart(5, '0'), from + i))
}

function cohort(index: number): string {
  return index.toString(36).padStart(3, '0')
}

/** How many sessions of the open cohort fit on the lowest step, beside closed cohorts of which nothing lives. */
function most(carrier: Pick<World, 'capacity' | 'base'>, closed: number): number {
  const cohorts = Array.from({ length: closed }, (_, i) => named(cohort(i), 20)).flat()
  let count = 0
  while (count < 1_000 && killList(world({ ...carrier, denied: [...cohorts, ...named('zzz', count + 1)] })).rung === 1) count += 1
  return count
}

const sessions = fc.array(
  fc
    .record({
      cohort: fc.constantFrom('aaa', 'bbb', 'ccc', 'zzz'),
      number: fc.integer({ min: 0, max: 40 }),
      second: fc.integer({ min: 0, max: 60 }),
      spread: fc.option(fc.integer({ min: 0, max: 5 })),
    })
    .map((of): Session => {
      const { name, earliest } = session(of.cohort + of.number.toString(36).padStart(5, '0'), of.second)
      return of.spread === null ? { name, earliest } : { name, earliest, latest: new Date(earliest.getTime() + of.spread * 1_000) }
    }),
  { maxLength: 80, size: 'max' },
)
const worlds = fc.record({
  denied: sessions,
  living: sessions,
  open: fc.constant('zzz'),
  canaries: fc.constantFrom([], ['@canary'], ['@7', '@8']),
  killed: fc.subarray(['aaa', 'bbb'], { maxLength: 1 }),
  cutoff: fc.constantFrom(undefined, undefined, undefined, new Date(noon + 30_000)),
  capacity: fc.integer({ min: 150, max: 1_500 }),
  base: fc.constantFrom([], boundary),
})

type Conditions = Record<string, Record<string, string | string[]>>

/** What IAM would say to this session, by the policy's own words. One whose time of issue is unknown could be as young as can be. */
function denies(document: string | undefined, name: string, issued = new Date(8.64e15)): boolean {
  if (document === undefined) return false
  const { Statement } = JSON.parse(document) as { Statement: { Effect: string; Condition?: Conditions }[] }
  const context: Record<string, string> = { 'aws:userid': `AROAEXAMPLE:${name}` }
  return Statement.some(
    ({ Effect, Condition = {} }) => Effect === 'Deny' && Object.entries(Condition).every(([operator, keys]) => holds(operator, keys)),
  )

  function holds(operator: string, keys: Record<string, string | string[]>): boolean {
    return Object.entries(keys).every(([key, values]) => {
      const wanted = [values].flat()
      if (wanted.length === 0) throw new Error('a condition without values')
      if (operator === 'DateLessThan') return wanted.some((moment) => issued < new Date(moment))
      const like = wanted.some((pattern) => wildcard(pattern, context[key]!))
      if (operator === 'StringLike') return like
      if (operator === 'StringNotLike') return !like
      throw new Error(operator)
    })
  }
}

/** `*` is any text, `?` any one character. */
function wildcard(pattern: string, text: string): boolean {
  if (pattern === '') return text === ''
  if (pattern[0] === '*') return wildcard(pattern.slice(1), text) || (text !== '' && wildcard(pattern, text.slice(1)))
  return text !== '' && (pattern[0] === '?' || pattern[0] === text[0]) && wildcard(pattern.slice(1), text.slice(1))
}
