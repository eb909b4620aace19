import { sql, type SQL } from 'drizzle-orm'
import type { StopId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, type ExportedRow, rfc3339 } from './entries.ts'
import { milliseconds } from './intervals.ts'
import { receiptsOfRows, toldRows } from './receipts.ts'
import { type JsonRow, type Stop, stopOf } from './records.ts'
import { agreesWithLease, agreesWithTask, namesLeases, type Selector, selectorColumns, selectorIn, selectorValues } from './selector.ts'

/** A stop about to be put. */
export interface NewStop {
  readonly id: StopId
  readonly selector: Selector
  /** Words of the operator, for the ledger: an agent that is stopped does not read them. */
  readonly reason: string
  readonly by: string
  /** Milliseconds from the store's now. */
  readonly lasts: number
}

/** What is told of the stop that stands in the way of a request. */
export interface Stopped {
  readonly stop: StopId
  /** RFC 3339. */
  readonly until: string
}

/** A stop as it was just put or lifted, with the receipts of that. */
export interface ChangedStop extends Stop {
  readonly receipts: readonly Receipt[]
}

interface ChangedRow {
  readonly stop: JsonRow
  readonly told: ExportedRow[]
}

/**
 * Stops issuing what the selector means, on every broker at once, until it is lifted or its time is over by the store's clock. From the commit on nothing
 * of it is announced: the statement waits for what is being announced at this moment (trigger `stops_shut_the_door`).
 */
export async function putStop(ledger: Ledger, stop: NewStop): Promise<ChangedStop> {
  const [row] = await ledger.run<ChangedRow>(sql`
    with ${stopRows(stop)},
    told as (${entryColumns} ${stopEntries} returning *)
    select to_json(stop) as stop, ${toldRows()} as told from stop`)
  return changed(ledger, row!)
}

const changed = (ledger: Ledger, { stop, told }: ChangedRow): ChangedStop => ({ ...stopOf(stop), receipts: receiptsOfRows(ledger, told) })

/** The query `stop`, which puts it; for those that do it together with something else. @param from where it depends on that: a query of one row, or of none */
export const stopRows = ({ id, selector, reason, by, lasts }: NewStop, from: SQL = sql``): SQL => sql`
  stop as (
    insert into stops (id, ${selectorColumns}, reason, by, until)
    select ${id}::text, ${selectorValues(selector)}, ${reason}::text, ${by}::text, now() + ${milliseconds(lasts)} ${from} returning *
  )`

/** The fact that the query `stop` has put it. */
export const stopEntries = sql`
  select 'stop.began', null, null, null, null, jsonb_build_object('stop', stop.id, 'selector', ${selectorIn(sql`stop`)}, 'reason', stop.reason, 'by', stop.by,
    'until', ${rfc3339(sql`stop.until`)}) from stop`

/** Lets be issued again what a stop kept back. Undefined: there is no such stop, or it is over. */
export async function liftStop(ledger: Ledger, id: StopId, reason: string, by: string): Promise<ChangedStop | undefined> {
  const [row] = await ledger.run<ChangedRow>(sql`
    with lifted as (
      update stops set lifted_at = now(), lifted_by = ${by}, lift_reason = ${reason}
      where id = ${id} and lifted_at is null and until > now() returning *
    ),
    told as (
      ${entryColumns}
      select 'stop.lifted', null, null, null, null, jsonb_build_object('stop', lifted.id, 'reason', lifted.lift_reason, 'by', lifted.lifted_by) from lifted
      returning *
    )
    select to_json(lifted) as stop, ${toldRows()} as told from lifted`)
  return row && changed(ledger, row)
}

/**
 * The query `stopped`: which of `asking`, a query of tasks with `id`, `agent`, `owner`, `kind` and `actor`, a stop stands in the way of. One that names a grant
 * or a provider does where one of the task's leases in `leases` agrees.
 *
 * The lock is on rows that hardly ever exist; what counts is the one on the table that comes with it. Every statement that issues something must have it.
 */
export const stoppedOf = (asking: SQL, leases: SQL): SQL => sql`
  stopped as materialized (
    select asking.id, stop.id as stop, ${rfc3339(sql`stop.until`)} as until from ${asking} as asking cross join lateral (
      select stop.id, stop.until from stops as stop where stop.lifted_at is null and stop.until > now() and ${agreesWithTask(sql`stop`, sql`asking`)}
        and (not ${namesLeases(sql`stop`)} or exists (
          select from ${leases} as lease where lease.task = asking.id and ${agreesWithLease(sql`stop`, sql`lease."grant"`, sql`lease.provider`)}))
      order by stop.id limit 1 for key share
    ) as stop
  )`
