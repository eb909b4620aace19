import { sql, type SQL } from 'drizzle-orm'
import type { Ledger } from '../../src/ledger/connect.ts'
import { canonical, digestOfText } from '../../src/proof/canonical.ts'
import { documentedBodies } from './documented.ts'
import { unlawfulStories } from './stories.ts'

/** What is wrong where, in words. An audit that finds nothing is an empty list. */
export type Finding = string

/**
 * Derives every invariant of the design again, from the tables alone. Run after each test: whatever a test did, these must hold.
 *
 * @param secrets every secret that was handed out; none may stand in any table
 */
export async function audit(ledger: Ledger, secrets: readonly string[] = []): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const [what, query] of Object.entries(questions)) {
    const rows = await ledger.run<{ id: string }>(query)
    findings.push(...rows.map(({ id }) => `${what}: ${id}`))
  }
  findings.push(...(await unlawfulStories(ledger)), ...(await looseDecisions(ledger)), ...(await unexplainedEntries(ledger)))
  findings.push(...(await storedSecrets(ledger, secrets)))
  return findings
}

/**
 * The same, and what brokers have told besides: neither a secret nor a handle may stand there.
 *
 * @param told their logs and metrics
 */
export async function auditTold(ledger: Ledger, secrets: readonly string[], told: string): Promise<Finding[]> {
  const hidden = [...secrets, ...(await handlesOf(ledger))]
  return [
    ...(await audit(ledger, secrets)),
    ...hidden.filter((secret) => told.includes(secret)).map(() => 'a secret or a handle was told'),
    ...(ofOurs.test(told) ? ['what looks like a secret was told'] : []),
  ]
}

/** Task tokens, and what is signed. */
const ofOurs = /mft_[\w-]{43}|eyJ[\w-]{10,}\./

/** Each finds the rows that must not exist. */
const questions: Record<string, SQL> = {
  'a lease is alive in a task that is not open': sql`
    select lease.id from leases as lease join tasks as task on task.id = lease.task_id
    where lease.state in ('reserved', 'active') and task.state <> 'open'`,
  'a lease outlives its task': sql`
    select lease.id from leases as lease join tasks as task on task.id = lease.task_id
    where lease.due_at is not null and task.state not in ('open', 'closing')`,
  'a lease would end after its task': sql`
    select lease.id from leases as lease join tasks as task on task.id = lease.task_id where lease.expires_at > task.deadline`,
  'nobody looks at a lease when it has outlived its own end, though its task goes on': sql`
    select lease.id from leases as lease join tasks as task on task.id = lease.task_id
    where lease.state = 'active' and not lease.local and lease.expires_at < task.deadline - interval '1 second'
      and lease.due_at > greatest(lease.expires_at, now() + interval '30 seconds')`,
  'a task miscounts its live leases': sql`
    select id from tasks as task where live_leases <> (select count(*) from leases where task_id = task.id and due_at is not null)`,
  'a task miscounts the leases it was given': sql`
    select id from tasks as task where announced_leases <> (select count(*) from leases where task_id = task.id)`,
  'an agent miscounts its live leases': sql`
    select name as id from agents as agent where live_leases <> (select count(*) from leases where agent = agent.name and due_at is not null)`,
  'live leases belong to no counted agent': sql`
    select distinct agent as id from leases where due_at is not null and agent not in (select name from agents)`,
  'a task is closing without a live lease': sql`select id from tasks where state = 'closing' and live_leases = 0`,
  'a task has ended without a cause or a time': sql`
    select id from tasks where state not in ('open', 'closing') and (cause is null or ended_at is null)`,
  'a lease has ended without a cause or a time': sql`select id from leases where due_at is null and (cause is null or ended_at is null)`,
  'a lease says revoked without evidence': sql`select id from leases where state = 'revoked' and evidence is null`,
  'a lease says revoked though only time could end it': sql`select id from leases where state = 'revoked' and revocation = 'expiry'`,
  // What was given of a lease may have ended before the lease would have; then its provider says so.
  'a lease expired before its time': sql`
    select id from leases where state = 'expired' and ended_at < expires_at and evidence->>'by' is distinct from 'time'`,
  'a lease is stuck without being revoked': sql`select id from leases where stuck_since is not null and state <> 'revoking'`,
  'a lease was announced without a permit': sql`
    select lease.id from leases as lease left join decisions as decision on decision.id = lease.decision_id
    where decision.id is null or decision.outcome <> 'permit' or decision.task_id <> lease.task_id`,
  'a task that was refused has leases': sql`select id from tasks where state = 'denied' and announced_leases > 0`,
  'a refused task has no decision': sql`
    select id from tasks as task where state = 'denied' and not exists (select from decisions where task_id = task.id)`,
  'a decision rests on a policy set that is not archived': sql`
    select id from decisions where policy_digest not in (select digest from policy_sets)`,
  'a decision was told twice': sql`
    select decision_id as id from entries where kind = 'decision.made' group by decision_id having count(*) > 1`,
  'an entry is about what is not there': sql`
    select id from entries as entry where (task_id is not null and not exists (select from tasks where id = entry.task_id))
      or (lease_id is not null and not exists (select from leases where id = entry.lease_id and task_id = entry.task_id))
      or (decision_id is not null and not exists (select from decisions where id = entry.decision_id and task_id = entry.task_id))`,
  'a credential was announced in another commit than its permit': sql`
    select lease.id from leases as lease join entries as entry on entry.lease_id = lease.id
    where entry.kind = any(case when lease.local then array['lease.issued', 'lease.refreshed'] else array['lease.reserved', 'lease.refreshing'] end)
      and not exists (select from entries where kind = 'decision.made' and decision_id = entry.decision_id and xid = entry.xid)`,
  // A provider outside the broker is asked in between, and never inside of a transaction.
  'a credential was handed out in the commit that announced it': sql`
    select made.lease_id as id from entries as announced join entries as made on made.lease_id = announced.lease_id and made.xid = announced.xid
    where (announced.kind, made.kind) in (('lease.reserved', 'lease.issued'), ('lease.refreshing', 'lease.refreshed'))`,
  'a lease failed though it was issued': sql`select id from leases where state = 'failed' and issued_at is not null`,
  'a lease ended otherwise than was told': sql`
    select id from leases as lease where due_at is null and not exists (
      select from entries where lease_id = lease.id and kind = 'lease.' || lease.state and body ->> 'cause' is not distinct from lease.cause
        and body -> 'evidence' is not distinct from jsonb_strip_nulls(lease.evidence))`,
  'a task is closed otherwise than was told': sql`
    select task.id from tasks as task join entries as entry on entry.task_id = task.id and entry.kind = 'task.closing'
    where entry.body <> jsonb_build_object('cause', task.cause, 'reason', task.reason, 'by', task.ended_by, 'outcome', task.outcome)`,
  'a task ended otherwise than was told': sql`
    select task.id from tasks as task join entries as entry on entry.task_id = task.id and entry.kind = 'task.ended'
    where entry.body <> jsonb_build_object('state', case when task.state = 'closing' then task.outcome else task.state end, 'cause', task.cause)`,
  'a task was refused otherwise than was told': sql`
    select task.id from tasks as task join entries as entry on entry.task_id = task.id and entry.kind = 'task.denied'
    where entry.body ->> 'cause' is distinct from task.cause`,
  'the name of a session is no handle of its lease': sql`
    select session.name as id from role_sessions as session join leases as lease on lease.id = session.lease_id
    where not lease.handles @> jsonb_build_array(jsonb_build_object('role', session.role, 'session_name', session.name))`,
  'a lease says revoked though one of its sessions was never denied': sql`
    select lease.id from role_sessions as session join leases as lease on lease.id = session.lease_id
    where lease.state = 'revoked' and session.denied_at is null`,
  'a session is dead by a document that was not seen in force': sql`
    select session.name as id from role_sessions as session join kill_lists as list on list.provider = session.provider and list.role = session.role
    where session.confirmed_at is not null and session.generation > list.confirmed_generation`,
  'a kill list was written without an entry': sql`
    select role as id from kill_lists as list where written_generation > 0 and not exists (
      select from entries as entry where entry.kind = 'kill_list.written' and entry.body @> jsonb_build_object('provider', list.provider, 'role', list.role, 'generation', list.written_generation))`,
}

/** Decisions that are not what their entry says: the digest binds all answers, and the rest stands in both. */
async function looseDecisions(ledger: Ledger): Promise<Finding[]> {
  const rows = await ledger.run<{ id: string; answers: unknown; digest: string | null; same: boolean | null }>(sql`
    select decision.id, decision.answers, entry.body ->> 'answers_digest' as digest,
      entry.body - 'answers_digest' = jsonb_build_object('action', decision.action, 'outcome', decision.outcome, 'policies', decision.policies,
        'policy_digest', decision.policy_digest, 'obligations', decision.obligations) as same
    from decisions as decision left join entries as entry on entry.kind = 'decision.made' and entry.decision_id = decision.id
      and entry.task_id = decision.task_id and entry.agent = decision.agent`)
  return rows.flatMap(({ id, answers, digest, same }) =>
    same === true && digest === digestOfText(canonical(answers)) ? [] : [`a decision is not what its entry says: ${id}`],
  )
}

/** Entries whose body is not as docs/entries.md says. */
async function unexplainedEntries(ledger: Ledger): Promise<Finding[]> {
  const rows = await ledger.run<{ id: string; kind: string; fields: string[] | null }>(sql`
    select id, kind, (select json_agg(field) from jsonb_object_keys(body) as field) as fields from entries`)
  return rows.flatMap(({ id, kind, fields }) => {
    const { always, whereItApplies } = documentedBodies.get(kind) ?? { always: [], whereItApplies: [] }
    const has = fields ?? []
    const missing = always.filter((field) => !has.includes(field))
    const unknown = has.filter((field) => !always.includes(field) && !whereItApplies.includes(field))
    return missing.length + unknown.length === 0 ? [] : [`${id}: ${kind} lacks ${missing.join(' ')}, or has without a word ${unknown.join(' ')}`]
  })
}

/**
 * What stands nowhere but among the handles of a lease, in no other column, log or metric: whoever knows an accessor of Vault can end its token, and whoever
 * knows the id of a lease that lease.
 */
export async function handlesOf(ledger: Ledger): Promise<string[]> {
  const rows = await ledger.run<{ value: string }>(sql`
    select distinct part.value from leases, jsonb_array_elements(handles) as handle, jsonb_each_text(handle) as part
    where part.key in ('accessor', 'lease_id')`)
  return rows.map(({ value }) => value)
}

async function storedSecrets(ledger: Ledger, secrets: readonly string[]): Promise<Finding[]> {
  const tables = [
    'tasks',
    'leases',
    'decisions',
    'entries',
    'policy_sets',
    'idempotency_keys',
    'spent_tokens',
    'agents',
    'role_sessions',
    'kill_lists',
    'revocations',
    'stops',
  ]
  // The random bits of a task token stand at its end, and so does the signature of a JWT: either is looked for without what stands before it.
  const ends = secrets.map((secret) => secret.slice(-43))
  const handles = await handlesOf(ledger)
  const findings: Finding[] = []
  for (const table of tables) {
    const rows = await ledger.run<{ row: string; rest: string }>(sql`
      select to_json(stored)::text as row, (to_jsonb(stored) - 'handles')::text as rest from ${sql.identifier(table)} as stored`)
    for (const { row, rest } of rows) {
      if (handles.some((handle) => rest.includes(handle))) findings.push(`a handle is stored in ${table}`)
      if (ofOurs.test(row) || ends.some((end) => row.includes(end))) findings.push(`a secret is stored in ${table}`)
    }
  }
  return findings
}
