import { sql } from 'drizzle-orm'
import type { Evidence, Handle } from '../base/evidence.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { endedAt, endedAtAny, type Ender } from './enders.ts'
import { countDown, dueToEnd, endedEntries, endingState, freePlaces, taskEndedEntries } from './endings.ts'
import { entryColumns, type ExportedRow, json } from './entries.ts'
import { putBack } from './queue.ts'
import { receiptsAbout, toldRows } from './receipts.ts'
import { type JsonRow, type Lease, leasesOf, type Task, tasksOf } from './records.ts'
import { together } from './together.ts'

/** What is known at the end of a lease: proof, or the reason why none is to be had. */
export type Settlement =
  | { readonly to: 'revoked'; readonly evidence: Evidence }
  /** Its own end passed before the provider could end it, and the provider says so. */
  | { readonly to: 'expired'; readonly evidence: Evidence }
  /** The provider promised that nothing was minted and nothing will be. */
  | { readonly to: 'failed'; readonly error: string }

/** A lease and what is known at its end. */
export interface Settling {
  /**
   * With its handles as they were when the provider was asked: what it answered says nothing of those that came later. Without them where the mint itself
   * says what became of it, which knows them all.
   */
  readonly lease: Pick<Lease, 'id' | 'taskId'> & Partial<Pick<Lease, 'handles'>>
  readonly settlement: Settlement
}

/** A lease that has ended, and its task where that has ended with it. */
export interface Settled {
  readonly lease: Lease
  readonly task: Task | undefined
  /** Of both. Two leases that end in one commit with their task both have that of the task. */
  readonly receipts: readonly Receipt[]
}

/**
 * Ends a lease for good, and its task with it where it was the last, in one commit, which it may share with others. Undefined: somebody else moved it
 * first, or it has a handle that this is not known of; read it again, never force it. What is left of it then is due at once.
 */
export async function settle(ledger: Ledger, settling: Settling): Promise<Settled | undefined> {
  const settled = await settleTogether(ledger, settling)
  if (!settled) await putBack(ledger, settling.lease)
  return settled
}

const settleTogether = together(settleAll, 'first')

async function settleAll(ledger: Ledger, all: readonly Settling[]): Promise<readonly (Settled | undefined)[]> {
  const asked = all.map(({ lease, settlement }) => ({ id: lease.id, task: lease.taskId, handles: lease.handles?.length, ...settlement }))
  const [row] = await ledger.run<{ ended: JsonRow[] | null; tasks: JsonRow[] | null; told: ExportedRow[] | null }>(sql`
    with asked as materialized (
      select distinct on (id) *
      from json_to_recordset(${JSON.stringify(asked)}::text::json) as asked(id text, task text, handles int, "to" text, evidence jsonb, error text)
      order by id, handles desc
    ),
    task as (select id from tasks where id in (select task from asked) order by id for update),
    ended as (
      update leases as lease set state = asked."to", ended_at = now(), due_at = null, evidence = asked.evidence, error = coalesce(asked.error, lease.error),
        cause = coalesce(lease.cause, 'interrupted'), closing_at = coalesce(lease.closing_at, now()), stuck_since = null
      from task join asked on asked.task = task.id
      where lease.id = asked.id and lease.task_id = task.id and jsonb_array_length(lease.handles) = coalesce(asked.handles, jsonb_array_length(lease.handles))
        and case asked."to"
        when 'failed' then lease.issued_at is null and lease.state in ('reserved', 'revoking', 'lapsing')
        else lease.state in ('revoking', 'lapsing') end
      returning lease.*
    ),
    ${countDown},
    ${freePlaces},
    told as (${entryColumns} ${endedEntries} union all ${taskEndedEntries(sql`counted`)} returning *)
    select (select json_agg(ended) from ended) as ended, (select json_agg(counted) from counted where counted.ended_at is not null) as tasks,
      ${toldRows()} as told`)
  const tasks = new Map(tasksOf(row?.tasks).map((task) => [task.id, task]))
  const told = receiptsAbout(ledger, row?.told)
  const ended = new Map(leasesOf(row?.ended).map((lease) => [lease.id, lease]))
  return all.map(({ lease: { id } }) => {
    const lease = ended.get(id)
    if (!lease) return undefined
    const names: readonly (string | null)[] = [lease.id, lease.taskId]
    const about = told.filter((one) => names.includes(one.lease ?? one.task))
    return { lease, task: tasks.get(lease.taskId), receipts: about.map(({ receipt }) => receipt) }
  })
}

/** Seconds after which a mint that was cut off has come to its end at any provider: until then its word that it knows of nothing is not the last. */
const undecided = 180

/** What this broker knows of the providers at which leases end. */
export interface EndersHere {
  /** Those that are asked about what is due, sooner or later, however much that is. */
  readonly answering: readonly Ender[]
  /** Those of which time has not the last word: they alone can end leases with a handle of this key, whatever the time. */
  readonly confirming: readonly (Ender & { readonly key: string })[]
}

/**
 * Ends what only the broker or time has to end: up to `limit` leases whose own end has passed and that no provider needs to be asked about.
 * Lapsing ones, local ones whose task goes on, and from `grace` seconds past their end those whose provider could not confirm, unless it is one of the
 * `confirming`. One of the `answering` has to have been asked since, which shows in when it is to be asked again: no broker or no store may have been there
 * before.
 */
export async function expireLeases(ledger: Ledger, limit: number, grace: number, { answering, confirming }: EndersHere): Promise<readonly Lease[]> {
  const [row] = await ledger.run<{ ended: JsonRow[] | null }>(sql`
    with due as (
      select id, task_id, due_at, state = 'active' as lives from leases as lease where ended_at is null and expires_at <= now()
        and ((local and state = 'active') or state = 'lapsing'
        or (state = 'revoking' and expires_at + make_interval(secs => ${grace}) <= now() and due_at <= now()
          and not exists (
            select from json_to_recordset(${JSON.stringify(confirming)}::text::json) as confirming(name text, kind text, key text), jsonb_array_elements(handles) as held(handle)
            where ${endedAt(sql`lease`, sql`confirming`)} and held.handle ? confirming.key)
          and (issued_at is not null or reserved_at + make_interval(secs => ${undecided}) <= now())
          and (not ${endedAtAny(sql`lease`, answering)}
            or (error is not null and due_at >= expires_at + make_interval(secs => ${grace})))))
      order by expires_at limit ${limit}
    ),
    -- None that is overdue for a lease that lives: it would only be locked, in front of those who close it.
    task as (
      select task.id, task.deadline from tasks as task join (select distinct task_id, lives from due) as due on due.task_id = task.id
      where not due.lives or task.deadline > now() order by task.id for update of task skip locked
    ),
    ended as (
      update leases as lease set state = 'expired', ended_at = now(), due_at = null, cause = coalesce(lease.cause, 'lease_expired'),
        closing_at = coalesce(lease.closing_at, lease.expires_at), ended_by = coalesce(lease.ended_by, 'broker'), stuck_since = null
      -- Due as it was when it was found: else it was claimed meanwhile, or a handle has arrived that time need not end. No equation, by which Postgres would look for it.
      from task, due where lease.id = due.id and lease.due_at is not distinct from due.due_at and lease.task_id = task.id and lease.expires_at <= now()
        and ((lease.local and lease.state = 'active' and task.deadline > now()) or lease.state in ('lapsing', 'revoking'))
      returning lease.*
    ),
    ${countDown},
    ${freePlaces},
    told as (${entryColumns} ${endedEntries} union all ${taskEndedEntries(sql`counted`)})
    select (select json_agg(ended) from ended) as ended`)
  return leasesOf(row?.ended)
}

/**
 * Journals a handle of a lease that is being minted, before the provider goes on.
 *
 * @returns the state in which the lease is now: anything but `reserved` means that nobody will hand this credential out
 */
export async function journal(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, handle: Handle): Promise<Lease['state'] | undefined> {
  // No lock but that of the lease, and nothing to tell: half of what the other one costs, twice in each mint.
  const rows = await ledger.run(sql`
    update leases set handles = handles || ${json([handle])} where id = ${lease.id} and state = 'reserved' returning id`)
  return rows.length > 0 ? 'reserved' : await journalLate(ledger, lease, handle)
}

/**
 * Journals a handle of a lease that is no longer being minted, as far as anybody knew. A handle that arrives after the lease was thought to have ended
 * brings it back: a credential that may live is never forgotten for the sake of a tidy record.
 */
async function journalLate(ledger: Ledger, lease: Pick<Lease, 'id' | 'taskId'>, handle: Handle): Promise<Lease['state'] | undefined> {
  const [row] = await ledger.run<{ state: Lease['state'] }>(sql`
    with task as (select * from tasks where id = ${lease.taskId} for update),
    seen as (select lease.id, lease.due_at is null as ended from leases as lease join task on task.id = lease.task_id where lease.id = ${lease.id} for update of lease),
    kept as (
      update leases as lease set handles = lease.handles || ${json([handle])}, state = case when seen.ended then ${endingState} else lease.state end,
        due_at = case when seen.ended or lease.state = 'revoking' then ${dueToEnd(sql`now()`)} else lease.due_at end, ended_at = null, evidence = null,
        error = case when seen.ended then null else lease.error end
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
