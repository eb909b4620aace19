import { sql, type SQL } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { type EntryFields, receiptOf } from '../proof/leaf.ts'
import type { Ledger } from './connect.ts'
import { exported, type ExportedRow, fieldsOfEntry } from './entries.ts'
import { rememberLeaves } from './leaves.ts'

/*
 * Receipts are made of the rows that the writing statement returns, so that an answer carries what was written, whatever becomes of the history
 * afterwards. They are hashed here and not in the store: a leaf is canonical JSON, which Postgres does not know.
 */

/** What the query `told` has written, where it returns its rows; of several tasks, that of which `condition` says so. In the order of the log. */
export const toldRows = (condition: SQL = sql`true`): SQL =>
  sql`(select json_agg(${exported(sql`told`)} order by told.id) from told where ${condition})`

/**
 * The same without the bodies, for whoever knows them: on the path of a declaration the store need not write out again what was sent to it a moment ago.
 */
export const bareRows = (condition: SQL): SQL =>
  sql`(select json_agg(json_build_array(told.id, told.at, told.xid::text, told.kind, told.lease_id) order by told.id) from told where ${condition})`

/** What `told` has to return for it. */
export const bareColumns = sql`id, at, xid, kind, task_id, lease_id`

export type BareRow = readonly [id: string, at: string, xid: string, kind: string, lease: LeaseId | null]

/** The end of a statement that writes entries and nothing else: a row for each. */
export const returningTold = sql`returning ${exported(sql`entries`)} as told`

/** A row of such a statement. */
export interface ToldRow {
  readonly told: ExportedRow
}

/** The receipts of what this broker has just told. */
export function receiptsOf(ledger: Ledger, told: readonly EntryFields[]): readonly Receipt[] {
  const receipts = told.map(receiptOf)
  rememberLeaves(ledger, receipts)
  return receipts
}

/** The same of its rows, where a statement returns them in one. */
export const receiptsOfRows = (ledger: Ledger, rows: readonly ExportedRow[] | null | undefined): readonly Receipt[] =>
  receiptsOf(ledger, (rows ?? []).map(fieldsOfEntry))

/** A receipt, with what it is about. */
export interface About {
  readonly task: string | null
  readonly lease: string | null
  readonly receipt: Receipt
}

/** The same of a statement that ends several tasks or leases, for whoever waits for one of them. */
export function receiptsAbout(ledger: Ledger, rows: readonly ExportedRow[] | null | undefined): readonly About[] {
  const receipts = receiptsOfRows(ledger, rows)
  return (rows ?? []).map(({ task, lease }, index) => ({ task, lease, receipt: receipts[index]! }))
}

/** The same where it returns a row for each (`returningTold`). */
export const receiptsTold = (ledger: Ledger, rows: readonly ToldRow[]): readonly Receipt[] =>
  receiptsOfRows(
    ledger,
    rows.map(({ told }) => told),
  )

/** Receipts of all that was told of a task that came to nothing: a few entries, of several statements. */
export const receiptsOfTask = async (ledger: Ledger, task: TaskId): Promise<readonly Receipt[]> =>
  (await readTold(ledger, sql`entry.task_id = ${task}`)).map(receiptOf)

/** The kinds of what is told of an end, its beginning first. */
const ofAnEnd = sql`('task.closing', 'lease.revoking', 'lease.lapsing', 'lease.revoked', 'lease.expired', 'lease.failed', 'task.ended')`

/**
 * Receipts of what was told of the end of a task or of one lease, from its beginning on, whoever wrote it: several statements do, of this broker and of
 * others. Empty where none was told.
 */
export async function receiptsOfEnd(ledger: Ledger, about: { readonly task: TaskId } | { readonly lease: LeaseId }): Promise<readonly Receipt[]> {
  const whose = 'task' in about ? sql`entry.task_id = ${about.task}` : sql`entry.lease_id = ${about.lease}`
  const told = await readTold(ledger, sql`${whose} and entry.kind in ${ofAnEnd}`)
  return ('task' in about ? sinceClosing(told) : told).map(receiptOf)
}

/**
 * Without leases that ended before their task began to, which are not of its end. Entries of one commit may have ids in any order, for these count from 0
 * again within a millisecond.
 */
function sinceClosing(told: readonly EntryFields[]): readonly EntryFields[] {
  const first = told.findIndex(({ kind }) => kind === 'task.closing')
  const closing = told[first]
  return closing ? told.filter(({ xid }, at) => at >= first || BigInt(xid) >= BigInt(closing.xid)) : []
}

/** What the history has of it, whoever wrote it: not remembered, for it may have its place already. */
async function readTold(ledger: Ledger, condition: SQL): Promise<readonly EntryFields[]> {
  const [row] = await ledger.run<{ told: ExportedRow[] | null }>(sql`
    select json_agg(${exported(sql`entry`)} order by entry.id) as told from entries as entry where ${condition}`)
  return (row?.told ?? []).map(fieldsOfEntry)
}
