import { Agent, request } from 'node:http'
import { setTimeout as pause } from 'node:timers/promises'
import { readFile } from 'node:fs/promises'
import postgres from 'postgres'
import { test } from 'vitest'
import { startLab } from '../test/support/lab.ts'
import type { RunningBroker } from '../test/support/program.ts'
import { openDatabase } from '../test/support/stores.ts'
import { type RunningVault, startVault } from '../test/support/vault.ts'
import { faultyWire, type FaultyWire } from '../test/support/wire.ts'
import { keep, ratesOf, spread, tell } from './figures.ts'
import { completes, type Generators, issues, type Load, openedOf, startGenerators, timed } from './load.ts'
import { drained, endAll, passTogether, residentMegabytes, siteOf, tokensOf } from './stage.ts'

const storage = process.env['BENCH_RAFT'] === 'yes' ? 'raft' : 'memory'

/** Everything that the tables about Vault need. */
interface Stage {
  readonly owner: postgres.Sql
  readonly vault: RunningVault
  readonly wire: FaultyWire
  readonly broker: RunningBroker
  readonly generators: Generators
  readonly bots: readonly string[]
  readonly raw: Raw
}

/** Over the connection that nothing is between, as nothing is between the broker and Vault, nor between the raw calls and Vault. */
const login = 'path: database/creds/ledger-read-2, policy: mayfly-task-ledger-read-2'

const providerAt = (name: string, address: string, { tokenFile }: RunningVault): string =>
  `  - { name: ${name}, kind: vault, address: "${address}", auth: { method: token, token_file: "${tokenFile}" }, token_role: mayfly-task }\n`

test('the bench of Vault', async () => {
  const [store, lab, vault] = await Promise.all([openDatabase(), startLab(), startVault({ storage })])
  const wire = await faultyWire(vault.address)
  const { url } = store.settings as { url: string }
  const site = await siteOf(
    { url },
    { lab },
    {
      providers: providerAt('vault', vault.address, vault) + providerAt('silent', wire.url, vault),
      grants: { login: `provider: vault, ${login}`, silence: `provider: silent, ${login}` },
    },
  )
  const stage: Stage = {
    owner: postgres(url, { max: 2, onnotice: () => {} }),
    vault,
    wire,
    broker: await site.start(),
    generators: startGenerators(),
    bots: (await tokensOf(site)).bots,
    raw: await rawCalls(vault.address, (await readFile(vault.tokenFile, 'utf8')).trim(), url),
  }
  await wholeLife(stage)
  await loginsAfterComplete(stage)
  await deathsByDeadline(stage)
  await storm(stage)
  await silence(stage)
  tell('Vault: resident memory at the end', { megabytes: residentMegabytes(stage.broker.process.pid!) })

  keep('results-vault.json', `broker, its Postgres, OpenBao (${storage}), the database behind it and load share the machine`)
  stage.generators.stop()
  await stage.raw.stop()
  await stage.owner.end()
  await stage.broker.stop()
  await site.remove()
  await wire.stop()
  await Promise.all([vault.stop(), lab.stop(), store.dispose()])
})

/**
 * A task with one database login, declared and completed, beside the same calls made without a broker; and beside these with a commit, as bare as it can
 * be, wherever a life has one. In turns, so that what else the machine does falls on all of them.
 */
async function wholeLife(stage: Stage): Promise<void> {
  // Until statements have their plans on every connection and the compiler has nothing left to do: a broker runs for weeks.
  await lives(stage, 8, 600)
  await stage.raw.lives(8, 200, true)
  for (const [inFlight, count] of [
    [1, 60],
    [8, 160],
  ] as const) {
    const [ours, theirs, kept] = [
      { mint: 0, end: 0 },
      { mint: 0, end: 0 },
      { mint: 0, end: 0 },
    ]
    for (let turn = 0; turn < 4; turn++) {
      const life = await lives(stage, inFlight, count)
      ours.mint += life.mint
      ours.end += life.end
      const raw = await stage.raw.lives(inFlight, count, false)
      theirs.mint += raw.mint
      theirs.end += raw.end
      const committed = await stage.raw.lives(inFlight, count, true)
      kept.mint += committed.mint
      kept.end += committed.end
    }
    const each = (seconds: number): number => (seconds * 1_000) / (4 * count)
    tell(`Vault: a whole life, ${inFlight} in flight`, {
      'declare, ms': each(ours.mint),
      'complete, ms': each(ours.end),
      'raw mint, ms': each(theirs.mint),
      'raw end, ms': each(theirs.end),
      'raw mint with commits, ms': each(kept.mint),
      'raw end with commits, ms': each(kept.end),
      'a second': (4 * count) / (ours.mint + ours.end),
      ratio: (ours.mint + ours.end) / (theirs.mint + theirs.end),
      'ratio to raw with commits': (ours.mint + ours.end) / (kept.mint + kept.end),
    })
  }
}

/** Seconds that so many lives took, by their halves. */
async function lives({ generators, broker, bots }: Stage, inFlight: number, count: number): Promise<{ mint: number; end: number }> {
  const at = { targets: [broker.url], inFlight }
  const issued = await generators.run({ ...at, requests: issues(bots, 'login'), count, keep: true })
  ratesOf([issued], '201')
  const completed = await generators.run({ ...at, requests: completes(openedOf(issued)) })
  ratesOf([completed], '200')
  return { mint: issued.seconds, end: completed.seconds }
}

/** Whether a login gets in after its task was answered to be complete. */
async function loginsAfterComplete({ generators, broker, bots, vault }: Stage): Promise<void> {
  const count = 200
  const issued = await generators.run({ targets: [broker.url], inFlight: 8, requests: issues(bots, 'login'), count, keep: true })
  let letIn = 0
  for (const opened of openedOf(issued)) {
    await generators.run({ targets: [broker.url], inFlight: 1, requests: completes([opened]) })
    const { username, password } = (opened as unknown as { leases: [{ credential: { username: string; password: string } }] }).leases[0].credential
    if (await vault.database.letsIn(username, password)) letIn++
  }
  tell('Vault: login after complete was answered', { asked: count, 'let in': letIn })
}

/** How long a login lives past its deadline on an idle broker, by the ledger's own times. */
async function deathsByDeadline({ generators, broker, bots, owner }: Stage): Promise<void> {
  await generators.run({ targets: [broker.url], inFlight: 2, requests: issues(bots, 'login', '3s'), count: 200 })
  await pause(3_500)
  await drained(owner)
  const rows = await owner<{ ms: number }[]>`
    select extract(epoch from ended_at - closing_at)::float8 * 1000 as ms from leases where provider = 'vault' and cause in ('deadline', 'lease_expired')`
  const times = rows.map(({ ms }) => ms)
  tell('Vault: time to dead by deadline, ms', { leases: times.length, ...spread(times), most: Math.max(...times) })
}

/** 1,000 deadlines in one second at one database: alone, beside the same ends without a broker; then while agents go on declaring elsewhere. */
async function storm(stage: Stage): Promise<void> {
  const { generators, broker, bots, owner, raw } = stage
  const size = 1_000
  await endAll(owner)
  const rawEnd = await raw.ends(16, size)
  const alone = await stormOf(stage, size, () => pause(20))
  tell('Vault: 1,000 deadlines in one second, one database', {
    leases: alone.leases,
    'seconds to the last': alone.seconds,
    'a second': alone.leases / alone.seconds,
    'raw pairs a second': size / rawEnd.pairs,
    'raw sync revokes a second': size / rawEnd.revokes,
    'share of pairs': rawEnd.pairs / alone.seconds,
    'share of raw': rawEnd.revokes / alone.seconds,
  })

  const calm = { targets: [broker.url], inFlight: 1, requests: issues(bots) }
  const idle = ratesOf([await generators.run({ ...calm, count: 1_000 })], '201')
  const meanwhile: Load[] = []
  const beside = await stormOf(stage, size, async () => void meanwhile.push(await generators.run({ ...calm, count: 50 })))
  const during = ratesOf(meanwhile, '201')
  tell('Vault: the same while others declare', {
    'seconds to the last': beside.seconds,
    'other mint p99': during.p99,
    'idle p99': idle.p99,
    'p99 to idle': during.p99 / idle.p99,
  })
  await endAll(owner)
}

/** Lets so many tasks pass their deadline at the same moment, and does something again and again until the last of them is dead. */
async function stormOf(
  { generators, broker, bots, owner }: Stage,
  size: number,
  meanwhile: () => Promise<void>,
): Promise<{ seconds: number; leases: number }> {
  await endAll(owner)
  await generators.run({ targets: [broker.url], inFlight: 8, requests: issues(bots, 'login'), count: size })
  const at = await passTogether(owner, 2)
  await pause(at.getTime() - Date.now())
  let over = false
  const ended = drained(owner).then(() => (over = true))
  while (!over) await meanwhile()
  await ended
  const [last] = await owner<{ seconds: number; leases: number }[]>`
    select extract(epoch from max(l.ended_at) - ${at}::timestamptz)::float8 as seconds, count(*)::int as leases
    from leases l join tasks t on t.id = l.task_id where t.deadline = ${at} and l.provider = 'vault'`
  return last!
}

/** A Vault that has gone silent, and is asked all the same, beside a backend that is well. */
async function silence({ generators, broker, bots, wire, owner }: Stage): Promise<void> {
  const well = { targets: [broker.url], inFlight: 4, requests: issues(bots, 'crm'), count: 300 }
  const [alone, beside]: [Load[], Load[]] = [[], []]
  for (let turn = 0; turn < 6; turn++) {
    alone.push(await generators.run(well))
    wire.hang()
    const asking = generators.run({ targets: [broker.url], inFlight: 4, requests: issues(bots, 'silence'), count: 4 })
    beside.push(await generators.run(well))
    await wire.cut()
    await wire.mend()
    await asking
    await endAll(owner)
  }
  const [one, other] = [ratesOf(alone, '201'), ratesOf(beside, '201')]
  tell('Vault silent: p99 of another backend', {
    alone: one.p99,
    beside: other.p99,
    'p50 alone': one.p50,
    'p50 beside': other.p50,
    ratio: other.p99 / one.p99,
  })
}

/** The same calls as the provider makes, without a broker. */
interface Raw {
  /** Seconds for so many mints, then for so many ends. @param committed with a bare commit where the broker has one */
  lives(inFlight: number, count: number, committed: boolean): Promise<{ mint: number; end: number }>
  /** Seconds for so many ends: of token and lease, and of the lease alone. */
  ends(inFlight: number, count: number): Promise<{ pairs: number; revokes: number }>
  stop(): Promise<void>
}

/** What is read of an answer: each call asks for what its own has. */
interface RawAnswer {
  readonly auth: { readonly client_token: string; readonly accessor: string }
  readonly lease_id: string
}

/** @param url of a store for bare commits */
async function rawCalls(address: string, token: string, url: string): Promise<Raw> {
  const agent = new Agent({ keepAlive: true })
  const store = postgres(url, { max: 8, onnotice: () => {} })
  await store`create table bare_commits (said text)`
  const commit = async () => void (await store`insert into bare_commits (said) values (${'x'.repeat(1_000)})`)
  const nothing = async () => {}

  function ask(at: string, as: string, body?: object): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const text = body && JSON.stringify(body)
      const headers = { 'x-vault-token': as, ...(text && { 'content-length': Buffer.byteLength(text) }) }
      request(`${address}/v1/${at}`, { agent, method: text ? 'POST' : 'GET', headers }, (answer) => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => chunks.push(chunk))
        answer.on('end', () => {
          const said = Buffer.concat(chunks).toString()
          if (answer.statusCode! >= 300) return reject(new Error(`${at}: ${answer.statusCode} ${said}`))
          resolve((said === '' ? {} : JSON.parse(said)) as RawAnswer)
        })
      })
        .on('error', reject)
        .end(text)
    })
  }

  /** In the broker's order, with its announcement, the journal of token and lease, and its confirmation. */
  async function mint(journal: () => Promise<void>): Promise<{ accessor: string; lease: string }> {
    await journal()
    const policies = ['mayfly-task-ledger-read-2']
    const { auth } = await ask('auth/token/create/mayfly-task', token, {
      ttl: '45s',
      policies,
      no_default_policy: true,
      type: 'service',
      display_name: 'raw',
    })
    await journal()
    const secret = await ask('database/creds/ledger-read-2', auth.client_token)
    await Promise.all([journal(), ask('auth/token/renew-accessor', token, { accessor: auth.accessor, increment: 1_800 })])
    await ask('sys/leases/renew', token, { lease_id: secret.lease_id, increment: 1_800 })
    await journal()
    return { accessor: auth.accessor, lease: secret.lease_id }
  }
  const contain = (accessor: string) => ask('auth/token/revoke-accessor', token, { accessor })
  const revoke = (lease: string) => ask('sys/leases/revoke', token, { lease_id: lease, sync: true })

  const mints = (inFlight: number, count: number, journal = nothing) => timed(inFlight, Array.from({ length: count }), () => mint(journal))
  return {
    async lives(inFlight, count, committed) {
      const journal = committed ? commit : nothing
      const minted = await mints(inFlight, count, journal)
      const ended = await timed(inFlight, minted.results, async ({ accessor, lease }) => {
        await journal()
        await contain(accessor)
        await revoke(lease)
        await journal()
      })
      return { mint: minted.seconds, end: ended.seconds }
    },
    async ends(inFlight, count) {
      const pairs = await timed(inFlight, (await mints(8, count)).results, async ({ accessor, lease }) => {
        await contain(accessor)
        await revoke(lease)
      })
      const { results } = await mints(8, count)
      const revokes = await timed(inFlight, results, ({ lease }) => revoke(lease))
      return { pairs: pairs.seconds, revokes: revokes.seconds }
    },
    async stop() {
      agent.destroy()
      await store.end()
    },
  }
}
