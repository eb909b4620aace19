import { isEndedAt } from '../ledger/enders.ts'
import { claimSeconds, closeLease } from '../ledger/endings.ts'
import { putBack, retryLater } from '../ledger/queue.ts'
import type { Lease } from '../ledger/records.ts'
import { type Settled, settle } from '../ledger/settlement.ts'
import { type LeaseReference, ProviderError } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import type { Broker } from './task.ts'

/** Milliseconds before the first retry, doubled with each, and the most. Short at the top: what a recovered backend owes is done within seconds, and it is the breaker that keeps a dead one from being hammered. */
const backoff = { first: 250, most: 2_000 }

/** The providers that leases are ended at. One whose leases the ledger ends by itself is none, also where a configuration gave it the name of another. */
export const endersOf = ({ targets }: Pick<Broker, 'targets'>): readonly Target[] => [...targets.values()].filter(({ provider }) => !provider.local)

/**
 * Ends a claimed lease at its provider, and records the proof; or puts it back with the reason, to be tried again after a pause of full jitter.
 *
 * Never inside a transaction. Whoever claims it a second time asks the provider again, which is harmless, and finds the row moved.
 * @returns what this came to, if it ended the lease
 * @throws BrokerError where the store could not be written: the lease stays due
 */
export async function endLease(broker: Broker, lease: Lease, signal: AbortSignal): Promise<Settled | undefined> {
  const target = endersOf(broker).find(({ provider }) => isEndedAt(lease, provider))
  if (!target) {
    // Claimed by whoever closed it here: another broker, which has its provider, need not wait until that claim is over.
    await putBack(broker.ledger, lease)
    return undefined
  }
  try {
    const ended = await end(broker, target, lease, signal)
    if (ended) noteEnded(broker, [ended.lease])
    return ended
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    await putOff(broker, lease, error)
    return undefined
  }
}

/** Puts a claimed lease back that could not be ended. */
async function putOff(broker: Broker, lease: Lease, error: ProviderError): Promise<void> {
  // Our own bulkhead is full: nothing was asked and nothing is wrong, the reaper takes it as soon as there is room.
  if (error.fault === 'busy') return await putBack(broker.ledger, lease)
  const wait = error.pointlessFor + Math.random() * Math.min(backoff.most, backoff.first * 2 ** Math.min(lease.attempts, 10))
  await retryLater(broker.ledger, lease, error.message, wait)
  broker.telemetry.log.warn(
    { lease: lease.id, task: lease.taskId, provider: lease.provider, fault: error.fault, error: error.message, attempts: lease.attempts },
    'a lease could not be ended yet',
  )
}

/** Counts and tells of leases that have ended. */
export function noteEnded(broker: Broker, leases: readonly Lease[]): void {
  const { log, metrics } = broker.telemetry
  for (const { id, taskId, provider, state, cause, closingAt, endedAt } of leases) {
    const labels = { provider, cause: cause ?? 'interrupted' }
    metrics.leasesEnded.inc({ ...labels, state })
    // What only time ended has no proof that came sooner or later: its lease says when that would be.
    if (state === 'revoked' && closingAt && endedAt) metrics.timeToDead.observe(labels, (endedAt.getTime() - closingAt.getTime()) / 1_000)
    log.info({ lease: id, task: taskId, provider, state, cause }, 'a lease has ended')
  }
}

async function end(broker: Broker, target: Target, lease: Lease, signal: AbortSignal): Promise<Settled | undefined> {
  if (lease.state === 'reserved') {
    const { minted } = await target.recover(referenceOf(lease), signal)
    // A mint whose answer never came: nothing was minted and nothing will be.
    if (!minted) return await settle(broker.ledger, { lease, settlement: { to: 'failed', error: 'nothing was minted' } })
  }
  const revoking = await asRevoking(broker, lease)
  if (revoking?.state !== 'revoking') return undefined
  const evidence = await target.revoke(referenceOf(revoking), signal)
  // What time ended was revoked by nobody.
  return await settle(broker.ledger, { lease: revoking, settlement: { to: evidence.by === 'time' ? 'expired' : 'revoked', evidence } })
}

/** A lease that has outlived its own end is still asked about: a provider that confirms is worth more than a clock. */
async function asRevoking(broker: Broker, lease: Lease): Promise<Lease | undefined> {
  if (lease.state === 'revoking') return lease
  return await closeLease(broker.ledger, lease, { cause: lease.state === 'active' ? 'lease_expired' : 'interrupted', by: 'broker' })
}

function referenceOf(lease: Lease): LeaseReference {
  // When it was claimed for us, which the store told by when the claim ends. Our own clock may be minutes ahead, and would call a young lease old.
  const claimed = (lease.dueAt ?? lease.reservedAt).getTime() - claimSeconds * 1_000
  return { lease: lease.id, task: lease.taskId, age: Math.max(0, claimed - lease.reservedAt.getTime()), handles: lease.handles }
}
