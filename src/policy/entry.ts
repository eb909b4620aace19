import type { Match } from '../identity/match.ts'

/** An entry of the catalogue that an actor matches; a human answers for it. */
export interface Agent {
  readonly name: string
  readonly issuer: string
  readonly match: Match
  readonly owner: string
  readonly groups: readonly string[]
  /** Verified attributes of the actor that the policy may see, by name. */
  readonly tags: readonly string[]
  /** At most this many leases alive at once, over all brokers. */
  readonly maxLiveLeases: number
}

/** A class of tasks with an owner, limits and the grants it may ask for. */
export interface Kind {
  readonly name: string
  readonly owner: string
  /** Milliseconds that a task may ask for, from when it is opened or renewed. */
  readonly maxDuration: number
  /** Milliseconds from when a task is opened, beyond which no renewal goes. Undefined: it may be renewed for ever. */
  readonly maxLife?: number
  readonly grants: readonly string[]
}

/** What a task may ask for by name. */
export interface Grant {
  readonly name: string
  readonly provider: string
  /** Milliseconds. */
  readonly maxTtl: number
  readonly sensitivity: string
  /** Whether the credential cannot be ended at all (a static secret): flagged everywhere. */
  readonly standing: boolean
  /** Typed parameters: the whole value must match the anchored pattern. */
  readonly parameters: Readonly<Record<string, RegExp>>
  /** The provider's own part, parsed by the provider kind's `grant` shape. */
  readonly settings: unknown
}

/** A grant as one task asks for it: parameters validated, ttl within the grant's limit. */
export interface AskedGrant {
  readonly grant: Grant
  readonly parameters: Readonly<Record<string, string>>
  /** Milliseconds that its credential is to last, whatever is left of the task: each refresh asks for as much. */
  readonly ttl: number
}
