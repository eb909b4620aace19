import { BrokerError } from '../base/errors.ts'
import type { LeaseId } from '../base/ids.ts'
import { isEndedAt } from '../ledger/enders.ts'
import { concludeRefresh, extendLease, type Extension, type Refreshed } from '../ledger/extend.ts'
import { findLease, type Lease } from '../ledger/records.ts'
import type { Grant } from '../policy/entry.ts'
import { lastingOf, nowhere } from '../policy/inquiry.ts'
import { digestsOf } from '../providers/credential.ts'
import { type Minted, type Provider, ProviderError, type Reservation } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import { askedAgain, cappedBy, keptDecision } from './decision.ts'
import type { AddedLease } from './lease.ts'
import { asBrokerError, reservationOf, targetOf } from './mint.ts'
import { leaseHasEnded, notFound, refusedByStop } from './refusals.ts'
import { type Broker, type Caller, owns } from './task.ts'
import { askWithin, permitWithin, restOf } from './within.ts'

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

  const asked = { duration: restOf(broker, task, left), grants: [askedAgain(broker, lease)] }
  const inquiry = askWithin(broker, caller, task, 'issue', asked, nowhere)
  if (!isAsAnnounced(lease, inquiry.grants[0]!.grant, target.provider))
    throw new BrokerError('conflict', 'The catalogue has changed what this lease says of itself: ask for the grant anew', { task: task.id })
  const decision = await permitWithin(broker, task, inquiry)

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
 * Where a credential may have been made whose answer was lost, the later end stays, or a nearer one that the provider knows: nobody was given it, but it
 * lives, and until it ends it has to be denied and shown to operators with its lease.
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
