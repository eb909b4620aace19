import { BrokerError, requestRefused } from '../base/errors.ts'
import { newId, type RevocationId, type StopId } from '../base/ids.ts'
import { inTurn } from '../base/in-turn.ts'
import { type Closed, type ClosedStep, closeSelected, mostAtOnce } from '../ledger/endings.ts'
import type { Revocation } from '../ledger/records.ts'
import {
  countOf,
  endRevocations,
  noteBegun,
  type Progress,
  progressOf,
  reachOf,
  type Reach,
  type StartedRevocation,
  startRevocation,
  unawaited,
  unbegunRevocations,
} from '../ledger/revocations.ts'
import type { Selector } from '../ledger/selector.ts'
import { type ChangedStop, liftStop, type NewStop, putStop } from '../ledger/stops.ts'
import { type Broker, type Caller, operatorNamed } from './task.ts'

/** What would end, and what whoever wants it has to confirm: the phrase, or the count. */
export interface Plan {
  readonly reach: Reach
  readonly count: number
  readonly confirm: string
  /** See `unknownIn`. */
  readonly unknown: readonly string[]
}

/** The words by which a selector is confirmed. From what was asked alone: what lives comes and goes while somebody types. */
export function phraseOf(selector: Selector): string {
  const named = Object.entries(selector).filter(([, value]) => value !== undefined)
  return named.length === 0 ? 'revoke everything' : `revoke ${named.map(([name, value]) => `${name} ${value}`).join(', ')}`
}

/** What a revocation would end. Changes nothing. */
export async function planRevocation(broker: Broker, selector: Selector): Promise<Plan> {
  const reach = await reachOf(broker.ledger, selector)
  return { reach, count: countOf(selector, reach), confirm: phraseOf(selector), unknown: unknownIn(broker, selector) }
}

/**
 * What a selector names that this broker has nothing by the name of, as `agent invoice-bt`: most likely a slip, by which nothing ends and nobody is stopped.
 * No error, since what was taken out of the catalogue may live, and another broker may have a newer one.
 */
export function unknownIn({ policy, targets }: Pick<Broker, 'policy' | 'targets'>, selector: Selector): readonly string[] {
  const { agents, kinds, grants } = policy().catalogue
  const isOfSome = (field: 'owner' | 'issuer') => (value: string) => [...agents.values()].some((agent) => agent[field] === value)
  const isKnown: Readonly<Record<keyof Selector, (name: string) => boolean>> = {
    agent: (name) => agents.has(name),
    owner: isOfSome('owner'),
    issuer: isOfSome('issuer'),
    kind: (name) => kinds.has(name),
    grant: (name) => grants.has(name),
    provider: (name) => targets.has(name),
  }
  return Object.entries(isKnown).flatMap(([what, has]) => {
    const name = selector[what as keyof Selector]
    return name === undefined || has(name) ? [] : [`${what} ${name}`]
  })
}

/** A revocation that an operator asks for. */
export interface AskedRevocation {
  readonly selector: Selector
  readonly reason: string
  /** The phrase of the plan; or a count: with more than so many to end nothing is started. */
  readonly confirm: string | number
  /** Milliseconds for which issuing the same is stopped too. */
  readonly stopFor: number | undefined
}

/**
 * Starts to end all that a selector means. Committed when this resolves; any broker's reaper brings it about, however long it takes.
 *
 * @throws BrokerError `forbidden`, `invalid_request` (not confirmed), `conflict` (there is more than was confirmed), `store_unavailable`
 */
export async function revokeMany(broker: Broker, caller: Caller, asked: AskedRevocation): Promise<StartedRevocation & { stop: StopId | undefined }> {
  const by = operatorNamed(caller)
  const { selector, reason, confirm, stopFor } = asked
  if (typeof confirm === 'string' && confirm !== phraseOf(selector)) throw notConfirmed(selector)
  const stop: NewStop | undefined = stopFor === undefined ? undefined : { id: newId('stop'), selector, reason, by, lasts: stopFor }
  const most = typeof confirm === 'number' ? confirm : undefined
  const started = await startRevocation(broker.ledger, { id: newId('rev'), selector, reason, by, most, stop })
  if (!started) throw new BrokerError('conflict', 'There is more to end than was confirmed: ask again for a dry run')
  broker.telemetry.log.info({ revocation: started.revocation.id, by, tasks: started.reach.tasks, stop: stop?.id }, 'an operator revokes many')
  return { ...started, stop: stop?.id }
}

const notConfirmed = (selector: Selector): BrokerError =>
  requestRefused([{ pointer: '/confirm', message: `must be "${phraseOf(selector)}", or the count of a dry run` }])

/** How far a revocation is. @throws BrokerError `not_found` */
export async function showRevocation(broker: Broker, id: RevocationId): Promise<Progress> {
  const found = await progressOf(broker.ledger, id)
  if (!found) throw new BrokerError('not_found', 'There is no such revocation')
  return found
}

/**
 * Brings each revocation that is not through a step further, and tells of those that are that they have ended: each, whatever became of the others.
 *
 * @param moved called with what each step closed
 * @throws Error with each revocation that failed and why, when all have had their turn
 */
export async function advanceRevocations(broker: Broker, moved: (closed: Closed) => void = () => {}): Promise<void> {
  const revocations = await unbegunRevocations(broker.ledger)
  const ready = revocations.length > 0 ? await unawaited(broker.ledger, revocations) : new Set()
  await inTurn({
    ...Object.fromEntries(revocations.map((revocation) => [revocation.id, () => advance(broker, revocation, ready.has(revocation.id), moved)])),
    'noting which have ended': () => endRevocations(broker.ledger, mostAtOnce),
  })
}

async function advance({ ledger, background }: Broker, revocation: Revocation, isUnawaited: boolean, moved: (closed: Closed) => void): Promise<void> {
  const closed = await closeSelected(ledger, revocation, mostAtOnce)
  if (movedBy(closed)) return moved(closed)
  if (await noteBegun(ledger, revocation, isUnawaited)) return
  // Beside the loop, which has deadlines to see to.
  void background.run(() => closeSelected(ledger, revocation, 'held')).then((step) => step && movedBy(step) && moved(step))
}

const movedBy = ({ tasks, ended, revoking, lapsing = [] }: ClosedStep): boolean => [tasks, ended, revoking, lapsing].some(({ length }) => length > 0)

/** Stops issuing what a selector means, on every broker at once. @param lasts milliseconds. @throws BrokerError `forbidden`, `store_unavailable` */
export async function stopIssuing(
  broker: Broker,
  caller: Caller,
  asked: { selector: Selector; reason: string; lasts: number },
): Promise<ChangedStop> {
  const stop = await putStop(broker.ledger, { id: newId('stop'), ...asked, by: operatorNamed(caller) })
  broker.telemetry.log.info({ stop: stop.id, by: stop.by, until: stop.until }, 'an operator stops issuing')
  return stop
}

/** Lets what was stopped be issued again. @throws BrokerError `forbidden`, `not_found` (or it is over), `store_unavailable` */
export async function resumeIssuing(broker: Broker, caller: Caller, id: StopId, reason: string): Promise<ChangedStop> {
  const lifted = await liftStop(broker.ledger, id, reason, operatorNamed(caller))
  if (!lifted) throw new BrokerError('not_found', 'No such stop is in force')
  broker.telemetry.log.info({ stop: id, by: lifted.liftedBy }, 'an operator lets issue again what was stopped')
  return lifted
}

/** The selector of a revocation or stop, as it was asked for. */
export const selectorOf = ({ agent, owner, issuer, kind, grant, provider }: Pick<Revocation, keyof Selector>): Selector =>
  Object.fromEntries(Object.entries({ agent, owner, issuer, kind, grant, provider }).filter(([, value]) => value !== null))
