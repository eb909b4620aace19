import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import type postgres from 'postgres'
import { test } from 'vitest'
import { type Lab, startLab } from '../test/support/lab.ts'
import { mayfly } from '../test/support/program.ts'
import { type Life, lifeIn, writeExport } from './export-file.ts'
import { keep, ratesOf, spread, tell } from './figures.ts'
import { completes, type Generators, issues, type Load, openedOf, startGenerators } from './load.ts'
import { preparePast, reading } from './reading.ts'
import { caughtUp, lagOf, raise, raze, spending, type Stage, unsequenced } from './stage.ts'

/** A tenth of everything, to see whether it works. */
const quick = process.env['BENCH_QUICK'] === 'yes'
const scaled = (count: number): number => (quick ? Math.ceil(count / 10) : count)

test('the bench of the evidence', async () => {
  const lab = await startLab()
  const generators = startGenerators()
  const life = await sequencing(lab, generators)
  // The sequencer needs a minute for a long past, in which the other processor would have nothing to do.
  const [past, file] = await Promise.all([preparePast(lab, scaled(200_000)), prepareExport(life, scaled(1_000_000))])
  await verification(file)
  await reading(past, generators)
  if (!quick) keep('results-evidence.json', 'broker, Postgres, load and whoever reads share the machine; Postgres is as durable as it is by default')
  generators.stop()
  await lab.stop()
})

/** Declarations of one turn: some seconds of them, so that the sequencer is met several times. */
const perTurn = scaled(3_000)

/** What one kind of turn came to, all of them together. */
const sums = () => ({ runs: [] as Load[], broker: 0, postgres: 0, lags: [] as number[] })

/**
 * What the log costs those who declare: two brokers on one Postgres, of which one signs its history and the other does not, in turns, so that what else the
 * machine does falls on both. A turn is measured once the sequencer is at work, and the next begins when it has caught up. Then the history of the second
 * is signed as fast as it goes.
 *
 * @returns a life as the first one exports it
 */
async function sequencing(lab: Lab, generators: Generators): Promise<Life> {
  const [signing, silent] = [await raise({ lab }), await raise({ lab }, unsequenced)]
  const life = await liveOnce(signing, generators)
  const turn = async (stage: Stage, into: ReturnType<typeof sums>): Promise<void> => {
    const { owner, broker, bots } = stage
    const at = { targets: [broker.url], inFlight: 32, requests: issues(bots) }
    await generators.run({ ...at, count: scaled(500) })
    const spent = await spending(stage, async () => {
      const measured = generators.run({ ...at, count: perTurn })
      into.lags.push(...(await lagsDuring(owner, measured)))
      return await measured
    })
    into.runs.push(spent.done)
    into.broker += spent.broker
    into.postgres += spent.postgres
    await caughtUp(signing.owner)
  }
  // Until the compiler has nothing left to do.
  for (let warm = 0; warm < 2; warm++) for (const stage of [signing, silent]) await turn(stage, sums())
  const [withLog, without] = [sums(), sums()]
  for (let round = 0; round < 2; round++) {
    await turn(signing, withLog)
    await turn(silent, without)
    await turn(silent, without)
    await turn(signing, withLog)
  }

  const [ours, theirs] = [ratesOf(withLog.runs, '201'), ratesOf(without.runs, '201')]
  const each = (milliseconds: number): number => milliseconds / (withLog.runs.length * perTurn)
  tell('Evidence: issue beside the sequencer, 32 in flight', {
    ...ours,
    'rate without': theirs.rate,
    'p99 without': theirs.p99,
    ratio: ours.rate / theirs.rate,
  })
  tell('Evidence: processor time of one declaration, ms', {
    broker: each(withLog.broker),
    'broker without': each(without.broker),
    Postgres: each(withLog.postgres),
    'Postgres without': each(without.postgres),
  })
  tell('Evidence: lag of the log meanwhile, seconds', { looks: withLog.lags.length, ...spread(withLog.lags), most: Math.max(...withLog.lags) })
  await backlog(silent)
  await signing.broker.stop()
  await raze(signing)
  return life
}

/** A task that is declared and completed, as the broker exports it. */
async function liveOnce({ owner, broker, site, bots }: Stage, generators: Generators): Promise<Life> {
  const at = { targets: [broker.url], inFlight: 1 }
  const issued = await generators.run({ ...at, requests: issues(bots.slice(0, 1)), keep: true })
  await generators.run({ ...at, requests: completes(openedOf(issued)) })
  await caughtUp(owner)
  const { stdout } = await mayfly(['ledger', 'export'], { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:ops') })
  return lifeIn(stdout)
}

/** Signs what the broker without a sequencer has left behind, with nothing else to do. */
async function backlog(silent: Stage): Promise<void> {
  await silent.broker.stop()
  const [{ entries, placed }] = (await silent.owner`
    select (select count(*)::int from entries) as entries, (select count(*)::int from leaves) as placed`) as unknown as [
    { entries: number; placed: number },
  ]
  if (placed > 0) throw new Error('the broker that was to sign nothing has signed')
  const broker = await silent.site.start()
  const { seconds, signed } = await signingRate(silent.owner)
  tell('Evidence: a backlog signed, nothing else to do', { entries, 'a second': signed / seconds })
  await broker.stop()
  await raze(silent)
}

/** Seconds from now until every entry has its place, and how many were given theirs. */
async function signingRate(owner: postgres.Sql): Promise<{ seconds: number; signed: number }> {
  const size = async (): Promise<number> =>
    ((await owner`select coalesce(max(size), 0)::int as size from checkpoints`) as unknown as [{ size: number }])[0].size
  const [from, started] = [await size(), performance.now()]
  await caughtUp(owner)
  return { seconds: (performance.now() - started) / 1_000, signed: (await size()) - from }
}

/** Ages of the oldest entry without a place, looked at again and again until something is over; seconds. */
async function lagsDuring(owner: postgres.Sql, work: Promise<unknown>): Promise<number[]> {
  const lags: number[] = []
  const over = work.then(() => true)
  do lags.push(await lagOf(owner))
  while (!(await Promise.race([over, pause(250, false)])))
  return lags
}

/** A ledger in a file, in a folder of its own. */
async function prepareExport(life: Life, least: number) {
  const folder = mkdtempSync(path.join(tmpdir(), 'mayfly-bench-'))
  const file = path.join(folder, 'export.ndjson')
  return { folder, file, ...(await writeExport(file, life, least)) }
}

/** `mayfly ledger verify` over it. */
async function verification({ folder, file, key, entries, bytes }: Awaited<ReturnType<typeof prepareExport>>): Promise<void> {
  const started = performance.now()
  const verifying = spawn(process.execPath, [program, 'ledger', 'verify', '--export', file, '--key', key, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const closed = once(verifying, 'close') as Promise<[number]>
  const said = text(verifying.stdout)
  let peak = 0
  do peak = Math.max(peak, peakMegabytes(verifying.pid!) ?? 0)
  while (await Promise.race([closed.then(() => false), pause(100, true)]))
  const seconds = (performance.now() - started) / 1_000
  const [status] = await closed
  if (status !== 0) throw new Error(`the ledger was not found to be as it should be: ${(await said).slice(0, 2_000)}`)
  tell('Evidence: verify, from a file', { entries, 'file, MB': bytes / 1e6, seconds, 'entries a second': entries / seconds, 'peak, MB': peak })
  rmSync(folder, { recursive: true })
}

const program = path.join(import.meta.dirname, '../dist/cli/mayfly.js')

/** The most that a process has ever held in memory; undefined where it is gone. Megabytes. */
function peakMegabytes(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1_024
  } catch {
    return undefined
  }
}
