import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import path from 'node:path'
import type { Load } from './load.ts'

/** What the issue path and the others are held to: a figure of a table, and the least or most that it should be. */
interface Goal {
  readonly table: string
  readonly figure: string
  readonly least?: number
  readonly most?: number
}

const goals: readonly Goal[] = [
  { table: 'Postgres: issue, 32 in flight', figure: 'ratio', least: 0.5 },
  { table: 'policy decision, nothing remembered, ms', figure: 'p99', most: 10 },
  { table: 'introspection after complete was answered, at both brokers', figure: 'stale', most: 0 },
  { table: 'time to dead by deadline, ms', figure: 'p99', most: 1_000 },
  { table: 'storm of deadlines in one second', figure: 'seconds to the last', most: 15 },
  { table: 'storm of deadlines in one second', figure: 'p99 to idle', most: 5 },
  { table: 'issue crm beside a backend that hangs', figure: 'p99 to alone', most: 1.2 },
  { table: 'issue api beside a backend that hangs', figure: 'p99 to alone', most: 1.2 },
  { table: 'issue with 1000000 past leases', figure: 'share of empty', least: 0.9 },
  { table: 'start to ready on Postgres, seconds', figure: 'again', most: 1.5 },
  { table: 'resident memory at the end', figure: 'megabytes', most: 300 },
  { table: 'Vault: a whole life, 1 in flight', figure: 'ratio', most: 1.3 },
  { table: 'Vault: a whole life, 8 in flight', figure: 'ratio', most: 1.3 },
  { table: 'Vault: login after complete was answered', figure: 'let in', most: 0 },
  { table: 'Vault: time to dead by deadline, ms', figure: 'p99', most: 1_000 },
  { table: 'Vault: 1,000 deadlines in one second, one database', figure: 'share of raw', least: 0.9 },
  { table: 'Vault: the same while others declare', figure: 'p99 to idle', most: 2 },
  { table: 'Vault silent: p99 of another backend', figure: 'ratio', most: 1.2 },
  { table: 'AWS: a session, 1 in flight', figure: 'ratio', most: 1.3 },
  { table: 'AWS: a session, 8 in flight', figure: 'ratio', most: 1.3 },
  { table: 'AWS: task end to refused, 100 ends a second, ms', figure: 'p99', most: 1_500 },
  { table: 'AWS: 1,000 task ends, 100 a second', figure: 'documents', most: 10 },
  { table: 'AWS: a full kill list drawn, ms', figure: 'p99', most: 20 },
  { table: 'AWS: the whole ladder climbed, ms', figure: 'p99', most: 20 },
  { table: 'AWS: container endpoint, 1 in flight, ms', figure: 'p99', most: 5 },
  { table: 'AWS: container endpoint, 1 in flight, ms', figure: 'calls of AWS', most: 0 },
  { table: 'AWS: container endpoint, broker and AWS frozen, ms', figure: 'p99', most: 5 },
  { table: 'AWS: modules of its SDK loaded by the command line', figure: 'most', most: 0 },
  { table: 'Evidence: issue beside the sequencer, 32 in flight', figure: 'ratio', least: 0.95 },
  { table: 'Evidence: lag of the log meanwhile, seconds', figure: 'most', most: 2 },
  { table: 'Evidence: verify, from a file', figure: 'peak, MB', most: 512 },
  { table: 'Evidence: the slowest question, p99, ms', figure: 'API', most: 100 },
  { table: 'Evidence: the slowest question, p99, ms', figure: 'page', most: 100 },
  { table: 'Evidence: bytes of a console page', figure: 'most', most: 50_000 },
]

type Figures = Readonly<Record<string, number>>

const tables = new Map<string, Figures>()

/** Keeps the figures of one table, and prints them. */
export function tell(table: string, figures: Figures): void {
  tables.set(table, figures)
  const words = Object.entries(figures).map(([name, value]) => `${name} ${short(value)}`)
  console.log(`${table.padEnd(58)} ${words.join(' | ')}`)
}

/** Prints how the figures stand to their goals, and writes them into a file beside this one. @param note who shares the machine; `load` is its average of the last five minutes */
export function keep(file: string, note: string): void {
  const about = {
    at: new Date().toISOString(),
    commit: execFileSync('git', ['rev-parse', '--short', 'HEAD']).toString().trim(),
    machine: {
      processors: cpus().length,
      model: cpus()[0]?.model,
      memoryGigabytes: Math.round(totalmem() / 2 ** 30),
      load: loadavg()[1],
      node: process.version,
    },
    note,
  }
  writeFileSync(path.join(import.meta.dirname, file), `${JSON.stringify({ ...about, ...conclude() }, undefined, 2)}\n`)
}

function conclude(): { readonly tables: Readonly<Record<string, Figures>>; readonly goals: readonly object[] } {
  const judged = goals.flatMap((goal) => {
    const value = tables.get(goal.table)?.[goal.figure]
    if (value === undefined) return []
    return [{ ...goal, value, met: value >= (goal.least ?? Number.NEGATIVE_INFINITY) && value <= (goal.most ?? Number.POSITIVE_INFINITY) }]
  })
  console.log('')
  for (const { table, figure, least, most, value, met } of judged) {
    const bound = least === undefined ? `at most ${most}` : `at least ${least}`
    console.log(`${met ? 'met   ' : 'MISSED'} ${table}: ${figure} ${short(value)}, to be ${bound}`)
  }
  return { tables: Object.fromEntries(tables), goals: judged }
}

const short = (value: number): string => String(Number(value.toPrecision(value >= 1_000 ? 5 : 3)))

const percentile = (sorted: readonly number[], share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0

/** Median and tail of measurements in whatever unit they have. */
export function spread(values: readonly number[]): { p50: number; p95: number; p99: number } {
  const sorted = values.toSorted((one, other) => one - other)
  return { p50: percentile(sorted, 0.5), p95: percentile(sorted, 0.95), p99: percentile(sorted, 0.99) }
}

/** Several runs of the same thing as one: requests a second, and milliseconds. Anything but the status that was expected is an error of the bench. */
export function ratesOf(runs: readonly Load[], status: string): { rate: number; p50: number; p95: number; p99: number } {
  for (const { statuses } of runs) {
    if (Object.keys(statuses).some((seen) => seen !== status)) throw new Error(`expected only ${status}, got ${JSON.stringify(statuses)}`)
  }
  const latencies = runs.flatMap((run) => run.latencies)
  return { rate: latencies.length / runs.reduce((sum, run) => sum + run.seconds, 0), ...spread(latencies) }
}
