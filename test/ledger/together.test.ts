import { afterEach, expect, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { Alone, together } from '../../src/ledger/together.ts'
import type { Rank } from '../../src/ledger/turns.ts'

const ledger = {} as Ledger
const refusal = new BrokerError('internal', 'refused')
const outage = new BrokerError('store_unavailable', 'gone')

afterEach(() => void vi.useRealTimers())

/** A verb whose statements answer when the test says so: each letter becomes a capital. What ends in `?` is asked for alone, without it. */
function verbUnderTest(faults: Readonly<Record<string, BrokerError>> = {}, rank: Rank = 'later') {
  const statements: { readonly items: readonly string[]; answer(): void }[] = []
  let arrived: () => void = () => {}
  const one = together<string, string>(async (_, items) => {
    const answered = new Promise<void>((resolve) => statements.push({ items, answer: resolve }))
    arrived()
    await answered
    const fault = items.map((item) => faults[item]).find((found) => found !== undefined)
    if (fault) throw fault
    return items.map((item) => (item.endsWith('?') ? new Alone(item.slice(0, -1)) : item.toUpperCase()))
  }, rank)
  return {
    statements,
    ask: (item: string) => one(ledger, item),
    /** Until so many statements have been sent. */
    async sent(count: number) {
      while (statements.length < count) await new Promise<void>((resolve) => (arrived = resolve))
    },
  }
}

test('what comes at once goes in one statement, and each gets its own answer', async () => {
  const { ask, statements, sent } = verbUnderTest()
  const answers = Promise.all(['a', 'b', 'c'].map(ask))
  await sent(1)
  statements[0]!.answer()
  expect(await answers).toEqual(['A', 'B', 'C'])
  expect(statements.map(({ items }) => items)).toEqual([['a', 'b', 'c']])
})

test('what comes while two statements are under way waits, and goes together with what else has come', async () => {
  const { ask, statements, sent } = verbUnderTest()
  const first = ask('a')
  await sent(1)
  const second = ask('b')
  await sent(2)
  const late = Promise.all(['c', 'd'].map(ask))
  statements[1]!.answer()
  expect(await second).toBe('B')
  await sent(3)
  expect(statements[2]!.items).toEqual(['c', 'd'])
  statements[2]!.answer()
  statements[0]!.answer()
  expect([await first, ...(await late)]).toEqual(['A', 'C', 'D'])
})

test('one that is refused does not take the others with it', async () => {
  const { ask, statements, sent } = verbUnderTest({ bad: refusal })
  const answers = Promise.allSettled(['a', 'bad', 'c'].map(ask))
  for (let statement = 1; statement <= 4; statement++) {
    await sent(statement)
    statements[statement - 1]!.answer()
  }
  expect(await answers).toMatchObject([{ value: 'A' }, { status: 'rejected', reason: refusal }, { value: 'C' }])
})

test('a store that fails has failed for everybody who was in the statement, and nothing is asked twice', async () => {
  const { ask, statements, sent } = verbUnderTest({ b: outage })
  const answers = Promise.allSettled(['a', 'b'].map(ask))
  await sent(1)
  statements[0]!.answer()
  expect(await answers).toMatchObject([{ reason: outage }, { reason: outage }])
  expect(statements).toHaveLength(1)
})

test('what has to be asked for alone keeps nobody waiting who was in its statement, and fails by itself', async () => {
  const { ask, statements, sent } = verbUnderTest({ b: outage, c: refusal })
  const [a, ...alone] = ['a', 'b?', 'c?', 'd?'].map(ask)
  const answers = Promise.allSettled(alone)
  await sent(1)
  statements[0]!.answer()
  expect(await a).toBe('A')
  for (let statement = 2; statement <= 4; statement++) {
    await sent(statement)
    statements[statement - 1]!.answer()
  }
  expect(await answers).toMatchObject([{ reason: outage }, { reason: refusal }, { value: 'D' }])
  expect(statements.map(({ items }) => items)).toEqual([['a', 'b?', 'c?', 'd?'], ['b'], ['c'], ['d']])
})

test('new work that is to be asked for alone, and has waited too long for that, is refused and never begun', async () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const { ask, statements, sent } = verbUnderTest()
  const answers = Promise.allSettled(['a', 'b?', 'c?'].map(ask))
  await sent(1)
  statements[0]!.answer()
  await sent(2)
  vi.advanceTimersByTime(6_000)
  statements[1]!.answer()
  expect(await answers).toMatchObject([{ value: 'A' }, { value: 'B' }, { reason: { code: 'store_unavailable' } }])
  expect(statements).toHaveLength(2)
})

test('no statement grows without a bound', async () => {
  const { ask, statements, sent } = verbUnderTest()
  const answers = Promise.all(Array.from({ length: 70 }, (_, index) => ask(`item ${index}`)))
  for (let statement = 1; statement <= 3; statement++) {
    await sent(statement)
    statements[statement - 1]!.answer()
  }
  expect(await answers).toHaveLength(70)
  expect(statements.map(({ items }) => items.length)).toEqual([32, 32, 6])
})

test.each([
  ['later', 'new work that has waited too long is refused and never begun', [{ reason: { code: 'store_unavailable' } }]],
  ['first', 'what ends something is done however long it had to wait', [{ value: 'C' }]],
] as const)('%s: %s', async (rank, _, outcome) => {
  vi.useFakeTimers({ toFake: ['performance'] })
  const { ask, statements, sent } = verbUnderTest({}, rank)
  const early = [ask('a')]
  await sent(1)
  early.push(ask('b'))
  await sent(2)
  const late = Promise.allSettled([ask('c')])
  vi.advanceTimersByTime(6_000)
  statements[0]!.answer()
  if (rank === 'first') {
    await sent(3)
    statements[2]!.answer()
  }
  expect(await late).toMatchObject(outcome)
  statements[1]!.answer()
  expect(await Promise.all(early)).toEqual(['A', 'B'])
  expect(statements).toHaveLength(rank === 'first' ? 3 : 2)
})
