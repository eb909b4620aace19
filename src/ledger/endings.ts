import { sql, type SQL } from 'drizzle-orm'
import type { TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger, Plan } from './connect.ts'
import { endedAtAny, type Ender } from './enders.ts'
import { entryColumns, type ExportedRow, rfc3339 } from './entries.ts'
import { holds, isHeld, type KeyClaim } from './keys.ts'
import { type About, receiptsAbout, toldRows } from './receipts.ts'
import { type Cause, type JsonRow, type Lease, leasesOf, type Revocation, type Task, tasksOf } from './records.ts'
import { heldIn, openIn } from './revocations.ts'
import { meansLeases, type Selector } from './selector.ts'
import { together } from './together.ts'

// Locks are taken in one order by every statement of this room: task, then lease, then agent; and before them the Idempotency-Key of a request that
// may have been overtaken, or the kill list of a role; names of its sessions last. An order within a statement is made by letting each query read from the one before it, for Postgres promises none otherwise.

/** How a task or a lease is being ended. */
export interface Ending {
  readonly cause: Cause
  /** Words of the operator; evidence for people. */
  readonly reason?: string | undefined
  /** `agent:…`, `operator:…` or `broker`. */
  readonly by: string
  /** Of the request that ends it, where another may have overtaken it: nothing moves unless it holds its Idempotency-Key still. */
  readonly under?: KeyClaim | undefined
}

/** What closing did: leases that ended in the same commit, and those whose provider has to be asked now. */
export interface Closed {
  readonly tasks: readonly Task[]
  /** Oldest first. */
  readonly ended: readonly Lease[]
  readonly revoking: readonly Lease[]
}

/** The same of the task that somebody wanted closed, and is answered about. */
export interface ClosedTask extends Closed {
  readonly receipts: readonly Receipt[]
}

/** Seconds for which whoever claims a lease may work on it before it is taken for lost, and due again. More than a provider's longest `timeout`, and what its answer takes to be written. */
export const claimSeconds = 30

/**
 * Tasks or leases that one statement takes at once where many end: enough for a storm to drain, few enough that none holds its locks for long. Closing costs the
 * square of them, which is little yet.
 */
export const mostAtOnce = 64

/** Proof that a token signed by the broker is dead: the commit that says so is what introspection reads. */
const introspectionSaysSo = 'introspection answers inactive from the commit of this entry on'

/** An open task that is to be closed, and how. */
export interface Closing {
  readonly id: TaskId
  readonly outcome: Task['state']
  readonly ending: Ending
}

/**
 * Closes one open task with all its leases, in one commit, which it may share with others. Those that are `revoking` are claimed for the caller, for
 * `claimSeconds`: there is nothing in them for a reaper, so none is woken. Nothing moved: it is not open any more, or a lease was
 * announced at this very moment, or the request that ends it was overtaken; the caller reads again and decides.
 */
export const closeTask: (ledger: Ledger, closing: Closing) => Promise<ClosedTask> = together(closeTasks, 'first')

async function closeTasks(ledger: Ledger, closings: readonly Closing[]): Promise<readonly ClosedTask[]> {
  // Of several that would end one task here, the first does. Lateral, so that each task is looked up by its id: joined, the planner walks all open ones.
  const first = new Map(closings.toReversed().map((closing) => [closing.id, closing]))
  const asked = [...first.values()].map(({ id, outcome, ending: { under, ...ending } }) => ({
    id,
    outcome,
    ...ending,
    key: under?.key,
    holder: under?.holder,
  }))
  const closed = await close(
    ledger,
    sql`
      select asked.*, null::text as revoked_in, now() as since
      from (
        select * from json_to_recordset(${JSON.stringify(asked)}::text::json)
          as asked(id text, outcome text, cause text, reason text, by text, key text, holder text) order by id
      ) as asked
      cross join lateral (
        select from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
        where task.id = asked.id and task.state = 'open' and (asked.key is null or ${isHeld(sql`asked.key`, sql`asked.holder`)}) for update of task
      ) as task`,
    forCaller,
  )
  return closings.map((closing) => partOf(closed, first.get(closing.id) === closing ? closing.id : undefined))
}

/** What of it is about one task. */
const partOf = ({ tasks, ended, revoking, told }: Closed & Told, id: TaskId | undefined): ClosedTask => ({
  tasks: tasks.filter((task) => task.id === id),
  ended: ended.filter(({ taskId }) => taskId === id),
  revoking: revoking.filter(({ taskId }) => taskId === id),
  receipts: told.filter(({ task }) => task === id).map(({ receipt }) => receipt),
})

/** What closing told the history, in the order of the log. */
interface Told {
  readonly told: readonly About[]
}

/**
 * Closes up to `limit` tasks that have passed their deadline, in one commit. `skip locked`: brokers never wait for each other, and what one
 * leaves out another has. Those that are `revoking` are due: a storm closes more at once than one broker has room for, and whoever has room claims them.
 */
export const closeOverdue = (ledger: Ledger, limit: number): Promise<Closed> =>
  close(
    ledger,
    sql`
      select task.id, 'expired' as outcome, 'deadline' as cause, null as reason, 'broker' as by, null::text as revoked_in, task.deadline as since
      from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
      where task.state = 'open' and task.closing_at is null and task.ended_at is null and task.deadline <= now() order by task.deadline limit ${limit} for update of task skip locked`,
    forAnybody,
  )

/**
 * Closes the tasks that `chosen` locks, each as its row says.
 *
 * The self-join in `chosen` is what makes one statement enough: its snapshot cannot see a lease that was announced while it waited for the task's
 * lock, but Postgres checks the condition again on the row that it finds then, and the count of leases ever announced no longer agrees.
 */
async function close(ledger: Ledger, chosen: SQL, { due, plan }: Hands): Promise<Closed & Told> {
  const [row] = await ledger.run<{ tasks: JsonRow[] | null; ended: JsonRow[] | null; revoking: JsonRow[] | null; told: ExportedRow[] | null }>(
    sql`
    with chosen as (${chosen}),
    ${endedAtOnce(sql`chosen`, ofChosen)},
    ${nowWaiting(sql`chosen`, ofChosen, due)},
    shut as (
      update tasks as task set outcome = left_now.outcome, cause = left_now.cause, reason = left_now.reason, ended_by = left_now.by, revoked_in = left_now.revoked_in,
        closing_at = left_now.since, live_leases = task.live_leases - left_now.ended,
        state = case when task.live_leases = left_now.ended then left_now.outcome else 'closing' end,
        ended_at = case when task.live_leases = left_now.ended then now() end
      from (
        select chosen.*, coalesce(gone.count, 0) as ended
        from chosen left join (select task_id, count(*)::int as count from ended group by task_id) as gone on gone.task_id = chosen.id
      ) as left_now
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
      returning *
    )
    select (select json_agg(shut) from shut) as tasks, (select json_agg(ended order by ended.id) from ended) as ended,
      (select json_agg(waiting) from waiting where waiting.state = 'revoking') as revoking, ${toldRows()} as told`,
    'first',
    plan,
  )
  return { tasks: tasksOf(row?.tasks), ended: leasesOf(row?.ended), revoking: leasesOf(row?.revoking), told: receiptsAbout(ledger, row?.told) }
}

/**
 * The leases of the tasks that are `chosen`. Their ids are told twice: of a join alone the planner, which takes the chosen for a hundred, believes that
 * reading every lease there is costs no more than looking for those, as long as there are some thousands and most of them need no provider.
 */
const ofChosen = sql`lease.task_id = any(array(select id from chosen)) and lease.task_id = chosen.id`

/**
 * Starts the end of one live lease, whatever its task does. `revoking` comes back claimed for the caller; undefined where the lease is not
 * reserved or active any more, or has not expired, or its task has too, where that is the cause, or the request that ends it was overtaken.
 */
export async function closeLease(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, ending: Ending): Promise<Lease | undefined> {
  // Where its task is past its deadline too, the lease ends with that: it would be chance otherwise which of the two is named as the cause.
  const { ended, revoking, lapsing } = await closeLeases(
    ledger,
    sql`
      select id, ${lease.id}::text as lease, ${ending.cause}::text as cause, ${ending.reason ?? null}::text as reason, ${ending.by}::text as by,
        null::text as revoked_in, null::timestamptz as since
      from tasks where id = ${lease.taskId} and (${ending.cause}::text <> 'lease_expired' or deadline > now())
        ${ending.under ? sql`and ${holds(ending.under)}` : sql``} for update`,
    forCaller,
  )
  return ended[0] ?? revoking[0] ?? lapsing[0]
}

/** What closing single leases did. */
interface ClosedLeases extends Omit<Closed, 'tasks'> {
  readonly lapsing: readonly Lease[]
}

/** What a step of a revocation did. */
export interface ClosedStep extends Closed {
  /** Where single leases are meant: those that nothing but time ends. */
  readonly lapsing?: readonly Lease[]
}

/** The lease that is chosen. One whose time is said to be over may have been refreshed since somebody saw that: it goes on. */
const chosenItself = sql`lease.task_id = chosen.id and lease.id = chosen.lease and (chosen.cause <> 'lease_expired' or lease.expires_at <= now())`

/** Closes the leases that `chosen` names, each as its row says; their tasks, which it locks, go on. */
async function closeLeases(ledger: Ledger, chosen: SQL, { due, plan }: Hands): Promise<ClosedLeases> {
  const [row] = await ledger.run<{ ended: JsonRow[] | null; waiting: JsonRow[] | null }>(
    sql`
    with chosen as (${chosen}),
    ${endedAtOnce(sql`chosen`, chosenItself)},
    ${nowWaiting(sql`chosen`, chosenItself, due)},
    ${countDown},
    ${freePlaces},
    told as (
      ${entryColumns} ${endedEntries}
      union all ${waitingEntries}
      union all ${taskEndedEntries(sql`counted`)}
    )
    select (select json_agg(ended order by ended.id) from ended) as ended, (select json_agg(waiting) from waiting) as waiting`,
    'first',
    plan,
  )
  const waiting = leasesOf(row?.waiting)
  return {
    ended: leasesOf(row?.ended),
    revoking: waiting.filter(({ state }) => state === 'revoking'),
    lapsing: waiting.filter(({ state }) => state === 'lapsing'),
  }
}

/**
 * Marks as ending up to `limit` leases of open tasks whose own end passed `grace` seconds ago, that nobody has claimed, and whose provider is none of the
 * `answering`: it is in no configuration here, or fails, and then claims take them one at a time, if at all. No provider is asked. `skip locked`, and due at
 * once, as those of `closeOverdue`.
 */
export const closeOutlived = async (ledger: Ledger, limit: number, grace: number, answering: readonly Ender[]): Promise<void> =>
  void (await closeLeases(
    ledger,
    sql`
      select task.id, lease.id as lease, case lease.state when 'active' then 'lease_expired' else 'interrupted' end as cause, null::text as reason,
        'broker' as by, null::text as revoked_in, null::timestamptz as since
      from leases as lease join tasks as task on task.id = lease.task_id
      where lease.ended_at is null and lease.expires_at <= now() - make_interval(secs => ${grace}) and lease.state in ('reserved', 'active') and not lease.local
        and lease.due_at <= now() and task.deadline > now() and not ${endedAtAny(sql`lease`, answering)}
      order by lease.expires_at limit ${limit} for update of task skip locked`,
    forAnybody,
  ))

/** Any number that nothing else takes, as long as every broker takes the same: the advisory lock of whoever waits for what requests hold. */
const waitingLock = 7420_0002

/** How long that waits: requests that follow each other let it in at their first change, and whoever holds on for longer is met again. */
const longestHold = '2s'

/**
 * One step of a revocation: closes up to `limit` tasks that it means, or of single leases up to `limit`, and that there were when it was begun. In one
 * commit: a broker that dies has done a step or has not, and whichever comes next goes on. `skip locked`: one broker at a time takes many steps of a
 * revocation, and what a request holds is left to the next step. Those that are `revoking` are due at once, as those of `closeOverdue`.
 *
 * @param limit `held`: one task or lease is closed, which is waited for, since requests that follow each other would hold it for ever. One statement of all
 *   brokers waits, so that what somebody does not let go costs them one connection. BrokerError `store_unavailable` where it was not let go in time.
 */
export async function closeSelected(
  ledger: Ledger,
  { id, ...selector }: Pick<Revocation, 'id' | keyof Selector>,
  limit: number | 'held',
): Promise<ClosedStep> {
  const waits = limit === 'held'
  // Whoever waits does not hold the revocation: other steps go on meanwhile.
  const inItsWay = waits
    ? sql`and pg_try_advisory_xact_lock(${waitingLock}) and set_config('lock_timeout', ${longestHold}::text, true) is not null`
    : sql`for update skip locked`
  const job = sql`(select * from revocations where id = ${id} and begun_at is null ${inItsWay}) as job`
  const locked = waits ? sql`limit 1 for update of task` : sql`limit ${limit} for update of task skip locked`
  if (!meansLeases(selector)) {
    return await close(
      ledger,
      sql`
      select task.id, 'revoked' as outcome, 'revoked' as cause, job.reason, job.by, job.id as revoked_in, now() as since from ${job} cross join lateral (
        select task.id from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
        where ${openIn(sql`job`)} and task.state = 'open' ${locked}
      ) as task`,
      forAnybody,
    )
  }
  const closed = await closeLeases(
    ledger,
    sql`
      select task.id, task.lease, 'revoked' as cause, job.reason, job.by, job.id as revoked_in, null::timestamptz as since from ${job} cross join lateral (
        select task.id, lease.id as lease from leases as lease join tasks as task on task.id = lease.task_id
        where ${heldIn(sql`job`)} ${locked}
      ) as task`,
    forAnybody,
  )
  return { tasks: [], ...closed }
}

/** Where nothing but time ends a credential, nobody is asked: it lapses, from a mint that may still be under way too. */
export const endingState = sql`case when lease.revocation = 'expiry' then 'lapsing' else 'revoking' end`
/** When a lease that is to end has to be looked at: where nothing but time ends it, not before that time. */
export const dueToEnd = (due: SQL): SQL => sql`case when lease.revocation = 'expiry' then lease.expires_at else ${due} end`
const claimUntil = sql`now() + make_interval(secs => ${claimSeconds})`

/** Who asks the providers of what is closed, told by when its leases are due; and how the planner looks for them where many are closed. */
interface Hands {
  readonly due: SQL
  readonly plan: Plan
}
const forCaller: Hands = { due: claimUntil, plan: 'kept' }
/** What had its own end before is asked about before what has just been closed. */
const forAnybody: Hands = { due: sql`least(lease.due_at, now())`, plan: 'fresh' }

/** A lease that has outlived its own end was due then, not when somebody came to look. */
const closingSince = (from: SQL): SQL => sql`coalesce(${from}.since, least(now(), lease.expires_at))`

/** Ends the local leases that `condition` finds beside `from`, which says how: the broker itself answers whether they live. The query `ended`. */
const endedAtOnce = (from: SQL, condition: SQL): SQL => sql`
  ended as (
    update leases as lease set state = 'revoked', cause = ${from}.cause, reason = ${from}.reason, ended_by = ${from}.by, revoked_in = ${from}.revoked_in,
      closing_at = ${closingSince(from)}, ended_at = now(), due_at = null,
      evidence = jsonb_build_object('by', 'broker', 'statement', ${introspectionSaysSo}::text, 'at', ${rfc3339(sql`now()`)})
    from ${from} where ${condition} and lease.local and lease.state = 'active'
    returning lease.*
  )`

/** Marks the others: their providers have to be asked when they are `due`, or time. The query `waiting`. */
export const nowWaiting = (from: SQL, condition: SQL, due: SQL): SQL => sql`
  waiting as (
    update leases as lease set state = ${endingState}, cause = ${from}.cause, reason = ${from}.reason, ended_by = ${from}.by, revoked_in = ${from}.revoked_in,
      closing_at = ${closingSince(from)}, attempts = 0,
      due_at = ${dueToEnd(due)}
    from ${from} where ${condition} and not lease.local and lease.state in ('reserved', 'active')
    returning lease.*
  )`

/** Counts the leases of `ended` down in their tasks, and ends a closing task whose last one it was. The query `counted`. */
export const countDown = sql`
  counted as (
    update tasks as task set live_leases = task.live_leases - gone.count,
      state = case when task.state = 'closing' and task.live_leases = gone.count then task.outcome else task.state end,
      ended_at = case when task.state = 'closing' and task.live_leases = gone.count then now() else task.ended_at end
    from (select task_id, count(*)::int as count from ended group by task_id) as gone where task.id = gone.task_id
    returning task.*
  )`

/** Gives the places of `ended` back to their agents; in the order of names, so that two brokers that end many at once cannot block each other. */
export const freePlaces = sql`
  gone as (select agent, count(*)::int as count from ended group by agent),
  holders as (select agent.name from agents as agent where agent.name in (select gone.agent from gone) order by agent.name for update),
  freed as (
    update agents as agent set live_leases = agent.live_leases - gone.count
    from holders, gone where agent.name = holders.name and gone.agent = holders.name
  )`

export const endedEntries = sql`
  select 'lease.' || ended.state, ended.agent, ended.task_id, ended.id, ended.decision_id,
    jsonb_strip_nulls(jsonb_build_object('cause', ended.cause, 'reason', ended.reason, 'by', ended.ended_by, 'evidence', ended.evidence, 'error', ended.error)) from ended`

/** Of leases whose end was begun by itself: that of a task says for all of its leases how. */
export const waitingEntries = sql`
  select 'lease.' || waiting.state, waiting.agent, waiting.task_id, waiting.id, waiting.decision_id,
    jsonb_build_object('cause', waiting.cause, 'reason', waiting.reason, 'by', waiting.ended_by) from waiting`

export const taskEndedEntries = (source: SQL): SQL => sql`
  select 'task.ended', task.agent, task.id, null, null, jsonb_build_object('state', task.state, 'cause', task.cause)
  from ${source} as task where task.state not in ('open', 'closing')`
