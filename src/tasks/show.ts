import type { LeaseId, TaskId } from '../base/ids.ts'
import { type DecisionSummary, decisionsOf, findLease, findTask, type Lease, type Task } from '../ledger/records.ts'
import { notFound } from './refusals.ts'
import { type Broker, type Caller, owns } from './task.ts'

/** A task with its leases and decisions, for its agent, operators and reviewers. @throws BrokerError `not_found`, also for what is not the caller's */
export async function showTask(
  broker: Broker,
  caller: Caller,
  id: TaskId,
): Promise<{ task: Task; leases: readonly Lease[]; decisions: readonly DecisionSummary[] }> {
  const found = await findTask(broker.ledger, id, 'later')
  if (!found || !(owns(caller, found.task) || caller.roles.size > 0)) throw notFound('task')
  return { ...found, decisions: await decisionsOf(broker.ledger, id) }
}

/** One lease, for the same people. @throws BrokerError `not_found` */
export async function showLease(broker: Broker, caller: Caller, id: LeaseId): Promise<Lease> {
  const found = await findLease(broker.ledger, id, 'later')
  if (!found || !(owns(caller, found.task) || caller.roles.size > 0)) throw notFound('lease')
  return found.lease
}
