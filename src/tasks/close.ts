import { BrokerError } from '../base/errors.ts'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { whenFired } from '../base/signal.ts'
import { delay, stopwatch } from '../base/time.ts'
import { closeLease, type ClosedTask, closeTask, type Ending } from '../ledger/endings.ts'
import { keepKey } from '../ledger/keys.ts'
import { receiptsOfEnd } from '../ledger/receipts.ts'
import { findLease, findTask, hasEnded, type Lease, type Task } from '../ledger/records.ts'
import type { Settled } from '../ledger/settlement.ts'
import type { TaskState } from '../ledger/states.ts'
import { endLease, noteEnded } from './end.ts'
import { notFound } from './refusals.ts'
import { type Broker, calledIn, type Caller, operatorNamed, owns } from './task.ts'

/** What became of a task that was to end: `ended` is true only where every lease of it has. */
export interface TaskEnd {
  readonly task: Task
  readonly leases: readonly Lease[]
  readonly ended: boolean
  /** Of all that was told the ledger of this end so far, whoever brought it about. */
  readonly receipts: readonly Receipt[]
}

/**
 * Ended well by its agent. Idempotent, and accepted late: a task that has ended otherwise says how.
 *
 * Needs no policy and no living workload token; the task's own token will do.
 * @param wait seconds to wait for providers; what they have not confirmed by then goes on in the background
 * @throws BrokerError `not_found`, `store_unavailable`
 */
export async function completeTask(broker: Broker, caller: Caller, id: TaskId, wait: number, signal: AbortSignal): Promise<TaskEnd> {
  const { agent } = await ownTask(broker, caller, id)
  const closed = await beginClosing(broker, id, 'completed', { cause: 'completed', by: `agent:${agent}` })
  return await outcomeOf(broker, id, closed, wait, signal)
}

/** A task of the caller; where its own token is presented it is not looked up. @throws BrokerError `not_found` */
async function ownTask(broker: Broker, caller: Caller, id: TaskId): Promise<Pick<Task, 'agent'>> {
  if (caller.task?.id === id) return caller.task
  const found = await findTask(broker.ledger, id)
  if (!found || !owns(caller, found.task)) throw notFound('task')
  return found.task
}

/**
 * Ended early by an operator, with a reason that stays in the ledger.
 *
 * @throws BrokerError `forbidden`, `not_found`, `store_unavailable`
 */
export async function revokeTask(broker: Broker, caller: Caller, id: TaskId, reason: string, wait: number, signal: AbortSignal): Promise<TaskEnd> {
  const closed = await beginClosing(broker, id, 'revoked', { cause: 'revoked', reason, by: operatorNamed(caller) })
  return await outcomeOf(broker, id, closed, wait, signal)
}

/** Ends one lease; its task goes on. @throws BrokerError `not_found`, `store_unavailable` */
export async function revokeLease(
  broker: Broker,
  caller: Caller,
  id: LeaseId,
  reason: string | undefined,
  wait: number,
  signal: AbortSignal,
): Promise<{ lease: Lease; ended: boolean; receipts: readonly Receipt[] }> {
  const found = await findLease(broker.ledger, id)
  if (!found || !(owns(caller, found.task) || caller.roles.has('operator'))) throw notFound('lease')
  // What is ending, or has ended, is looked at alone: whoever asks again and again would keep its task locked.
  const isLiving = found.lease.state === 'reserved' || found.lease.state === 'active'
  const begun = isLiving ? await beginEnding(broker, found.lease, { cause: 'revoked', reason, by: calledIn(caller) }) : undefined
  const { left } = await knownWithin(wait, begun?.asked, signal)
  const lease = await readUntil('lease', () => findLease(broker.ledger, id).then((again) => again?.lease), hasEnded, left, signal)
  return { lease, ended: hasEnded(lease), receipts: await receiptsOfEnd(broker.ledger, { lease: id }) }
}

/** Marks one lease as ending and asks its provider. Resolves when the provider has answered, or could not; rejects only when the store could not be written. */
export async function endLeaseNow(broker: Broker, lease: Pick<Lease, 'id' | 'taskId'>, ending: Ending): Promise<void> {
  const { asked } = await beginEnding(broker, lease, ending)
  await asked
}

/**
 * Marks one lease as ending, and begins to ask its provider. The end is committed when this resolves; `asked` resolves when the provider has
 * answered, or could not, and never rejects.
 *
 * @throws BrokerError `store_unavailable`
 */
async function beginEnding(broker: Broker, lease: Pick<Lease, 'id' | 'taskId'>, ending: Ending): Promise<{ asked: Promise<unknown> }> {
  const moved = await closeLease(broker.ledger, lease, ending)
  if (moved?.state === 'revoking') return { asked: broker.background.run((signal) => endLease(broker, moved, signal)) }
  if (moved && hasEnded(moved)) noteEnded(broker, [moved])
  return { asked: Promise.resolve() }
}

/** What closing did, and what comes of it when this broker has asked every provider that it had to ask. */
type BegunClosing = ClosedTask & { readonly asked: Promise<readonly (Settled | undefined)[]> }

/**
 * Marks a task as closing with all its leases, in one commit, and begins to ask their providers. A task that is not open any more is left as it is.
 *
 * @returns what that did, with `asked`, which resolves when every provider has answered, or could not, and never rejects; undefined where the request
 *   that ends it was overtaken: the task belongs to the one that holds the key now
 * @throws BrokerError `store_unavailable`; `conflict` where leases were announced faster than it could be closed
 */
export async function beginClosing(broker: Broker, id: TaskId, outcome: TaskState, ending: Ending): Promise<BegunClosing | undefined> {
  // Each further round means that a lease was announced in between, and their number is limited.
  for (let round = 0; round < 20; round++) {
    const closed = await closeTask(broker.ledger, { id, outcome, ending })
    if (closed.tasks.length > 0) {
      noteEnded(broker, closed.ended)
      const asked = Promise.all(closed.revoking.map((lease) => broker.background.run((signal) => endLease(broker, lease, signal))))
      return { ...closed, asked }
    }
    if (ending.under && !(await keepKey(broker.ledger, ending.under))) return undefined
    const now = await findTask(broker.ledger, id)
    if (now?.task.state !== 'open') return { ...closed, asked: Promise.resolve([]) }
  }
  throw new BrokerError('conflict', 'This task is being given leases faster than it can be closed', { task: id })
}

/** What closing has come to, `wait` seconds later at most. */
async function outcomeOf(broker: Broker, id: TaskId, begun: BegunClosing | undefined, wait: number, signal: AbortSignal): Promise<TaskEnd> {
  const { result = [], left } = await knownWithin(wait, begun?.asked, signal)
  const whole = begun && wholeOutcome(begun, result)
  if (whole) return whole
  const isDone = ({ leases, task }: { leases: readonly Lease[]; task: Task }) => leases.every(hasEnded) && task.state !== 'closing'
  const found = await readUntil('task', () => findTask(broker.ledger, id), isDone, left, signal)
  return { ...found, ended: isDone(found), receipts: await receiptsOfEnd(broker.ledger, { task: id }) }
}

/** What closing came to, where that commit and those that this broker made since ended every lease that the task was ever given: nothing is left to be read. */
function wholeOutcome({ tasks, ended, receipts }: ClosedTask, since: readonly (Settled | undefined)[]): TaskEnd | undefined {
  const settled = since.flatMap((one) => one ?? [])
  const leases = [...ended, ...settled.map(({ lease }) => lease)]
  const task = settled.find((one) => one.task)?.task ?? tasks[0]
  if (!task?.endedAt || task.announcedLeases !== leases.length) return undefined
  const told = new Map([...receipts, ...settled.flatMap((one) => one.receipts)].map((receipt) => [receipt.entry, receipt]))
  return { task, leases: inOrder(leases, ({ id }) => id), ended: true, receipts: inOrder([...told.values()], ({ entry }) => entry) }
}

/** By their ids, which begin with their time. */
const inOrder = <One>(all: readonly One[], id: (one: One) => string): One[] => all.toSorted((one, other) => (id(one) < id(other) ? -1 : 1))

/** How often to look again whether something has ended, in milliseconds: another broker may be the one that is told. */
const lookAgain = 50

/** Reads until it is done, at most `left` milliseconds. What a reader sees is the ledger's truth, whoever brought it about. */
async function readUntil<Read>(
  noun: 'task' | 'lease',
  read: () => Promise<Read | undefined>,
  isDone: (found: Read) => boolean,
  left: number,
  signal: AbortSignal,
): Promise<Read> {
  const elapsed = stopwatch()
  for (let pause = lookAgain; ; pause = Math.min(pause * 2, 500)) {
    const found = await read()
    if (found === undefined) throw notFound(noun)
    const rest = left - elapsed()
    if (isDone(found) || rest <= 0 || signal.aborted) return found
    await delay(Math.min(pause, rest), signal).catch(() => {})
  }
}

/**
 * What work comes to, if that is known within so many seconds and before the signal fires, and the milliseconds that are left of them. Until then there is
 * nothing to look for.
 */
async function knownWithin<Result>(
  seconds: number,
  work: Promise<Result> | undefined,
  signal: AbortSignal,
): Promise<{ result: Result | undefined; left: number }> {
  const elapsed = stopwatch()
  const over = new AbortController()
  const late = delay(seconds * 1_000, over.signal).then(
    () => undefined,
    () => undefined,
  )
  const forget = whenFired(signal, () => over.abort())
  const result = await Promise.race([work, late])
  forget()
  over.abort()
  return { result, left: seconds * 1_000 - elapsed() }
}
