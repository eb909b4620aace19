import { tokenRefused } from '../base/errors.ts'
import type { TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import { announceLeases } from '../ledger/announce.ts'
import { receiptsOfEnd } from '../ledger/receipts.ts'
import type { DecisionRecord } from '../ledger/records.ts'
import { nowhere, type Pointers } from '../policy/inquiry.ts'
import { endLeaseNow } from './close.ts'
import { keptDecision } from './decision.ts'
import { confirmAll, type IssuedLease, mintAll, newLeases } from './mint.ts'
import { leaseHasEnded, refusedLeases } from './refusals.ts'
import type { Broker, Caller, GrantRequest } from './task.ts'
import { stillSpeaks } from './token.ts'
import { askWithin, ownOpenTask, permitWithin, restOf } from './within.ts'

/** A further lease is asked for by its grant alone: that is the whole body of the request. */
const asWhole: Pointers = { ...nowhere, grant: () => '' }

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
 * @throws BrokerError `not_found`, `invalid_token` (a retry of the declaration has replaced it meanwhile), `agent_unknown`, `forbidden` (needs a live workload token), `conflict` (the task has ended, or the lease was while it was minted; or the task had as many leases as one may), `denied` (kept first), `unknown_grant`, `invalid_request` (it does not fit the catalogue), `rate_limited`, `provider_unavailable`, `provider_failed`
 */
export async function addLease(broker: Broker, caller: Caller, id: TaskId, asked: GrantRequest, signal: AbortSignal): Promise<AddedLease> {
  const { task, left } = await ownOpenTask(broker, caller, id)
  const inquiry = askWithin(broker, caller, task, 'issue', { duration: restOf(broker, task, left), grants: [asked] }, asWhole)
  const decision = await permitWithin(broker, task, inquiry)

  const limits = { perAgent: inquiry.agent.maxLiveLeases, perTask: broker.limits.leasesPerTask }
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
    throw (minted.ok ? leaseHasEnded({ taskId: id }, decision.id) : minted.error).telling([...announced.receipts, ...ends.flat()])
  }
  const receipts = [...announced.receipts, ...confirmed.receipts]
  return { decision: keptDecision(decision, id, issued.lease.reservedAt), lease: issued, receipts }
}
