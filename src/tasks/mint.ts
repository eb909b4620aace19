import { BrokerError } from '../base/errors.ts'
import { newId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { NewLease } from '../ledger/announce.ts'
import { type Confirmation, confirmLeases } from '../ledger/extend.ts'
import type { KeyClaim } from '../ledger/keys.ts'
import { journal, settle } from '../ledger/settlement.ts'
import type { NewDecision } from '../ledger/entries.ts'
import type { Lease, Task } from '../ledger/records.ts'
import { type Inquiry, lastingOf } from '../policy/inquiry.ts'
import { type Credential, digestsOf } from '../providers/credential.ts'
import { ProviderError, type Reservation } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import { cappedBy } from './decision.ts'
import { leaseHasEnded } from './refusals.ts'
import type { Broker } from './task.ts'

/** A lease with the only copy of its secret. */
export interface IssuedLease {
  readonly lease: Lease
  readonly credential: Credential
}

/** What leases are issued under: their task, what was asked, and the decision that permitted it. */
export interface Issue {
  readonly task: Task
  readonly inquiry: Inquiry
  readonly decision: NewDecision
  /** Milliseconds since it was announced, as `Announced` counts them. */
  readonly elapsed: () => number
}

/** The leases that a permitted inquiry leads to, one a grant and in its order. */
export function newLeases(broker: Broker, inquiry: Inquiry, decision: NewDecision): NewLease[] {
  return inquiry.grants.map((asked, index) => {
    const { grant, parameters, ttl } = asked
    const { provider } = targetOf(broker, grant.provider)
    const { maxTtl } = decision.made.answers[index]?.obligations ?? {}
    return {
      id: newId('lease'),
      grant: grant.name,
      provider: provider.name,
      providerKind: provider.kind,
      local: provider.local,
      revocation: provider.revocation(grant.settings),
      standing: grant.standing,
      outlivesRevocation: provider.outlives?.(grant.settings) ?? [],
      pool: provider.pool?.(grant.settings) ?? [],
      parameters,
      lasts: cappedBy(lastingOf(inquiry, asked), maxTtl),
      ttl: cappedBy(ttl, maxTtl),
    }
  })
}

/** All credentials, or the first reason why not. Nothing is thrown away before every mint has said what became of it. */
export type MintedAll = { readonly ok: true; readonly issued: readonly IssuedLease[] } | { readonly ok: false; readonly error: BrokerError }

/**
 * Mints the credentials of announced leases in parallel. Where a provider said for certain that it minted nothing, its lease is `failed` already;
 * the caller ends the others.
 */
export async function mintAll(broker: Broker, issue: Issue, leases: readonly Lease[], signal: AbortSignal): Promise<MintedAll> {
  const outcomes = await Promise.allSettled(leases.map((lease) => mint(broker, issue, lease, signal)))
  const issued: IssuedLease[] = []
  let error: BrokerError | undefined
  for (const [index, outcome] of outcomes.entries()) {
    if (outcome.status === 'fulfilled') {
      issued.push(outcome.value)
      continue
    }
    const failure = await noteFailure(broker, leases[index]!, outcome.reason)
    error ??= failure
  }
  return error ? { ok: false, error } : { ok: true, issued }
}

export interface Confirmed {
  readonly issued: readonly IssuedLease[]
  readonly receipts: readonly Receipt[]
}

/**
 * Confirms what was minted: reserved -> active, with keyed digests of the secrets. What minting did not change outside the broker was announced
 * active and needs no confirmation. A lease missing from the answer was ended meanwhile: its credential is dropped unopened.
 *
 * @returns what is issued, and the receipts of what confirming it told the ledger
 */
export async function confirmAll(broker: Broker, task: Task, issued: readonly IssuedLease[], claim: KeyClaim | undefined): Promise<Confirmed> {
  let receipts: readonly Receipt[] = []
  const outside = issued.filter(({ lease }) => !lease.local)
  if (outside.length > 0) {
    const confirmations = outside.map(({ lease, credential }): Confirmation => {
      return { id: lease.id, expiresAt: lease.expiresAt, digests: digestsOf(credential, broker.digestKey) }
    })
    const { leases, ...told } = await confirmLeases(broker.ledger, task.id, confirmations, claim)
    const confirmed = new Map(leases.map((lease) => [lease.id, lease]))
    if (outside.some(({ lease }) => !confirmed.has(lease.id))) return { issued: [], receipts: [] }
    receipts = told.receipts
    issued = issued.map(({ lease, credential }) => ({ lease: confirmed.get(lease.id) ?? lease, credential }))
  }
  for (const { lease } of issued) broker.telemetry.metrics.leasesIssued.inc({ provider: lease.provider })
  return { issued, receipts }
}

async function mint(broker: Broker, issue: Issue, lease: Lease, signal: AbortSignal): Promise<IssuedLease> {
  const target = targetOf(broker, lease.provider)
  const minted = await target.mint(
    reservationOf(issue, lease),
    async (handle) => {
      const state = await journal(broker.ledger, lease, handle)
      if (state !== 'reserved') throw leaseHasEnded(lease, issue.decision.id)
    },
    signal,
  )
  if (minted.expiresAt > lease.expiresAt) throw new ProviderError('garbage', `${lease.provider} gave a credential that outlives its lease`, 'maybe')
  return { lease: { ...lease, expiresAt: minted.expiresAt }, credential: minted.credential }
}

/** What a provider is told of one lease. */
export function reservationOf({ task, inquiry, decision, elapsed }: Issue, lease: Lease): Reservation {
  const asked = inquiry.grants.find(({ grant }) => grant.name === lease.grant)
  if (!asked) throw new BrokerError('internal', 'a lease without its grant')
  return {
    lease: lease.id,
    task: task.id,
    agent: task.agent,
    owner: task.owner,
    kind: task.kind,
    subject: task.actor.subject,
    grant: lease.grant,
    settings: asked.grant.settings,
    parameters: lease.parameters,
    expiresAt: lease.expiresAt,
    issuedAt: lease.issuedAt ?? lease.reservedAt,
    elapsed,
    policyDigest: decision.made.policyDigest,
    handles: lease.handles,
  }
}

/** The lease of a mint that failed: `failed` where nothing was minted for certain; else it stays reserved, to be ended by the caller. */
async function noteFailure(broker: Broker, lease: Lease, reason: unknown): Promise<BrokerError> {
  if (reason instanceof BrokerError) return reason
  const { id, taskId, decisionId: decision } = lease
  if (!(reason instanceof ProviderError))
    return new BrokerError('provider_failed', `${lease.provider} failed`, { cause: reason, decision, task: taskId })
  if (reason.minted === 'no' && !lease.local)
    await settle(broker.ledger, { lease: { id, taskId }, settlement: { to: 'failed', error: reason.message } })
  return asBrokerError(reason, lease)
}

/** Seconds after which whoever meets a failing provider may ask again, where it does not say more. */
const stayAway = 2

/** A provider's failure as whoever asked may see it. @param lease under the decision that permitted it */
export function asBrokerError(error: ProviderError, { taskId: task, decisionId: decision }: Pick<Lease, 'taskId' | 'decisionId'>): BrokerError {
  const temporary = error.fault !== 'refused' && error.fault !== 'garbage'
  const context = { cause: error, decision, task, ...(temporary && { retryAfter: Math.max(stayAway, Math.ceil(error.pointlessFor / 1_000)) }) }
  return new BrokerError(temporary ? 'provider_unavailable' : 'provider_failed', error.message, context)
}

/** A provider behind its limits. @throws BrokerError `provider_unavailable` where this broker's configuration lacks it */
export function targetOf(broker: Broker, name: string): Target {
  const target = broker.targets.get(name)
  if (!target) throw new BrokerError('provider_unavailable', `The provider ${name} is not configured on this broker`)
  return target
}
