import { sql, type SQL } from 'drizzle-orm'
import type { Evidence, Handle } from '../base/evidence.ts'
import type { TaskId } from '../base/ids.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, json, rfc3339 } from './entries.ts'
import { dueChannel } from './postgres.ts'
import { type Cause, type JsonRow, type Lease, leaseOf, leasesOf, type Task, tasksOf } from './records.ts'

// Locks are taken in one order by every statement of this room: task, then lease, then agent. An order within a statement is made by letting
// each query read from the one before it, for Postgres promises none otherwise.

/** How a task or a lease is being ended. */
export interface Ending {
  readonly cause: Cause
  /** Words of the operator; evidence for people. */
  readonly reason?: string | undefined
  /** `agent:…`, `operator:…` or `broker`. */
  readonly by: string
}

/** What closing did: leases that ended in the same commit, and those whose provider has to be asked now. */
export interface Closed {
  readonly tasks: readonly Task[]
  readonly ended: readonly Lease[]
  /** `revoking`, claimed for the caller for `claimSeconds`. */
  readonly revoking: readonly Lease[]
}

/** Seconds for which whoever claims a lease may work on it before another broker takes it. More than a provider's timeout. */
export const claimSeconds = 30

/** Proof that a token signed by the broker is dead: the commit that says so is what introspection reads. */
const introspectionSaysSo = 'introspection answers inactive from the commit of this entry on'

/**
 * Closes one open task with all its leases, in one commit. Nothing moved: it is not open any more, or a lease was announced at this very moment;
 * the caller reads again and decides.
 */
export async function closeTask(ledger: Ledger, id: TaskId, outcome: Task['state'], ending: Ending): Promise<Closed> {
  const chosen = sql`
    select task.* from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
    where task.id = ${id} and task.state = 'open' for update of task`
  return await close(ledger, chosen, sql`${outcome}::text`, ending, sql`now()`)
}

/**
 * Closes up to `limit` tasks that have passed their deadline, in one commit. `skip locked`: brokers never wait for each other, and what one
 * leaves out another has.
 */
export async function closeOverdue(ledger: Ledger, limit: number): Promise<Closed> {
  const chosen = sql`
    select task.* from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
    where task.state = 'open' and task.deadline <= now() order by task.deadline limit ${limit} for update of task skip locked`
  return await close(ledger, chosen, sql`'expired'`, { cause: 'deadline', by: 'broker' }, sql`task.deadline`)
}

/**
 * The self-join in `chosen` is what makes one statement enough: its snapshot cannot see a lease that was announced while it waited for the task's
 * lock, but Postgres checks the condition again on the row that it finds then, and the count of leases ever announced no longer agrees.
 */
async function close(ledger: Ledger, chosen: SQL, outcome: SQL, ending: Ending, since: SQL): Promise<Closed> {
  const [row] = await ledger.run<{ tasks: JsonRow[] | null; ended: JsonRow[] | null; revoking: JsonRow[] | null }>(sql`
    with chosen as (${chosen}),
    ${endedAtOnce(sql`chosen as task`, sql`task.id`, ending, since)},
    waiting as (
      update leases as lease set state = ${closing},
        cause = ${ending.cause}, reason = ${ending.reason ?? null}, ended_by = ${ending.by}, closing_at = ${since}, attempts = 0,
        due_at = ${closingDue}
      from chosen as task where lease.task_id = task.id and not lease.local and lease.state in ('reserved', 'active')
      returning lease.*
    ),
    shut as (
      update tasks as task set outcome = ${outcome}, cause = ${ending.cause}, reason = ${ending.reason ?? null}, ended_by = ${ending.by},
        closing_at = ${since}, live_leases = task.live_leases - left_now.ended,
        state = case when task.live_leases = left_now.ended then ${outcome} else 'closing' end,
        ended_at = case when task.live_leases = left_now.ended then now() end
      from (select chosen.id, (select count(*) from ended where ended.task_id = chosen.id)::int as ended from chosen) as left_now
      where task.id = left_now.id
      returning task.*
    ),
    ${freePlaces},
    told as (
      ${entryColumns}
      select 'task.closing', shut.agent, shut.id, null, null, jsonb_build_object('cause', shut.cause, 'reason', shut.reason, 'by', shut.ended_by, 'outcome', shut.outcome) from shut
      union all ${endedEntries}
      union all select 'lease.' || waiting.state, waiting.agent, waiting.task_id, waiting.id, waiting.decision_id, jsonb_build_object('cause', waiting.cause) from waiting
      union all ${taskEndedEntries(sql`shut`)}
    ),
    woken as (select pg_notify(${dueChannel}, '') from (select 1 from waiting limit 1) as one)
    select (select json_agg(shut) from shut) as tasks, (select json_agg(ended) from ended) as ended,
      (select json_agg(waiting) from waiting where waiting.state = 'revoking') as revoking, (select count(*) from woken) as woken`)
  return { tasks: tasksOf(row?.tasks), ended: leasesOf(row?.ended), revoking: leasesOf(row?.revoking) }
}

/**
 * Starts the end of one live lease, whatever its task does. `revoking` comes back claimed for the caller; undefined where the lease is not
 * reserved or active any more.
 */
export async function closeLease(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, ending: Ending): Promise<Lease | undefined> {
  const [row] = await ledger.run<{ ended: JsonRow | null; waiting: JsonRow | null }>(sql`
    with task as (select id from tasks where id = ${lease.taskId} for update),
    ${endedAtOnce(sql`task`, sql`task.id and lease.id = ${lease.id}`, ending, causedAt)},
    waiting as (
      update leases as lease set state = ${closing},
        cause = ${ending.cause}, reason = ${ending.reason ?? null}, ended_by = ${ending.by}, closing_at = ${causedAt}, attempts = 0,
        due_at = ${closingDue}
      from task where lease.id = ${lease.id} and lease.task_id = task.id and not lease.local and lease.state in ('reserved', 'active')
      returning lease.*
    ),
    ${countDown},
    ${freePlaces},
    told as (
      ${entryColumns} ${endedEntries}
      union all select 'lease.' || waiting.state, waiting.agent, waiting.task_id, waiting.id, waiting.decision_id,
        jsonb_build_object('cause', waiting.cause, 'reason', waiting.reason, 'by', waiting.ended_by) from waiting
      union all ${taskEndedEntries(sql`counted`)}
    )
    select (select to_json(ended) from ended) as ended, (select to_json(waiting) from waiting) as waiting`)
  const moved = row?.ended ?? row?.waiting
  return moved ? leaseOf(moved) : undefined
}

/** What is known at the end of a lease: proof, or the reason why none is to be had. */
export type Settlement =
  | { readonly to: 'revoked'; readonly evidence: Evidence }
  /** The credential's own end has passed by the store's clock. */
  | { readonly to: 'expired' }
  /** The provider promised that nothing was minted and nothing will be. */
  | { readonly to: 'failed'; readonly error: string }

/**
 * Ends a lease for good, and its task with it where it was the last. Undefined: somebody else moved it first; read it again, never force it.
 */
export async function settle(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, settlement: Settlement): Promise<Lease | undefined> {
  const from =
    settlement.to === 'failed'
      ? sql`lease.issued_at is null and lease.state in ('reserved', 'revoking', 'lapsing')`
      : sql`lease.state in ('revoking', 'lapsing')`
  const late = settlement.to === 'expired' ? sql`and lease.expires_at <= now()` : sql``
  const [row] = await ledger.run<{ ended: JsonRow | null }>(sql`
    with task as (select id from tasks where id = ${lease.taskId} for update),
    ended as (
      update leases as lease set state = ${settlement.to}, ended_at = now(), due_at = null,
        evidence = ${settlement.to === 'revoked' ? json(settlement.evidence) : sql`null`},
        error = ${settlement.to === 'failed' ? settlement.error : settlement.to === 'revoked' ? null : sql`lease.error`},
        cause = coalesce(lease.cause, 'interrupted'), closing_at = coalesce(lease.closing_at, now()), stuck_since = null
      from task where lease.id = ${lease.id} and lease.task_id = task.id and ${from} ${late}
      returning lease.*
    ),
    ${countDown},
    ${freePlaces},
    told as (${entryColumns} ${endedEntries} union all ${taskEndedEntries(sql`counted`)})
    select (select to_json(ended) from ended) as ended`)
  return row?.ended ? leaseOf(row.ended) : undefined
}

/**
 * Ends what only the broker or time has to end: up to `limit` leases whose own end has passed and that no provider needs to be asked about.
 * Local ones, lapsing ones, and those whose provider could not confirm for `grace` seconds past their end.
 */
export async function expireLeases(ledger: Ledger, limit: number, grace: number): Promise<readonly Lease[]> {
  const [row] = await ledger.run<{ ended: JsonRow[] | null }>(sql`
    with due as (
      select id, task_id from leases as lease where due_at is not null and expires_at <= now()
        and ((local and state = 'active') or state = 'lapsing' or (state = 'revoking' and expires_at + make_interval(secs => ${grace}) <= now()))
      order by expires_at limit ${limit}
    ),
    task as (select id from tasks where id in (select task_id from due) order by id for update skip locked),
    ended as (
      update leases as lease set state = 'expired', ended_at = now(), due_at = null, cause = coalesce(lease.cause, 'lease_expired'),
        closing_at = coalesce(lease.closing_at, lease.expires_at), ended_by = coalesce(lease.ended_by, 'broker'), stuck_since = null
      from task, due where lease.id = due.id and lease.task_id = task.id and lease.expires_at <= now()
        and ((lease.local and lease.state = 'active') or lease.state in ('lapsing', 'revoking'))
      returning lease.*
    ),
    ${countDown},
    ${freePlaces},
    told as (${entryColumns} ${endedEntries} union all ${taskEndedEntries(sql`counted`)})
    select (select json_agg(ended) from ended) as ended`)
  return leasesOf(row?.ended)
}

/**
 * Journals a handle of a lease that is being minted, before the provider goes on. A handle that arrives after the lease was thought to have ended
 * brings it back: a credential that may live is never forgotten for the sake of a tidy record.
 *
 * @returns the state in which the lease is now: anything but `reserved` means that nobody will hand this credential out
 */
export async function journal(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, handle: Handle): Promise<Lease['state'] | undefined> {
  const [row] = await ledger.run<{ state: Lease['state'] }>(sql`
    with task as (select * from tasks where id = ${lease.taskId} for update),
    seen as (select lease.id, lease.due_at is null as ended from leases as lease join task on task.id = lease.task_id where lease.id = ${lease.id} for update of lease),
    kept as (
      update leases as lease set handles = lease.handles || ${json([handle])}, state = case when seen.ended then ${closing} else lease.state end,
        due_at = case when seen.ended then now() else lease.due_at end, ended_at = null, evidence = null
      from seen where lease.id = seen.id
      returning lease.*, seen.ended as reopened
    ),
    counted as (
      update tasks as task set live_leases = task.live_leases + 1, state = case when task.state = 'open' then 'open' else 'closing' end, ended_at = null
      from kept where kept.reopened and task.id = kept.task_id
    ),
    place as (update agents as agent set live_leases = agent.live_leases + 1 from kept where kept.reopened and agent.name = kept.agent),
    told as (
      ${entryColumns} select 'lease.reopened', kept.agent, kept.task_id, kept.id, kept.decision_id, '{}'::jsonb from kept where kept.reopened
    )
    select state from kept`)
  return row?.state
}

/** Where nothing but time ends a credential, nobody is asked: it lapses, from a mint that may still be under way too. */
const closing = sql`case when lease.revocation = 'expiry' then 'lapsing' else 'revoking' end`
const claimUntil = sql`now() + make_interval(secs => ${claimSeconds})`
const closingDue = sql`case when lease.revocation = 'expiry' then lease.expires_at else ${claimUntil} end`

/** A lease that has outlived its own end was due then, not when somebody came to look. */
const causedAt = sql`least(now(), lease.expires_at)`

/** Ends the leases of `task` that end with the commit: the broker itself answers whether they live. The query `ended`. */
const endedAtOnce = (task: SQL, condition: SQL, ending: Ending, since: SQL): SQL => sql`
  ended as (
    update leases as lease set state = 'revoked', cause = ${ending.cause}, reason = ${ending.reason ?? null}, ended_by = ${ending.by},
      closing_at = ${since}, ended_at = now(), due_at = null,
      evidence = jsonb_build_object('by', 'broker', 'statement', ${introspectionSaysSo}::text, 'at', ${rfc3339(sql`now()`)})
    from ${task} where lease.task_id = ${condition} and lease.local and lease.state = 'active'
    returning lease.*
  )`

/** Counts the leases of `ended` down in their tasks, and ends a closing task whose last one it was. The query `counted`. */
const countDown = sql`
  counted as (
    update tasks as task set live_leases = task.live_leases - gone.count,
      state = case when task.state = 'closing' and task.live_leases = gone.count then task.outcome else task.state end,
      ended_at = case when task.state = 'closing' and task.live_leases = gone.count then now() else task.ended_at end
    from (select task_id, count(*)::int as count from ended group by task_id) as gone where task.id = gone.task_id
    returning task.*
  )`

/** Gives the places of `ended` back to their agents; in the order of names, so that two brokers that end many at once cannot block each other. */
const freePlaces = sql`
  gone as (select agent, count(*)::int as count from ended group by agent),
  holders as (select agent.name from agents as agent where agent.name in (select gone.agent from gone) order by agent.name for update),
  freed as (
    update agents as agent set live_leases = agent.live_leases - gone.count
    from holders, gone where agent.name = holders.name and gone.agent = holders.name
  )`

const endedEntries = sql`
  select 'lease.' || ended.state, ended.agent, ended.task_id, ended.id, ended.decision_id,
    jsonb_strip_nulls(jsonb_build_object('cause', ended.cause, 'reason', ended.reason, 'by', ended.ended_by, 'evidence', ended.evidence, 'error', ended.error)) from ended`

const taskEndedEntries = (source: SQL): SQL => sql`
  select 'task.ended', task.agent, task.id, null, null, jsonb_build_object('state', task.state, 'cause', task.cause)
  from ${source} as task where task.state not in ('open', 'closing')`
