import { sql } from 'drizzle-orm'
import type { StopId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { decidedRows, decisionEntries, entryColumns, json, keepDecisions, type NewDecision, type NewTask, openedBody } from './entries.ts'
import { deadlineOf } from './intervals.ts'
import { claimKeys, type KeyClaim } from './keys.ts'
import { receiptsTold, returningTold, type ToldRow } from './receipts.ts'

/** Why a request was refused though the policy permitted it: a limit, or the stop of an operator. */
export type KeptBack = { readonly cause: 'limit' } | { readonly cause: 'stopped'; readonly stop: StopId }

/**
 * Keeps a request that was refused, with the decision that says why: a task `denied` from birth.
 *
 * @param claim a key that it takes, so that its retry is another decision about the same request
 * @returns none where that key was taken already: then nothing was written
 */
export async function recordDenial(
  ledger: Ledger,
  task: NewTask,
  decision: NewDecision,
  because: KeptBack | { readonly cause: 'policy' },
  claim?: KeyClaim,
): Promise<readonly Receipt[]> {
  const rows = await ledger.run<ToldRow>(
    sql`
    with ${decidedRows([{ task: task.id, decision }])},
    ${claim ? sql`${claimKeys([{ task: task.id, claim, busy: false }])},` : sql``}
    task as (
      insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, deadline, cause, ended_at)
      select ${task.id}, 'denied', ${task.kind}, ${task.agent}, ${task.owner}, ${json(task.actor)}, ${task.purpose}, ${json(task.labels)},
        ${deadlineOf(task)}, ${because.cause}, now() ${claim ? sql`from claimed` : sql``}
      returning *
    ),
    kept as (${keepDecisions(sql`select id from task`)})
    ${entryColumns}
    select 'task.denied', task.agent, task.id, null, null, ${json({ ...openedBody(task), ...because })} from task
    union all ${decisionEntries(sql`select id from task`)}
    ${returningTold}`,
    'later',
  )
  return receiptsTold(ledger, rows)
}

/** Keeps a decision about a task that exists already: a refused further lease, refresh or renewal; where it permitted it, with what kept it back. */
export async function recordDecision(ledger: Ledger, task: TaskId, decision: NewDecision, keptBack?: KeptBack): Promise<readonly Receipt[]> {
  const denied = sql`
    union all
    select 'request.denied', task.agent, task.id, null, ${decision.id}::text, ${json({ action: decision.action, ...keptBack })} from task`
  const rows = await ledger.run<ToldRow>(
    sql`
    with ${decidedRows([{ task, decision }])},
    task as (select id, agent from tasks where id = ${task}),
    kept as (${keepDecisions(sql`select id from task`)})
    ${entryColumns} ${decisionEntries(sql`select id from task`)} ${keptBack ? denied : sql``}
    ${returningTold}`,
    'later',
  )
  return receiptsTold(ledger, rows)
}

/**
 * Keeps that somebody was refused who asked for what only operators may do.
 *
 * @param call as the OpenAPI document has it, such as `POST /tasks/{id}/revoke`
 * @param by as the ledger calls whoever asked
 * @param about the agent behind the request, and the task that it was about, where there are such
 * @throws BrokerError `store_unavailable`
 */
export async function recordRefusal(
  ledger: Ledger,
  call: string,
  by: string,
  about: { readonly agent?: string | undefined; readonly task?: TaskId },
): Promise<readonly Receipt[]> {
  const rows = await ledger.run<ToldRow>(
    sql`
    ${entryColumns}
    select 'request.refused', coalesce(${about.agent ?? null}::text, task.agent), task.id, null, null, ${json({ call, by })}
      from (select) as once left join tasks as task on task.id = ${about.task ?? null}::text
    ${returningTold}`,
    'later',
  )
  return receiptsTold(ledger, rows)
}
