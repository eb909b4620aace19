import { BrokerError } from '../base/errors.ts'
import type { TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { extendTask } from '../ledger/extend.ts'
import { type DecisionRecord, hasEnded, type Lease, type Task } from '../ledger/records.ts'
import type { Kind } from '../policy/entry.ts'
import { nowhere } from '../policy/inquiry.ts'
import { askedAgain, keptDecision, taskLasts } from './decision.ts'
import { refusedByStop, taskHasEnded } from './refusals.ts'
import { asDeclarant, type Broker, type Caller, type Declaration, durationOf, placeOfDuration } from './task.ts'
import { askWithin, ownOpenTask, permitWithin } from './within.ts'

/**
 * Gives a task a later deadline, counted from now, under a new decision about each of its living grants; never an earlier one than it has. Its
 * leases stay as they are: what ends before the new deadline is refreshed, where its provider has fresh ones, or asked for again.
 *
 * @throws BrokerError `forbidden` (needs a live workload token, of the workload that declared the task), `not_found`, `conflict` (the task has ended, its kind allows no later deadline, or the catalogue does not allow by now what it was given), `unknown_kind`, `unknown_grant` (the catalogue has it for this kind no more), `invalid_request` (longer than its kind may last), `denied` (kept; the task goes on as it was)
 */
export async function renewTask(
  broker: Broker,
  caller: Caller,
  id: TaskId,
  asked: Pick<Declaration, 'duration' | 'deadline'>,
): Promise<{ task: Task; decision: DecisionRecord; leases: readonly Lease[]; receipts: readonly Receipt[] }> {
  if (!caller.actor) throw new BrokerError('forbidden', 'Renewing needs a live workload token; the task token alone will not do')
  const found = await ownOpenTask(broker, caller, id)
  const grants = found.leases.filter((lease) => !hasEnded(lease)).map((lease) => askedAgain(broker, lease))
  const declared = { ...durationOf(asked, broker.clock()), grants }
  const pointers = { ...nowhere, duration: placeOfDuration(asked) }
  const inquiry = askWithin(broker, caller, found.task, grants.length > 0 ? 'renew' : 'declare', declared, pointers)
  const last = lastDeadline(found.task, inquiry.kind)
  if (last && last <= found.task.deadline)
    throw new BrokerError('conflict', 'This task has the last deadline that its kind allows: declare another', { task: id })
  const decision = await permitWithin(broker, found.task, inquiry)

  const until = { duration: taskLasts(inquiry, decision), deadline: earliest(asked.deadline, last) }
  const extended = await extendTask(broker.ledger, id, decision, { actor: asDeclarant(inquiry.actor, inquiry.agent), ...until })
  if (!extended) throw taskHasEnded(id)
  if ('stop' in extended) throw await refusedByStop(broker, id, decision, extended)
  const { task, decidedAt, receipts } = extended
  return { task, decision: keptDecision(decision, id, decidedAt), leases: found.leases, receipts }
}

/** Beyond which its kind lets no renewal take a task. */
const lastDeadline = ({ openedAt }: Task, { maxLife }: Kind): Date | undefined =>
  maxLife === undefined ? undefined : new Date(openedAt.getTime() + maxLife)

const earliest = (one: Date | undefined, other: Date | undefined): Date | undefined => (one && other ? (one < other ? one : other) : (one ?? other))
