import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { deadlinePasses } from '../test/support/deadline.ts'
import type { Lab } from '../test/support/lab.ts'
import { makeSite, type RunningBroker, type Site } from '../test/support/program.ts'
import { openDatabase, type OpenedStore } from '../test/support/stores.ts'
import { completes, declaration, type Generators, issues, openedOf, post } from './load.ts'

const agents = 16

/** Backends of kind `http`: one that answers, and one that need not. */
export interface Labs {
  readonly lab: Lab
  readonly other?: Lab
}

/** What a site has besides, as YAML: providers with grants of theirs by name, issuers, and further settings. */
interface Besides {
  readonly providers?: string
  readonly grants?: Readonly<Record<string, string>>
  readonly issuers?: string
  readonly settings?: string
}

/** A site with agents that nothing limits but the machine. */
export async function siteOf(
  store: Parameters<typeof makeSite>[0]['store'],
  { lab, other }: Labs,
  { providers = '', grants = {}, issuers = '', settings = '' }: Besides = {},
): Promise<Site> {
  const limits = 'limits: { requests_per_second: 100000, burst: 1000000, introspections_per_second: 100000, in_flight: 1024 }'
  const extra = `${limits}\nlog: { level: error }\n${settings}`
  const site = await makeSite({ store, lab: lab.url, ...(other && { other: other.url }), providers, issuers, extra })
  const besides = { ...grants, ...(other && { other: 'provider: other' }) }
  const lines = names.map(
    (name) => `  ${name}: { issuer: local, match: { sub: "agent:${name}" }, owner: o@example.com, groups: [robots], max_live_leases: 100000 }`,
  )
  await site.write(
    'catalogue.yaml',
    `agents:\n${lines.join('\n')}
kinds: { work: { owner: o@example.com, max_duration: 30m, grants: [${['api', 'crm', ...Object.keys(besides)].join(', ')}] } }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 30m }
  crm: { provider: lab, max_ttl: 30m }
${Object.entries(besides)
  .map(([name, rest]) => `  ${name}: { max_ttl: 30m, ${rest} }\n`)
  .join('')}`,
  )
  return site
}

const names = Array.from({ length: agents }, (_, index) => `bot-${index}`)

/** Tokens of the agents, of a resource server and of an operator. */
export async function tokensOf(site: Site): Promise<{ bots: string[]; resource: string; operator: string }> {
  const bots = await Promise.all(names.map((name) => site.token(`agent:${name}`)))
  return { bots, resource: await site.token('resource:api'), operator: await site.token('operator:ops') }
}

/** The environment of a broker that is the same program, but whose history nobody signs. */
export const unsequenced = { NODE_OPTIONS: `--import=${path.join(import.meta.dirname, 'no-sequencer.mjs')}` }

/** A broker that answers, and the seconds until it did. */
export async function startUp(site: Site, environment: Readonly<Record<string, string>> = {}): Promise<{ broker: RunningBroker; seconds: number }> {
  const started = performance.now()
  const broker = await site.start({}, environment)
  return { broker, seconds: (performance.now() - started) / 1_000 }
}

/** A broker on a database of its own. */
export interface Stage {
  readonly store: OpenedStore
  readonly owner: postgres.Sql
  readonly site: Site
  readonly broker: RunningBroker
  readonly bots: readonly string[]
}

export async function raise(labs: Labs, environment: Readonly<Record<string, string>> = {}): Promise<Stage> {
  const store = await openDatabase()
  const site = await siteOf(store.settings, labs)
  const owner = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
  return { store, owner, site, broker: await site.start({}, environment), bots: (await tokensOf(site)).bots }
}

export async function raze({ store, owner, site }: Stage): Promise<void> {
  await owner.end()
  await site.remove()
  await store.dispose()
}

/** What one declaration costs on the wire to Postgres, and in the answer: bytes, by counting them. Declarations one at a time, so that none shares a statement. */
export async function bytesOfDeclaration(
  site: Site,
  url: string,
  generators: Generators,
  bots: readonly string[],
): Promise<{ sent: number; received: number; answered: number }> {
  const counter = await countBytes(url)
  const broker = await site.start({ store: { url: counter.url } })
  const target = { targets: [broker.url], inFlight: 1, keep: true }
  const warm = await generators.run({ ...target, requests: issues(bots), count: 200 })
  const before = { ...counter.bytes }
  const count = 300
  const counted = await generators.run({ ...target, requests: issues(bots), count })
  const bytes = { sent: (counter.bytes.sent - before.sent) / count, received: (counter.bytes.received - before.received) / count }
  await generators.run({ ...target, requests: completes([...openedOf(warm), ...openedOf(counted)]) })
  await broker.stop()
  await counter.stop()
  return { sent: Math.round(bytes.sent), received: Math.round(bytes.received), answered: Buffer.byteLength(counted.bodies[0]!) }
}

/** Passes a connection to Postgres on, and counts. */
async function countBytes(target: string): Promise<{ url: string; bytes: { sent: number; received: number }; stop(): Promise<void> }> {
  const url = new URL(target)
  const bytes = { sent: 0, received: 0 }
  const open = new Set<Socket>()
  const server = createServer((client) => {
    const store = connect(Number(url.port), url.hostname)
    for (const socket of [client, store]) open.add(socket.on('error', () => socket.destroy()).on('close', () => open.delete(socket)))
    client.on('data', (chunk) => (bytes.sent += chunk.length)).pipe(store)
    store.on('data', (chunk) => (bytes.received += chunk.length)).pipe(client)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const counted = new URL(target)
  counted.port = String((server.address() as { port: number }).port)
  return {
    url: counted.href,
    bytes,
    async stop() {
      for (const socket of open) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** The server that does nothing but what the machine allows: bench/bare.mjs. */
export async function startBare(
  url: string,
  bytes: { sent: number; received: number; answered: number },
): Promise<{ url: string; pid: number; stop(): void }> {
  const child = fork(path.join(import.meta.dirname, 'bare.mjs'), [url, bytes.sent, bytes.received, bytes.answered].map(String), { execArgv: [] })
  const [{ port }] = (await once(child, 'message')) as [{ port: number }]
  return { url: `http://127.0.0.1:${port}`, pid: child.pid!, stop: () => child.kill() }
}

export const bareIssue = (bot: string): string[] => [post('/issue', declaration('api'), bot)]

/** Megabytes that a process holds in memory, as Linux counts them. */
export const residentMegabytes = (pid: number): number => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1_024

/** Milliseconds of processor time that a process has used, all its threads together. */
export const processorTime = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** The same of a Postgres, by the parent of one of its backends. */
export async function postgresTime(owner: postgres.Sql): Promise<number> {
  const [row] = await owner<{ pid: number }[]>`select pg_backend_pid() as pid`
  const parent = parentOf(String(row!.pid))
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && parentOf(name) === parent)
    .reduce((sum, pid) => sum + (unlessGone(() => processorTime(Number(pid))) ?? 0), 0)
}

const parentOf = (pid: string): string | undefined => unlessGone(() => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[1])

/** What is read of a process. Undefined where it ended between the look at the folder and this one. */
function unlessGone<Read>(read: () => Read): Read | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** Processor time of a broker and its Postgres, milliseconds. */
export interface Spent {
  readonly broker: number
  readonly postgres: number
}

/** What they spend while something is done. */
export async function spending<Done>(
  { broker, owner }: Pick<Stage, 'broker' | 'owner'>,
  work: () => Promise<Done>,
): Promise<Spent & { readonly done: Done }> {
  const before = { broker: processorTime(broker.process.pid!), postgres: await postgresTime(owner) }
  const done = await work()
  return { done, broker: processorTime(broker.process.pid!) - before.broker, postgres: (await postgresTime(owner)) - before.postgres }
}

/** Waits until nothing is open and nothing is to be ended. Looks seldom, for in a storm each look reads what is left of it; how long one took is read of its rows. */
export async function drained(owner: postgres.Sql): Promise<void> {
  await owner`notify mayfly_due`
  for (;;) {
    const [row] = await owner<{ left: boolean }[]>`
      select exists (select from leases where state in ('reserved', 'revoking') or (state = 'active' and due_at <= now()))
        or exists (select from tasks where state = 'closing' or (state = 'open' and deadline <= now())) as left`
    if (!row!.left) return
    await pause(300)
  }
}

/** Ends whatever is open. */
export async function endAll(owner: postgres.Sql): Promise<void> {
  await passTogether(owner, 0)
  await drained(owner)
}

/**
 * Lets whatever is open pass its deadline at one moment, and its leases their ends with it, as they do that were asked for as long as their task.
 *
 * @param seconds from now, to the full one
 * @returns that moment
 */
export async function passTogether(owner: postgres.Sql, seconds: number): Promise<Date> {
  const [passing] = await owner<{ at: Date }[]>`select date_trunc('second', now()) + make_interval(secs => ${seconds}) as at`
  await owner.unsafe(deadlinePasses('true', `'${passing!.at.toISOString()}'::timestamptz`))
  return passing!.at
}

/** Until every entry has its place in the log. */
export async function caughtUp(owner: postgres.Sql): Promise<void> {
  while ((await lagOf(owner)) > 0) await pause(50)
}

/** Seconds since the oldest entry without a place in the log was written; 0 where all have theirs. */
export async function lagOf(owner: postgres.Sql): Promise<number> {
  const [next] = await owner<{ seconds: number }[]>`
    with last as materialized (select xid, id from entries where id = (select entry_id from leaves order by index desc limit 1)),
    after as materialized (select coalesce((select xid from last), '0'::xid8) as xid, coalesce((select id from last), '') as id)
    select extract(epoch from clock_timestamp() - waiting.at)::float8 as seconds from after cross join lateral (
      select at from entries where (entries.xid, entries.id) > (after.xid, after.id) order by entries.xid, entries.id limit 1) as waiting`
  return next?.seconds ?? 0
}
