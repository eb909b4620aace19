import { sql, type SQL } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import type { Receipt } from '../base/receipt.ts'
import { stopwatch } from '../base/time.ts'
import type { Ledger } from './connect.ts'
import {
  type DecidedBody,
  decidedBody,
  decidedRows,
  decisionEntries,
  entryColumns,
  type ExportedRow,
  keepDecisions,
  leaseBody,
  leaseEntries,
  type NewDecision,
  type NewTask,
  openedBody,
  rfc3339,
} from './entries.ts'
import { deadlineIn, endOf } from './intervals.ts'
import { claimKeys, holds, type KeyClaim } from './keys.ts'
import type { EntryFields } from '../proof/leaf.ts'
import { bareColumns, type BareRow, bareRows, receiptsOf, receiptsOfRows, toldRows } from './receipts.ts'
import { type JsonRow, type Lease, leasesOf, type Task, taskOf } from './records.ts'
import { forgottenAfter, openRoles, namedHandles, takeNames } from './session-names.ts'
import { type Stopped, stoppedOf } from './stops.ts'
import { Alone, together } from './together.ts'

/** A lease about to be announced: `reserved`, or `active` at once where minting changes nothing outside the broker. */
export interface NewLease {
  readonly id: LeaseId
  readonly grant: string
  readonly provider: string
  readonly providerKind: string
  readonly local: boolean
  readonly revocation: Lease['revocation']
  readonly standing: boolean
  readonly outlivesRevocation: readonly string[]
  readonly parameters: Readonly<Record<string, string>>
  /** Milliseconds from the store's now; cut at the task's deadline. */
  readonly lasts: number
  /** Milliseconds that each refresh asks for. */
  readonly ttl: number
  /** The roles of one of which its session is named in the same commit; empty: it has no name before it is minted. */
  readonly pool: readonly string[]
}

/** Limits that the announcing commit itself checks, so that they are exact across brokers. */
export interface LeaseLimits {
  /** Live leases of the agent. */
  readonly perAgent: number
  /** Live leases of the task. */
  readonly perTask: number
}

/**
 * Leases that a task may be given in its whole life, ended ones with them: whoever reads or ends a task reads all of them. A day of leases of five minutes
 * each, one after the other, of sixteen grants is half of it.
 */
const leasesInAll = 10_000

/** Seconds that a mint may take before the reaper looks after its lease. Longer than any request is let live. */
const mintPatience = 60

export interface Announced {
  readonly outcome: 'announced'
  readonly task: Task
  readonly leases: readonly Lease[]
  /** Milliseconds since shortly before the store's time of it, by this broker's clock: never less, so that the two clocks need not agree. */
  readonly elapsed: () => number
  readonly receipts: readonly Receipt[]
}

/** A task with its decision and its leases, about to be announced. */
export interface Announcement {
  readonly task: NewTask
  readonly decision: NewDecision
  readonly leases: readonly NewLease[]
  readonly limits: LeaseLimits
  readonly claim: KeyClaim | undefined
}

/** Why a declaration was not announced though the policy permitted it. */
export type TaskRefused = { readonly outcome: 'limit' } | ({ readonly outcome: 'stopped' } & Stopped)

export type Announcing = Announced | TaskRefused | { readonly outcome: 'key_taken' }

/**
 * Announces a task, its decision and its leases in one commit: from here on the ledger knows every credential that could come to exist. The commit
 * may be shared with other announcements; each is written as a whole or not at all.
 *
 * `key_taken`: another request holds this Idempotency-Key. `limit`: the agent has too many live leases. `stopped`: an operator has stopped what is asked
 * for. Nothing was written in these cases, but for the key, which then stands for a task that does not exist.
 */
export const announceTask: (ledger: Ledger, announcement: Announcement) => Promise<Announcing> = together(announceTasks, 'later')

async function announceTasks(ledger: Ledger, all: readonly Announcement[]): Promise<readonly (Announcing | Alone<Announcement>)[]> {
  const elapsed = stopwatch()
  const written = await writeAll(ledger, all)
  return all.map((announcement) => {
    const outcome = outcomeOf(ledger, announcement, written.get(announcement.task.id), elapsed)
    // The places of an agent were given to all of its announcements here or to none. Near its limit some may still fit.
    return outcome.outcome === 'limit' && all.length > 1 ? new Alone(again(announcement)) : outcome
  })
}

/** The same, whose key already stands for this task: it is taken over from itself. */
const again = ({ claim, ...announcement }: Announcement): Announcement => ({
  ...announcement,
  claim: claim && { ...claim, from: announcement.task.id },
})

/** What became of each announcement whose key was free, by its task. */
type Written = ReadonlyMap<string, WrittenOne & { readonly told: BareRow[] | null; readonly decided: DecidedBody }>

interface WrittenOne {
  readonly task: JsonRow | null
  readonly leases: JsonRow[] | null
  readonly stopped: Stopped | null
}

function outcomeOf(ledger: Ledger, announcement: Announcement, written: ReturnType<Written['get']>, elapsed: () => number): Announcing {
  if (!written) return { outcome: 'key_taken' }
  if (written.stopped) return { outcome: 'stopped', ...written.stopped }
  if (!written.task) return { outcome: 'limit' }
  const announced = { task: taskOf(written.task), leases: leasesOf(written.leases) }
  const told = (written.told ?? []).map((row) => factOf(announcement, announced, written.decided, row))
  return { outcome: 'announced', ...announced, elapsed, receipts: receiptsOf(ledger, told) }
}

/** A fact of an announcement as the history has it: its row, and the body that was sent. */
function factOf(
  { task: asked, decision }: Announcement,
  { task, leases }: Pick<Announced, 'task' | 'leases'>,
  decided: DecidedBody,
  [id, at, xid, kind, named]: BareRow,
): EntryFields {
  const fact = { id, at: new Date(at).toISOString(), xid, kind, agent: task.agent, task: task.id }
  if (kind === 'task.opened') return { ...fact, body: sent({ ...openedBody(asked), deadline: task.deadline.toISOString() }) }
  if (kind === 'decision.made') return { ...fact, decision: decision.id, body: sent(decided) }
  const lease = leases.find((each) => each.id === named)!
  return { ...fact, lease: lease.id, decision: lease.decisionId, body: sent(leaseBody(lease)) }
}

/** The body exactly as it was sent; its type is wider than JSON, its content is not. What is undefined is left out of leaves as it is of JSON. */
const sent = (body: object): Json => body as Json

async function writeAll(ledger: Ledger, all: readonly Announcement[]): Promise<Written> {
  const asked = all.map(({ task, leases, limits, claim }) => ({
    ...task,
    leases: leases.length,
    most: limits.perAgent,
    keyed: claim !== undefined,
    body: openedBody(task),
  }))
  const names = namesFor(all.flatMap(({ leases }) => leases))
  const decided = all.map(({ decision }) => decidedBody(decision))
  const claims = all.flatMap(({ task, leases, claim }) => (claim ? [{ task: task.id, claim, busy: !leases.every(({ local }) => local) }] : []))
  const rows = await ledger.run<{ id: TaskId; told: BareRow[] | null } & WrittenOne>(
    sql`
    with asked as materialized (
      select * from json_to_recordset(${JSON.stringify(asked)}::text::json) as asked(id text, kind text, agent text, owner text, actor jsonb, purpose text,
        labels jsonb, "tokenHash" text, duration double precision, deadline timestamptz, leases int, most int, keyed boolean, body jsonb)
    ),
    ${decidedRows(all.map(({ task, decision }, at) => ({ task: task.id, decision, body: decided[at]! })))},
    ${wantedRows(all.map(({ task, decision, leases }) => ({ task: task.id, decision, leases })))},
    ${names.roles}
    ${claims.length === 0 ? sql`` : sql`${claimKeys(claims)},`}
    ${stoppedOf(sql`asked`, sql`wanted`)},
    asking as (
      select * from asked where id not in (select id from stopped) ${claims.length === 0 ? sql`` : sql`and (not keyed or id in (select task_id from claimed))`}
        ${names.first}
    ),
    place as (${takePlaces}),
    task as (
      insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, token_hash, deadline, live_leases, announced_leases)
      select id, 'open', kind, agent, owner, actor, purpose, labels, "tokenHash", ${deadlineIn(sql`duration`, sql`deadline`)}, leases, leases
      from asking where ${hasPlace}
      returning *
    ),
    kept as (${keepDecisions(sql`select id from task`)}),
    ${names.taken}
    announced as (${insertLeases(names)}),
    told as (
      ${entryColumns}
      select 'task.opened', task.agent, task.id, null, null, asked.body || jsonb_build_object('deadline', ${rfc3339(sql`task.deadline`)})
        from task join asked on asked.id = task.id
      union all ${decisionEntries(sql`select id from task`)}
      union all ${leaseEntries}
      returning ${bareColumns}
    )
    select asked.id, (select to_json(task) from task where task.id = asked.id) as task,
      (select json_agg(announced order by announced.id) from announced where announced.task_id = asked.id) as leases,
      ${bareRows(sql`told.task_id = asked.id`)} as told,
      (select json_build_object('stop', stop, 'until', until) from stopped where stopped.id = asked.id) as stopped
    from asked where id in (select id from asking) or id in (select id from stopped)`,
    'later',
  )
  const bodies = new Map(all.map(({ task }, at) => [task.id, decided[at]!]))
  return new Map(rows.map(({ id, ...written }) => [id, { ...written, decided: bodies.get(id)! }]))
}

/** By what right further leases of a task are asked for, where a retry may have taken the task meanwhile: then there are none. */
export interface Right {
  /** SHA-256 of the task token that was presented. */
  readonly tokenHash?: string | undefined
  /** Of the retry itself, whose answer was lost: what it declared is announced anew. */
  readonly reissue?: KeyClaim
}

/** Why a task was given no further leases. */
export type LeasesRefused = { readonly outcome: 'not_open' | 'limit' | 'used_up' } | ({ readonly outcome: 'stopped' } & Stopped)

/**
 * Announces further leases of an open task.
 *
 * `not_open`: the task has ended or passed its deadline, or a retry of its declaration has taken it since. `limit`: the agent or the task has too many live
 * leases. `used_up`: the task has had too many leases in all. `stopped`: an operator has stopped what is asked for. Nothing was written.
 */
export async function announceLeases(
  ledger: Ledger,
  task: TaskId,
  decision: NewDecision,
  leases: readonly NewLease[],
  limits: LeaseLimits,
  { tokenHash, reissue }: Right,
): Promise<Announced | LeasesRefused> {
  const names = namesFor(leases)
  const elapsed = stopwatch()
  const [row] = await ledger.run<{ announced: number | null; told: ExportedRow[] | null } & WrittenOne>(
    sql`
    with ${decidedRows([{ task, decision }])},
    ${wantedRows([{ task, decision, leases }])},
    ${names.roles}
    found as (
      select * from tasks where id = ${task} and state = 'open' and deadline > now() ${reissue ? sql`and ${holds(reissue)}` : sql``}
        ${tokenHash === undefined ? sql`` : sql`and token_hash = ${tokenHash}`} ${names.first} for update
    ),
    ${stoppedOf(sql`found`, sql`wanted`)},
    asking as (
      select id, agent, ${leases.length}::int as leases, ${limits.perAgent}::int as most
      from found where not exists (select from stopped) and live_leases + ${leases.length}::int <= ${limits.perTask}::int
        and announced_leases + ${leases.length}::int <= ${leasesInAll}::int
    ),
    place as (${takePlaces}),
    task as (
      update tasks set live_leases = tasks.live_leases + asking.leases, announced_leases = tasks.announced_leases + asking.leases
      from asking where tasks.id = ${task} and tasks.state = 'open' and ${hasPlace}
      returning tasks.*
    ),
    kept as (${keepDecisions(sql`select id from task`)}),
    ${names.taken}
    announced as (${insertLeases(names)}),
    told as (
      ${entryColumns}
      ${decisionEntries(sql`select id from task`)}
      union all ${leaseEntries}
      returning *
    )
    select (select announced_leases from found) as announced, (select to_json(task) from task) as task,
      (select json_agg(announced order by announced.id) from announced) as leases, ${toldRows()} as told,
      (select json_build_object('stop', stop, 'until', until) from stopped) as stopped`,
    'later',
  )
  if (!row || row.announced === null) return { outcome: 'not_open' }
  if (row.stopped) return { outcome: 'stopped', ...row.stopped }
  if (!row.task) return { outcome: row.announced + leases.length > leasesInAll ? 'used_up' : 'limit' }
  return { outcome: 'announced', task: taskOf(row.task), leases: leasesOf(row.leases), elapsed, receipts: receiptsOfRows(ledger, row.told) }
}

/**
 * Takes the places that the query `asking` wants under each agent's limit: for an agent all of them, or none. One row an agent and a guarded update
 * of it: two brokers that announce at once wait for each other here, and the second sees what the first took. Counting the leases instead would read
 * a snapshot from before the wait. In the order of names, as in endings.ts.
 */
const takePlaces = sql`
  insert into agents as agent (name, live_leases)
  select asking.agent, sum(asking.leases) from asking where asking.leases > 0
    group by asking.agent having sum(asking.leases) <= min(asking.most) order by asking.agent
  on conflict (name) do update set live_leases = agent.live_leases + excluded.live_leases
    where agent.live_leases + excluded.live_leases <= (select min(asking.most) from asking where asking.agent = excluded.name)
  returning name`

/** What of `asking` was given its places. */
const hasPlace = sql`(asking.leases = 0 or asking.agent in (select name from place))`

/** Leases and the tasks that want them: the query `wanted`. */
function wantedRows(all: readonly { readonly task: TaskId; readonly decision: NewDecision; readonly leases: readonly NewLease[] }[]): SQL {
  const rows = all.flatMap(({ task, decision, leases }) => leases.map((lease) => ({ task, decision: decision.id, ...lease })))
  return sql`
    wanted as materialized (
      select *, now() + lasts * interval '1 millisecond' as until
      from json_to_recordset(${JSON.stringify(rows)}::text::json) as wanted(task text, decision text, id text, "grant" text, provider text, "providerKind" text, local boolean,
        revocation text, standing boolean, "outlivesRevocation" jsonb, parameters jsonb, lasts bigint, ttl bigint)
    )`
}

/** What an announcement has besides where it takes names of sessions. Nothing of it is in the statement of leases that need none. */
interface Names {
  /** The queries that lock the kill lists. */
  readonly roles: SQL
  /** A condition that is always true, and read before the task is locked. */
  readonly first: SQL
  readonly taken: SQL
  readonly column: SQL
  readonly handles: SQL
}

function namesFor(leases: readonly NewLease[]): Names {
  const asked = leases.filter(({ pool }) => pool.length > 0).map(({ id, provider, pool }) => ({ id, provider, roles: pool }))
  if (asked.length === 0) return { roles: sql``, first: sql``, taken: sql``, column: sql``, handles: sql`` }
  const naming = sql`(select wanted.id, ${forgottenAfter(endsAt)} as forget_at from wanted join task on task.id = wanted.task)`
  return {
    roles: sql`${openRoles(asked)},`,
    first: sql`and (select count(*) from open) >= 0`,
    taken: sql`${takeNames(naming)},`,
    column: sql`, handles`,
    handles: sql`, coalesce((select ${namedHandles} from named where named.lease_id = wanted.id), '[]')`,
  }
}

/** When a lease of `wanted` ends, in its task. */
const endsAt = endOf(sql`wanted`, sql`least(wanted.until, task.deadline)`)

/** Writes those of `wanted` whose task is in `task`. */
const insertLeases = ({ column, handles }: Names): SQL => sql`
  insert into leases (id, task_id, decision_id, agent, owner, grant_name, provider, provider_kind, local, revocation, standing, outlives_revocation, state, parameters, ttl, issued_at, expires_at,
    due_at ${column})
  select wanted.id, task.id, wanted.decision, task.agent, task.owner, wanted."grant", wanted.provider, wanted."providerKind", wanted.local, wanted.revocation, wanted.standing,
    wanted."outlivesRevocation", case when wanted.local then 'active' else 'reserved' end, wanted.parameters, wanted.ttl, case when wanted.local then now() end,
    ${endsAt},
    case when wanted.local then ${endsAt} else now() + make_interval(secs => ${mintPatience}) end ${handles}
  from wanted join task on task.id = wanted.task
  returning *`
