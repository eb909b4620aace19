import { and, sql, type SQL } from 'drizzle-orm'
import { type DecisionId, idFrom, type LeaseId, type TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import type { Ledger } from './connect.ts'
import { json } from './entries.ts'
import { milliseconds } from './intervals.ts'
import {
  type DecisionRecord,
  decisionOf,
  type Entry,
  entryOf,
  type JsonRow,
  type Lease,
  leaseOf,
  type Revocation,
  revocationOf,
  type Stop,
  stopOf,
  type Task,
  taskOf,
} from './records.ts'
import type { LeaseState, TaskState } from './states.ts'

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
  /** False: those that were opened, and end or ended in any way but by being completed. */
  readonly completed?: false | undefined
  /** Open at some time from then on; a denied one was there at the time of its denial. */
  readonly from?: Date | undefined
  /** Open at some time before then. */
  readonly to?: Date | undefined
}

export interface LeaseFilter {
  readonly state?: LeaseState | undefined
  readonly agent?: string | undefined
  readonly owner?: string | undefined
  readonly grant?: string | undefined
  readonly provider?: string | undefined
  readonly task?: TaskId | undefined
  readonly stuck?: boolean | undefined
  readonly standing?: boolean | undefined
  /** True: those that have not ended. */
  readonly alive?: true | undefined
  /** Held at some time from then on, as far as the ledger knows: until the end was proven, or its time was over. */
  readonly from?: Date | undefined
  /** Held at some time before then. */
  readonly to?: Date | undefined
  /** Milliseconds, a second at least: those that had ended only so long after their end was decided or due. */
  readonly endedLate?: number | undefined
  /**
   * Milliseconds: those that have not ended, so long after their task had, or should have. What only time ends is given until its own end. There must be
   * none, but for those that a provider keeps alive.
   */
  readonly outlivedTask?: number | undefined
}

export interface EntryFilter {
  readonly kind?: string | undefined
  readonly agent?: string | undefined
  readonly task?: TaskId | undefined
  readonly lease?: LeaseId | undefined
  /** Whoever said so: `operator:…`, for only what operators did is found by who did it. */
  readonly by?: string | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

/** Of decisions that said no. */
export interface DenialFilter {
  /** Something of it was forbidden by this policy. */
  readonly policy?: string | undefined
  /** True: something of it was permitted by no policy, and forbidden by none. */
  readonly byDefault?: true | undefined
  readonly agent?: string | undefined
  readonly task?: TaskId | undefined
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

export const listTasks = (ledger: Ledger, filter: TaskFilter, page: Page): Promise<Listed<Task>> =>
  list(
    ledger,
    sql`tasks`,
    taskOf,
    page,
    [
      equal('state', filter.state),
      equal('agent', filter.agent),
      equal('kind', filter.kind),
      equal('owner', filter.owner),
      filter.completed === undefined ? undefined : sql`outcome in ('failed', 'revoked', 'expired')`,
    ],
    within('task', 'opened_at', filter),
  )

export const listLeases = (ledger: Ledger, filter: LeaseFilter, page: Page): Promise<Listed<Lease>> =>
  list(
    ledger,
    filter.outlivedTask === undefined && filter.alive === undefined
      ? sql`leases`
      : sql`(select * from leases where ended_at is null offset 0) as leases`,
    leaseOf,
    page,
    [
      equal('state', filter.state),
      equal('agent', filter.agent),
      equal('owner', filter.owner),
      equal('grant_name', filter.grant),
      equal('provider', filter.provider),
      equal('task_id', filter.task),
      // The state says nothing new, and has an index.
      filter.stuck === undefined ? undefined : filter.stuck ? sql`state = 'revoking' and stuck_since is not null` : sql`stuck_since is null`,
      filter.standing === undefined ? undefined : filter.standing ? sql`standing` : sql`not standing`,
      filter.endedLate === undefined
        ? undefined
        : sql`ended_at - closing_at > interval '1 second' and ended_at - closing_at > ${milliseconds(filter.endedLate)}`,
      filter.outlivedTask === undefined ? undefined : outlived(filter.outlivedTask),
      // What was not minted was not held.
      filter.from || filter.to ? sql`state <> 'failed'` : undefined,
    ],
    within('lease', 'reserved_at', filter),
  )

/** A task that was decided to end has a time for that; one that was not has its deadline; and the earliest counts. */
const outlived = (by: number): SQL => sql`
  not (state = 'lapsing' and expires_at > now() - ${milliseconds(by)}) and exists (
    select from tasks as task where task.id = task_id and least(task.closing_at, task.ended_at, task.deadline) <= now() - ${milliseconds(by)})`

export const listEntries = (ledger: Ledger, filter: EntryFilter, page: Page): Promise<Listed<Entry>> =>
  list(ledger, sql`entries`, entryOf, page, [
    equal('kind', filter.kind),
    equal('agent', filter.agent),
    equal('task_id', filter.task),
    equal('lease_id', filter.lease),
    filter.by === undefined
      ? undefined
      : sql`"left"(body->>'by', 256) = "left"(${filter.by}, 256) and body->>'by' = ${filter.by} and body->>'by' like 'operator:%'`,
    at('ent', 'at', filter, longestStatement),
  ])

/**
 * Decisions that said no, whatever they were about.
 *
 * What denied is in the answers, which have no index; the policies of a decision, which have one, are those of all its answers. By functions and not by
 * operators: of values as wide as answers Postgres keeps no statistics, and takes a row in a hundred to fit an operator, but one in three to fit a function.
 * For the former it might read and sort all denials, where the newest are enough.
 */
export const listDenials = (ledger: Ledger, filter: DenialFilter, page: Page): Promise<Listed<DecisionRecord>> =>
  list(ledger, sql`decisions`, decisionOf, page, [
    sql`outcome = 'deny'`,
    filter.policy === undefined
      ? undefined
      : sql`policies @> ${json([filter.policy])}
          and jsonb_path_exists(answers, '$[*] ? (@.outcome == "deny" && @.policies[*] == $policy)', ${json({ policy: filter.policy })})`,
    filter.byDefault === undefined
      ? undefined
      : sql`jsonb_path_exists(answers, '$[*] ? (@.outcome == "deny" && @.policies.size() == 0 && @.diagnostics.size() == 0)')`,
    equal('agent', filter.agent),
    equal('task_id', filter.task),
    at('dec', 'decided_at', filter, mostApart),
  ])

/** Revocations of many. @param ended false: those of which something is still alive */
export const listRevocations = (ledger: Ledger, ended: boolean | undefined, page: Page): Promise<Listed<Revocation>> =>
  list(ledger, sql`revocations`, revocationOf, page, [ended === undefined ? undefined : ended ? sql`ended_at is not null` : sql`ended_at is null`])

/** Stops. @param inForce whether they keep anything from being issued now, by the store's clock */
export const listStops = (ledger: Ledger, inForce: boolean | undefined, page: Page): Promise<Listed<Stop>> => {
  const unlifted = sql`lifted_at is null and until > now()`
  return list(ledger, sql`stops`, stopOf, page, [inForce === undefined ? undefined : inForce ? unlifted : sql`not (${unlifted})`])
}

/**
 * Milliseconds by which an entry's id may be younger than its time, which is when its statement began. With it the ids, which have an index, narrow
 * a time down, and times need none.
 */
const longestStatement = 15_000

/**
 * The same for ids that a broker makes, by its own clock. One that is further from the store's accepts no workload token that others accept, and is
 * told of in /readyz long before. Milliseconds.
 */
const mostApart = 5 * 60_000

const moment = (date: Date): SQL => sql`${date.toISOString()}::text::timestamptz`

interface Between {
  readonly from?: Date | undefined
  readonly to?: Date | undefined
}

/** Rows of a moment, which `column` has, between two others: the later one excluded. @param apart milliseconds between that moment and the id's */
function at(noun: Parameters<typeof idFrom>[0], column: string, { from, to }: Between, apart: number): SQL | undefined {
  const time = sql.identifier(column)
  return and(
    from && sql`${time} >= ${moment(from)} and id >= ${idFrom(noun, from.getTime() - apart)}`,
    to && sql`${time} < ${moment(to)} and id < ${idFrom(noun, to.getTime() + apart)}`,
  )
}

/** Above that a life is long (schema.ts). Milliseconds. */
const shortLife = 15 * 60_000

/**
 * Rows that lived at some time between two moments: those that began then or shortly before; long lives, which have an index of their own; and what lives
 * now, which is looked through, for no history adds to it. Apart, since the ids of the first keep the order, and each row is found in one way only.
 */
function within(noun: 'task' | 'lease', begun: 'opened_at' | 'reserved_at', { from, to }: Between): SQL[] {
  const began = sql.identifier(begun)
  if (!from) return [at(noun, begun, { to }, mostApart) ?? sql`true`]
  const start = moment(from)
  const before = sql`${began} < least(${start}, ${to ? moment(to) : sql`null`})`
  const living = noun === 'task' ? sql`ended_at is null and state in ('open', 'closing')` : sql`ended_at is null`
  const short = sql`ended_at - ${began} <= interval '15 minutes'`
  return [
    and(
      sql`id >= ${idFrom(noun, from.getTime() - shortLife - mostApart)} and (${began} >= ${start} or (ended_at > ${start} and ${short}))`,
      at(noun, begun, { to }, mostApart),
    )!,
    sql`${before} and ended_at - ${began} > interval '15 minutes' and tstzrange(${began}, ended_at) @> ${start}`,
    sql`${before} and ${living}`,
  ]
}

/** @param either which rows, where they are found in several ways: each finds rows that no other finds */
async function list<Item extends { readonly id: string }>(
  ledger: Ledger,
  table: SQL,
  read: (row: JsonRow) => Item,
  { limit, cursor }: Page,
  conditions: readonly (SQL | undefined)[],
  [first = sql`true`, ...others]: readonly SQL[] = [],
): Promise<Listed<Item>> {
  const wanted = and(...conditions, cursor === undefined ? undefined : sql`id < ${cursor}`) ?? sql`true`
  const newest = sql`order by id desc limit ${limit + 1}`
  const found = sql.join(
    [
      sql`(select * from ${table} where ${first} and ${wanted} ${newest})`,
      // Those are few: found before anything else is asked of them, or Postgres would walk an index of what is asked to find them.
      ...others.map((other) => sql`(select * from (select * from ${table} where ${other} offset 0) as few where ${wanted} ${newest})`),
    ],
    sql` union all `,
  )
  const rows = await ledger.run<{ item: JsonRow }>(
    sql`select to_json(found) as item from (select * from (${found}) as found ${newest}) as found order by id desc`,
    'later',
    'fresh',
  )
  const items = rows.slice(0, limit).map((row) => read(row.item))
  return { items, next: rows.length > limit ? items.at(-1)!.id : null }
}

const equal = (column: string, value: string | undefined): SQL | undefined =>
  value === undefined ? undefined : sql`${sql.identifier(column)} = ${value}`

export async function showDecision(ledger: Ledger, id: DecisionId): Promise<DecisionRecord | undefined> {
  const [row] = await ledger.run<{ decision: JsonRow }>(
    sql`select to_json(decision) as decision from decisions as decision where id = ${id}`,
    'later',
  )
  return row && decisionOf(row.decision)
}

/** What the history says of a decision, once: more or less only where somebody has written or removed entries as no broker does. */
export async function toldOfDecision(ledger: Ledger, { id, taskId }: Pick<DecisionRecord, 'id' | 'taskId'>): Promise<readonly Json[]> {
  const rows = await ledger.run<{ body: Json }>(
    sql`select body from entries where task_id = ${taskId} and kind = 'decision.made' and decision_id = ${id}`,
    'later',
  )
  return rows.map(({ body }) => body)
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
