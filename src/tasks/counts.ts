import { countLeases } from '../ledger/records.ts'
import type { LeaseState } from '../ledger/states.ts'
import type { TaskEnd } from './close.ts'
import type { Broker } from './task.ts'

/** How many leases are in which state; a state that none is in is absent. */
export type LeaseCounts = Readonly<Partial<Record<LeaseState, number>>>

/**
 * Of all leases that a task was ever given, those that its end does not list too. The store is asked only where the list is cut.
 *
 * @throws BrokerError `store_unavailable`
 */
export async function countsOf({ ledger }: Broker, { task, leases }: Pick<TaskEnd, 'task' | 'leases'>): Promise<LeaseCounts> {
  if (leases.length < task.announcedLeases) return await countLeases(ledger, task.id)
  const counts: Partial<Record<LeaseState, number>> = {}
  for (const { state } of leases) counts[state] = (counts[state] ?? 0) + 1
  return counts
}
