import type { TaskId } from '../base/ids.ts'
import type { NewDecision } from '../ledger/entries.ts'
import { findTask, type Lease, type Task } from '../ledger/records.ts'
import type { Action, Declared, Inquiry, Pointers } from '../policy/inquiry.ts'
import { decideOn } from './decision.ts'
import { deniedInTask, notFound, taskHasEnded } from './refusals.ts'
import { agentBehind, type Broker, type Caller, owns } from './task.ts'

/** An open task of the caller with its leases, and the milliseconds that are left of it. @throws BrokerError `not_found`, `conflict` */
export async function ownOpenTask(broker: Broker, caller: Caller, id: TaskId): Promise<{ task: Task; leases: readonly Lease[]; left: number }> {
  const found = await findTask(broker.ledger, id, 'later')
  if (!found || !owns(caller, found.task)) throw notFound('task')
  if (found.task.state !== 'open') throw taskHasEnded(id)
  return found
}

/**
 * What the policy is to be asked about more within a task: by whoever is behind the caller, held against the catalogue in force now.
 *
 * @throws BrokerError as `agentBehind` and `resolve` of the catalogue
 */
export function askWithin(broker: Broker, caller: Caller, task: Task, action: Action, asked: Omit<Declared, 'kind'>, pointers: Pointers): Inquiry {
  const { actor, agent } = agentBehind(broker, caller, task)
  return broker.policy().catalogue.resolve(agent, actor, action, { kind: task.kind, ...asked }, pointers)
}

/** The decision that permits it, made and not kept yet. @throws BrokerError `denied`, which is kept first; the task goes on as it was */
export async function permitWithin(broker: Broker, task: Task, inquiry: Inquiry): Promise<NewDecision> {
  const decision = decideOn(broker, inquiry)
  if (decision.made.outcome === 'deny') throw await deniedInTask(broker, task.id, decision)
  return decision
}

/**
 * Milliseconds that may be asked for within a task: what is left of it. That may exceed what its kind allows to ask for, after the catalogue was changed.
 */
export function restOf(broker: Broker, task: Task, left: number): number {
  const longest = broker.policy().catalogue.kinds.get(task.kind)?.maxDuration ?? Number.POSITIVE_INFINITY
  return Math.min(Math.max(1, left), longest)
}
