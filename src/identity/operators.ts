import type { Actor } from './actor.ts'
import { type Match, matches } from './match.ts'

export type Role = 'operator' | 'reviewer'

/** An actor with these attributes runs the broker, or reads its ledger. */
export interface OperatorEntry {
  readonly issuer: string
  readonly match: Match
  readonly roles: readonly Role[]
}

/** The roles of every entry that means this actor: the same for whoever brings a bearer token and for whoever signs in to the console. */
export const rolesOf = (operators: readonly OperatorEntry[], actor: Actor): ReadonlySet<Role> =>
  new Set(operators.filter((entry) => matches(actor, entry.issuer, entry.match)).flatMap((entry) => entry.roles))
