import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { test } from 'vitest'
import { decide } from '../src/policy/decide.ts'
import { actorNamed, loadPolicy } from '../test/support/house.ts'
import { startLab } from '../test/support/lab.ts'
import type { RunningBroker, Site } from '../test/support/program.ts'
import { openDatabase, openEmbedded } from '../test/support/stores.ts'
import { keep, ratesOf, spread, tell } from './figures.ts'
import { growth } from './growth.ts'
import { completes, type Generators, introspects, issues, type Load, openedOf, post, startGenerators } from './load.ts'
import {
  bareIssue,
  bytesOfDeclaration,
  drained,
  endAll,
  passTogether,
  type Labs,
  postgresTime,
  processorTime,
  residentMegabytes,
  siteOf,
  spending,
  startBare,
  startUp,
  tokensOf,
} from './stage.ts'

const quick = process.env['BENCH_QUICK'] === 'yes'

/** Everything that the tables on Postgres need. */
interface Stage {
  readonly owner: postgres.Sql
  readonly site: Site
  readonly broker: RunningBroker
  readonly generators: Generators
  readonly bots: readonly string[]
  readonly resource: string
}

test('the bench', async () => {
  const [store, lab, other] = await Promise.all([openDatabase(), startLab(), startLab()])
  const labs = { lab, other }
  const generators = startGenerators()
  await onPostgres((store.settings as { url: string }).url, labs, generators)
  if (!quick) await growth(labs, generators)
  await onEmbedded(labs, generators)
  if (!quick) await decisions()
  keep('results.json', 'broker, Postgres, load and backend share the machine; Postgres is as durable as it is by default')
  generators.stop()
  await Promise.all([lab.stop(), other.stop()])
  await store.dispose()
})

async function onPostgres(url: string, labs: Required<Labs>, generators: Generators): Promise<void> {
  const owner = postgres(url, { max: 2, onnotice: () => {} })
  const site = await siteOf({ url }, labs)
  const first = await startUp(site)
  const { bots, resource } = await tokensOf(site)
  const stage: Stage = { owner, site, broker: first.broker, generators, bots, resource }

  const bytes = await bytesOfDeclaration(site, url, generators, bots)
  tell('bytes of one declaration', bytes)
  const bare = await startBare(url, bytes)
  await verbsBesideBare(stage, bare)
  bare.stop()
  if (!quick) {
    await traces(stage)
    await oneAgentAlone(stage)
    await twoBrokers(stage)
    await deaths(stage)
    await storm(stage)
    await besideHanging(stage, labs)
    await overload(stage)
  }
  tell('resident memory at the end', { megabytes: residentMegabytes(stage.broker.process.pid!) })
  await stage.broker.stop()
  const again = await startUp(site)
  tell('start to ready on Postgres, seconds', { first: first.seconds, again: again.seconds })
  await again.broker.stop()
  await owner.end()
  await site.remove()
}

/** Rates of the three verbs, each beside the bare server's, in turns, so that what else the machine does falls on both. */
async function verbsBesideBare(stage: Stage, bare: { readonly url: string; readonly pid: number }): Promise<void> {
  const { generators, bots, resource, broker, owner } = stage
  const at = (url: string, inFlight: number) => ({ targets: [url], inFlight })
  // Until the compiler has nothing left to do: a broker runs for weeks, and its first thousands of requests cost it twice as much.
  for (const warm of [await generators.run({ ...at(broker.url, 32), requests: issues(bots), count: quick ? 4_000 : 12_000, keep: true })]) {
    await generators.run({ ...at(broker.url, 32), requests: introspects(openedOf(warm).slice(0, quick ? 1_500 : 4_000), resource) })
    await generators.run({ ...at(broker.url, 32), requests: completes(openedOf(warm)) })
  }
  await generators.run({ ...at(bare.url, 32), requests: bareIssue(bots[0]!), count: quick ? 2_000 : 6_000 })

  for (const inFlight of [1, 8, 32]) {
    const count = quick ? (inFlight === 1 ? 150 : 1_000) : inFlight === 1 ? 1_200 : 6_000
    const [ours, theirs] = [emptyRuns(), emptyRuns()]
    const used = { broker: 0, postgres: 0, bare: 0, introspecting: 0 }
    for (let turn = 0; turn < 3; turn++) {
      const declaring = { ...at(broker.url, inFlight), requests: issues(bots), count, keep: true }
      const { done: issued, ...spent } = await spending(stage, () => generators.run(declaring))
      used.broker += spent.broker
      used.postgres += spent.postgres
      ours.issue.push(issued)
      const bareBefore = processorTime(bare.pid)
      const stored = await generators.run({ ...at(bare.url, inFlight), requests: bareIssue(bots[0]!), count, keep: true })
      used.bare += processorTime(bare.pid) - bareBefore
      theirs.issue.push(stored)

      const opened = openedOf(issued)
      const ids = stored.bodies.map((body) => (JSON.parse(body) as { id: string }).id)
      const introspectBefore = await postgresTime(owner)
      ours.introspect.push(await generators.run({ ...at(broker.url, inFlight), requests: introspects(opened, resource) }))
      used.introspecting += (await postgresTime(owner)) - introspectBefore
      theirs.introspect.push(
        await generators.run({ ...at(bare.url, inFlight), requests: ids.map((id) => post(`/introspect/${id}`, 'token=x', resource)) }),
      )
      ours.complete.push(await generators.run({ ...at(broker.url, inFlight), requests: completes(opened) }))
      theirs.complete.push(await generators.run({ ...at(bare.url, inFlight), requests: ids.map((id) => post(`/complete/${id}`, '{}', bots[0]!)) }))
    }
    for (const verb of ['issue', 'introspect', 'complete'] as const) {
      const status = verb === 'issue' ? '201' : '200'
      const [own, other] = [ratesOf(ours[verb], status), ratesOf(theirs[verb], status)]
      tell(`Postgres: ${verb}, ${inFlight} in flight`, { ...own, 'bare rate': other.rate, 'bare p99': other.p99, ratio: own.rate / other.rate })
    }
    const requests = 3 * count
    tell(`processor time of one declaration, ${inFlight} in flight, ms`, {
      broker: used.broker / requests,
      Postgres: used.postgres / requests,
      bare: used.bare / requests,
      'Postgres, an introspection': used.introspecting / requests,
    })
  }
}

type Runs = Record<'issue' | 'introspect' | 'complete', Load[]>
const emptyRuns = (): Runs => ({ issue: [], introspect: [], complete: [] })

/** Rates of the three verbs at one or more brokers. */
async function verbs(
  name: string,
  targets: readonly string[],
  { generators, bots, resource }: Pick<Stage, 'generators' | 'bots' | 'resource'>,
): Promise<void> {
  for (const inFlight of [1, 8, 32]) {
    const count = inFlight === 1 ? 500 : 3_000
    const issued = await generators.run({ targets, inFlight, requests: issues(bots), count, keep: true })
    const introspected = await generators.run({ targets, inFlight, requests: introspects(openedOf(issued), resource) })
    const completed = await generators.run({ targets, inFlight, requests: completes(openedOf(issued)) })
    tell(`${name}: issue, ${inFlight} in flight`, ratesOf([issued], '201'))
    tell(`${name}: introspect, ${inFlight} in flight`, ratesOf([introspected], '200'))
    tell(`${name}: complete, ${inFlight} in flight`, ratesOf([completed], '200'))
  }
}

/** What a task with one lease leaves in Postgres when it has ended: bytes of its log, which replicas are sent, and of its tables with their indexes. */
async function traces({ generators, broker, bots, owner }: Stage): Promise<void> {
  const count = 4_000
  const weigh = async () => {
    const [row] = await owner<{ log: number; tables: number }[]>`
      select (pg_current_wal_lsn() - '0/0')::float8 as log, sum(pg_total_relation_size(relid))::float8 as tables from pg_stat_user_tables
      where relname in ('tasks', 'leases', 'decisions', 'entries')`
    return row!
  }
  const before = await weigh()
  const issued = await generators.run({ targets: [broker.url], inFlight: 32, requests: issues(bots), count, keep: true })
  await generators.run({ targets: [broker.url], inFlight: 32, requests: completes(openedOf(issued)) })
  const after = await weigh()
  tell('bytes that a task leaves in Postgres', { log: (after.log - before.log) / count, tables: (after.tables - before.tables) / count })
}

/** One agent's declarations all want the row that counts its live leases. */
async function oneAgentAlone({ generators, broker, bots, owner }: Stage): Promise<void> {
  const run = await generators.run({ targets: [broker.url], inFlight: 32, requests: issues(bots.slice(0, 1)), count: 4_000 })
  tell('Postgres: issue, one agent alone, 32 in flight', ratesOf([run], '201'))
  await endAll(owner)
}

/** Rates of two brokers together, and whether what was completed at one is ever active at the other. */
async function twoBrokers(stage: Stage): Promise<void> {
  const { site, broker, generators, bots, resource } = stage
  const { broker: other } = await startUp(site)
  const targets = [broker.url, other.url]
  await verbs('Postgres, two brokers', targets, stage)

  const issued = openedOf(await generators.run({ targets, inFlight: 16, requests: issues(bots), count: 2_000, keep: true }))
  const answers: Load[] = []
  for (let from = 0; from < issued.length; from += 100) {
    const some = issued.slice(from, from + 100)
    ratesOf([await generators.run({ targets: [broker.url], inFlight: 16, requests: completes(some) })], '200')
    // Both at once: the one that did not complete them has had no more time than the other.
    const asked = targets.map((target) => generators.run({ targets: [target], inFlight: 8, requests: introspects(some, resource), keep: true }))
    answers.push(...(await Promise.all(asked)))
  }
  ratesOf(answers, '200')
  const active = answers.flatMap(({ bodies }) => bodies.map((body) => (JSON.parse(body) as { active: boolean }).active))
  tell('introspection after complete was answered, at both brokers', { asked: active.length, stale: active.filter(Boolean).length })
  await other.stop()
}

/** How long a credential of an outside backend lives past its complete and its deadline, on an idle broker, by the ledger's own times. */
async function deaths({ owner, generators, broker, bots }: Stage): Promise<void> {
  const at = { targets: [broker.url], inFlight: 1 }
  const outside = await generators.run({ ...at, requests: issues(bots, 'crm'), count: 300, keep: true })
  await generators.run({ ...at, requests: completes(openedOf(outside)) })
  await generators.run({ ...at, requests: issues(bots, 'crm', '2s'), count: 300 })
  await pause(2_500)
  await drained(owner)
  for (const cause of ['completed', 'deadline']) {
    const rows = await owner<{ ms: number }[]>`
      select extract(epoch from ended_at - closing_at)::float8 * 1000 as ms from leases where not local and cause = ${cause}`
    const times = rows.map(({ ms }) => ms)
    tell(`time to dead by ${cause}, ms`, { leases: times.length, ...spread(times), most: Math.max(...times) })
  }
}

/** 10,000 deadlines in one second, half of them of leases at an outside backend, while agents go on declaring. */
async function storm({ owner, generators, broker, bots }: Stage): Promise<void> {
  const size = 10_000
  const calm = { targets: [broker.url], inFlight: 4, requests: issues(bots) }
  const idle = ratesOf([await generators.run({ ...calm, count: 4_000 })], '201')
  await endAll(owner)
  for (const grant of ['api', 'crm']) await generators.run({ targets: [broker.url], inFlight: 16, requests: issues(bots, grant), count: size / 2 })
  const at = await passTogether(owner, 2)
  await pause(at.getTime() - Date.now())
  // As long as the storm lasts, and a little more.
  const meanwhile: Load[] = []
  const over = drained(owner).then(() => true)
  do meanwhile.push(await generators.run({ ...calm, count: 500 }))
  while (!(await Promise.race([over, pause(1, false)])))
  const [last] = await owner<{ seconds: number; leases: number }[]>`
    select extract(epoch from max(l.ended_at) - ${at}::timestamptz)::float8 as seconds, count(*)::int as leases
    from leases l join tasks t on t.id = l.task_id where t.deadline = ${at}`
  const during = ratesOf(meanwhile, '201')
  tell('storm of deadlines in one second', {
    leases: last!.leases,
    'seconds to the last': last!.seconds,
    'issue p99': during.p99,
    'idle p99': idle.p99,
    'p99 to idle': during.p99 / idle.p99,
  })
  await endAll(owner)
}

/** Milliseconds: what those are told whose backend does not answer (`Retry-After` of the 503). */
const retryAfter = 2_000

/**
 * Declarations at a backend that answers, and with signed tokens, alone and while others are declared at a backend that never does: in turns, so that
 * what else the machine does falls on both.
 */
async function besideHanging({ owner, generators, broker, bots }: Stage, { other }: Required<Labs>): Promise<void> {
  const targets = [broker.url]
  for (const grant of ['crm', 'api']) {
    const healthy = { targets, inFlight: 4, requests: issues(bots, grant), count: 750 }
    const [alone, beside]: [Load[], Load[]] = [[], []]
    for (let turn = 0; turn < 8; turn++) {
      await endAll(owner)
      alone.push(await generators.run(healthy))
      await endAll(owner)
      await other.next('put', 'hangs', { times: 100_000 })
      const over = new AbortController()
      const asking = (async () => {
        // More than may call it at once, so that some wait. They come back when they are told to, and not sooner: refusing them is not what is measured.
        while (!over.signal.aborted) {
          await generators.run({ targets, inFlight: 32, requests: issues(bots, 'other'), count: 32 })
          await pause(retryAfter, undefined, { signal: over.signal }).catch(() => {})
        }
      })()
      await other.hanging('put')
      beside.push(await generators.run(healthy))
      over.abort()
      await other.clear()
      await other.release()
      await asking
    }
    const [own, disturbed] = [ratesOf(alone, '201'), ratesOf(beside, '201')]
    tell(`issue ${grant} beside a backend that hangs`, { p99: disturbed.p99, 'alone p99': own.p99, 'p99 to alone': disturbed.p99 / own.p99 })
  }
  await endAll(owner)
}

/** Completing while ten times as many declarations are in flight as are served at once. */
async function overload({ owner, generators, broker, bots }: Stage): Promise<void> {
  const targets = [broker.url]
  const opened = openedOf(await generators.run({ targets, inFlight: 16, requests: issues(bots), count: 2_000, keep: true }))
  const idle = ratesOf([await generators.run({ targets, inFlight: 4, requests: completes(opened.slice(0, 1_000)) })], '200')
  const flood = generators.run({ targets, inFlight: 320, requests: issues(bots), count: 6_000 })
  const ends = await generators.run({ targets, inFlight: 4, requests: completes(opened.slice(1_000)) })
  const { latencies, statuses, seconds } = await flood
  tell('completing beside 320 declarations in flight', {
    p99: ratesOf([ends], '200').p99,
    'idle p99': idle.p99,
    'p99 of declaring': spread(latencies).p99,
    'not served, of 6,000': latencies.length - (statuses['201'] ?? 0),
    'seconds of completing': ends.seconds,
    'seconds of declaring': seconds,
  })
  await endAll(owner)
}

/** What the policy engine takes for questions that it was never asked. */
async function decisions(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'mayfly-bench-'))
  const more = Array.from(
    { length: 20 },
    (_, n) => `@id("more-${n}") permit(principal in Group::"group-${n}", action, resource) when { context.ttl <= duration("15m") };`,
  )
  const { catalogue, set } = await loadPolicy(folder, { policies: more.join('\n') })
  const agent = catalogue.agents.get('bot')!
  const times = Array.from({ length: 5_000 }, (_, n) => {
    const inquiry = catalogue.resolve(agent, actorNamed('agent:bot'), 'issue', {
      kind: 'work',
      grants: [{ name: 'crm-for', parameters: { customer: inLetters(n) } }],
    })
    const started = performance.now()
    decide(set, inquiry, new Date(1_800_000_000_000 + n))
    return performance.now() - started
  })
  tell('policy decision, nothing remembered, ms', { policies: Object.keys(set.texts.policies).length, ...spread(times) })
  rmSync(folder, { recursive: true })
}

/** A number as a name that the grant's pattern allows. */
const inLetters = (n: number): string => n.toString(26).replaceAll(/\d/g, (digit) => 'qrstuvwxyz'[Number(digit)]!)

async function onEmbedded(labs: Labs, generators: Generators): Promise<void> {
  const embedded = await openEmbedded()
  const site = await siteOf({ embedded: `${(embedded.settings as { embedded: string }).embedded}-new` }, labs)
  const boot = await startUp(site)
  await boot.broker.stop()
  const { broker, seconds } = await startUp(site)
  tell('start to ready, embedded, seconds', { first: boot.seconds, again: seconds })
  if (!quick) await verbs('embedded', [broker.url], { generators, ...(await tokensOf(site)) })
  tell('resident memory, embedded', { megabytes: residentMegabytes(broker.process.pid!) })
  await broker.stop()
  await site.remove()
  await embedded.dispose()
}
