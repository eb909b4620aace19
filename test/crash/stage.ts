import postgres from 'postgres'
import { expect } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { audit, handlesOf } from '../support/audit.ts'
import { makeSite, type RunningBroker, type Site, type SiteOptions } from '../support/program.ts'
import { openDatabase } from '../support/stores.ts'
import { createTripwire, type Tripwire, wirePostgres } from '../support/tripwire.ts'
import { type Answer, declarationOf, type Held, type HeldLease, secretsOf } from './held.ts'

/** Where the broker of a stage mints, behind its tripwire, and the truth about what lives there. */
export interface Backend {
  readonly site: Omit<SiteOptions, 'store'>
  /** Of the site; its own where absent. */
  readonly catalogue?: string
  /** Leases whose credentials work. */
  alive(): Promise<readonly string[]>
  /**
   * SQL about a lease: whether all that is left of it ends by itself, so that it waits for that time to pass and not for its backend. Until then it
   * says that it is ending, and what it names may work.
   */
  readonly lingers: string
  /** What besides the secrets that were handed out may stand in no log, no metric and, where it is a text, in no table. Asked when all is over. */
  readonly secrets: readonly (string | RegExp)[]
  /** Forgets faults that were ordered and have not happened. */
  clear(): unknown
  stop(): Promise<void>
}

/** A broker process between two wires, which dies and is started again; its store and its backend live on. */
export interface Stage {
  readonly tripwire: Tripwire
  /** Of the broker's files. */
  readonly folder: string
  readonly ledger: Ledger
  /** The store as its owner sees it, past the wire. */
  readonly owner: postgres.Sql
  readonly tokens: { readonly bot: string; readonly ops: string }
  /** Signs as somebody else. */
  readonly token: Site['token']
  post<Body>(token: string, path: string, body?: object, headers?: Record<string, string>): Promise<Answer<Body>>
  /** Declares as the agent. @throws where it is not answered with 201 */
  declare(grants?: readonly string[], key?: string, duration?: string): Promise<Held>
  /** Remembers what was acknowledged: it must be in the ledger after whatever happens later. */
  issued(...leases: readonly HeldLease[]): void
  /** Whether the broker says that a token it signed is alive. */
  active(token: string): Promise<boolean>
  /** Ends a task as its agent, and waits until the ledger says so. @param as a token of whoever has it, where that is not the agent `bot` */
  end(task: string, as?: string): Promise<void>
  /** SIGKILL, now. */
  strike(): void
  /** Lets `change` happen while the broker stands still with nothing on its way, so that its very next look finds what is due. */
  whileFrozen(change: () => Promise<unknown>): Promise<void>
  /** Asks the store until it answers with a row. Bounded by the test's own time. */
  until(question: () => PromiseLike<readonly unknown[]>): Promise<void>
  /** What the dead broker has left, in words. */
  left(): Promise<string>
  /** Keeps what a dead broker has left in these states for later cells: no reaper sees it and no check minds it until it is made due. @returns which leases */
  park(...states: readonly ('reserved' | 'revoking')[]): Promise<string[]>
  /** Makes a lease due that was kept, or all of them. @param age seconds since it was announced, as it shall look; as it is, where absent. @returns how many */
  unpark(lease?: string, age?: number): Promise<number>
  /**
   * Starts another broker when so much time has passed as a dead one may keep what it was at, and no more, and waits until its reaper has nothing left to do
   * but wait.
   */
  recover(): Promise<void>
  /** Makes sure that the broker is dead, with all its connections. */
  bury(): Promise<void>
  /** Kills the broker and starts another. */
  restart(): Promise<void>
  /** What must hold after every kill. What lingers is put aside with what is parked. */
  check(): Promise<void>
  stop(): Promise<void>
}

/**
 * Leases that are kept for later cells: due in a day, so that no reaper sees them. By their ids: what a broker itself puts off for long is not among them. And
 * only as long as they are put off: whoever asks again with the key of a lost answer has what that left ended at once.
 */
const parked = `(id in (select parked.id from parked) and due_at > now() + interval '12 hours')`

/** Denied, so that a denial can be acknowledged: nothing of more than 15 minutes. */
const policy = `
@id("not-for-long")
forbid(principal, action == Action::"issue", resource) when { context.ttl > duration("15m") };
`

/** @param build makes the backend, with its wire behind this tripwire */
export async function setStage(build: (tripwire: Tripwire) => Promise<Backend>): Promise<Stage> {
  const tripwire = createTripwire()
  const [store, backend] = await Promise.all([openDatabase(), build(tripwire)])
  const { url } = store.settings as { url: string }
  const ledger: Ledger = await connect(store.settings)
  const owner = postgres(url, { max: 1, onnotice: () => {} })
  await owner`create table parked (id text primary key)`
  const wire = await wirePostgres(url, tripwire)
  const site = await makeSite({ ...backend.site, store: { url: wire.url } })
  if (backend.catalogue !== undefined) await site.write('catalogue.yaml', backend.catalogue)
  await site.write('policies/crash.cedar', policy)
  const tokens = { bot: await site.token('agent:bot'), ops: await site.token('operator:ops') }
  let broker: RunningBroker = await site.start()
  const secrets: string[] = []
  let logs = ''
  const issuedLeases = new Set<string>()
  const endedTasks = new Set<string>()

  async function post<Body>(token: string, path: string, body: object = {}, headers: Record<string, string> = {}): Promise<Answer<Body>> {
    const answer = await fetch(broker.url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
    return { status: answer.status, body: (await answer.json()) as Body }
  }

  function issued(...leases: readonly HeldLease[]): void {
    for (const lease of leases) {
      issuedLeases.add(lease.id)
      secrets.push(...secretsOf(lease))
    }
  }

  async function declare(grants: readonly string[] = ['api', 'crm'], key?: string, duration?: string): Promise<Held> {
    const headers: Record<string, string> = key === undefined ? {} : { 'idempotency-key': key }
    const { status, body } = await post<Held>(tokens.bot, '/tasks', declarationOf(grants, duration), headers)
    if (status !== 201) throw new Error(`declared: ${status} ${JSON.stringify(body)}`)
    secrets.push(body.task_token)
    issued(...body.leases)
    return body
  }

  async function active(token: string): Promise<boolean> {
    const headers = { authorization: `Bearer ${tokens.ops}` }
    const answer = await fetch(`${broker.url}/introspect`, { method: 'POST', headers, body: new URLSearchParams({ token }) })
    return ((await answer.json()) as { active: boolean }).active
  }

  /** What a reaper has to do, now or when the claim of another is over. */
  const work = `(state in ('reserved', 'revoking') or expires_at <= now()) and due_at is not null and not ${parked}`

  const lingers = `(due_at is not null and ${backend.lingers})`

  const workDone = () => owner`
    select 1 where not exists (select from leases where ${owner.unsafe(work)} and not ${owner.unsafe(lingers)})
      and not exists (select from tasks where state = 'open' and deadline <= now())`

  /** What a reaper has just claimed it puts back: such a lease is due when the claim is over, and others sooner or when asking has a point again, which is later. */
  async function putAside(): Promise<void> {
    await until(async () => {
      await owner`
        with aside as (
          update leases set due_at = now() + interval '1 day'
          where ${owner.unsafe(lingers)} and not due_at between now() + interval '5 seconds' and now() + interval '31 seconds' and not ${owner.unsafe(parked)}
          returning id
        )
        insert into parked select id from aside on conflict do nothing`
      return owner`select 1 where not exists (select from leases where ${owner.unsafe(lingers)} and not ${owner.unsafe(parked)})`
    })
  }

  async function until(question: () => PromiseLike<readonly unknown[]>): Promise<void> {
    while ((await question()).length === 0);
  }

  async function end(task: string, as = tokens.bot): Promise<void> {
    const { status } = await post(as, `/tasks/${task}/complete`, {}, { prefer: 'wait=0' })
    expect([200, 202]).toContain(status)
    await until(
      () => owner`select 1 from tasks where id = ${task} and state <> 'open' and not exists (
        select from leases where task_id = ${task} and due_at is not null and not ${owner.unsafe(lingers)})`,
    )
    endedTasks.add(task)
    const living = await backend.alive()
    const ended = await owner<{ id: string }[]>`select id from leases where task_id = ${task} and due_at is null`
    expect(
      ended.filter(({ id }) => living.includes(id)),
      'nothing is alive after its task',
    ).toEqual([])
  }

  async function alive(): Promise<readonly string[]> {
    const kept = await owner<{ id: string }[]>`select id from leases where ${owner.unsafe(parked)}`
    return (await backend.alive()).filter((lease) => !kept.some(({ id }) => id === lease))
  }

  async function whileFrozen(change: () => Promise<unknown>): Promise<void> {
    broker.process.kill('SIGSTOP')
    while (!tripwire.quiet()) await owner`select 1`
    await change()
    broker.process.kill('SIGCONT')
    await owner`notify mayfly_due`
  }

  async function left(): Promise<string> {
    const states = await owner<{ state: string; count: number }[]>`
      select state, count(*)::int from leases where state in ('reserved', 'revoking') and not ${owner.unsafe(parked)} group by state order by state`
    const words = states.map(({ state, count }) => `${count} ${state}`)
    return [...words, `${(await alive()).length} alive`].join(', ')
  }

  async function bury(): Promise<void> {
    await broker.kill()
    logs += broker.log()
    // A statement that had reached the store goes on there without its broker.
    await until(
      () => owner`select 1 where not exists (
        select from pg_stat_activity where application_name = 'mayfly' and datname = current_database() and state = 'active')`,
    )
  }

  async function park(...states: readonly string[]): Promise<string[]> {
    const rows = await owner<{ id: string }[]>`
      with kept as (
        update leases set due_at = now() + interval '1 day' where state in ${owner(states)} and not ${owner.unsafe(parked)} returning id
      )
      insert into parked select id from kept on conflict (id) do update set id = excluded.id returning id`
    return rows.map(({ id }) => id)
  }

  async function unpark(lease?: string, age?: number): Promise<number> {
    const rows = await owner`
      update leases set due_at = now(), reserved_at = coalesce(now() - make_interval(secs => ${age ?? null}), reserved_at)
      where ${owner.unsafe(parked)} and (${lease ?? null}::text is null or id = ${lease ?? null}) returning id`
    return rows.length
  }

  /** Lets so much time pass as docs/operating.md says: 30 seconds for what was being ended, a minute for a mint. What lingers is asked about at once. */
  async function passPatiences(): Promise<void> {
    await owner`
      update leases set error = case when ${owner.unsafe(lingers)} then null else error end, due_at = case when ${owner.unsafe(lingers)} then now()
        else due_at - case state when 'reserved' then interval '1 minute' else interval '30 seconds' end end
      where ${owner.unsafe(work)}`
    await owner`update idempotency_keys set busy_until = busy_until - interval '45 seconds'`
    await owner`update kill_lists set held_until = held_until - interval '30 seconds'`
    const kept = await owner`
      select id, state as what from leases where due_at > now() and state in ('reserved', 'revoking') and ${owner.unsafe(work)}
      union all select task_id, 'key' from idempotency_keys where busy_until > now()
      union all select role, 'kill list' from kill_lists where held_until > now()`
    expect([...kept], 'what a dead broker still keeps when its time is over').toEqual([])
  }

  async function recover(): Promise<void> {
    tripwire.disarm()
    await bury()
    await backend.clear()
    await passPatiences()
    broker = await site.start()
    await until(workDone)
  }

  async function check(): Promise<void> {
    await putAside()
    const living = await alive()
    const known = await owner<{ id: string; state: string; task: string }[]>`
      select leases.id, leases.state, tasks.state as task from leases join tasks on tasks.id = task_id where leases.id in ${owner(['', ...living])}`
    const unknown = living.filter((lease) => !known.some(({ id }) => id === lease))
    expect(unknown, 'living credentials that the ledger does not know').toEqual([])
    expect(
      known.filter(({ task }) => task !== 'open'),
      'credentials alive after their task',
    ).toEqual([])
    expect(
      known.filter(({ state }) => state !== 'active'),
      'leases that say they have ended, and work',
    ).toEqual([])
    const kept = await owner<{ id: string }[]>`select id from leases where issued_at is not null`
    expect([...issuedLeases].filter((lease) => !kept.some(({ id }) => id === lease), 'acknowledged leases that were forgotten')).toEqual([])
    const reopened =
      await owner`select id, state from tasks where id in ${owner(['', ...endedTasks])} and (state = 'open' or state = 'closing' and not exists (
      select from leases where task_id = tasks.id and ${owner.unsafe(lingers)}))`
    expect([...reopened], 'acknowledged ends that were forgotten').toEqual([])
    expect(await audit(ledger, secrets)).toEqual([])
  }

  async function stop(): Promise<void> {
    tripwire.disarm()
    const metrics = await (await fetch(`${broker.url}/metrics`)).text()
    expect(await broker.stop()).toBe(0)
    logs += broker.log() + metrics
    const given = backend.secrets.filter((secret) => typeof secret === 'string')
    expect(await audit(ledger, [...secrets, ...given])).toEqual([])
    for (const secret of [...secrets, ...(await handlesOf(ledger)), ...backend.secrets])
      expect(typeof secret === 'string' ? logs.includes(secret) : secret.test(logs), 'a secret or a handle stands in a log or in a metric').toBe(
        false,
      )
    await Promise.all([owner.end(), ledger.close(), backend.stop(), wire.stop()])
    await site.remove()
    await store.dispose()
  }

  return {
    tripwire,
    folder: site.folder,
    ledger,
    owner,
    tokens,
    token: site.token,
    post,
    declare,
    issued,
    active,
    end,
    strike: () => void broker.process.kill('SIGKILL'),
    whileFrozen,
    until,
    left,
    park,
    unpark,
    recover,
    bury,
    async restart() {
      await bury()
      broker = await site.launch()
      await broker.ready()
    },
    check,
    stop,
  }
}
