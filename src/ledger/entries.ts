import { sql, type SQL } from 'drizzle-orm'
import type { DecisionId, TaskId } from '../base/ids.ts'
import type { Decision } from '../policy/decide.ts'
import type { Action } from '../policy/inquiry.ts'
import { canonical, digestOfText } from '../proof/canonical.ts'
import type { EntryFields } from '../proof/leaf.ts'
import type { Ledger } from './connect.ts'
import type { Lease, Task } from './records.ts'

/** A task about to be opened or denied. */
export interface NewTask extends Pick<Task, 'id' | 'kind' | 'agent' | 'owner' | 'actor' | 'purpose' | 'labels'> {
  /** SHA-256 of the task token. */
  readonly tokenHash: string
  /** Milliseconds from the store's now. */
  readonly duration: number
  /** Where the agent named a moment; the earlier of the two counts. */
  readonly deadline: Date | undefined
}

/** A decision about to be kept. */
export interface NewDecision {
  readonly id: DecisionId
  readonly agent: string
  readonly kind: string
  readonly action: Action
  readonly made: Decision
}

/** A JSON parameter. As text first: the drivers disagree about how an object becomes jsonb. */
export const json = (value: unknown): SQL => sql`${JSON.stringify(value)}::text::jsonb`

/** A moment as the history writes it, whatever the session's time zone. RFC 3339, milliseconds. */
export const rfc3339 = (moment: SQL): SQL => sql`to_char(${moment} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`

/** The head of every insert into the history. What follows selects kind, agent, task, lease, decision and body, in this order. */
export const entryColumns = sql`insert into entries (kind, agent, task_id, lease_id, decision_id, body)`

/** Decisions and the tasks that they are about: the query `decided`. */
export function decidedRows(decisions: readonly { readonly task: TaskId; readonly decision: NewDecision; readonly body?: DecidedBody }[]): SQL {
  const rows = decisions.map(({ task, decision: { made, ...decision }, body }) => ({
    ...made,
    ...decision,
    task,
    body: body ?? decidedBody({ ...decision, made }),
  }))
  return sql`
    decided as materialized (
      select * from json_to_recordset(${JSON.stringify(rows)}::text::json) as decided(task text, id text, agent text, kind text, action text, outcome text,
        policies jsonb, "policyDigest" text, obligations jsonb, answers jsonb, body jsonb)
    )`
}

/** What the history says of a task when it is opened or denied, but for when it ends. */
export const openedBody = ({ kind, owner, actor, purpose, labels }: NewTask) => ({ kind, owner, actor, purpose, labels })

/** What the history says of a decision; the digest over all its answers binds the row in `decisions` to it. */
export const decidedBody = ({ action, made }: Pick<NewDecision, 'action' | 'made'>) => ({
  action,
  outcome: made.outcome,
  policies: made.policies,
  policy_digest: made.policyDigest,
  obligations: made.obligations,
  answers_digest: digestOfText(canonical(made.answers)),
})

export type DecidedBody = ReturnType<typeof decidedBody>

/** Keeps those of `decided` whose task is one of `tasks`, a query of ids: no task, no decision. */
export const keepDecisions = (tasks: SQL): SQL => sql`
  insert into decisions (id, task_id, agent, kind, action, outcome, policies, policy_digest, obligations, answers)
  select decided.id, decided.task, decided.agent, decided.kind, decided.action, decided.outcome, decided.policies, decided."policyDigest",
    decided.obligations, decided.answers from decided where decided.task in (${tasks})`

/** The facts of those same decisions. */
export const decisionEntries = (tasks: SQL): SQL => sql`
  select 'decision.made', decided.agent, decided.task, null, decided.id, decided.body from decided where decided.task in (${tasks})`

/** One fact for each lease of the query `announced`, with everything that was promised about it. */
export const leaseEntriesOf = (kind: SQL): SQL => sql`
  select ${kind}, announced.agent, announced.task_id, announced.id, announced.decision_id, jsonb_build_object(
    'grant', announced.grant_name, 'provider', announced.provider, 'revocation', announced.revocation, 'standing', announced.standing,
    'outlives_revocation', announced.outlives_revocation, 'parameters', announced.parameters, 'expires_at', ${rfc3339(sql`announced.expires_at`)}) from announced`

/** The body of such a fact, as that statement writes it. */
export const leaseBody = ({ grant, provider, revocation, standing, outlivesRevocation, parameters, expiresAt }: Lease) => ({
  grant,
  provider,
  revocation,
  standing,
  outlives_revocation: outlivesRevocation,
  parameters,
  expires_at: expiresAt.toISOString(),
})

/** The facts about leases that the query `announced` has just written. */
export const leaseEntries = leaseEntriesOf(sql`case when announced.state = 'active' then 'lease.issued' else 'lease.reserved' end`)

/** An entry's row as it is exported; `fieldsOfEntry` drops what does not apply. */
export const exported = (entry: SQL): SQL => sql`json_build_object('id', ${entry}.id, 'at', ${rfc3339(sql`${entry}.at`)}, 'xid', ${entry}.xid::text,
  'kind', ${entry}.kind, 'agent', ${entry}.agent, 'task', ${entry}.task_id, 'lease', ${entry}.lease_id, 'decision', ${entry}.decision_id, 'body', ${entry}.body)`

/** What does not apply is null. */
export type ExportedRow = Pick<EntryFields, 'id' | 'at' | 'xid' | 'kind' | 'body'> & {
  readonly [Name in 'agent' | 'task' | 'lease' | 'decision']: string | null
}

/** Not in the statement: that would take the nulls out of bodies too. One by one, for every entry of the log passes here. */
export const fieldsOfEntry = ({ id, at, xid, kind, agent, task, lease, decision, body }: ExportedRow): EntryFields => ({
  id,
  at,
  xid,
  kind,
  ...(agent !== null && { agent }),
  ...(task !== null && { task }),
  ...(lease !== null && { lease }),
  ...(decision !== null && { decision }),
  body,
})

/** An entry with all that its leaf is made of. Undefined: there is none with this id. */
export const readEntry = async (ledger: Ledger, id: string): Promise<EntryFields | undefined> => (await readEntries(ledger, [id]))[0]

/** Those of these entries that there are, in no order. */
export async function readEntries(ledger: Ledger, ids: readonly string[]): Promise<readonly EntryFields[]> {
  const rows = await ledger.run<{ entry: ExportedRow }>(sql`
    select ${exported(sql`entry`)} as entry from json_array_elements_text(${JSON.stringify(ids)}::text::json) as asked(id)
    join entries as entry on entry.id = asked.id`)
  return rows.map(({ entry }) => fieldsOfEntry(entry))
}
