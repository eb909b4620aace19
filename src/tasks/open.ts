import { BrokerError, requestRefused } from '../base/errors.ts'
import { type DecisionId, newId, type TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Secret } from '../base/secret.ts'
import type { Actor } from '../identity/actor.ts'
import { type Announced, announceLeases, announceTask, type LeaseLimits, type TaskRefused } from '../ledger/announce.ts'
import type { NewDecision, NewTask } from '../ledger/entries.ts'
import { findKey, type HeldKey, holdKey, keepKey, type KeyClaim, releaseKey } from '../ledger/keys.ts'
import { receiptsOfTask } from '../ledger/receipts.ts'
import { type DecisionRecord, findTask, hasEnded, type Task } from '../ledger/records.ts'
import { recordDenial } from '../ledger/refusals.ts'
import type { Agent } from '../policy/entry.ts'
import { inDeclaration, type Inquiry } from '../policy/inquiry.ts'
import { digestOf } from '../proof/canonical.ts'
import { beginClosing, endLeaseNow } from './close.ts'
import { decideOn, keptDecision, taskLasts } from './decision.ts'
import { confirmAll, type IssuedLease, mintAll, newLeases } from './mint.ts'
import { denied, refusedLeases, refusedTask, taskHasEnded } from './refusals.ts'
import { agentOf, asDeclarant, type Broker, type Caller, type Declaration, durationOf, placeOfDuration } from './task.ts'
import { newTaskToken } from './token.ts'

/** The answer to a declaration: the only copy of the secrets. If it is lost, the same Idempotency-Key ends them and mints anew. */
export interface OpenedTask {
  readonly task: Task
  readonly taskToken: Secret
  readonly decision: DecisionRecord
  readonly leases: readonly IssuedLease[]
  /** Of all that was told the ledger for this answer. */
  readonly receipts: readonly Receipt[]
}

/** What one declaration comes to, before anything of it exists. */
interface Opening {
  readonly inquiry: Inquiry
  readonly decision: NewDecision
  readonly task: NewTask
  readonly taskToken: Secret
  readonly limits: LeaseLimits
}

/**
 * Opens a task: decides, announces, mints, confirms. All grants or none.
 *
 * A crash between any two lines leaves nothing that the reaper cannot end (docs/how-a-task-is-answered.md).
 * @throws BrokerError `agent_unknown`, `forbidden` (a claim that policies may see cannot be read), `unknown_kind`, `unknown_grant`, `invalid_request` (it does not fit catalogue or limits), `denied` (kept first), `rate_limited`, `in_flight` (retry with the same key),
 *   `idempotency_mismatch`, `conflict` (the task of this key has ended), `provider_unavailable` (retry later), `provider_failed`, `store_unavailable`
 */
export async function openTask(
  broker: Broker,
  caller: Caller,
  declared: Declaration,
  idempotencyKey: string | undefined,
  signal: AbortSignal,
): Promise<OpenedTask> {
  const { actor, agent } = agentOf(broker, caller)
  refuseTooMany(broker, declared)
  const opening = prepare(broker, actor, agent, declared)
  const claim = idempotencyKey === undefined ? undefined : claimOf(actor, idempotencyKey, declared, opening.decision.id)
  if (opening.decision.made.outcome === 'deny') return await refuse(broker, opening, claim)

  // Announced: from here on the ledger knows every credential that could come to exist, or why none may.
  const announced = await announce(broker, opening, claim)
  if (announced.outcome === 'key_taken') return await retry(broker, opening, claim!, signal)
  if (announced.outcome !== 'announced') return await keepBack(broker, opening, announced, claim)
  return await issue(broker, opening, announced, claim, signal)
}

/** More grants than a task may ever hold will not fit later either: a 400, not a 429, and nothing is recorded. @throws BrokerError `invalid_request` */
function refuseTooMany({ limits }: Broker, { grants }: Declaration): void {
  if (grants.length > limits.leasesPerTask)
    throw requestRefused([{ pointer: '/grants', message: `must have ${limits.leasesPerTask} at most: one task holds no more leases at once` }])
}

function prepare(broker: Broker, actor: Actor, agent: Agent, declared: Declaration): Opening {
  const asked = { ...declared, ...durationOf(declared, broker.clock()) }
  const pointers = { ...inDeclaration, duration: placeOfDuration(declared) }
  const inquiry = broker.policy().catalogue.resolve(agent, actor, declared.grants.length > 0 ? 'issue' : 'declare', asked, pointers)
  const decision = decideOn(broker, inquiry)
  const id = newId('task')
  const { token, hash } = newTaskToken(id)
  const task: NewTask = {
    id,
    kind: inquiry.kind.name,
    agent: agent.name,
    owner: agent.owner,
    actor: asDeclarant(actor, agent),
    purpose: declared.purpose,
    labels: declared.labels,
    tokenHash: hash,
    duration: taskLasts(inquiry, decision),
    deadline: declared.deadline,
  }
  const limits = { perAgent: agent.maxLiveLeases, perTask: broker.limits.leasesPerTask }
  return { inquiry, decision, task, taskToken: token, limits }
}

const announce = (broker: Broker, { task, decision, inquiry, limits }: Opening, claim: KeyClaim | undefined) =>
  announceTask(broker.ledger, { task, decision, leases: newLeases(broker, inquiry, decision), limits, claim })

/** Mints and confirms what was announced, or ends all of it. */
async function issue(
  broker: Broker,
  opening: Opening,
  { task, leases, elapsed, receipts: told }: Announced,
  claim: KeyClaim | undefined,
  signal: AbortSignal,
): Promise<OpenedTask> {
  const { decision, inquiry, taskToken } = opening
  const minted = await mintAll(broker, { task, inquiry, decision, elapsed }, leases, signal)
  if (!minted.ok) return await fail(broker, task, claim, minted.error)

  // Confirmed: the answer is the only copy of the secrets.
  const { issued, receipts } = await confirmAll(broker, task, minted.issued, claim)
  if (issued.length < leases.length) return await fail(broker, task, claim, taskHasEnded(task.id, decision.id))
  return {
    task,
    taskToken,
    decision: keptDecision(decision, task.id, leases[0]?.reservedAt ?? task.openedAt),
    leases: issued,
    receipts: [...told, ...receipts],
  }
}

/** A declaration with a key that was seen before: the answer was lost, or it is still on its way, or it came to nothing. */
async function retry(broker: Broker, opening: Opening, claim: KeyClaim, signal: AbortSignal): Promise<OpenedTask> {
  const held = await heldKey(broker, claim)
  if (!held || held.busy) throw inFlight()
  const before = await findTask(broker.ledger, held.task, 'later')
  if (before?.task.state === 'open') {
    // The catalogue may have changed, and this caller be another agent by now: what is decided about one is not issued into a task of the other.
    if (before.task.agent !== opening.task.agent)
      throw new BrokerError('conflict', 'The task of this Idempotency-Key was declared by another agent', { task: held.task })
    return await reissue(broker, opening, held.task, claim, signal)
  }
  // One that failed may still be closing: what it left is being ended, and stands in nobody's way.
  const became = before?.task.outcome ?? before?.task.state
  if (became !== undefined && became !== 'denied' && became !== 'failed') throw taskHasEnded(held.task)
  return await openAnew(broker, opening, held, claim, signal)
}

/** Who holds a key already, for the same declaration. @throws BrokerError `idempotency_mismatch` */
async function heldKey(broker: Broker, claim: KeyClaim): Promise<HeldKey | undefined> {
  const held = await findKey(broker.ledger, claim.key)
  if (held && held.requestDigest !== claim.requestDigest)
    throw new BrokerError('idempotency_mismatch', 'This Idempotency-Key was used for another declaration')
  return held
}

/** What the key stood for came to nothing, so it may stand for another task. */
async function openAnew(broker: Broker, opening: Opening, held: HeldKey, claim: KeyClaim, signal: AbortSignal): Promise<OpenedTask> {
  const takeover = { ...claim, from: held.task }
  const announced = await announce(broker, opening, takeover)
  if (announced.outcome === 'key_taken') throw inFlight()
  if (announced.outcome !== 'announced') return await keepBack(broker, opening, announced, takeover)
  return await issue(broker, opening, announced, takeover, signal)
}

/**
 * The task is open but its answer was lost: its token is replaced, its credentials are ended, and new ones minted. In this order: nothing
 * can be issued to the old token after what is to be ended was read.
 */
async function reissue(broker: Broker, opening: Opening, task: TaskId, claim: KeyClaim, signal: AbortSignal): Promise<OpenedTask> {
  const { token, hash } = newTaskToken(task)
  const taken = await holdKey(broker.ledger, claim, task, { tokenHash: hash, actor: opening.task.actor })
  if (!taken) throw inFlight()
  // Read under the hold: what another retry announced before it let go is ended too.
  const before = await findTask(broker.ledger, task)
  await Promise.all(
    (before?.leases ?? [])
      .filter((lease) => !hasEnded(lease))
      .map((lease) => endLeaseNow(broker, lease, { cause: 'answer_lost', by: 'broker', under: claim })),
  )
  const { inquiry, decision, limits } = opening
  const announced = await announceLeases(broker.ledger, task, decision, newLeases(broker, inquiry, decision), limits, { reissue: claim })
  if (announced.outcome !== 'announced') {
    if (!(await keepKey(broker.ledger, claim))) throw inFlight()
    await releaseKey(broker.ledger, claim)
    const error = await refusedLeases(broker, task, decision, announced)
    throw error.telling([...taken, ...error.receipts])
  }
  const told = { ...announced, receipts: [...taken, ...announced.receipts] }
  const opened = await issue(broker, { ...opening, taskToken: token }, told, claim, signal)
  await releaseKey(broker.ledger, claim)
  return opened
}

/**
 * Something could not be minted: whatever was is ended, and the task with it. The key is free for another try. A request that was overtaken
 * leaves the task to the retry that has it now; what it minted itself, that one has ended.
 */
async function fail(broker: Broker, task: Task, claim: KeyClaim | undefined, error: BrokerError): Promise<never> {
  if (!(await beginClosing(broker, task.id, 'failed', { cause: 'mint_failed', by: 'broker', under: claim }))) throw inFlight()
  if (claim) await releaseKey(broker.ledger, claim)
  throw error.telling(await receiptsOfTask(broker.ledger, task.id))
}

/** The policy permitted it, a limit or an operator's stop did not: kept, and the key is free for another try. */
async function keepBack(broker: Broker, { task, decision }: Opening, refused: TaskRefused, claim: KeyClaim | undefined): Promise<never> {
  const error = await refusedTask(broker, task, decision, refused)
  if (claim) await releaseKey(broker.ledger, claim)
  throw error
}

/** The policy says no: kept under the key that it came with, or without one where the key stands for this declaration already. */
async function refuse(broker: Broker, { task, decision }: Opening, claim: KeyClaim | undefined): Promise<never> {
  const because = { cause: 'policy' } as const
  const kept = await recordDenial(broker.ledger, task, decision, because, claim)
  if (!claim || kept.length > 0) throw denied(task.id, decision, kept)
  await heldKey(broker, claim)
  throw denied(task.id, decision, await recordDenial(broker.ledger, task, decision, because))
}

const inFlight = (): BrokerError =>
  new BrokerError('in_flight', 'The first request with this Idempotency-Key has not been answered yet', { retryAfter: 1 })

/** A key belongs to the identity that brought it: nobody can take another's task with a guessed key. */
function claimOf({ issuer, subject }: Actor, key: string, declared: Declaration, holder: DecisionId): KeyClaim {
  const { deadline, ...rest } = declared
  return {
    key: digestOf([issuer, subject, key]),
    requestDigest: digestOf({ ...rest, ...(deadline && { deadline: deadline.toISOString() }) }),
    holder,
    from: undefined,
  }
}
