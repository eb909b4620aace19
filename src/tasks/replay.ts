import { BrokerError } from '../base/errors.ts'
import type { DecisionId } from '../base/ids.ts'
import { showDecision } from '../ledger/lists.ts'
import { policySetOf } from '../ledger/policy-sets.ts'
import type { DecisionRecord } from '../ledger/records.ts'
import { type Answer, replay } from '../policy/decide.ts'
import { restorePolicySet } from '../policy/document.ts'
import type { Digest } from '../proof/canonical.ts'
import { canonical } from '../proof/canonical.ts'
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
  /** Whether outcome, determining policies and obligations are those that were kept. */
  readonly same: boolean
}

/** Re-runs a stored decision on its archived policy set and on today's. @throws BrokerError `not_found`, `internal` where the archive lacks its set */
export async function replayDecision(broker: Broker, id: DecisionId): Promise<Replay> {
  const decision = await showDecision(broker.ledger, id)
  if (!decision) throw notFound('decision')
  const document = await policySetOf(broker.ledger, decision.policyDigest)
  if (document === undefined) throw new BrokerError('internal', 'The policy set of this decision is not in the archive')
  const { set } = broker.policy()
  return {
    decision,
    archived: judge(decision, replay(restorePolicySet(document), decision.answers)),
    current: { ...judge(decision, replay(set, decision.answers)), digest: set.digest },
  }
}

function judge(decision: DecisionRecord, answers: readonly Answer[]): Judgement {
  return {
    outcome: answers.every((answer) => answer.outcome === 'permit') ? 'permit' : 'deny',
    policies: [...new Set(answers.flatMap((answer) => answer.policies))].toSorted(),
    same: canonical(answers) === canonical(decision.answers),
  }
}
