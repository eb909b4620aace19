import { forgetOldest } from '../base/forget-oldest.ts'
import { canonical, type Digest } from '../proof/canonical.ts'
import type { PolicySet } from './document.ts'
import { evaluate, type CedarRequest } from './engine.ts'
import type { Action, Inquiry } from './inquiry.ts'
import { askedAt, moment, questionsOf, type TimelessQuestion } from './question.ts'

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

/** An answer that said no, and why: by the policies that forbid it; where some failed, by those; and where there is neither, since none permits it. */
export type Denial = Pick<Answer, 'resource' | 'policies' | 'diagnostics'>

/** The policy's judgement on one inquiry. Permit only if every answer permits. */
export interface Decision {
  readonly outcome: 'permit' | 'deny'
  /** Ids of the determining policies of all answers, sorted, each once. Of a denial, also those of answers that permitted: `denialsIn` says what denied. */
  readonly policies: readonly string[]
  readonly policyDigest: Digest
  readonly obligations: Obligations
  readonly answers: readonly Answer[]
}

/** The answer of a set to one question. */
type Judgement = Pick<Answer, 'outcome' | 'policies' | 'obligations' | 'diagnostics'>
type Asked = Judgement & Pick<Answer, 'input'>

/**
 * Asks the policy about every grant of the inquiry, or about the kind where there is none. Pure: the same set, inquiry and time give the same
 * decision, byte for byte.
 */
export function decide(set: PolicySet, inquiry: Inquiry, now: Date): Decision {
  const anew = set.readsNow || !comesAgain(inquiry)
  const answers = questionsOf(inquiry).map(({ action, resource, timeless }) => {
    return { action, resource, ...(anew ? ask(set, askedAt(timeless, now)) : recall(set, timeless, now)) }
  })
  return { ...merge(answers), policyDigest: set.digest, answers }
}

/** Asks this set a recorded question of any set. An input that does not fit this set's schema is a deny by `engine`. */
export function replay(set: PolicySet, answers: readonly Answer[]): readonly Answer[] {
  return answers.map(({ action, resource, input }) => ({ action, resource, ...judge(set, JSON.parse(input) as CedarRequest), input }))
}

/** What of a decision said no; nothing of one that permits. */
export const denialsIn = (answers: readonly Answer[]): readonly Denial[] =>
  answers.flatMap(({ outcome, resource, policies, diagnostics }) => (outcome === 'deny' ? [{ resource, policies, diagnostics }] : []))

/** The answer of a set to one question, and the question as it is kept. */
const ask = (set: PolicySet, question: CedarRequest): Asked => ({ ...judge(set, question), input: canonical(question) })

/** Deny on anything but a clean permit: Cedar skips a policy that fails, and the skipped one may be the forbid that should have spoken. */
function judge(set: PolicySet, question: CedarRequest): Judgement {
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

/** A judgement that holds at any time, and its question's canonical text before and behind the time at which it is asked. */
interface Remembered {
  readonly judgement: Judgement
  readonly before: string
  readonly behind: string
}

/** Answers of sets that never read the time, by question. Dropped with their set. */
const memory = new WeakMap<PolicySet, Map<string, Remembered>>()
/** Questions remembered for one set, and the longest (in characters) that is: 16 MiB at most. An agent's nightly tasks are a handful of questions. */
const mostRemembered = { questions: 2_048, length: 4_096 }

/**
 * Whether the same may be asked another time. What agents ask for is whole seconds; what is left of a task, or until a moment, is not, and one agent that
 * refreshes would have everybody else's declarations forgotten.
 */
const comesAgain = ({ duration }: Inquiry): boolean => duration % 1_000 === 0

/** The same as `ask`, at a twentieth of the cost where the same was asked before at another time. */
function recall(set: PolicySet, timeless: TimelessQuestion, now: Date): Asked {
  const remembered = memory.get(set) ?? new Map<string, Remembered>()
  memory.set(set, remembered)
  // Not canonical JSON, which would cost more than everything else here: a question built in another order is only asked once more.
  const key = JSON.stringify(timeless)
  const known = remembered.get(key)
  if (known) {
    // Behind all others: what goes first is what was asked least recently.
    remembered.delete(key)
    remembered.set(key, known)
    return { ...known.judgement, input: known.before + canonical(moment(now)) + known.behind }
  }
  const { input, ...judgement } = ask(set, askedAt(timeless, now))
  // A failure of the engine may pass, so it is asked again.
  if (judgement.diagnostics.length > 0 || key.length > mostRemembered.length) return { ...judgement, input }
  // The time is the only value of its kind, and no text in the question can look like it: there its quotes would be escaped.
  const [before, behind] = input.split(canonical(moment(now)), 2) as [string, string]
  remembered.set(key, { judgement, before, behind })
  forgetOldest(remembered, mostRemembered.questions)
  return { ...judgement, input }
}
