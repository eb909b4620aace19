import { writePast } from '../test/load/past.ts'
import { ratesOf, tell } from './figures.ts'
import { completes, type Generators, issues, type Load, openedOf } from './load.ts'
import { caughtUp, type Labs, raise, raze, type Spent, spending, type Stage, startUp, unsequenced } from './stage.ts'

/** Declarations of one turn. */
const perTurn = 3_000

/** What the turns of one broker came to. */
interface Turns {
  readonly runs: Load[]
  readonly spent: Spent[]
}

/**
 * The issue rate beside a long past, held against a broker that has none, in turns: a machine whose rate differs by a third from one minute to the next tells
 * nothing by two measurements that lie a quarter of an hour apart. Nobody signs the past at first: one that was lived had its places in the log long ago, and
 * this one is written within minutes. Then it is signed, and the same is measured beside that and after it.
 */
export async function growth(labs: Labs, generators: Generators): Promise<void> {
  const [short, long] = [await raise(labs, unsequenced), await raise(labs, unsequenced)]
  for (const one of [short, long]) await warm(one, generators)
  for (const [from, to] of [
    [0, 100_000],
    [100_000, 1_000_000],
  ] as const) {
    await writePast(long.owner, to, from + 1)
    // Writing the past left the disk with work that has nothing to do with its being there.
    await long.owner`checkpoint`
    tell(`issue with ${to} past leases`, await held(short, long, generators))
  }
  for (const { broker } of [short, long]) await broker.stop()

  const [signingShort, before] = [await again(short, generators), noTurns()]
  await caughtUp(short.owner)
  for (let time = 0; time < 3; time++) await turn(signingShort.stage, generators, before)
  const [signingLong, beside] = [await again(long, generators), noTurns()]
  tell('start to ready before a million past leases, seconds', { unsigned: signingLong.seconds })
  for (let time = 0; time < 2; time++) await turn(signingLong.stage, generators, beside)
  tell('issue while 1000000 past leases are being signed', sideBySide(before, beside))
  await caughtUp(long.owner)
  await long.owner`checkpoint`
  tell('issue with 1000000 past leases, signed', await held(signingShort.stage, signingLong.stage, generators))
  for (const { stage } of [signingShort, signingLong]) {
    await stage.broker.stop()
    await raze(stage)
  }
}

/** The same store with another broker, one that signs; and the seconds until it answered. */
async function again(before: Stage, generators: Generators): Promise<{ readonly stage: Stage; readonly seconds: number }> {
  const { broker, seconds } = await startUp(before.site)
  const stage = { ...before, broker }
  await warm(stage, generators)
  return { stage, seconds }
}

/** Until the compiler has nothing left to do. */
async function warm(stage: Stage, generators: Generators): Promise<void> {
  for (let time = 0; time < 2; time++) await turn(stage, generators, noTurns())
}

const noTurns = (): Turns => ({ runs: [], spent: [] })

/** Declares at one of them, 32 in flight, and completes what was declared. */
async function turn(stage: Stage, generators: Generators, into: Turns): Promise<void> {
  const at = { targets: [stage.broker.url], inFlight: 32 }
  const { done, ...spent } = await spending(stage, () => generators.run({ ...at, requests: issues(stage.bots), count: perTurn, keep: true }))
  into.runs.push(done)
  into.spent.push(spent)
  await generators.run({ ...at, requests: completes(openedOf(done)) })
}

/** Both in turns, so that what else the machine does falls on both. */
async function held(short: Stage, long: Stage, generators: Generators) {
  const [without, beside] = [noTurns(), noTurns()]
  for (let round = 0; round < 3; round++) {
    await turn(short, generators, without)
    await turn(long, generators, beside)
    await turn(long, generators, beside)
    await turn(short, generators, without)
  }
  return sideBySide(without, beside)
}

/** With the processor time of one declaration, in milliseconds. */
function sideBySide(without: Turns, beside: Turns) {
  const { rate, p99 } = ratesOf(beside.runs, '201')
  const empty = ratesOf(without.runs, '201')
  const each = ({ spent }: Turns, of: keyof Spent): number => spent.reduce((sum, one) => sum + one[of], 0) / spent.length / perTurn
  return {
    rate,
    p99,
    'rate with none': empty.rate,
    'p99 with none': empty.p99,
    'broker, ms': each(beside, 'broker'),
    'with none': each(without, 'broker'),
    'Postgres, ms': each(beside, 'postgres'),
    'Postgres with none': each(without, 'postgres'),
    'share of empty': rate / empty.rate,
  }
}
