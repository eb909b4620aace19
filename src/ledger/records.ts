import { sql } from 'drizzle-orm'
import type { Evidence, Handle } from '../base/evidence.ts'
import type { DecisionId, EntryId, LeaseId, RevocationId, StopId, TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import type { Actor } from '../identity/actor.ts'
import type { Answer, Obligations } from '../policy/decide.ts'
import type { Action } from '../policy/inquiry.ts'
import type { Digest } from '../proof/canonical.ts'
import type { Ledger } from './connect.ts'
import type { LeaseState, TaskState } from './states.ts'
import type { Rank } from './turns.ts'

/** The actor who declared a task, with those attributes that the policy may see: what else was proven may name people, and is not kept. */
export interface Declarant extends Actor {
  /**
   * The claims that policies could see then, by name, also those that this actor did not have: without them, one that was not proven looks as one that was not
   * kept. Absent where a broker of an older version kept the task.
   */
  readonly tags?: readonly string[]
}

/** Why a task or a lease ended, or is ending; of a task that was refused, what refused it: `policy`, `limit` or `stopped`. */
export type Cause =
  | 'completed'
  | 'deadline'
  | 'revoked'
  | 'mint_failed'
  | 'interrupted'
  | 'answer_lost'
  | 'lease_expired'
  | 'policy'
  | 'limit'
  | 'stopped'

/** A declared unit of work. */
export interface Task {
  readonly id: TaskId
  readonly state: TaskState
  readonly kind: string
  readonly agent: string
  readonly owner: string
  readonly actor: Declarant
  readonly purpose: string
  readonly labels: Readonly<Record<string, string>>
  readonly openedAt: Date
  readonly deadline: Date
  readonly outcome: TaskState | null
  readonly cause: Cause | null
  readonly reason: string | null
  readonly endedBy: string | null
  /** Of many at once, which ended it. */
  readonly revokedIn: RevocationId | null
  readonly closingAt: Date | null
  readonly endedAt: Date | null
  readonly liveLeases: number
  /** Leases that it was ever given. */
  readonly announcedLeases: number
}

/** The record of one issued credential and its time. */
export interface Lease {
  readonly id: LeaseId
  readonly taskId: TaskId
  readonly decisionId: DecisionId
  readonly agent: string
  readonly owner: string
  readonly grant: string
  readonly provider: string
  readonly providerKind: string | null
  readonly local: boolean
  readonly revocation: 'provider' | 'deny' | 'expiry'
  readonly standing: boolean
  readonly outlivesRevocation: readonly string[]
  readonly state: LeaseState
  readonly parameters: Readonly<Record<string, string>>
  /** Milliseconds that were granted. */
  readonly ttl: number
  readonly handles: readonly Handle[]
  readonly reservedAt: Date
  readonly issuedAt: Date | null
  readonly expiresAt: Date
  readonly cause: Cause | null
  readonly reason: string | null
  readonly endedBy: string | null
  /** Of many at once, which ended it. */
  readonly revokedIn: RevocationId | null
  readonly closingAt: Date | null
  readonly endedAt: Date | null
  readonly evidence: Evidence | null
  readonly error: string | null
  readonly stuckSince: Date | null
  readonly attempts: number
  readonly dueAt: Date | null
}

/** A decision as it was kept: enough to ask again. */
export interface DecisionRecord {
  readonly id: DecisionId
  readonly taskId: TaskId
  readonly agent: string
  readonly kind: string
  readonly action: Action
  readonly outcome: 'permit' | 'deny'
  readonly policies: readonly string[]
  readonly policyDigest: Digest
  readonly obligations: Obligations
  readonly answers: readonly Answer[]
  readonly decidedAt: Date
}

/** A revocation of many tasks or leases at once. */
export interface Revocation extends Selected {
  readonly id: RevocationId
  readonly reason: string
  readonly by: string
  readonly startedAt: Date
  /** When nothing was left that it had to begin to end. */
  readonly begunAt: Date | null
  /** When the last of it was dead. */
  readonly endedAt: Date | null
}

/** What must not be issued, until it is lifted or its time is over. */
export interface Stop extends Selected {
  readonly id: StopId
  readonly reason: string
  readonly by: string
  readonly beganAt: Date
  readonly until: Date
  readonly liftedAt: Date | null
  readonly liftedBy: string | null
  readonly liftReason: string | null
}

/** A selector as its row has it. */
interface Selected {
  readonly agent: string | null
  readonly owner: string | null
  readonly issuer: string | null
  readonly kind: string | null
  readonly grant: string | null
  readonly provider: string | null
}

/** One fact of the history. */
export interface Entry {
  readonly id: EntryId
  readonly at: Date
  /** The transaction that wrote it, in decimal. */
  readonly xid: string
  readonly kind: string
  readonly agent: string | null
  readonly taskId: TaskId | null
  readonly leaseId: LeaseId | null
  readonly decisionId: DecisionId | null
  readonly body: Json
}

/**
 * A row as `to_json` writes it. Both drivers read JSON alike, while they disagree about dates, numbers of eight bytes and rows; so every
 * statement of this room answers with JSON columns.
 */
export type JsonRow = Readonly<Record<string, Json>>

/** Whether a lease in this state has ended for good: nothing of it can work any more, as far as anybody can know. */
export const hasEnded = (lease: Pick<Lease, 'state'>): boolean => lease.state === 'revoked' || lease.state === 'expired' || lease.state === 'failed'

type MomentIn<Row> = { [Name in keyof Row]: Date extends Row[Name] ? Name : never }[keyof Row]
type Moment = MomentIn<Task> | MomentIn<Lease> | MomentIn<DecisionRecord> | MomentIn<Revocation> | MomentIn<Stop> | MomentIn<Entry>

/** Columns whose values are moments; the same set for all tables, whose column names agree. One that is added does not compile until it stands here. */
const moments = {
  openedAt: true,
  deadline: true,
  closingAt: true,
  endedAt: true,
  reservedAt: true,
  issuedAt: true,
  expiresAt: true,
  stuckSince: true,
  dueAt: true,
  decidedAt: true,
  at: true,
  startedAt: true,
  begunAt: true,
  beganAt: true,
  until: true,
  liftedAt: true,
} satisfies Record<Moment, true>

const columnNames = new Map<string, string>()

/** `closing_at` -> `closingAt`. Columns are few, so each name is converted once. */
function propertyName(column: string): string {
  let name = columnNames.get(column)
  if (name === undefined) {
    name = column === 'grant_name' ? 'grant' : column.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
    columnNames.set(column, name)
  }
  return name
}

function fieldsOf(row: JsonRow): unknown {
  const fields: Record<string, unknown> = {}
  for (const [column, value] of Object.entries(row)) {
    const name = propertyName(column)
    fields[name] = Object.hasOwn(moments, name) && typeof value === 'string' ? new Date(value) : value
  }
  return fields
}

// Rows read as the records they are: the types are the schema's, which this room alone writes.
export const taskOf = (row: JsonRow): Task => fieldsOf(row) as Task
export const leaseOf = (row: JsonRow): Lease => fieldsOf(row) as Lease
export const decisionOf = (row: JsonRow): DecisionRecord => fieldsOf(row) as DecisionRecord
export const revocationOf = (row: JsonRow): Revocation => fieldsOf(row) as Revocation
export const stopOf = (row: JsonRow): Stop => fieldsOf(row) as Stop
export const entryOf = (row: JsonRow): Entry => fieldsOf(row) as Entry

/** An absent list is what `json_agg` makes of nothing. */
export const tasksOf = (rows: readonly JsonRow[] | null | undefined): Task[] => (rows ?? []).map(taskOf)
export const leasesOf = (rows: readonly JsonRow[] | null | undefined): Lease[] => (rows ?? []).map(leaseOf)

/** Milliseconds until the deadline of `task` by the store's clock, which alone decides about it; negative afterwards. */
const left = sql`(extract(epoch from task.deadline - now()) * 1000)::double precision`

/** Of the leases and the decisions of a task: how many of the newest are read with it. */
const readWithTask = 1_000

/**
 * A task with its leases, oldest first, and the milliseconds that are left of it: all that have not ended, and the newest. `announcedLeases` tells whether that
 * is all. Undefined: there is none.
 *
 * @param rank `later` for whoever only looks, or prepares new work
 */
export async function findTask(ledger: Ledger, id: TaskId, rank?: Rank): Promise<{ task: Task; leases: Lease[]; left: number } | undefined> {
  const [row] = await ledger.run<{ task: JsonRow; leases: JsonRow[] | null; left: number }>(
    sql`
    select to_json(task) as task, ${left} as left, (
      select json_agg(lease order by lease.id) from leases as lease where lease.task_id = task.id and (task.announced_leases <= ${readWithTask}::int
        or lease.ended_at is null or lease.id in (select id from leases where task_id = ${id} order by id desc limit ${readWithTask}))
    ) as leases
    from tasks as task where task.id = ${id}`,
    rank,
  )
  return row && { task: taskOf(row.task), leases: leasesOf(row.leases), left: row.left }
}

/** How many leases of a task are in each state that some are in, however many those are. */
export async function countLeases(ledger: Ledger, id: TaskId): Promise<Partial<Record<LeaseState, number>>> {
  const [row] = await ledger.run<{ counts: Partial<Record<LeaseState, number>> | null }>(sql`
    select json_object_agg(state, count) as counts from (select state, count(*)::int from leases where task_id = ${id} group by state) as counted`)
  return row?.counts ?? {}
}

/** A decision without what it was asked and answered in detail. */
export type DecisionSummary = Omit<DecisionRecord, 'answers'>

/** The decisions of a task, oldest first: the newest of them. For whoever looks: nothing ends by them. */
export async function decisionsOf(ledger: Ledger, id: TaskId): Promise<DecisionSummary[]> {
  const rows = await ledger.run<{ decision: JsonRow }>(
    sql`
    select to_json(decision) as decision from (
      select id, task_id, agent, kind, action, outcome, policies, policy_digest, obligations, decided_at
      from decisions where task_id = ${id} order by id desc limit ${readWithTask}
    ) as decision order by decision.id`,
    'later',
  )
  return rows.map((row) => decisionOf(row.decision))
}

/** One lease with its task, and the milliseconds that are left of the task. Undefined: there is none. @param rank as of `findTask` */
export async function findLease(ledger: Ledger, id: LeaseId, rank?: Rank): Promise<{ lease: Lease; task: Task; left: number } | undefined> {
  const [row] = await ledger.run<{ lease: JsonRow; task: JsonRow; left: number }>(
    sql`
    select to_json(lease) as lease, to_json(task) as task, ${left} as left
    from leases as lease join tasks as task on task.id = lease.task_id where lease.id = ${id}`,
    rank,
  )
  return row && { lease: leaseOf(row.lease), task: taskOf(row.task), left: row.left }
}
