import { createHash } from 'node:crypto'
import { forgetOldest } from '../base/forget-oldest.ts'
import type { Actor } from './actor.ts'
import { type Times, timeFault } from './claims.ts'
import type { KeySource } from './keys.ts'
import type { VerificationKey } from './keyset.ts'

/** Tokens that are remembered: about 11 MB, and more than the agents of one broker have. */
const most = 10_000

interface Verified {
  readonly actor: Actor
  readonly times: Times
  readonly limits: { readonly maxLifetime: number; readonly issueTime: boolean }
  readonly keys: KeySource
  /** That verified it: an object that lives as long as its set. */
  readonly key: VerificationKey
}

/** Reusable tokens that were verified already: most calls of an agent bring the same one. */
export interface Memory {
  /** Whose token this is, if it was verified with the keys that its issuer still has, and is still in its time. @param now seconds since 1970 */
  recall(token: string, now: number): Actor | undefined
  keep(token: string, verified: Verified): void
}

export function createMemory(): Memory {
  const known = new Map<string, Verified>()
  return {
    recall(token, now) {
      const name = nameOf(token)
      const found = known.get(name)
      if (!found) return undefined
      const { keys, key, times, limits } = found
      const holds = keys.current()?.keys.get(key.kid) === key && timeFault(times, limits, now) === undefined
      if (holds) return found.actor
      known.delete(name)
      return undefined
    },
    keep(token, verified) {
      known.set(nameOf(token), verified)
      // It is verified again if it comes again, so nothing needs to be exact here.
      forgetOldest(known, most)
    },
  }
}

/** The hash of the whole token: of the whole, so that only the very same text matches; a hash, so that no token stays in memory. */
const nameOf = (token: string): string => createHash('sha256').update(token).digest('base64')
