import { sql } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import { deadlineOf, milliseconds, type NewTask } from './announce.ts'
import type { Ledger } from './connect.ts'
import { decidedRows, decisionEntries, entryColumns, keepDecisions, leaseEntries, leaseEntriesOf, type NewDecision, rfc3339 } from './entries.ts'
import { type KeyClaim, release } from './keys.ts'
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
): Promise<readonly Lease[]> {
  const [row] = await ledger.run<{ leases: JsonRow[] | null }>(sql`
    with task as (select id from tasks where id = ${task} and state = 'open' for update),
    announced as (
      update leases as lease set state = 'active', issued_at = now(), expires_at = least(lease.expires_at, minted."expiresAt"),
        due_at = least(lease.expires_at, minted."expiresAt"), digests = lease.digests || minted.digests
      from task, json_to_recordset(${JSON.stringify(confirmations)}::text::json) as minted(id text, "expiresAt" timestamptz, digests jsonb)
      where lease.id = minted.id and lease.task_id = task.id and lease.state = 'reserved'
      returning lease.*
    ),
    ${claim ? sql`answered as (${release(claim)}),` : sql``}
    told as (${entryColumns} ${leaseEntries})
    select json_agg(announced order by announced.id) as leases from announced`)
  return leasesOf(row?.leases)
}

/**
 * Extends an active lease of an open task under a fresh decision: the credential that is then signed may live until the answer's `expiresAt`,
 * never past the deadline. For leases whose minting changes nothing outside the broker. Undefined: the lease or its task has ended.
 */
export async function extendLease(ledger: Ledger, lease: Lease, decision: NewDecision, ttl: number): Promise<Lease | undefined> {
  const [row] = await ledger.run<{ lease: JsonRow | null }>(
    sql`
    with ${decidedRows([{ task: lease.taskId, decision }])},
    task as (select * from tasks where id = ${lease.taskId} and state = 'open' and deadline > now() for update),
    announced as (
      update leases as lease set issued_at = now(), expires_at = least(now() + ${milliseconds(ttl)}, task.deadline),
        due_at = least(now() + ${milliseconds(ttl)}, task.deadline), decision_id = ${decision.id}, ttl = ${ttl}::bigint
      from task where lease.id = ${lease.id} and lease.task_id = task.id and lease.local and lease.state = 'active' and lease.expires_at > now()
      returning lease.*
    ),
    kept as (${keepDecisions(sql`select task_id from announced`)}),
    told as (
      ${entryColumns}
      ${decisionEntries(sql`select task_id from announced`)}
      union all ${leaseEntriesOf(sql`'lease.refreshed'`)}
    )
    select (select to_json(announced) from announced) as lease`,
    'later',
  )
  return row?.lease ? leaseOf(row.lease) : undefined
}

/**
 * Gives an open task a later deadline under a fresh decision. An earlier one than it has leaves it as it is: credentials that live until the old one
 * would outlive their task. Undefined: it has ended or passed its deadline.
 */
export async function extendTask(
  ledger: Ledger,
  id: TaskId,
  decision: NewDecision,
  asked: Pick<NewTask, 'duration' | 'deadline'>,
): Promise<Task | undefined> {
  const [row] = await ledger.run<{ task: JsonRow | null }>(
    sql`
    with ${decidedRows([{ task: id, decision }])},
    task as (
      update tasks set deadline = greatest(deadline, ${deadlineOf(asked)}) where id = ${id} and state = 'open' and deadline > now() returning *
    ),
    kept as (${keepDecisions(sql`select id from task`)}),
    told as (
      ${entryColumns}
      ${decisionEntries(sql`select id from task`)}
      union all
      select 'task.renewed', task.agent, task.id, null, ${decision.id}::text, jsonb_build_object('deadline', ${rfc3339(sql`task.deadline`)}) from task
    )
    select (select to_json(task) from task) as task`,
    'later',
  )
  return row?.task ? taskOf(row.task) : undefined
}
