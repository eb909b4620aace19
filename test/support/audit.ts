import { sql, type SQL } from 'drizzle-orm'
import type { Ledger } from '../../src/ledger/connect.ts'
import { canonical, digestOfText } from '../../src/proof/canonical.ts'
import { documentedBodies } from './documented.ts'

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
  'a decision is not in the history': sql`
    select id from decisions where id not in (select decision_id from entries where kind = 'decision.made' and decision_id is not null)`,
  'a task is not in the history': sql`
    select id from tasks where id not in (select task_id from entries where kind in ('task.opened', 'task.denied') and task_id is not null)`,
  'a task ended without an entry': sql`
    select id from tasks where state not in ('open', 'closing', 'denied')
      and id not in (select task_id from entries where kind = 'task.ended' and task_id is not null)`,
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

/** Which entry may follow which in the story of one lease. */
const next: Record<string, readonly string[]> = {
  '': ['lease.reserved', 'lease.issued'],
  'lease.reserved': ['lease.issued', 'lease.failed', 'lease.revoking', 'lease.lapsing'],
  'lease.issued': ['lease.refreshing', 'lease.refreshed', 'lease.revoking', 'lease.lapsing', 'lease.revoked', 'lease.expired'],
  // Of leases whose provider is outside the broker; several refreshes may be under way at once.
  'lease.refreshing': ['lease.refreshing', 'lease.refreshed', 'lease.not_refreshed', 'lease.revoking', 'lease.lapsing'],
  'lease.refreshed': [
    'lease.refreshing',
    'lease.refreshed',
    'lease.not_refreshed',
    'lease.revoking',
    'lease.lapsing',
    'lease.revoked',
    'lease.expired',
  ],
  'lease.not_refreshed': ['lease.refreshing', 'lease.refreshed', 'lease.not_refreshed', 'lease.revoking', 'lease.lapsing'],
  'lease.revoking': ['lease.revoked', 'lease.expired', 'lease.failed', 'lease.stuck'],
  'lease.stuck': ['lease.revoked', 'lease.expired', 'lease.failed'],
  'lease.lapsing': ['lease.expired', 'lease.failed'],
  'lease.revoked': ['lease.reopened'],
  'lease.expired': ['lease.reopened'],
  'lease.failed': ['lease.reopened'],
  'lease.reopened': ['lease.revoked', 'lease.expired', 'lease.failed', 'lease.stuck'],
}

/** The state in which a lease is whose story ends so. */
const stateAfter: Record<string, readonly string[]> = {
  'lease.reserved': ['reserved'],
  'lease.issued': ['active'],
  'lease.refreshing': ['active'],
  'lease.refreshed': ['active'],
  'lease.not_refreshed': ['active'],
  'lease.revoking': ['revoking'],
  'lease.stuck': ['revoking'],
  'lease.lapsing': ['lapsing'],
  'lease.revoked': ['revoked'],
  'lease.expired': ['expired'],
  'lease.failed': ['failed'],
  'lease.reopened': ['revoking', 'lapsing'],
}

async function unlawfulStories(ledger: Ledger): Promise<Finding[]> {
  // An entry's id is made when it is written, which is behind the locks of its statement. Its transaction may be older than another's that had one of these
  // locks first, where it locks several tasks. The embedded store runs one statement at a time, and its clock may be set back by a test.
  const order = ledger.embedded ? sql`xid, id` : sql`id`
  const rows = await ledger.run<{ id: string; state: string; story: string[] | null }>(sql`
    select id, state, (select json_agg(kind order by ${order}) from entries where lease_id = lease.id) as story from leases as lease`)
  return rows.flatMap(({ id, state, story }) => {
    let before = ''
    for (const kind of story ?? []) {
      if (!next[before]?.includes(kind)) return [`a lease has an unlawful story: ${id}: ${(story ?? []).join(' ')}`]
      before = kind
    }
    return stateAfter[before]?.includes(state) ? [] : [`a lease is not where its story ends: ${id}: ${state} after ${before}`]
  })
}

async function looseDecisions(ledger: Ledger): Promise<Finding[]> {
  const rows = await ledger.run<{ id: string; answers: unknown; digest: string | null }>(sql`
    select decision.id, decision.answers, entry.body ->> 'answers_digest' as digest
    from decisions as decision left join entries as entry on entry.task_id = decision.task_id and entry.decision_id = decision.id and entry.kind = 'decision.made'`)
  return rows.flatMap(({ id, answers, digest }) =>
    digest === digestOfText(canonical(answers)) ? [] : [`a decision is not what its entry says: ${id}`],
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
      if (/mft_[\w-]{43}|eyJ[\w-]{10,}\./.test(row) || ends.some((end) => row.includes(end))) findings.push(`a secret is stored in ${table}`)
    }
  }
  return findings
}
