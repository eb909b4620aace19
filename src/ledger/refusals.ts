import { sql } from 'drizzle-orm'
import type { TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, json } from './entries.ts'
import { receiptsTold, returningTold, type ToldRow } from './receipts.ts'

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
