import { sql, type SQL } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Ledger } from './connect.ts'
import { decisionEntry, entryColumns, json, leaseEntries, type NewDecision, rfc3339 } from './entries.ts'
import { claim, holds, type KeyClaim } from './keys.ts'
import { type Declarant, type JsonRow, type Lease, leasesOf, type Task, taskOf } from './records.ts'

/** A task about to be opened or denied. */
export interface NewTask {
  readonly id: TaskId
  readonly kind: string
  readonly agent: string
  readonly owner: string
  readonly actor: Declarant
  readonly purpose: string
  readonly labels: Readonly<Record<string, string>>
  /** SHA-256 of the task token. */
  readonly tokenHash: string
  /** Milliseconds from the store's now. */
  readonly duration: number
  /** Where the agent named a moment; the earlier of the two counts. */
  readonly deadline: Date | undefined
}

/** A lease about to be announced: `reserved`, or `active` at once where minting changes nothing outside the broker. */
export interface NewLease {
  readonly id: LeaseId
  readonly grant: string
  readonly provider: string
  readonly local: boolean
  readonly revocation: Lease['revocation']
  readonly standing: boolean
  readonly parameters: Readonly<Record<string, string>>
  /** Milliseconds from the store's now; cut at the task's deadline. */
  readonly ttl: number
}

/** Limits that the announcing commit itself checks, so that they are exact across brokers. */
export interface LeaseLimits {
  /** Live leases of the agent. */
  readonly perAgent: number
  /** Live leases of the task. */
  readonly perTask: number
}

/** Seconds that a mint may take before the reaper looks after its lease. Longer than any request is let live. */
const mintPatience = 60

export type Announced = { readonly outcome: 'announced'; readonly task: Task; readonly leases: readonly Lease[] }

/**
 * Announces a task, its decision and its leases in one commit: from here on the ledger knows every credential that could come to exist.
 *
 * `key_taken`: another request holds this Idempotency-Key. `limit`: the agent has too many live leases. Nothing was written in both cases, but
 * for the key, which then stands for a task that does not exist.
 */
export async function announceTask(
  ledger: Ledger,
  task: NewTask,
  decision: NewDecision,
  leases: readonly NewLease[],
  limits: LeaseLimits,
  key: KeyClaim | undefined,
): Promise<Announced | { readonly outcome: 'limit' } | { readonly outcome: 'key_taken' }> {
  const local = leases.every((lease) => lease.local)
  const [row] = await ledger.run<{ claimed: boolean; task: JsonRow | null; leases: JsonRow[] | null }>(sql`
    with claimed as (${key ? claim(key, task.id, !local) : once}),
    place as (${takePlace(task.agent, leases.length, limits.perAgent, sql`claimed`)}),
    task as (
      insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, token_hash, deadline, live_leases, announced_leases)
      select ${task.id}::text, 'open', ${task.kind}::text, ${task.agent}::text, ${task.owner}::text, ${json(task.actor)}, ${task.purpose}::text,
        ${json(task.labels)}, ${task.tokenHash}::text, ${deadlineOf(task)}, ${leases.length}::int, ${leases.length}::int
      from place
      returning *
    ),
    kept as (${keepDecision(decision, sql`task`)}),
    announced as (${insertLeases(decision, leases)}),
    told as (
      ${entryColumns}
      select 'task.opened', task.agent, task.id, null, null, ${json(openedBody(task))} || jsonb_build_object('deadline', ${rfc3339(sql`task.deadline`)}) from task
      union all ${decisionEntry(decision, sql`task`)}
      union all ${leaseEntries}
    )
    select exists (select from claimed) as claimed, (select to_json(task) from task) as task,
      (select json_agg(announced order by announced.id) from announced) as leases`)
  if (!row?.claimed) return { outcome: 'key_taken' }
  if (!row.task) return { outcome: 'limit' }
  return { outcome: 'announced', task: taskOf(row.task), leases: leasesOf(row.leases) }
}

/** A declaration whose answer was lost: it gets another task token, while it holds its Idempotency-Key. */
export interface Reissue {
  /** SHA-256 of the task token. */
  readonly tokenHash: string
  readonly claim: KeyClaim
}

/**
 * Announces further leases of an open task.
 *
 * `not_open`: the task has ended or passed its deadline, or another retry has taken the key of this reissue. `limit`: the agent or the task has too many live leases. Nothing was written.
 */
export async function announceLeases(
  ledger: Ledger,
  task: TaskId,
  decision: NewDecision,
  leases: readonly NewLease[],
  limits: LeaseLimits,
  reissue?: Reissue,
): Promise<Announced | { readonly outcome: 'limit' } | { readonly outcome: 'not_open' }> {
  const [row] = await ledger.run<{ found: boolean; task: JsonRow | null; leases: JsonRow[] | null }>(sql`
    with found as (select * from tasks where id = ${task} and state = 'open' and deadline > now() ${reissue ? sql`and ${holds(reissue.claim)}` : sql``} for update),
    place as (${takePlace(decision.agent, leases.length, limits.perAgent, sql`found where found.live_leases + ${leases.length}::int <= ${limits.perTask}::int`)}),
    task as (
      update tasks set live_leases = tasks.live_leases + ${leases.length}::int, announced_leases = tasks.announced_leases + ${leases.length}::int,
        token_hash = coalesce(${reissue?.tokenHash ?? null}::text, tasks.token_hash)
      from place where tasks.id = ${task} and tasks.state = 'open'
      returning tasks.*
    ),
    kept as (${keepDecision(decision, sql`task`)}),
    announced as (${insertLeases(decision, leases)}),
    told as (
      ${entryColumns}
      ${reissue === undefined ? sql`` : sql`select 'task.reissued', task.agent, task.id, null, null, '{}'::jsonb from task union all`}
      ${decisionEntry(decision, sql`task`)}
      union all ${leaseEntries}
    )
    select exists (select from found) as found, (select to_json(task) from task) as task,
      (select json_agg(announced order by announced.id) from announced) as leases`)
  if (!row?.found) return { outcome: 'not_open' }
  if (!row.task) return { outcome: 'limit' }
  return { outcome: 'announced', task: taskOf(row.task), leases: leasesOf(row.leases) }
}

/**
 * Keeps a request that was refused, with the decision that says why: a task `denied` from birth. A key that came with it is taken, so that the
 * retry of a denial is another decision about the same request. `limit`: the policy permitted it, a limit did not; its key was taken already.
 */
export async function recordDenial(
  ledger: Ledger,
  task: NewTask,
  decision: NewDecision,
  cause: 'policy' | 'limit',
  key: KeyClaim | undefined,
): Promise<void> {
  await ledger.run(sql`
    with claimed as (${key ? claim(key, task.id, false) : once}),
    task as (
      insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, deadline, cause, ended_at)
      values (${task.id}, 'denied', ${task.kind}, ${task.agent}, ${task.owner}, ${json(task.actor)}, ${task.purpose}, ${json(task.labels)},
        ${deadlineOf(task)}, ${cause}, now())
      returning *
    ),
    kept as (${keepDecision(decision, sql`task`)})
    ${entryColumns}
    select 'task.denied', task.agent, task.id, null, null, ${json({ ...openedBody(task), cause })} from task
    union all ${decisionEntry(decision, sql`task`)}`)
}

/** Keeps a decision about a task that exists already: a refused further lease, refresh or renewal. */
export async function recordDecision(ledger: Ledger, task: TaskId, decision: NewDecision): Promise<void> {
  await ledger.run(sql`
    with task as (select id, agent from tasks where id = ${task}), kept as (${keepDecision(decision, sql`task`)})
    ${entryColumns} ${decisionEntry(decision, sql`task`)}`)
}

/** Stands where a condition would, when there is none. */
const once = sql`select 1 as key`

export const milliseconds = (count: number): SQL => sql`make_interval(secs => ${count}::double precision / 1000)`

export const deadlineOf = ({ duration, deadline }: Pick<NewTask, 'duration' | 'deadline'>): SQL =>
  sql`least(now() + ${milliseconds(duration)}, ${deadline?.toISOString() ?? null}::text::timestamptz)`

/**
 * Takes `count` places under the agent's limit, or none. One row an agent and a guarded update of it: two brokers that announce at once wait for each
 * other here, and the second sees what the first took. Counting the leases instead would read a snapshot from before the wait.
 */
function takePlace(agent: string, count: number, limit: number, source: SQL): SQL {
  if (count === 0) return sql`select ${agent}::text as name from ${source}`
  const condition = sql`${count}::int <= ${limit}::int`
  const filtered = sql`(select 1 as one from ${source}) as source where ${condition}`
  return sql`
    insert into agents as agent (name, live_leases) select ${agent}::text, ${count}::int from ${filtered}
    on conflict (name) do update set live_leases = agent.live_leases + excluded.live_leases
      where agent.live_leases + excluded.live_leases <= ${limit}::int
    returning name`
}

/** Keeps a decision about the task that `source` has a row of; no row, no decision. */
export function keepDecision({ id, agent, kind, action, made }: NewDecision, source: SQL, task: SQL = sql`${source}.id`): SQL {
  return sql`
    insert into decisions (id, task_id, agent, kind, action, outcome, policies, policy_digest, obligations, answers)
    select ${id}::text, ${task}, ${agent}::text, ${kind}::text, ${action}::text, ${made.outcome}::text, ${json(made.policies)}, ${made.policyDigest}::text,
      ${json(made.obligations)}, ${json(made.answers)} from ${source}`
}

function insertLeases(decision: NewDecision, leases: readonly NewLease[]): SQL {
  return sql`
    insert into leases (id, task_id, decision_id, agent, grant_name, provider, local, revocation, standing, state, parameters, ttl, issued_at, expires_at, due_at)
    select lease.id, task.id, ${decision.id}::text, task.agent, lease."grant", lease.provider, lease.local, lease.revocation, lease.standing,
      case when lease.local then 'active' else 'reserved' end, lease.parameters, lease.ttl, case when lease.local then now() end,
      least(now() + lease.ttl * interval '1 millisecond', task.deadline),
      case when lease.local then least(now() + lease.ttl * interval '1 millisecond', task.deadline) else now() + make_interval(secs => ${mintPatience}) end
    from task, json_to_recordset(${JSON.stringify(leases)}::text::json)
      as lease(id text, "grant" text, provider text, local boolean, revocation text, standing boolean, parameters jsonb, ttl bigint)
    returning *`
}

const openedBody = ({ kind, owner, actor, purpose, labels }: NewTask) => ({ kind, owner, actor, purpose, labels })
