import { BrokerError } from '../base/errors.ts'
import type { DecisionId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { LeasesRefused, TaskRefused } from '../ledger/announce.ts'
import type { NewDecision, NewTask } from '../ledger/entries.ts'
import type { Lease } from '../ledger/records.ts'
import { type KeptBack, recordDecision, recordDenial } from '../ledger/refusals.ts'
import type { Stopped } from '../ledger/stops.ts'
import type { Broker } from './task.ts'

/** The same words whether it does not exist or is somebody else's: existence is not revealed. */
export const notFound = (noun: 'task' | 'lease' | 'decision'): BrokerError => new BrokerError('not_found', `There is no such ${noun} for you`)

/** What whoever asks too late is told. @param decision that was kept before it was too late */
export const taskHasEnded = (task: TaskId, decision?: DecisionId): BrokerError =>
  new BrokerError('conflict', 'This task has ended', { task, decision })

/** The same of a lease. */
export const leaseHasEnded = ({ taskId }: Pick<Lease, 'taskId'>, decision?: DecisionId): BrokerError =>
  new BrokerError('conflict', 'This lease has ended', { task: taskId, decision })

/** The policy says no. @param receipts of what the ledger keeps of it */
export const denied = (task: TaskId, decision: NewDecision, receipts: readonly Receipt[]): BrokerError =>
  new BrokerError('denied', 'The policy does not permit this', { decision: decision.id, task, receipts })

/** What a denial about an existing task leaves: the decision, kept. @returns the error to throw */
export const deniedInTask = async (broker: Broker, task: TaskId, decision: NewDecision): Promise<BrokerError> =>
  denied(task, decision, await recordDecision(broker.ledger, task, decision))

/** What a declaration leaves that was permitted and not announced: a task denied from birth. @returns the error to throw */
export async function refusedTask(broker: Broker, task: NewTask, decision: NewDecision, refused: TaskRefused): Promise<BrokerError> {
  const receipts = await recordDenial(broker.ledger, task, decision, keptBackBy(refused))
  return refused.outcome === 'stopped' ? stoppedBy(task.id, decision, refused, receipts) : tooManyLeases(broker, task.id, decision, receipts)
}

/** What further leases leave that were permitted and not announced: the decision, with what kept them back. @returns the error to throw */
export async function refusedLeases(broker: Broker, task: TaskId, decision: NewDecision, refused: LeasesRefused): Promise<BrokerError> {
  if (refused.outcome === 'not_open') return taskHasEnded(task)
  if (refused.outcome === 'stopped') return await refusedByStop(broker, task, decision, refused)
  const receipts = await recordDecision(broker.ledger, task, decision, keptBackBy(refused))
  if (refused.outcome === 'limit') return tooManyLeases(broker, task, decision, receipts)
  return new BrokerError('conflict', 'This task has had as many leases as one task may: declare another', { decision: decision.id, task, receipts })
}

/** The same of what an operator has stopped, whatever it is. @returns the error to throw */
export async function refusedByStop(broker: Broker, task: TaskId, decision: NewDecision, stopped: Stopped): Promise<BrokerError> {
  const { stop } = stopped
  return stoppedBy(task, decision, stopped, await recordDecision(broker.ledger, task, decision, { cause: 'stopped', stop }))
}

const keptBackBy = (refused: TaskRefused | Exclude<LeasesRefused, { readonly outcome: 'not_open' }>): KeptBack =>
  'stop' in refused ? { cause: 'stopped', stop: refused.stop } : { cause: 'limit' }

/** Without the operator's words: whoever is stopped for what they did need not read what is known about them. */
const stoppedBy = (task: TaskId, decision: NewDecision, { stop, until }: Stopped, receipts: readonly Receipt[]): BrokerError =>
  new BrokerError('denied', `An operator has stopped this until ${until} (${stop})`, { decision: decision.id, task, receipts })

function tooManyLeases(broker: Broker, task: TaskId, decision: NewDecision, receipts: readonly Receipt[]): BrokerError {
  broker.telemetry.metrics.rateLimited.inc({ limit: 'live_leases' })
  return new BrokerError('rate_limited', 'Too many live leases: complete tasks that are done', {
    retryAfter: 5,
    decision: decision.id,
    task,
    receipts,
  })
}
