import { parseDuration } from '../base/time.ts'
import type { Ledger } from '../ledger/connect.ts'
import { listDenials, listEntries, listLeases, listTasks, type Listed } from '../ledger/lists.ts'
import type { DecisionRecord, Entry, Lease, Task } from '../ledger/records.ts'
import type { DenialFilter, EntryFilter, LeaseFilter, TaskFilter } from './contract.ts'
import { betweenOf, pageOf } from './paging.ts'

/*
 * What a query asks, in the words of the wire, put to the ledger. For the API and the console alike, so that an address means the same in both.
 */

export function askForEntries(ledger: Ledger, { limit, cursor, from, to, ...filter }: EntryFilter): Promise<Listed<Entry>> {
  return listEntries(ledger, { ...filter, ...betweenOf({ from, to }) }, pageOf({ limit, cursor }))
}

export function askForTasks(ledger: Ledger, { limit, cursor, from, to, completed, ...filter }: TaskFilter): Promise<Listed<Task>> {
  const wanted = { ...filter, ...betweenOf({ from, to }), ...(completed !== undefined && { completed: false as const }) }
  return listTasks(ledger, wanted, pageOf({ limit, cursor }))
}

export function askForLeases(ledger: Ledger, query: LeaseFilter): Promise<Listed<Lease>> {
  const { limit, cursor, from, to, stuck, standing, alive, ended_late: late, outlived_task: outlived, ...filter } = query
  const wanted = {
    ...filter,
    ...betweenOf({ from, to }),
    ...(late !== undefined && { endedLate: parseDuration(late)! }),
    ...(outlived !== undefined && { outlivedTask: parseDuration(outlived)! }),
    ...(alive !== undefined && { alive: true as const }),
    ...(stuck !== undefined && { stuck: stuck === 'true' }),
    ...(standing !== undefined && { standing: standing === 'true' }),
  }
  return listLeases(ledger, wanted, pageOf({ limit, cursor }))
}

export function askForDenials(ledger: Ledger, query: DenialFilter): Promise<Listed<DecisionRecord>> {
  const { limit, cursor, from, to, by_default: byDefault, ...filter } = query
  const wanted = { ...filter, ...betweenOf({ from, to }), ...(byDefault !== undefined && { byDefault: true as const }) }
  return listDenials(ledger, wanted, pageOf({ limit, cursor }))
}
