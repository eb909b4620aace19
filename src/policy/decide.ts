import { canonical, type Digest } from '../proof/canonical.ts'
import type { PolicySet } from './document.ts'
import { evaluate, type Question } from './engine.ts'
import type { Action, Inquiry } from './inquiry.ts'
import { at, questionsOf } from './question.ts'

export type { Action, Inquiry } from './inquiry.ts'

/** Duties that come with a permit, merged over its determining policies. */
export interface Obligations {
  /** Milliseconds: the least of all `@max_ttl`. */
  readonly maxTtl?: number
}

/** One grant's (or, for `declare`, the kind's) part of a decision, complete enough to be asked again. */
export interface Answer {
  readonly action: Action
  /** The grant's name, or the kind's for `declare`. */
  readonly resource: string
  readonly outcome: 'permit' | 'deny'
  /** Ids of the determining policies, sorted. Empty for a default deny. */
  readonly policies: readonly string[]
  readonly obligations: Obligations
  /** Ids of policies whose evaluation failed; any makes the outcome `deny`. `engine` where the engine itself gave no answer. */
  readonly diagnostics: readonly string[]
  /** The engine's whole input (principal, action, resource, context, entities) as canonical JSON: what replay runs again. */
  readonly input: string
}

/** The policy's judgement on one inquiry. Permit only if every answer permits. */
export interface Decision {
  readonly outcome: 'permit' | 'deny'
  /** Ids of all determining policies, sorted, each once. */
  readonly policies: readonly string[]
  readonly policyDigest: Digest
  readonly obligations: Obligations
  readonly answers: readonly Answer[]
}

/** What a set says to one question. */
type Judgement = Pick<Answer, 'outcome' | 'policies' | 'obligations' | 'diagnostics'>

/**
 * Asks the policy about every grant of the inquiry, or about the kind where there is none. Pure: the same set, inquiry and time give the same
 * decision, byte for byte.
 */
export function decide(set: PolicySet, inquiry: Inquiry, now: Date): Decision {
  const answers = questionsOf(inquiry).map(({ action, resource, timeless }) => {
    const question = at(timeless, now)
    const judgement = set.readsNow ? judge(set, question) : recall(set, canonical(timeless), () => judge(set, question))
    return { action, resource, ...judgement, input: canonical(question) }
  })
  return { ...merge(answers), policyDigest: set.digest, answers }
}

/** Asks this set what another one, or the same one once, was asked. An input that does not fit this set's schema is a deny by `engine`. */
export function replay(set: PolicySet, answers: readonly Answer[]): readonly Answer[] {
  return answers.map(({ action, resource, input }) => ({ action, resource, ...judge(set, JSON.parse(input) as Question), input }))
}

/** Deny on anything but a clean permit: Cedar skips a policy that fails, and the skipped one may be the forbid that should have spoken. */
function judge(set: PolicySet, question: Question): Judgement {
  const verdict = evaluate(set.texts, set.digest, question)
  if (!verdict) return { outcome: 'deny', policies: [], obligations: {}, diagnostics: ['engine'] }
  const { allow, determining: policies, failed: diagnostics } = verdict
  if (diagnostics.length > 0) return { outcome: 'deny', policies: [], obligations: {}, diagnostics }
  return allow
    ? { outcome: 'permit', policies, obligations: least(policies.map((id) => set.maxTtl.get(id))), diagnostics }
    : { outcome: 'deny', policies, obligations: {}, diagnostics }
}

function merge(answers: readonly Answer[]): Pick<Decision, 'outcome' | 'policies' | 'obligations'> {
  const permitted = answers.every(({ outcome }) => outcome === 'permit')
  return {
    outcome: permitted ? 'permit' : 'deny',
    policies: [...new Set(answers.flatMap(({ policies }) => policies))].toSorted(),
    obligations: permitted ? least(answers.map(({ obligations }) => obligations.maxTtl)) : {},
  }
}

function least(maxTtls: readonly (number | undefined)[]): Obligations {
  const limits = maxTtls.filter((maxTtl) => maxTtl !== undefined)
  return limits.length === 0 ? {} : { maxTtl: Math.min(...limits) }
}

/** Judgements of sets that never read the time, by canonical question. Dropped with their set. */
const memory = new WeakMap<PolicySet, Map<string, Judgement>>()
/** Questions remembered for one set, and the longest (in characters) that is: 8 MiB at most. An agent's nightly tasks are a handful of questions. */
const mostRemembered = { questions: 2_048, length: 4_096 }

function recall(set: PolicySet, key: string, ask: () => Judgement): Judgement {
  const judgements = memory.get(set) ?? new Map<string, Judgement>()
  memory.set(set, judgements)
  const known = judgements.get(key)
  if (known) return known
  const judgement = ask()
  // A failure of the engine may pass, so it is asked again.
  if (judgement.diagnostics.length > 0 || key.length > mostRemembered.length) return judgement
  const [oldest] = judgements.keys()
  if (judgements.size >= mostRemembered.questions && oldest !== undefined) judgements.delete(oldest)
  judgements.set(key, judgement)
  return judgement
}
