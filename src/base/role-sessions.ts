import type { LeaseId } from './ids.ts'

/** A session of an AWS role as it is known before STS hears of it: both parts are chosen here, and with them it can be found and denied whatever the answer was. */
export interface RoleSession {
  /** Name of the role, with its path. */
  readonly role: string
  /** RoleSessionName: the cohort that was open when it was taken (3 of base36), and its number there (5). */
  readonly name: string
}

/** What became of asking for a name. `ended`: the lease is not being minted any more. `full`: no role of the pool takes another session. */
export type Reserved = { readonly outcome: 'reserved'; readonly session: RoleSession } | { readonly outcome: 'ended' } | { readonly outcome: 'full' }

/** A session that is to be dead, and how far that is. */
export interface DeniedSession extends RoleSession {
  /** Milliseconds until all that anybody was given of it has ended by itself, by the store's clock; negative afterwards. */
  readonly left: number
  /** When that is. */
  readonly endsAt: Date
  /** The first generation of its role's kill list that denies it; undefined until one was written. */
  readonly generation: number | undefined
  readonly writtenAt: Date | undefined
  /** When that generation, or a later one, was seen to be in force. */
  readonly confirmedAt: Date | undefined
}

/** The names of sessions that brokers take and deny, kept where all of them see it. Every verb is one commit. @throws BrokerError `store_unavailable` */
export interface RoleSessions {
  /**
   * Takes a name that no session of the role has, in the cohort that is open, of the role with the fewest denied sessions, and journals it as a handle of
   * the lease: from here on the session can be denied, whatever STS answers.
   */
  reserve(provider: string, lease: LeaseId, roles: readonly string[]): Promise<Reserved>
  /** Marks all sessions of a lease as to be denied, once and for all, and tells how far each is. Empty: none was ever taken. */
  deny(provider: string, lease: LeaseId): Promise<readonly DeniedSession[]>
}
