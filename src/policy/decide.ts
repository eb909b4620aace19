import type { Digest } from '../proof/canonical.ts'
import type { Actor } from '../identity/actor.ts'
import type { Agent, Kind, AskedGrant } from './catalogue.ts'

/** What may be asked of the policy: `issue` and `renew` about a grant, `declare` about a kind (a task without grants). */
export type Action = 'issue' | 'renew' | 'declare'

/** Everything a decision may rest on. Purpose and labels are missing on purpose: text written by an agent never decides. */
export interface Inquiry {
  readonly action: Action
  readonly actor: Actor
  readonly agent: Agent
  readonly kind: Kind
  /** Milliseconds that the task is to last from now. */
  readonly duration: number
  readonly grants: readonly AskedGrant[]
}

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
