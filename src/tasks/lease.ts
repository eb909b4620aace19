import { BrokerError } from '../base/errors.ts'
import type { LeaseId, TaskId } from '../base/ids.ts'
import { announceLeases, recordDecision } from '../ledger/announce.ts'
import { extendLease } from '../ledger/extend.ts'
import type { NewDecision } from '../ledger/entries.ts'
import { type DecisionRecord, findLease, findTask, type Task } from '../ledger/records.ts'
import type { Credential } from '../providers/credential.ts'
import { ProviderError, type Reservation } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import { endLeaseNow } from './close.ts'
import { decideOn, keptDecision, within } from './decision.ts'
import { asBrokerError, confirmAll, hasEnded, type IssuedLease, mintAll, newLeases, reservationOf, targetOf } from './mint.ts'
import { agentBehind, type Broker, type Caller, type GrantRequest, notFound, owns } from './task.ts'

/**
 * Issues a further grant inside an open task, under a fresh decision.
 *
 * A crash between any two lines leaves what a crash of opening would: a reserved lease that the reaper ends, or an active one that its deadline ends.
 * @throws BrokerError `not_found`, `conflict` (the task has ended), `denied` (kept first), `unknown_grant`, `rate_limited`, `provider_unavailable`, `provider_failed`
 */
export async function addLease(
  broker: Broker,
  caller: Caller,
  id: TaskId,
  asked: GrantRequest,
  signal: AbortSignal,
): Promise<{ decision: DecisionRecord; lease: IssuedLease }> {
  const { task, left } = await ownOpenTask(broker, caller, id)
  const { actor, agent } = agentBehind(broker, caller, task)
  const declared = { kind: task.kind, duration: Math.min(Math.max(1, left), longestOf(broker, task)), grants: [asked] }
  const inquiry = broker.policy().catalogue.resolve(agent, actor, 'issue', declared)
  const decision = decideOn(broker, inquiry)
  if (decision.made.outcome === 'deny') throw await denied(broker, id, decision)

  const limits = { perAgent: agent.maxLiveLeases, perTask: broker.limits.leasesPerTask }
  const announced = await announceLeases(broker.ledger, id, decision, newLeases(broker, inquiry, decision), limits)
  if (announced.outcome === 'not_open') throw hasEnded(id)
  if (announced.outcome === 'limit') throw tooManyLeases(broker)

  const minted = await mintAll(broker, { task: announced.task, inquiry, decision }, announced.leases, signal)
  const [issued] = minted.ok ? await confirmAll(broker, announced.task, minted.issued, undefined) : []
  if (!issued) {
    for (const lease of announced.leases) await endLeaseNow(broker, lease, { cause: 'mint_failed', by: 'broker' })
    throw minted.ok ? hasEnded(id) : minted.error
  }
  return { decision: keptDecision(decision, id, issued.lease.reservedAt), lease: issued }
}

/**
 * A fresh short-lived credential of an active lease, under a fresh decision; never past the deadline.
 *
 * @throws BrokerError `not_found`, `conflict` (the lease has ended, or its provider has no fresh credentials), `denied`, `provider_failed`
 */
export async function refreshLease(
  broker: Broker,
  caller: Caller,
  id: LeaseId,
  signal: AbortSignal,
): Promise<{ decision: DecisionRecord; lease: IssuedLease }> {
  const found = await findLease(broker.ledger, id)
  if (!found || !owns(caller, found.task)) throw notFound('lease')
  const { lease, task, left } = found
  const target = targetOf(broker, lease.provider)
  if (!target.provider.refresh || !lease.local) throw new BrokerError('conflict', `The provider ${lease.provider} has no fresh credentials to give`)
  if (lease.state !== 'active' || task.state !== 'open') throw new BrokerError('conflict', 'This lease has ended', { task: task.id })

  const { actor, agent } = agentBehind(broker, caller, task)
  const duration = Math.min(Math.max(1, left), longestOf(broker, task))
  const declared = { kind: task.kind, duration, grants: [{ name: lease.grant, parameters: lease.parameters }] }
  const inquiry = broker.policy().catalogue.resolve(agent, actor, 'issue', declared)
  const decision = decideOn(broker, inquiry)
  if (decision.made.outcome === 'deny') throw await denied(broker, task.id, decision)

  const ttl = within(Math.min(inquiry.grants[0]!.ttl, lease.ttl), decision.made.answers[0]?.obligations.maxTtl)
  const extended = await extendLease(broker.ledger, lease, decision, ttl)
  if (!extended) throw new BrokerError('conflict', 'This lease has ended', { task: task.id })
  const credential = await signAgain(target, reservationOf({ task, inquiry, decision }, extended), signal)
  return { decision: keptDecision(decision, task.id, extended.issuedAt!), lease: { lease: extended, credential } }
}

/** What a refusal about an existing task leaves: the decision, kept. @returns the error to throw */
export async function denied(broker: Broker, task: TaskId, decision: NewDecision): Promise<BrokerError> {
  await recordDecision(broker.ledger, task, decision)
  return new BrokerError('denied', 'The policy does not permit this', { decision: decision.id, task })
}

/** An open task of the caller, and the milliseconds that are left of it. @throws BrokerError `not_found`, `conflict` */
async function ownOpenTask(broker: Broker, caller: Caller, id: TaskId): Promise<{ task: Task; left: number }> {
  const found = await findTask(broker.ledger, id)
  if (!found || !owns(caller, found.task)) throw notFound('task')
  if (found.task.state !== 'open') throw hasEnded(id)
  return found
}

export function tooManyLeases(broker: Broker): BrokerError {
  broker.telemetry.metrics.rateLimited.inc({ limit: 'live_leases' })
  return new BrokerError('rate_limited', 'Too many live leases: complete tasks that are done', { retryAfter: 5 })
}

async function signAgain(target: Target, reservation: Reservation, signal: AbortSignal): Promise<Credential> {
  try {
    return (await target.refresh(reservation, [], signal)).credential
  } catch (error) {
    throw error instanceof ProviderError ? asBrokerError(error, { taskId: reservation.task }) : error
  }
}

/** What is left of a task may exceed what its kind allows to ask for, after the catalogue was changed. */
const longestOf = (broker: Broker, task: Task): number => broker.policy().catalogue.kinds.get(task.kind)?.maxDuration ?? Number.POSITIVE_INFINITY
