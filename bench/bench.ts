import { type ChildProcess, execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { test } from 'vitest'
import { startLab } from '../test/support/lab.ts'
import { makeSite, type RunningBroker, type Site } from '../test/support/program.ts'
import { openDatabase, openEmbedded } from '../test/support/stores.ts'

const quick = process.env['BENCH_QUICK'] === 'yes'
const agents = 16

/** The answer of the load generator to one order. */
interface Load {
  readonly seconds: number
  /** Milliseconds, one a request. */
  readonly latencies: readonly number[]
  readonly statuses: Readonly<Record<string, number>>
  readonly bodies: readonly string[]
}

interface Order {
  readonly targets: readonly string[]
  readonly inFlight: number
  readonly requests: readonly string[]
  readonly count?: number
  readonly keep?: boolean
}

interface Opened {
  readonly task: { readonly id: string }
  readonly task_token: string
  readonly leases: readonly { readonly credential: { readonly token: string } }[]
}

const results: Record<string, unknown> = {
  at: new Date().toISOString(),
  commit: execFileSync('git', ['rev-parse', '--short', 'HEAD']).toString().trim(),
  machine: { processors: cpus().length, model: cpus()[0]?.model, memoryGigabytes: Math.round(totalmem() / 2 ** 30), node: process.version },
  note: 'Postgres runs with fsync=off on the same machine as the broker and the load',
}

/** Keeps a figure and prints it. */
function tell(name: string, figures: Record<string, unknown>): void {
  results[name] = figures
  const words = Object.entries(figures).map(([key, value]) => `${key} ${typeof value === 'number' ? Number(value.toFixed(2)) : String(value)}`)
  console.log(`${name.padEnd(44)} ${words.join(' | ')}`)
}

const generators: ChildProcess[] = []
const busy = new Set<ChildProcess>()

async function load(order: Order): Promise<Load> {
  let generator = generators.find((idle) => !busy.has(idle))
  if (!generator) {
    generator = fork(path.join(import.meta.dirname, 'load.mjs'), { execArgv: [], serialization: 'advanced' })
    generators.push(generator)
  }
  busy.add(generator)
  const targets = order.targets.map((url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port) }))
  generator.send({ ...order, targets })
  const [result] = (await once(generator, 'message')) as [Load & { error?: string }]
  busy.delete(generator)
  if (result.error !== undefined) throw new Error(result.error)
  return result
}

const request = (route: string, body: string, token: string, type = 'application/json'): string =>
  `POST ${route} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${token}\r\ncontent-type: ${type}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

const percentile = (sorted: readonly number[], share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0

/** Several runs of the same thing as one. Anything but the status that was expected is an error of the bench. */
function figuresOf(runs: readonly Load[], status: string): { rate: number; p50: number; p95: number; p99: number } {
  for (const { statuses } of runs) {
    if (Object.keys(statuses).some((seen) => seen !== status)) throw new Error(`expected only ${status}, got ${JSON.stringify(statuses)}`)
  }
  const latencies = runs.flatMap(({ latencies }) => latencies).toSorted((one, other) => one - other)
  const seconds = runs.reduce((sum, run) => sum + run.seconds, 0)
  return { rate: latencies.length / seconds, p50: percentile(latencies, 0.5), p95: percentile(latencies, 0.95), p99: percentile(latencies, 0.99) }
}

async function siteOf(store: Parameters<typeof makeSite>[0]['store'], lab: string): Promise<Site> {
  const extra = 'limits: { requests_per_second: 100000, burst: 1000000, in_flight: 1024 }\nlog: { level: error }\n'
  const site = await makeSite({ store, lab, extra })
  const names = Array.from({ length: agents }, (_, index) => `bot-${index}`)
  const lines = names.map(
    (name) => `  ${name}: { issuer: local, match: { sub: "agent:${name}" }, owner: o@example.com, groups: [robots], max_live_leases: 100000 }`,
  )
  await site.write(
    'catalogue.yaml',
    `agents:\n${lines.join('\n')}
kinds: { work: { owner: o@example.com, max_duration: 30m, grants: [api, crm] } }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 30m }
  crm: { provider: lab, max_ttl: 30m }
`,
  )
  return site
}

const declaration = (grant: string, duration = '30m'): string =>
  JSON.stringify({ kind: 'work', purpose: 'the bench', duration, grants: [{ name: grant }] })

async function tokensOf(site: Site): Promise<{ bots: string[]; resource: string }> {
  const bots = await Promise.all(Array.from({ length: agents }, (_, index) => site.token(`agent:bot-${index}`)))
  return { bots, resource: await site.token('resource:api') }
}

const issues = (bots: readonly string[], grant = 'api', duration?: string): string[] =>
  bots.map((bot) => request('/tasks', declaration(grant, duration), bot))
const completes = (opened: readonly Opened[]): string[] =>
  opened.map(({ task, task_token }) => request(`/tasks/${task.id}/complete`, '{}', task_token))
const introspects = (opened: readonly Opened[], resource: string): string[] =>
  opened.map(({ leases }) => request('/introspect', `token=${leases[0]!.credential.token}`, resource, 'application/x-www-form-urlencoded'))
const openedOf = (run: Load): Opened[] => run.bodies.map((body) => JSON.parse(body) as Opened)

/** Kilobytes that a process holds in memory, as Linux counts them. */
const residentMegabytes = (broker: RunningBroker): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${broker.process.pid}/status`, 'utf8'))![1]) / 1_024

async function verbs(name: string, targets: readonly string[], bots: readonly string[], resource: string, bare: string | undefined): Promise<void> {
  const size = quick ? 1 : 4
  for (const inFlight of [1, 8, 32]) {
    const count = size * (inFlight === 1 ? 300 : 1_200)
    const ours: Record<string, Load[]> = { issue: [], introspect: [], complete: [] }
    const theirs: Record<string, Load[]> = { issue: [], introspect: [], complete: [] }
    // In turns, so that what else the machine does falls on both.
    for (let turn = 0; turn < 2; turn++) {
      const issued = await load({ targets, inFlight, requests: issues(bots), count, keep: true })
      ours['issue']!.push(issued)
      const opened = openedOf(issued)
      if (bare) {
        const stored = await load({ targets: [bare], inFlight, requests: [request('/issue', declaration('api'), bots[0]!)], count, keep: true })
        theirs['issue']!.push(stored)
        const ids = stored.bodies.map((body) => (JSON.parse(body) as { id: string }).id)
        ours['introspect']!.push(await load({ targets, inFlight, requests: introspects(opened, resource) }))
        theirs['introspect']!.push(
          await load({
            targets: [bare],
            inFlight,
            requests: ids.map((id) =>
              request(`/introspect/${id}`, `token=${opened[0]!.leases[0]!.credential.token}`, resource, 'application/x-www-form-urlencoded'),
            ),
          }),
        )
        ours['complete']!.push(await load({ targets, inFlight, requests: completes(opened) }))
        theirs['complete']!.push(await load({ targets: [bare], inFlight, requests: ids.map((id) => request(`/complete/${id}`, '{}', bots[0]!)) }))
      } else {
        ours['introspect']!.push(await load({ targets, inFlight, requests: introspects(opened, resource) }))
        ours['complete']!.push(await load({ targets, inFlight, requests: completes(opened) }))
      }
    }
    for (const verb of ['issue', 'introspect', 'complete']) {
      const figures = figuresOf(ours[verb]!, verb === 'issue' ? '201' : '200')
      if (!bare) {
        tell(`${name}: ${verb}, ${inFlight} in flight`, figures)
        continue
      }
      const against = figuresOf(theirs[verb]!, verb === 'issue' ? '201' : '200')
      tell(`${name}: ${verb}, ${inFlight} in flight`, { ...figures, bare: against.rate, barep99: against.p99, ratio: figures.rate / against.rate })
    }
  }
}

/** Rows of tasks that are long over: one lease, one decision and five entries each. */
async function grow(owner: postgres.Sql, from: number, to: number): Promise<void> {
  for (let start = from; start < to; start += 100_000) {
    const end = Math.min(to, start + 100_000) - 1
    await owner.begin(async (sql) => {
      await sql`set local session_replication_role = replica`
      const one = sql`(select * from tasks where state = 'completed' limit 1)`
      const id = (prefix: string) => sql`${prefix}::text || lpad(n::text, 26, '0')`
      await sql`insert into tasks select (jsonb_populate_record(t, jsonb_build_object('id', ${id('task_')}, 'token_hash', 'past-' || n))).* from ${one} as t, generate_series(${start}::int, ${end}::int) as n`
      const lease = sql`(select * from leases where state = 'revoked' and local limit 1)`
      await sql`insert into leases select (jsonb_populate_record(l, jsonb_build_object('id', ${id('lease_')}, 'task_id', ${id('task_')}))).* from ${lease} as l, generate_series(${start}::int, ${end}::int) as n`
      const decision = sql`(select * from decisions limit 1)`
      await sql`insert into decisions select (jsonb_populate_record(d, jsonb_build_object('id', ${id('decision_')}, 'task_id', ${id('task_')}))).* from ${decision} as d, generate_series(${start}::int, ${end}::int) as n`
      const entry = sql`(select * from entries where lease_id is not null limit 1)`
      await sql`insert into entries select (jsonb_populate_record(e, jsonb_build_object('id', ('-' || n || k)::bigint, 'task_id', ${id('task_')}, 'lease_id', ${id('lease_')}))).* from ${entry} as e, generate_series(${start}::int, ${end}::int) as n, generate_series(1, 5) as k`
    })
  }
  await owner.unsafe('vacuum analyze')
}

async function startUp(site: Site): Promise<{ broker: RunningBroker; seconds: number }> {
  const started = performance.now()
  const broker = await site.start()
  return { broker, seconds: (performance.now() - started) / 1_000 }
}

test('the bench', async () => {
  const [store, lab] = await Promise.all([openDatabase(), startLab()])
  const { url } = store.settings as { url: string }
  const owner = postgres(url, { max: 2, onnotice: () => {} })
  const site = await siteOf(store.settings, lab.url)
  const first = await startUp(site)
  let { broker } = first
  const { bots, resource } = await tokensOf(site)

  // Warm, and large enough to know what one task writes and answers.
  const warm = await load({ targets: [broker.url], inFlight: 8, requests: issues(bots), count: 600, keep: true })
  const [row] = await owner<{ written: number }[]>`
    select (avg(pg_column_size(t.*)) + avg(pg_column_size(l.*)) + (select avg(pg_column_size(d.*)) from decisions d)
      + (select avg(pg_column_size(e.*)) from entries e) * 3)::int as written from tasks t join leases l on l.task_id = t.id`
  const answered = Buffer.byteLength(warm.bodies[0]!)
  const bare = fork(path.join(import.meta.dirname, 'bare.mjs'), [url, String(row!.written), String(answered)], { execArgv: [] })
  const [{ port }] = (await once(bare, 'message')) as [{ port: number }]
  const bareUrl = `http://127.0.0.1:${port}`
  await load({ targets: [bareUrl], inFlight: 8, requests: [request('/issue', declaration('api'), bots[0]!)], count: 600 })
  await load({ targets: [broker.url], inFlight: 8, requests: completes(openedOf(warm)) })
  tell('bytes of one task', { written: row!.written, answered })

  await verbs('Postgres', [broker.url], bots, resource, bareUrl)
  const hot = [await load({ targets: [broker.url], inFlight: 32, requests: issues(bots.slice(0, 1)), count: quick ? 1_000 : 4_000 })]
  tell('Postgres: issue, one agent alone, 32 in flight', figuresOf(hot, '201'))
  tell('resident memory after that', { megabytes: residentMegabytes(broker) })

  if (!quick) {
    const two = await site.start()
    await verbs('Postgres, two brokers', [broker.url, two.url], bots, resource, undefined)
    await two.stop()

    // Dead by complete and by deadline, with an outside credential.
    const outside = await load({ targets: [broker.url], inFlight: 1, requests: issues(bots, 'crm'), count: 200, keep: true })
    await load({ targets: [broker.url], inFlight: 1, requests: completes(openedOf(outside)) })
    await load({ targets: [broker.url], inFlight: 1, requests: issues(bots, 'crm', '2s'), count: 200 })
    await pause(4_000)
    for (const cause of ['completed', 'deadline']) {
      const rows = await owner<{ ms: number }[]>`
        select extract(epoch from ended_at - closing_at)::float8 * 1000 as ms from leases where not local and cause = ${cause} order by 1`
      const sorted = rows.map(({ ms }) => ms)
      tell(`time to dead by ${cause}, ms`, {
        leases: sorted.length,
        p50: percentile(sorted, 0.5),
        p99: percentile(sorted, 0.99),
        most: sorted.at(-1) ?? 0,
      })
    }

    // The storm.
    const storm = 10_000
    await owner`update tasks set deadline = now() where state = 'open'`
    await drained(owner)
    const idle = figuresOf([await load({ targets: [broker.url], inFlight: 4, requests: issues(bots), count: 2_000 })], '201')
    await owner`update tasks set deadline = now() where state = 'open'`
    await drained(owner)
    for (const grant of ['api', 'crm']) await load({ targets: [broker.url], inFlight: 16, requests: issues(bots, grant), count: storm / 2 })
    await owner`update tasks set deadline = date_trunc('second', now()) + interval '2 seconds' where state = 'open'`
    const [{ at }] = (await owner`select max(deadline) as at from tasks where state = 'open'`) as unknown as [{ at: Date }]
    await pause(at.getTime() - Date.now())
    const meanwhile = figuresOf([await load({ targets: [broker.url], inFlight: 4, requests: issues(bots), count: 2_000 })], '201')
    await drained(owner)
    const [last] = await owner<{ seconds: number; leases: number }[]>`
      select extract(epoch from max(l.ended_at) - ${at}::timestamptz)::float8 as seconds, count(*)::int as leases from leases l join tasks t on t.id = l.task_id where t.deadline = ${at}`
    tell('storm of deadlines in one second', { ...last, idlep99: idle.p99, meanwhilep99: meanwhile.p99, times: meanwhile.p99 / idle.p99 })

    // Growth.
    const rates: number[] = []
    for (const [from, to] of [
      [0, 0],
      [0, 100_000],
      [100_000, 1_000_000],
    ] as const) {
      if (to > from) await grow(owner, from + 1, to + 1)
      const runs = [await load({ targets: [broker.url], inFlight: 8, requests: issues(bots), count: 4_000, keep: true })]
      await load({ targets: [broker.url], inFlight: 8, requests: completes(openedOf(runs[0]!)) })
      const { rate, p99 } = figuresOf(runs, '201')
      rates.push(rate)
      tell(`issue with ${to} past leases`, { rate, p99, share: rate / rates[0]! })
    }
    tell('resident memory at the end', { megabytes: residentMegabytes(broker) })
  }

  await broker.stop()
  const again = await startUp(site)
  broker = again.broker
  tell('start to ready on Postgres, seconds', { first: first.seconds, again: again.seconds })
  await broker.stop()

  const embedded = await openEmbedded()
  const home = await siteOf({ embedded: `${(embedded.settings as { embedded: string }).embedded}-new` }, lab.url)
  const boot = await startUp(home)
  await boot.broker.stop()
  const reopened = await startUp(home)
  tell('start to ready, embedded, seconds', { first: boot.seconds, again: reopened.seconds })
  if (!quick) {
    const tokens = await tokensOf(home)
    await verbs('embedded', [reopened.broker.url], tokens.bots, tokens.resource, undefined)
    tell('resident memory, embedded', { megabytes: residentMegabytes(reopened.broker) })
  }
  await reopened.broker.stop()

  writeFileSync(path.join(import.meta.dirname, 'results.json'), `${JSON.stringify(results, undefined, 2)}\n`)
  for (const child of [bare, ...generators]) child.kill()
  await Promise.all([owner.end(), lab.stop(), site.remove(), home.remove(), embedded.dispose()])
  await store.dispose()
})

/** Waits until nothing is open and nothing is to be ended. */
async function drained(owner: postgres.Sql): Promise<void> {
  await owner`notify mayfly_due`
  for (;;) {
    const [row] = await owner<
      { left: boolean }[]
    >`select exists (select from leases where state in ('reserved', 'revoking') or (state = 'active' and due_at <= now()))
      or exists (select from tasks where state = 'closing' or (state = 'open' and deadline <= now())) as left`
    if (!row!.left) return
    await pause(100)
  }
}
