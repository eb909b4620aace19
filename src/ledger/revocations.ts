import { sql, type SQL } from 'drizzle-orm'
import type { RevocationId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, type ExportedRow } from './entries.ts'
import { dueChannel } from './postgres.ts'
import { receiptsOfRows, toldRows } from './receipts.ts'
import { type JsonRow, type Lease, type Revocation, revocationOf } from './records.ts'
import { agreesWithLease, agreesWithTask, meansLeases, namesLeases, type Selector, selectorColumns, selectorIn, selectorValues } from './selector.ts'
import type { LeaseState, TaskState } from './states.ts'
import { type NewStop, stopEntries, stopRows } from './stops.ts'

/** What a selector means at this moment: what is open and alive. */
export interface Reach {
  /** Open tasks that would end; where single leases are meant, tasks that would lose some. */
  readonly tasks: number
  readonly leases: readonly { readonly provider: string; readonly revocation: Lease['revocation']; readonly count: number }[]
  /** Leases whose end something else has begun, and that are not proven dead. */
  readonly endingAlready: number
}

/** A revocation about to be started. */
export interface NewRevocation {
  readonly id: RevocationId
  readonly selector: Selector
  readonly reason: string
  readonly by: string
  /**
   * Of tasks, or of leases where single ones are meant: with more than so many nothing is started. What is being announced at that very moment is not
   * counted, and is ended all the same.
   */
  readonly most: number | undefined
  /** Stops issuing the same in the same commit. */
  readonly stop: NewStop | undefined
}

/** Which open tasks a row of `revocations` means, of those that there were when it was started. Read by `tasks_due`, which has what is open. */
export const openIn = (job: SQL): SQL => sql`
  task.closing_at is null and task.ended_at is null and task.opened_at <= ${job}.started_at and ${agreesWithTask(job, sql`task`)}`

/** The same of living leases, beside their tasks. */
export const heldIn = (job: SQL): SQL => sql`
  lease.ended_at is null and lease.state in ('reserved', 'active') and lease.reserved_at <= ${job}.started_at
    and ${agreesWithLease(job, sql`lease.grant_name`, sql`lease.provider`)} and ${agreesWithTask(job, sql`task`)}`

/** When what it means of a lease and its task began. */
const beganIn = (job: SQL): SQL => sql`case when ${namesLeases(job)} then lease.reserved_at else task.opened_at end`

/** Leases that it means, beside their tasks, whose end something else has begun: a completion, a deadline, another revocation. */
const endingIn = (job: SQL): SQL => sql`
  lease.state in ('revoking', 'lapsing') and ${beganIn(job)} <= ${job}.started_at
    and ${agreesWithLease(job, sql`lease.grant_name`, sql`lease.provider`)} and ${agreesWithTask(job, sql`task`)}`

/**
 * The queries `held_now`, living leases that are meant, `open_now`, their tasks, and `ending_now`, and the query `reach` over them, with when the latest of
 * them began: all that can be seen is there already, whatever the store's clock says, which may have been set back.
 */
const reachRows = (selector: Selector): SQL => sql`
  job as (select 'infinity'::timestamptz as started_at, * from (values (${selectorValues(selector)})) as job(${selectorColumns})),
  held_now as materialized (
    select lease.task_id, lease.provider, lease.revocation, lease.reserved_at as begun from job, leases as lease join tasks as task on task.id = lease.task_id
    where ${heldIn(sql`job`)} and task.closing_at is null and task.ended_at is null
  ),
  open_now as materialized (
    ${meansLeases(selector) ? sql`select task_id, max(begun) as begun from held_now group by task_id` : sql`select task.id, task.opened_at as begun from job, tasks as task where ${openIn(sql`job`)}`}
  ),
  ending_now as materialized (
    select ${beganIn(sql`job`)} as begun from job, leases as lease join tasks as task on task.id = lease.task_id where ${endingIn(sql`job`)}
  ),
  reach as (
    select (select count(*) from open_now)::int as tasks, (select count(*) from held_now)::int as held, (
      select coalesce(json_agg(json_build_object('provider', provider, 'revocation', revocation, 'count', count) order by provider, revocation), '[]')
      from (select provider, revocation, count(*)::int as count from held_now group by provider, revocation) as counted
    ) as leases, (select count(*) from ending_now)::int as "endingAlready",
      (select max(begun) from (select begun from open_now union all select begun from ending_now) as begun) as latest
  )`

/** What would end if it were revoked now. What lives is looked through; no history adds to it. */
export async function reachOf(ledger: Ledger, selector: Selector): Promise<Reach> {
  const [row] = await ledger.run<Reach>(sql`with ${reachRows(selector)} select tasks, leases, "endingAlready" from reach`, 'first', 'fresh')
  return row!
}

/** A revocation that was just started, with what it meant then and the receipts of it and of its stop. */
export interface StartedRevocation {
  readonly revocation: Revocation
  readonly reach: Reach
  readonly receipts: readonly Receipt[]
}

/**
 * Starts a revocation, and stops issuing the same where that is asked for. From the commit on every broker's reaper ends what it means, step by step.
 *
 * With a stop it is started at a moment that is read when the stop has its lock: whatever the lock had to wait for was announced before, and is meant.
 * Where the store's clock was set back it is started when the latest of what is there began, by the clock as it was then.
 * Undefined: there is more to be ended than whoever asked knew of, and nothing was started.
 */
export async function startRevocation(ledger: Ledger, revocation: NewRevocation): Promise<StartedRevocation | undefined> {
  const { id, selector, reason, by, most, stop } = revocation
  // The statement below takes the lock of a stop, and waits for all who announce, even where it puts none. Only what it counts itself decides.
  if (stop && most !== undefined && countOf(selector, await reachOf(ledger, selector)) > most) return undefined
  const [row] = await ledger.run<{ revocation: JsonRow; told: ExportedRow[] } & Reach>(
    sql`
    with ${reachRows(selector)},
    confirmed as (select from reach ${most === undefined ? sql`` : sql`where ${countIn(selector)} <= ${most}::bigint`}),
    ${stop ? sql`${stopRows(stop, sql`from confirmed`)},` : sql``}
    started as (
      insert into revocations (id, ${selectorColumns}, reason, by, started_at)
      select ${id}::text, ${selectorValues(selector)}, ${reason}::text, ${by}::text, greatest(${stop ? sql`clock_timestamp()` : sql`now()`}, reach.latest)
      from ${stop ? sql`stop` : sql`confirmed`}, reach returning *
    ),
    told as (
      ${entryColumns}
      ${stop ? sql`${stopEntries} union all` : sql``}
      select 'revocation.started', null, null, null, null, jsonb_build_object('revocation', started.id, 'selector', ${selectorIn(sql`started`)},
        'reason', started.reason, 'by', started.by, 'tasks', reach.tasks, 'leases', reach.leases) from started, reach
      returning *
    ),
    woken as (select pg_notify(${dueChannel}, '') from started)
    select to_json(started) as revocation, reach.tasks, reach.leases, reach."endingAlready", ${toldRows()} as told, (select count(*) from woken) as woken from started, reach`,
    'first',
    'fresh',
  )
  if (!row) return undefined
  const { tasks, leases, endingAlready, told } = row
  return { revocation: revocationOf(row.revocation), reach: { tasks, leases, endingAlready }, receipts: receiptsOfRows(ledger, told) }
}

/** What a confirmation counts: tasks, or leases where single ones are meant. */
export const countOf = (selector: Selector, { tasks, leases }: Reach): number =>
  meansLeases(selector) ? leases.reduce((sum, { count }) => sum + count, 0) : tasks

/** The same of the query `reach`. */
const countIn = (selector: Selector): SQL => (meansLeases(selector) ? sql`reach.held` : sql`reach.tasks`)

/** Revocations of which something may be left to begin to end, oldest first. Those that only wait for the last of theirs to die keep no other from its turn. */
export async function unbegunRevocations(ledger: Ledger): Promise<readonly Revocation[]> {
  const rows = await ledger.run<{ revocation: JsonRow }>(sql`
    select to_json(found) as revocation
    from (select * from revocations where ended_at is null and begun_at is null order by id limit 100) as found order by id`)
  return rows.map((row) => revocationOf(row.revocation))
}

/** By revocation: transactions that were announcing when this broker first looked, and still were when it last did. */
const announcing = new WeakMap<Ledger, ReadonlyMap<RevocationId, readonly string[]>>()

/**
 * Those of the unbegun revocations since whose start all transactions have ended that were announcing then. A declaration that waits for another, at a lock,
 * has no transaction id, and only the locks tell of it: each that issues something has one on `stops`. How long each is under way Postgres tells no role of
 * another's login, so a broker remembers which there were when it first met the revocation.
 */
export async function unawaited(ledger: Ledger, revocations: readonly Revocation[]): Promise<ReadonlySet<RevocationId>> {
  const rows = await ledger.run<{ transaction: string }>(sql`
    select virtualtransaction as transaction from pg_locks
    where database = (select oid from pg_database where datname = current_database()) and relation = 'stops'::regclass and mode = 'RowShareLock'`)
  const now = rows.map(({ transaction }) => transaction)
  const before = announcing.get(ledger)
  const left = new Map(revocations.map(({ id }) => [id, (before?.get(id) ?? now).filter((transaction) => now.includes(transaction))]))
  announcing.set(ledger, left)
  return new Set(revocations.map(({ id }) => id).filter((id) => left.get(id)!.length === 0))
}

/**
 * Notes of one that nothing is left that it had to begin to end.
 *
 * A task that was being declared when a revocation was started may not be seen yet: it waits until whatever was under way then has ended, which the
 * oldest transaction tells and, of what had no transaction id yet, `unawaited`; and at the latest until a statement that was has run out of time.
 *
 * @param isUnawaited whether it was before this is asked, so that what it waited for is seen here
 * @returns false where something may be left
 */
export async function noteBegun(ledger: Ledger, { id, ...selector }: Revocation, isUnawaited: boolean): Promise<boolean> {
  const left = meansLeases(selector)
    ? sql`select from leases as lease join tasks as task on task.id = lease.task_id where ${heldIn(sql`job`)}`
    : sql`select from tasks as task where ${openIn(sql`job`)}`
  const begun = await ledger.run(
    sql`
    update revocations as job set begun_at = now() where job.id = ${id} and job.begun_at is null and not exists (${left})
      and ((${isUnawaited}::boolean and pg_snapshot_xmin(pg_current_snapshot()) > job.xid) or job.started_at < now() - interval '15 seconds') returning job.id`,
    'first',
    'fresh',
  )
  return begun.length > 0
}

/**
 * Notes of revocations that have begun to end all that they had to, `limit` at most, that nothing of what they mean is left alive, whatever began its end.
 * However many still wait, each is looked at.
 */
export async function endRevocations(ledger: Ledger, limit: number): Promise<void> {
  await ledger.run(sql`
    with dead as (
      select id from revocations as job where ended_at is null and begun_at is not null
        and not exists (select from leases where revoked_in = job.id and state in ('revoking', 'lapsing'))
        and not exists (select from tasks where revoked_in = job.id and state = 'closing')
        and not exists (select from leases as lease join tasks as task on task.id = lease.task_id where ${endingIn(sql`job`)})
      order by id limit ${limit} for update skip locked
    ),
    done as (update revocations as job set ended_at = now() from dead where job.id = dead.id returning job.*)
    ${entryColumns}
    select 'revocation.ended', null, null, null, null, jsonb_build_object('revocation', done.id,
      'tasks', (select count(*) from tasks where revoked_in = done.id), 'leases', (select count(*) from leases where revoked_in = done.id)) from done`)
}

/** How far a revocation is: how many of what it ended, or is ending, are in which state. */
export interface Progress {
  readonly revocation: Revocation
  readonly tasks: Partial<Record<TaskState, number>>
  readonly leases: Partial<Record<LeaseState, number>>
  /** Of the leases: those whose provider has failed to end them for too long. */
  readonly stuck: number
  /** Leases that it means and whose end something else has begun, that are not proven dead: it has not ended before they are. */
  readonly endingAlready: number
}

export async function progressOf(ledger: Ledger, id: RevocationId): Promise<Progress | undefined> {
  const [row] = await ledger.run<
    Pick<Progress, 'stuck' | 'endingAlready'> & { revocation: JsonRow; tasks: Progress['tasks'] | null; leases: Progress['leases'] | null }
  >(sql`
    select to_json(found) as revocation,
      (select json_object_agg(state, count) from (select state, count(*)::int from tasks where revoked_in = ${id} group by state) as ended) as tasks,
      (select json_object_agg(state, count) from (select state, count(*)::int from leases where revoked_in = ${id} group by state) as ended) as leases,
      (select count(*)::int from leases where revoked_in = ${id} and state = 'revoking' and stuck_since is not null) as stuck,
      (select count(*)::int from leases as lease join tasks as task on task.id = lease.task_id
        where ${endingIn(sql`found`)} and lease.revoked_in is distinct from found.id) as "endingAlready"
    from revocations as found where id = ${id}`)
  if (!row) return undefined
  const { tasks, leases, stuck, endingAlready } = row
  return { revocation: revocationOf(row.revocation), tasks: tasks ?? {}, leases: leases ?? {}, stuck, endingAlready }
}
