import { BrokerError } from '../base/errors.ts'
import type { DecisionId } from '../base/ids.ts'
import { fieldIn, type Json } from '../base/json.ts'
import { decidedBody } from '../ledger/entries.ts'
import { showDecision, toldOfDecision } from '../ledger/lists.ts'
import { policySetOf } from '../ledger/policy-sets.ts'
import type { DecisionRecord } from '../ledger/records.ts'
import { type Answer, type Denial, denialsIn, replay } from '../policy/decide.ts'
import { restorePolicySet } from '../policy/document.ts'
import { canonical, type Digest, digestIn } from '../proof/canonical.ts'
import { notFound } from './refusals.ts'
import type { Broker } from './task.ts'

/** A stored decision asked again. */
export interface Replay {
  readonly decision: DecisionRecord
  /** On the archived set that made it: `same` is what a reviewer wants to see. */
  readonly archived: Judgement
  /** On the set in force today. */
  readonly current: Judgement & { readonly digest: Digest }
}

export interface Judgement {
  readonly outcome: 'permit' | 'deny'
  readonly policies: readonly string[]
  /** What of it said no, and why. */
  readonly denied: readonly Denial[]
  /** Whether outcome, determining policies and obligations are those that were kept. */
  readonly same: boolean
}

/**
 * Re-runs a stored decision on its archived policy set and on today's.
 *
 * Only one that is what the history says of it, on the set that has its digest: a decision and a set that were changed to agree would replay well. Whether
 * the history is what was signed is for `mayfly ledger verify`.
 *
 * @throws BrokerError `not_found`, `internal` where the archive lacks its set, `conflict` where one of them was changed: nothing to ask for again
 */
export async function replayDecision(broker: Broker, id: DecisionId): Promise<Replay> {
  const decision = await showDecision(broker.ledger, id)
  if (!decision) throw notFound('decision')
  const [document, told] = await Promise.all([policySetOf(broker.ledger, decision.policyDigest), toldOfDecision(broker.ledger, decision)])
  if (document === undefined) throw new BrokerError('internal', 'The policy set of this decision is not in the archive')
  if (digestIn(document) !== decision.policyDigest)
    throw new BrokerError('conflict', 'The archived policy set of this decision is not the one that has its digest: it was changed')
  if (told.length !== 1) throw new BrokerError('conflict', `The history tells of this decision ${told.length} times, and not once`)
  const changed = differences(decision, told[0]!)
  if (changed.length > 0) throw new BrokerError('conflict', `This decision is not what the history says of it: ${changed.join(', ')}`)
  const { set } = broker.policy()
  return {
    decision,
    archived: judge(decision, replay(restorePolicySet(document), decision.answers)),
    current: { ...judge(decision, replay(set, decision.answers)), digest: set.digest },
  }
}

/** What of a kept decision is not as its `decision.made` says, by the names that it has there. */
function differences({ action, ...made }: DecisionRecord, told: Json): readonly string[] {
  const kept = decidedBody({ action, made })
  return Object.entries(kept).flatMap(([name, value]) => (canonical(value) === canonical(fieldIn(told, name) ?? null) ? [] : [name]))
}

function judge(decision: DecisionRecord, answers: readonly Answer[]): Judgement {
  return {
    outcome: answers.every((answer) => answer.outcome === 'permit') ? 'permit' : 'deny',
    policies: [...new Set(answers.flatMap((answer) => answer.policies))].toSorted(),
    denied: denialsIn(answers),
    same: canonical(answers) === canonical(decision.answers),
  }
}
