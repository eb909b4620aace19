import { type Json, textsIn } from '../base/json.ts'
import { canonical, digestIn } from './canonical.ts'
import type { EntryFields } from './leaf.ts'
import type { Fault } from './fault.ts'

/** An answer as it is archived, as far as it is read here. */
type Answer = { readonly outcome?: unknown } | null

interface DecidedBody {
  readonly outcome?: unknown
  readonly policies?: unknown
  readonly policy_digest?: unknown
  readonly answers_digest?: unknown
}

/** Holds decisions against the answers that they were made of, and against the policy set that gave them. */
export interface DecisionCheck {
  policy(digest: string, document: Json): void
  check(number: number, entry: EntryFields, answers: readonly Json[] | undefined): void
  count(): number
}

/**
 * What the digest of a decision binds: every answer with the policy engine's whole input. A decision that permits must be made of permits alone, and of
 * policies that are in its archived set. Whether that set would say so again is for `mayfly policy replay`, which has the engine.
 */
export function createDecisionCheck(fault: (fault: Fault) => void): DecisionCheck {
  /** Ids of the policies by the digest of their set. */
  const archive = new Map<string, ReadonlySet<string>>()
  let count = 0
  return {
    count: () => count,

    policy(digest, document) {
      const { policies } = document as { readonly policies?: object }
      archive.set(digest, new Set(Object.keys(policies ?? {})))
      if (digestIn(document) !== digest) fault({ message: `the archived policy set ${digest} is not the one that has this digest: it was changed` })
    },

    check(number, { id, body }, answers) {
      count++
      const say = (message: string): void => fault({ number, id, message })
      const { outcome, policies, policy_digest: set, answers_digest: digest } = (body ?? {}) as DecidedBody
      const known = typeof set === 'string' ? archive.get(set) : undefined
      if (!known) say('rests on a policy set that is not in the archive')
      if (!answers) return say('is a decision whose inputs and answers are missing')
      if (digestIn(answers) !== digest) return say('is a decision that was not made on these inputs: the digest over its answers is another')
      const each = answers as readonly Answer[]
      const isPermit = each.length > 0 && each.every((answer) => answer?.outcome === 'permit')
      if ((outcome === 'permit') !== isPermit) say('is a decision that its answers do not come to')
      const determining = [...new Set(answers.flatMap((answer) => textsIn(answer, 'policies')))].toSorted()
      if (canonical(determining) !== canonical(policies ?? null)) say('names other policies than its answers do')
      const strange = determining.find((policy) => known && !known.has(policy))
      if (strange !== undefined) say(`was determined by a policy that is not in its set: ${JSON.stringify(strange)}`)
    },
  }
}
