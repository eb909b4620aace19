import { BrokerError, tokenRefused } from '../base/errors.ts'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { announceLeases } from '../ledger/announce.ts'
import { isEndedAt } from '../ledger/enders.ts'
import { concludeRefresh, extendLease, type Extension, type Refreshed } from '../ledger/extend.ts'
import { receiptsOfEnd } from '../ledger/receipts.ts'
import { type DecisionRecord, findLease, findTask, type Lease, type Task } from '../ledger/records.ts'
import type { Grant } from '../policy/catalogue.ts'
import { lastingOf, nowhere, type Places } from '../policy/inquiry.ts'
import { digestsOf } from '../providers/credential.ts'
import { type Minted, type Provider, ProviderError, type Reservation } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import { endLeaseNow } from './close.ts'
import { askedAgain, decideOn, keptDecision, cappedBy } from './decision.ts'
import { asBrokerError, confirmAll, type IssuedLease, mintAll, newLeases, reservationOf, targetOf } from './mint.ts'
import { deniedInTask, leaseHasEnded, notFound, refusedByStop, refusedLeases, taskHasEnded } from './refusals.ts'
import { agentBehind, type Broker, type Caller, type GrantRequest, owns } from './task.ts'
import { stillSpeaks } from './token.ts'

/** A further lease is asked for by its grant alone: that is the whole body of the request. */
const asWhole: Places = { ...nowhere, grant: () => '' }

/** One lease that was issued, or issued anew. */
export interface AddedLease {
  readonly decision: DecisionRecord
  readonly lease: IssuedLease
  /** Of all that was told the ledger for this answer. */
  readonly receipts: readonly Receipt[]
}

/**
 * Issues a further grant inside an open task, under a fresh decision.
 *
 * A crash between any two lines leaves what a crash of opening would: a reserved lease that the reaper ends, or an active one that its deadline ends.
 * @throws BrokerError `not_found`, `invalid_token` (a retry of the declaration has replaced it meanwhile), `agent_unknown`, `forbidden` (needs a live workload token), `conflict` (the task has ended, or had as many leases as one may), `denied` (kept first), `unknown_grant`, `invalid_request` (it does not fit the catalogue), `rate_limited`, `provider_unavailable`, `provider_failed`
 */
export async function addLease(broker: Broker, caller: Caller, id: TaskId, asked: GrantRequest, signal: AbortSignal): Promise<AddedLease> {
  const { task, left } = await ownOpenTask(broker, caller, id)
  const { actor, agent } = agentBehind(broker, caller, task)
  const declared = { kind: task.kind, duration: Math.min(Math.max(1, left), longestOf(broker, task)), grants: [asked] }
  const inquiry = broker.policy().catalogue.resolve(agent, actor, 'issue', declared, asWhole)
  const decision = decideOn(broker, inquiry)
  if (decision.made.outcome === 'deny') throw await deniedInTask(broker, id, decision)

  const limits = { perAgent: agent.maxLiveLeases, perTask: broker.limits.leasesPerTask }
  const right = { tokenHash: caller.task?.tokenHash }
  const announced = await announceLeases(broker.ledger, id, decision, newLeases(broker, inquiry, decision), limits, right)
  if (announced.outcome === 'not_open' && caller.task && !(await stillSpeaks(broker, caller.task))) throw tokenRefused()
  if (announced.outcome !== 'announced') throw await refusedLeases(broker, id, decision, announced)

  const issue = { task: announced.task, inquiry, decision, elapsed: announced.elapsed }
  const minted = await mintAll(broker, issue, announced.leases, signal)
  const confirmed = minted.ok ? await confirmAll(broker, announced.task, minted.issued, undefined) : undefined
  const issued = confirmed?.issued[0]
  if (!confirmed || !issued) {
    for (const lease of announced.leases) await endLeaseNow(broker, lease, { cause: 'mint_failed', by: 'broker' })
    const ends = await Promise.all(announced.leases.map((lease) => receiptsOfEnd(broker.ledger, { lease: lease.id })))
    throw (minted.ok ? taskHasEnded(id, decision.id) : minted.error).telling([...announced.receipts, ...ends.flat()])
  }
  const receipts = [...announced.receipts, ...confirmed.receipts]
  return { decision: keptDecision(decision, id, issued.lease.reservedAt), lease: issued, receipts }
}

/**
 * A fresh short-lived credential of an active lease, under a fresh decision; never past the deadline.
 *
 * Where it is made outside the broker, the end that it may have is announced first, and what came of it is told afterwards. A crash between any two lines
 * leaves a lease that ends too late at worst: no credential ever outlives what the ledger says of it.
 * @throws BrokerError `not_found`, `agent_unknown`, `forbidden` (needs a live workload token), `conflict` (the lease has ended, its provider has no fresh credentials, or the catalogue does not allow by now what it was given), `unknown_kind`, `unknown_grant` (the catalogue has it for this kind no more), `denied`, `provider_failed`
 */
export async function refreshLease(broker: Broker, caller: Caller, id: LeaseId, signal: AbortSignal): Promise<AddedLease> {
  const found = await findLease(broker.ledger, id, 'later')
  if (!found || !owns(caller, found.task)) throw notFound('lease')
  const { lease, task, left } = found
  const target = targetOf(broker, lease.provider)
  if (!target.provider.refresh) throw new BrokerError('conflict', `The provider ${lease.provider} has no fresh credentials to give`)
  if (lease.state !== 'active' || task.state !== 'open') throw leaseHasEnded(lease)

  const { actor, agent } = agentBehind(broker, caller, task)
  const duration = Math.min(Math.max(1, left), longestOf(broker, task))
  const declared = { kind: task.kind, duration, grants: [askedAgain(broker, lease)] }
  const inquiry = broker.policy().catalogue.resolve(agent, actor, 'issue', declared, nowhere)
  if (!isAsAnnounced(lease, inquiry.grants[0]!.grant, target.provider))
    throw new BrokerError('conflict', 'The catalogue has changed what this lease says of itself: ask for the grant anew', { task: task.id })
  const decision = decideOn(broker, inquiry)
  if (decision.made.outcome === 'deny') throw await deniedInTask(broker, task.id, decision)

  const ttl = cappedBy(lastingOf(inquiry, inquiry.grants[0]!), decision.made.answers[0]?.obligations.maxTtl)
  const extension = await extendLease(broker.ledger, lease, decision, ttl)
  if (!extension) throw leaseHasEnded(lease)
  if ('stop' in extension) throw await refusedByStop(broker, task.id, decision, extension)
  const reservation = { ...reservationOf({ task, inquiry, decision, elapsed: extension.elapsed }, extension.lease), expiresAt: extension.until }
  const minted = await mintAgain(broker, target, extension, reservation, signal)
  const refreshed = lease.local ? { ...extension, receipts: [] } : await concludeRefresh(broker.ledger, extension, freshOne(broker, minted))
  // Ended while the provider was asked, and its end committed: what came too late is dropped unopened.
  if (!refreshed) throw leaseHasEnded(lease, decision.id).telling(extension.receipts)
  return {
    decision: keptDecision(decision, task.id, extension.lease.issuedAt!),
    lease: { lease: refreshed.lease, credential: minted.credential },
    receipts: [...extension.receipts, ...refreshed.receipts],
  }
}

/**
 * Whether what the lease says of itself would be true of a fresh credential: from its provider, which is what the policy is asked about; ended no worse; and
 * good for nothing that outlives it besides. Catalogue and configuration may have been changed since it was announced.
 */
function isAsAnnounced(lease: Lease, grant: Grant, provider: Provider): boolean {
  return (
    grant.provider === lease.provider &&
    isEndedAt(lease, provider) &&
    provider.local === lease.local &&
    (lease.standing || !grant.standing) &&
    (lease.revocation === 'expiry' || lease.revocation === provider.revocation(grant.settings)) &&
    (provider.outlives?.(grant.settings) ?? []).every((name) => lease.outlivesRevocation.includes(name))
  )
}

const freshOne = (broker: Broker, { expiresAt, credential }: Minted): Refreshed => ({
  to: 'refreshed',
  expiresAt,
  digests: digestsOf(credential, broker.digestKey),
})

/**
 * Asks the provider, and says so where nothing came of it: the lease then ends when it did before.
 *
 * Not where something may have been made whose answer was lost. Nobody was given it, but it lives: a lease that ended sooner would let it fall out of
 * what is denied, and of what an operator is shown, while it does. So the later end stays, as far as the provider knows no nearer one.
 */
async function mintAgain(broker: Broker, target: Target, extension: Extension, reservation: Reservation, signal: AbortSignal): Promise<Minted> {
  const { lease, until, former } = extension
  try {
    const minted = await target.refresh(reservation, signal)
    if (minted.expiresAt > until) throw new ProviderError('garbage', `${lease.provider} gave a credential that outlives its lease`, 'maybe')
    return minted
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    const known = error.minted === 'no' ? former : error.endsBy
    const outcome = { to: 'not_refreshed', until: known, error: error.message } as const
    const concluded = lease.local ? undefined : await concludeRefresh(broker.ledger, extension, outcome)
    throw asBrokerError(error, lease).telling([...extension.receipts, ...(concluded?.receipts ?? [])])
  }
}

/** An open task of the caller, and the milliseconds that are left of it. @throws BrokerError `not_found`, `conflict` */
async function ownOpenTask(broker: Broker, caller: Caller, id: TaskId): Promise<{ task: Task; left: number }> {
  const found = await findTask(broker.ledger, id, 'later')
  if (!found || !owns(caller, found.task)) throw notFound('task')
  if (found.task.state !== 'open') throw taskHasEnded(id)
  return found
}

/** What is left of a task may exceed what its kind allows to ask for, after the catalogue was changed. */
const longestOf = (broker: Broker, task: Task): number => broker.policy().catalogue.kinds.get(task.kind)?.maxDuration ?? Number.POSITIVE_INFINITY
