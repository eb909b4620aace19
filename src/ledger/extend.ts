import { sql } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { stopwatch } from '../base/time.ts'
import type { Ledger } from './connect.ts'
import {
  decidedRows,
  decisionEntries,
  entryColumns,
  type ExportedRow,
  json,
  keepDecisions,
  leaseEntries,
  leaseEntriesOf,
  type NewDecision,
  type NewTask,
  rfc3339,
} from './entries.ts'
import { deadlineOf, dueByItself, endOf, milliseconds } from './intervals.ts'
import { type KeyClaim, release } from './keys.ts'
import { receiptsOfRows, toldRows } from './receipts.ts'
import { type Stopped, stoppedOf } from './stops.ts'
import { type JsonRow, type Lease, leaseOf, leasesOf, type Task, taskOf } from './records.ts'

/** What was minted for a lease, as the ledger keeps it. */
export interface Confirmation {
  readonly id: LeaseId
  readonly expiresAt: Date
  /** Keyed digests of the secrets, by name. */
  readonly digests: Readonly<Record<string, string>>
}

/**
 * Confirms what was minted: reserved -> active, and the key is free for a retry. Only leases of a task that is still open are moved: what is
 * missing from the answer was ended meanwhile, and its credential must not be handed out.
 */
export async function confirmLeases(
  ledger: Ledger,
  task: TaskId,
  confirmations: readonly Confirmation[],
  claim: KeyClaim | undefined,
): Promise<{ readonly leases: readonly Lease[]; readonly receipts: readonly Receipt[] }> {
  const end = sql`least(lease.expires_at, minted."expiresAt")`
  const [row] = await ledger.run<{ leases: JsonRow[] | null; told: ExportedRow[] | null }>(sql`
    with task as (select id, deadline from tasks where id = ${task} and state = 'open' for update),
    announced as (
      update leases as lease set state = 'active', issued_at = now(), expires_at = ${end}, due_at = ${dueByItself(end, sql`task.deadline`)},
        digests = lease.digests || minted.digests
      from task, json_to_recordset(${JSON.stringify(confirmations)}::text::json) as minted(id text, "expiresAt" timestamptz, digests jsonb)
      where lease.id = minted.id and lease.task_id = task.id and lease.state = 'reserved'
      returning lease.*
    ),
    ${claim ? sql`answered as (${release(claim)}),` : sql``}
    told as (${entryColumns} ${leaseEntries} returning *)
    select json_agg(announced order by announced.id) as leases, ${toldRows()} as told from announced`)
  return { leases: leasesOf(row?.leases), receipts: receiptsOfRows(ledger, row?.told) }
}

/** A refresh that was announced: what it may lead to, and what was known before. */
export interface Extension {
  /** As it stands from here on. */
  readonly lease: Lease
  /** Until when the fresh credential may live: what the decision permits, never past the deadline. */
  readonly until: Date
  /** What the lease's end was before: whatever was handed out so far ends by then. */
  readonly former: Date
  /** Milliseconds since shortly before the store's time of it, as of an announcement. */
  readonly elapsed: () => number
  readonly receipts: readonly Receipt[]
}

/**
 * Extends an active lease of an open task under a fresh decision: the credential that is then made may live until `until`. Undefined: the lease or its
 * task has ended. Nothing is extended that an operator has stopped.
 *
 * The end of a lease whose minting changes nothing outside the broker is that from here on. Elsewhere it never moves back, for somebody holds what was
 * handed out before, and another refresh may be under way that was permitted more; it stays there until `concludeRefresh` knows better. Whoever dies in
 * between leaves an end that is too late by one grant at most, and never one that is too early.
 */
export async function extendLease(
  ledger: Ledger,
  lease: Pick<Lease, 'id' | 'taskId'>,
  decision: NewDecision,
  ttl: number,
): Promise<Extension | Stopped | undefined> {
  const end = sql`case when lease.local then seen.until else greatest(lease.expires_at, seen.until) end`
  const elapsed = stopwatch()
  const [row] = await ledger.run<{ lease: JsonRow | null; until: string; former: string; told: ExportedRow[] | null; stopped: Stopped | null }>(
    sql`
    with ${decidedRows([{ task: lease.taskId, decision }])},
    task as (select * from tasks where id = ${lease.taskId} and state = 'open' and deadline > now() for update),
    ${stoppedOf(sql`task`, sql`(select task_id as task, grant_name as "grant", provider from leases where id = ${lease.id})`)},
    seen as (
      select lease.id, lease.expires_at as former, ${endOf(sql`lease`, sql`least(now() + ${milliseconds(ttl)}, task.deadline)`)}::timestamptz(3) as until
      from leases as lease join task on task.id = lease.task_id
      where lease.id = ${lease.id} and lease.state = 'active' and lease.expires_at > now() for update of lease
    ),
    announced as (
      update leases as lease set issued_at = now(), expires_at = ${end}, decision_id = ${decision.id},
        due_at = case when lease.local then ${end} else ${dueByItself(end, sql`task.deadline`)} end
      from seen, task where lease.id = seen.id and not exists (select from stopped)
      returning lease.*
    ),
    kept as (${keepDecisions(sql`select task_id from announced`)}),
    told as (
      ${entryColumns}
      ${decisionEntries(sql`select task_id from announced`)}
      union all ${leaseEntriesOf(sql`case when announced.local then 'lease.refreshed' else 'lease.refreshing' end`)}
      returning *
    )
    select (select to_json(announced) from announced) as lease, (select to_json(until) from seen) as until, (select to_json(former) from seen) as former,
      ${toldRows()} as told, (select json_build_object('stop', stop, 'until', until) from stopped) as stopped`,
    'later',
  )
  if (row?.stopped) return row.stopped
  if (!row?.lease) return undefined
  return { lease: leaseOf(row.lease), until: new Date(row.until), former: new Date(row.former), elapsed, receipts: receiptsOfRows(ledger, row.told) }
}

/** What came of a refresh. */
export type Refreshed =
  | { readonly to: 'refreshed'; readonly expiresAt: Date; readonly digests: Confirmation['digests'] }
  /** `until`: when whatever may have been made has ended; undefined where nobody knows, and the announced end stays. */
  | { readonly to: 'not_refreshed'; readonly until: Date | undefined; readonly error: string }

/** Keyed digests that a lease keeps: those of its newest credentials. It may be refreshed each half minute for a day, and what ended long ago opens nothing. */
const digestsKept = 32

/**
 * Says what came of an announced refresh: the lease ends when what was handed out does, the credential before this one included. Undefined: the lease
 * or its task has ended meanwhile, and the fresh credential must not be handed out.
 *
 * Where another refresh was announced after this one, the end stays where that one put it: it may have made something that lives as long.
 */
export async function concludeRefresh(
  ledger: Ledger,
  { lease, former }: Extension,
  outcome: Refreshed,
): Promise<{ readonly lease: Lease; readonly receipts: readonly Receipt[] } | undefined> {
  const { known, digests, error } =
    outcome.to === 'refreshed'
      ? { known: outcome.expiresAt, digests: [outcome.digests], error: null }
      : { known: outcome.until, digests: [], error: outcome.error }
  const end = sql`case when lease.decision_id = ${lease.decisionId}
    then least(lease.expires_at, greatest(${former.toISOString()}::text::timestamptz, coalesce(${known?.toISOString() ?? null}::text::timestamptz, lease.expires_at)))
    else lease.expires_at end`
  const oldest = sql`case when jsonb_array_length(lease.digests) >= ${digestsKept}::int and ${digests.length}::int > 0 then lease.digests - 0 else lease.digests end`
  const [row] = await ledger.run<{ lease: JsonRow | null; told: ExportedRow[] | null }>(sql`
    with task as (select id, deadline from tasks where id = ${lease.taskId} and state = 'open' for update),
    announced as (
      update leases as lease set expires_at = ${end}, due_at = ${dueByItself(end, sql`task.deadline`)}, digests = ${oldest} || ${json(digests)}
      from task where lease.id = ${lease.id} and lease.task_id = task.id and lease.state = 'active'
      returning lease.*
    ),
    told as (
      ${entryColumns}
      select ${`lease.${outcome.to}`}::text, announced.agent, announced.task_id, announced.id, announced.decision_id,
        jsonb_strip_nulls(jsonb_build_object('expires_at', ${rfc3339(sql`announced.expires_at`)}, 'error', ${error}::text)) from announced
      returning *
    )
    select (select to_json(announced) from announced) as lease, ${toldRows()} as told`)
  return row?.lease ? { lease: leaseOf(row.lease), receipts: receiptsOfRows(ledger, row.told) } : undefined
}

/**
 * Gives an open task a later deadline under a fresh decision. An earlier one than it has leaves it as it is: credentials that live until the old one
 * would outlive their task. Whoever holds the task's token is judged by the claims of the renewal from here on. Undefined: it has ended or passed its deadline. A task is not extended that an operator has stopped, or a living lease of it.
 */
export async function extendTask(
  ledger: Ledger,
  id: TaskId,
  decision: NewDecision,
  asked: Pick<NewTask, 'actor' | 'duration' | 'deadline'>,
): Promise<{ readonly task: Task; readonly decidedAt: Date; readonly receipts: readonly Receipt[] } | Stopped | undefined> {
  const living = sql`(select task_id as task, grant_name as "grant", provider from leases where task_id = ${id} and ended_at is null)`
  const [row] = await ledger.run<{ task: JsonRow | null; at: string; told: ExportedRow[] | null; stopped: Stopped | null }>(
    sql`
    with ${decidedRows([{ task: id, decision }])},
    ${stoppedOf(sql`(select * from tasks where id = ${id})`, living)},
    task as (
      update tasks set deadline = greatest(deadline, ${deadlineOf(asked)}), actor = ${json(asked.actor)}
      where id = ${id} and state = 'open' and deadline > now() and not exists (select from stopped) returning *
    ),
    -- What ended with the task ends before it from here on. Reserved ones too: one that was confirmed while this waited for the task is still that in the snapshot.
    unbound as (
      update leases as lease set due_at = case lease.state when 'active' then ${dueByItself(sql`lease.expires_at`, sql`task.deadline`)} else lease.due_at end
      from task where lease.task_id = task.id and lease.state in ('reserved', 'active') and not lease.local
    ),
    kept as (${keepDecisions(sql`select id from task`)}),
    told as (
      ${entryColumns}
      ${decisionEntries(sql`select id from task`)}
      union all
      select 'task.renewed', task.agent, task.id, null, ${decision.id}::text, jsonb_build_object('deadline', ${rfc3339(sql`task.deadline`)}, 'actor', task.actor) from task
      returning *
    )
    select (select to_json(task) from task) as task, to_json(now()::timestamptz(3)) as at, ${toldRows()} as told, (select json_build_object('stop', stop, 'until', until) from stopped) as stopped`,
    'later',
  )
  if (row?.stopped) return row.stopped
  return row?.task ? { task: taskOf(row.task), decidedAt: new Date(row.at), receipts: receiptsOfRows(ledger, row.told) } : undefined
}
