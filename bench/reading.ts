import { setTimeout as pause } from 'node:timers/promises'
import { Hono } from 'hono'
import postgres from 'postgres'
import { loadConfig } from '../src/config.ts'
import { openConsoleKey } from '../src/console/key.ts'
import { createSessions } from '../src/console/session.ts'
import { connect } from '../src/ledger/connect.ts'
import { providerKinds } from '../src/providers/kinds.ts'
import { actorNamed } from '../test/support/house.ts'
import { nameOf, writeLiving, writePast } from '../test/load/past.ts'
import type { Lab } from '../test/support/lab.ts'
import type { RunningBroker, Site } from '../test/support/program.ts'
import { openDatabase, type OpenedStore } from '../test/support/stores.ts'
import { ratesOf, tell } from './figures.ts'
import { completes, type Generators, get, issues, openedOf, post, visit } from './load.ts'
import { siteOf, tokensOf } from './stage.ts'

/** Everything that the tables about readers need. */
interface Stage {
  readonly owner: postgres.Sql
  readonly broker: RunningBroker
  readonly generators: Generators
  /** An operator's, for the API. */
  readonly token: string
  /** The same person's session, for the console. */
  readonly cookie: string
}

/** People sign in by an issuer that is never asked: the bench writes its session itself. */
const withConsole = {
  issuers: '  - { name: corp, profile: oidc, issuer: "https://login.example.com", keys: ./jwks.json }\n',
  settings: 'console: { issuer: corp, client_id: mayfly }\n',
}

/** A broker before a long past, which its log covers. */
interface Past {
  readonly store: OpenedStore
  readonly owner: postgres.Sql
  readonly site: Site
  readonly broker: RunningBroker
}

/** Writes a past of so many tasks, each with a lease, a decision and five entries, and has it signed. */
export async function preparePast(lab: Lab, tasks: number): Promise<Past> {
  const store = await openDatabase()
  await (await connect(store.settings)).close()
  const owner = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
  await writePast(owner, tasks)
  await writeLiving(owner, 2_500, true)
  await furnish(owner)
  const site = await siteOf(store.settings, { lab }, withConsole)
  const broker = await site.start()
  await signed(owner)
  return { store, owner, site, broker }
}

/** What reviewers and operators wait for before it. */
export async function reading({ store, owner, site, broker }: Past, generators: Generators): Promise<void> {
  await readers(site, broker, owner, generators)
  await broker.stop()
  await owner.end()
  await site.remove()
  await store.dispose()
}

/** Every page that somebody reads, before whatever this broker's store holds. */
async function readers(site: Site, broker: RunningBroker, owner: postgres.Sql, generators: Generators): Promise<void> {
  const { bots, operator } = await tokensOf(site)
  const stage: Stage = { owner, broker, generators, token: operator, cookie: await sessionOf(site) }
  const story = await longStory(stage, bots)
  const largest = await questions(stage)
  await pages(stage, story, largest)
}

/** What the past of tests has none of: errors of those that were late, revocations of many, and some that refuse to die. What lives has ten providers, not a hundred. */
async function furnish(owner: postgres.Sql): Promise<void> {
  const error = 'provider_unavailable: the backend did not answer within 10 s; the next try is in a minute'
  await owner.begin(async (sql) => {
    await sql`set local session_replication_role = replica`
    await sql`update leases set error = ${error}, attempts = 7 where ended_at - closing_at > interval '1 second'`
    await sql`update leases set provider = 'provider-' || right(id, 1) where ended_at is null`
    await sql`
      update leases set state = 'revoking', cause = 'operator', closing_at = now() - interval '10 minutes', stuck_since = now(), error = ${error}, attempts = 7
      where id in (select id from leases where ended_at is null order by id limit 60)`
    await sql`
      insert into revocations (id, agent, reason, by, started_at, begun_at, ended_at)
      select 'rev_' || lpad(n::text, 26, '0'), ${nameOf('agent', 'busy')}, 'its key was seen in a chat', 'operator:corp/busy', now(), now(), case when n < 9990 then now() end
      from generate_series(1, 10000) as n`
  })
  await owner`vacuum analyze`
}

/** Waits until the log covers the past. */
async function signed(owner: postgres.Sql): Promise<void> {
  const [past] = await owner<{ entries: number }[]>`select count(*)::int as entries from entries`
  for (; ; await pause(200)) {
    const [log] = await owner<{ size: number }[]>`select coalesce(max(size), 0)::int as size from checkpoints`
    if (log!.size >= past!.entries) return
  }
}

/** The cookie of an operator who has signed in. */
async function sessionOf(site: Site): Promise<string> {
  const { publicUrl, operators, keys, identity, console: people } = await loadConfig(site.config(), providerKinds)
  const issuer = identity.find(({ name }) => name === people?.issuer)
  const sessions = createSessions({ key: await openConsoleKey(keys), operators, issuer, publicUrl, lifetime: 3_600_000, clock: Date.now })
  const door = new Hono().get('/', (c) => {
    sessions.open(c, actorNamed('operator:ops'), new Set(['operator', 'reviewer'] as const))
    return c.text('')
  })
  return (await door.request('/')).headers.getSetCookie()[0]!.split(';')[0]!
}

/** A task as long as they get: sixteen leases and some renewals; with others around it, so that the newest entries are of a real broker. */
async function longStory({ broker, generators }: Stage, bots: readonly string[]): Promise<{ task: string; decision: string }> {
  const at = { targets: [broker.url], inFlight: 1, keep: true }
  const others = await generators.run({ ...at, requests: issues(bots), count: 60 })
  await generators.run({ ...at, requests: completes(openedOf(others).slice(0, 30)) })
  const long = await generators.run({ ...at, requests: issues(bots.slice(0, 1)) })
  const [opened] = openedOf(long)
  const { decision } = JSON.parse(long.bodies[0]!) as { decision: { id: string } }
  const { task, task_token: token } = opened!
  await generators.run({ ...at, requests: [post(`/tasks/${task.id}/leases`, '{"name":"api"}', token)], count: 15 })
  await generators.run({ ...at, requests: [post(`/tasks/${task.id}/renew`, '{"duration":"30m"}', bots[0]!)], count: 20 })
  await generators.run({ ...at, requests: completes([opened!]) })
  return { task: task.id, decision: decision.id }
}

/** Something that reviewers ask, in each of its forms: one that all fits, one that little fits, and one that nothing fits. */
interface Inquiry {
  readonly name: string
  /** Of the API. */
  readonly path: string
  /** Below the console's; absent where it has no page. */
  readonly page?: string
  readonly queries: readonly string[]
  readonly deep: readonly string[]
}

/** Looks at the first page of one form, and at pages that lie deep. */
const looks = process.env['BENCH_QUICK'] === 'yes' ? 5 : 20

const forms = (name: string, column = name): string[] => (['busy', 'other', 'none'] as const).map((which) => `${name}=${nameOf(column, which)}`)
const daysAgo = (days: number): string => new Date(Date.now() - days * 86_400_000).toISOString()

async function inquiries(owner: postgres.Sql): Promise<Inquiry[]> {
  /** Ids of rows that are so old, in days: cursors of pages that lie deep. */
  const cursors = async (table: string, time: string, from: number, to: number): Promise<string[]> => {
    const rows = await owner<{ id: string }[]>`
      select id from ${owner(table)} where ${owner(time)} between ${daysAgo(from)} and ${daysAgo(to)} order by md5(id) limit ${looks}`
    return rows.map(({ id }) => id)
  }
  const week = `from=${daysAgo(7)}`
  const held = [`from=${daysAgo(10)}&to=${daysAgo(9)}`, `from=${daysAgo(40)}&to=${daysAgo(0)}`]
  const [entries, leases, tasks, denials] = await Promise.all([
    cursors('entries', 'at', 29, 1),
    cursors('leases', 'reserved_at', 29, 1),
    cursors('tasks', 'opened_at', 29, 1),
    cursors('decisions', 'decided_at', 29, 1),
  ])
  const during = await cursors('leases', 'reserved_at', 9.9, 9.1)
  const [leasesOfWeek, tasksOfWeek] = await Promise.all([cursors('leases', 'reserved_at', 6.9, 1), cursors('tasks', 'opened_at', 6.9, 1)])
  const owned = [...forms('agent'), ...forms('owner')].map((form) => `${form}&${week}`)
  const revocations = (await owner<{ id: string }[]>`select id from revocations order by md5(id) limit ${looks}`).map(({ id }) => id)
  return [
    {
      name: 'who held a grant between two times',
      path: '/leases',
      page: '/ledger/leases',
      queries: held.flatMap((time) => forms('grant').map((form) => `${form}&${time}`)),
      deep: during,
    },
    { name: 'leases that an agent or owner had this week', path: '/leases', page: '/ledger/leases', queries: owned, deep: leasesOfWeek },
    { name: 'tasks that an agent or owner had this week', path: '/tasks', page: '/ledger/tasks', queries: owned, deep: tasksOfWeek },
    { name: 'denials by a policy', path: '/denials', page: '/ledger/denials', queries: [...forms('policy'), 'by_default=true'], deep: denials },
    {
      name: 'leases that outlived their task',
      path: '/leases',
      page: '/ledger/leases',
      queries: ['outlived_task=1m', 'outlived_task=1s'],
      deep: leases,
    },
    {
      name: 'leases that ended late',
      path: '/leases',
      page: '/ledger/leases',
      queries: ['1s', '30s', '1h'].map((by) => `ended_late=${by}`),
      deep: leases,
    },
    {
      name: 'tasks that were never completed',
      path: '/tasks',
      page: '/ledger/tasks',
      queries: ['', ...forms('agent'), ...forms('owner')].map((form) => `completed=false&${form}`),
      deep: tasks,
    },
    {
      name: 'what an operator did',
      path: '/ledger',
      page: '/ledger/operators',
      queries: ['busy', 'other', 'none'].map((name) => `by=operator:corp/${name}`),
      deep: entries,
    },
    {
      name: 'all entries',
      path: '/ledger',
      page: '/ledger',
      queries: ['', 'kind=task.opened', 'kind=lease.stuck', ...forms('agent')],
      deep: entries,
    },
    { name: 'all leases', path: '/leases', page: '/ledger/leases', queries: ['', 'state=revoked', 'state=failed', 'stuck=true'], deep: leases },
    { name: 'all tasks', path: '/tasks', page: '/ledger/tasks', queries: ['', 'state=completed', 'state=failed', ...forms('kind')], deep: tasks },
    { name: 'all denials', path: '/denials', page: '/ledger/denials', queries: ['', ...forms('agent')], deep: denials },
    { name: 'all revocations', path: '/revocations', queries: ['', 'ended=true', 'ended=false'], deep: revocations },
  ]
}

/**
 * How long each question takes, alone: the first page and pages that lie deep, of the API and of the console. Of each the form counts that takes longest.
 *
 * @returns bytes of the largest page of the console
 */
async function questions(stage: Stage): Promise<number> {
  const slowest = { API: 0, page: 0 }
  let largest = 0
  for (const { name, path, page, queries, deep } of await inquiries(stage.owner)) {
    const figures: Record<string, number> = { forms: queries.length }
    const ask = async (kind: keyof typeof slowest, where: string, queried: (query: string) => readonly string[]): Promise<void> => {
      const request = (query: string): string =>
        kind === 'API' ? get(`${path}?${query}`, stage.token) : visit(`/console${page}?${query}`, stage.cookie)
      let worst = 0
      for (const query of queries) {
        const { p99, bytes } = await timesOf(stage, queried(query).map(request))
        worst = Math.max(worst, p99)
        if (kind === 'page') largest = Math.max(largest, bytes)
      }
      figures[`${kind}, ${where}`] = worst
      slowest[kind] = Math.max(slowest[kind], worst)
    }
    for (const kind of page === undefined ? (['API'] as const) : (['API', 'page'] as const)) {
      await ask(kind, 'first', (query) => [query])
      await ask(kind, 'deep', (query) => deep.map((cursor) => `${query}&cursor=${cursor}`))
    }
    tell(`Evidence: ${name}, p99, ms`, figures)
  }
  tell('Evidence: the slowest question, p99, ms', slowest)
  return largest
}

/** What one person waits for these requests, in turn: milliseconds; and bytes of the longest answer. */
async function timesOf({ broker, generators }: Stage, requests: readonly string[]): Promise<{ p50: number; p99: number; bytes: number }> {
  const run = await generators.run({ targets: [broker.url], inFlight: 1, requests, count: looks, keep: true })
  const { p50, p99 } = ratesOf([run], '200')
  return { p50, p99, bytes: Math.max(...run.bodies.map((body) => Buffer.byteLength(body))) }
}

/** The pages of the console, each as full as it gets. @param largest bytes of the largest page that answered a question */
async function pages(stage: Stage, { task, decision }: { task: string; decision: string }, largest: number): Promise<void> {
  const bytes: Record<string, number> = { Questions: largest }
  const milliseconds: Record<string, number> = {}
  const each = {
    Now: '',
    Task: `/tasks/${task}`,
    Ledger: '/ledger',
    Decision: `/decisions/${decision}`,
    Revoke: `/revoke?agent=${nameOf('agent', 'busy')}`,
  }
  for (const [name, path] of Object.entries(each)) {
    const found = await timesOf(stage, [visit(`/console${path}`, stage.cookie)])
    bytes[name] = found.bytes
    milliseconds[`${name} p50`] = found.p50
    milliseconds[`${name} p99`] = found.p99
  }
  tell('Evidence: pages of the console, ms', milliseconds)
  tell('Evidence: bytes of a console page', { ...bytes, most: Math.max(...Object.values(bytes)) })
}
