import { and, sql, type SQL } from 'drizzle-orm'
import { type DecisionId, idFrom, type LeaseId, type TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import type { Ledger } from './connect.ts'
import {
  type DecisionRecord,
  decisionOf,
  type Entry,
  entryOf,
  type JsonRow,
  type Lease,
  leaseOf,
  type LeaseState,
  type Task,
  taskOf,
  type TaskState,
} from './records.ts'

/** A page, newest first, by key and not by offset: its cost does not grow with its number, and rows that arrive meanwhile move nothing. */
export interface Page {
  /** 1 to 1,000. */
  readonly limit: number
  /** The last id of the page before. */
  readonly cursor?: string | undefined
}

export interface Listed<Item> {
  readonly items: readonly Item[]
  /** Cursor of the following page; null on the last. */
  readonly next: string | null
}

export interface TaskFilter {
  readonly state?: TaskState | undefined
  readonly agent?: string | undefined
  readonly kind?: string | undefined
  readonly owner?: string | undefined
}

export interface LeaseFilter {
  readonly state?: LeaseState | undefined
  readonly agent?: string | undefined
  readonly grant?: string | undefined
  readonly provider?: string | undefined
  readonly task?: TaskId | undefined
  readonly stuck?: boolean | undefined
  readonly standing?: boolean | undefined
}

export interface EntryFilter {
  readonly kind?: string | undefined
  readonly agent?: string | undefined
  readonly task?: TaskId | undefined
  readonly lease?: LeaseId | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

export const listTasks = (ledger: Ledger, filter: TaskFilter, page: Page): Promise<Listed<Task>> =>
  list(ledger, 'tasks', taskOf, page, [
    equal('state', filter.state),
    equal('agent', filter.agent),
    equal('kind', filter.kind),
    equal('owner', filter.owner),
  ])

export const listLeases = (ledger: Ledger, filter: LeaseFilter, page: Page): Promise<Listed<Lease>> =>
  list(ledger, 'leases', leaseOf, page, [
    equal('state', filter.state),
    equal('agent', filter.agent),
    equal('grant_name', filter.grant),
    equal('provider', filter.provider),
    equal('task_id', filter.task),
    // The state says nothing new, and has an index.
    filter.stuck === undefined ? undefined : filter.stuck ? sql`state = 'revoking' and stuck_since is not null` : sql`stuck_since is null`,
    filter.standing === undefined ? undefined : filter.standing ? sql`standing` : sql`not standing`,
  ])

export const listEntries = (ledger: Ledger, filter: EntryFilter, page: Page): Promise<Listed<Entry>> =>
  list(ledger, 'entries', entryOf, page, [
    equal('kind', filter.kind),
    equal('agent', filter.agent),
    equal('task_id', filter.task),
    equal('lease_id', filter.lease),
    filter.from && sql`at >= ${filter.from.toISOString()}::text::timestamptz and id >= ${idFrom('ent', filter.from.getTime() - longestStatement)}`,
    filter.to && sql`at < ${filter.to.toISOString()}::text::timestamptz and id < ${idFrom('ent', filter.to.getTime() + longestStatement)}`,
  ])

/**
 * Milliseconds by which an entry's id may be younger than its time, which is when its statement began. With it the ids, which have an index, narrow
 * a time down, and times need none.
 */
const longestStatement = 15_000

async function list<Item extends { readonly id: string }>(
  ledger: Ledger,
  table: 'tasks' | 'leases' | 'entries',
  read: (row: JsonRow) => Item,
  { limit, cursor }: Page,
  conditions: readonly (SQL | undefined)[],
): Promise<Listed<Item>> {
  const where = and(sql`true`, ...conditions, cursor === undefined ? undefined : sql`id < ${cursor}`)
  const rows = await ledger.run<{ item: JsonRow }>(
    sql`
    select to_json(found) as item from (select * from ${sql.identifier(table)} where ${where} order by id desc limit ${limit + 1}) as found order by id desc`,
    'later',
    'fresh',
  )
  const items = rows.slice(0, limit).map((row) => read(row.item))
  return { items, next: rows.length > limit ? items.at(-1)!.id : null }
}

const equal = (column: string, value: string | undefined): SQL | undefined =>
  value === undefined ? undefined : sql`${sql.identifier(column)} = ${value}`

export async function showDecision(ledger: Ledger, id: DecisionId): Promise<DecisionRecord | undefined> {
  const [row] = await ledger.run<{ decision: JsonRow }>(sql`select to_json(decision) as decision from decisions as decision where id = ${id}`)
  return row && decisionOf(row.decision)
}

/** The archived policy set of a digest: what `restorePolicySet` reads. */
export async function policySetOf(ledger: Ledger, digest: string): Promise<Json | undefined> {
  const [row] = await ledger.run<{ document: Json }>(sql`select document from policy_sets where digest = ${digest}`)
  return row?.document
}

/** What is alive right now, for metrics and readiness. Live states only: they are few, and each has its index. */
export interface Counts {
  readonly leases: Readonly<Record<'reserved' | 'active' | 'revoking' | 'lapsing', number>>
  readonly tasks: Readonly<Record<'open' | 'closing', number>>
  readonly stuck: number
  /** Leases of secrets that live on when the lease ends. */
  readonly standing: number
  /** 0 where no revocation is unfinished. */
  readonly oldestUnfinishedRevocationSeconds: number
  /** False on a standby, and where the database was set to be read only. */
  readonly writable: boolean
  /** The store's clock. */
  readonly now: Date
}

export async function counts(ledger: Ledger): Promise<Counts> {
  const [row] = await ledger.run<{
    leases: Partial<Counts['leases']> | null
    tasks: Partial<Counts['tasks']> | null
    stuck: number
    standing: number
    oldest: number
    read_only: boolean
    now: number
  }>(sql`
    with live as (
      select state, count(*)::int as count, count(*) filter (where standing)::int as standing from leases where due_at is not null group by state
    )
    select
      (select json_object_agg(state, count) from live) as leases,
      (select coalesce(sum(standing), 0)::int from live) as standing,
      (select json_object_agg(state, count) from (select state, count(*)::int from tasks where state in ('open', 'closing') group by state) as live) as tasks,
      (select count(*)::int from leases where state = 'revoking' and stuck_since is not null) as stuck,
      (select coalesce(greatest(extract(epoch from now() - min(closing_at)), 0), 0)::double precision from leases where state = 'revoking') as oldest,
      current_setting('transaction_read_only')::boolean as read_only,
      (extract(epoch from clock_timestamp()) * 1000)::double precision as now`)
  return {
    leases: { reserved: 0, active: 0, revoking: 0, lapsing: 0, ...row?.leases },
    tasks: { open: 0, closing: 0, ...row?.tasks },
    stuck: row?.stuck ?? 0,
    standing: row?.standing ?? 0,
    oldestUnfinishedRevocationSeconds: row?.oldest ?? 0,
    writable: row?.read_only !== true,
    now: new Date(row?.now ?? Number.NaN),
  }
}
