import type { Account } from './account.ts'
import { whyCannot } from './caller.ts'
import type { Session } from './sessions.ts'

/** A session that an AWS has given, as that AWS knows it, whoever holds it. */
export interface GivenSession {
  /** RoleSessionName. */
  readonly name: string
  /** Made of another session, by GetScopedCredentials. */
  readonly isChild: boolean
  readonly secrets: readonly string[]
  /** Whether it can do this, by all policies as they are heeded at a moment. @param moment milliseconds since the epoch; now, where it is absent */
  may(action: string, resource: string, moment?: number): boolean
}

/** @param at looks at the account as if it were then */
export function givenSession(account: Account, session: Session, at: <Seen>(moment: number, look: () => Seen) => Seen): GivenSession {
  return {
    name: session.name,
    isChild: session.parent !== undefined,
    secrets: [session.secret, session.token],
    may: (action, resource, moment = account.now()) =>
      at(moment, () => account.now() < session.expiresAt && whyCannot(account, { kind: 'session', session }, { action, resource }) === undefined),
  }
}
