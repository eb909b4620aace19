import { createHash } from 'node:crypto'
import { BrokerError } from '../base/errors.ts'
import type { Claims } from './claims.ts'
import { skew } from './claims.ts'
import type { Compact } from './compact.ts'
import { Refusal } from './fault.ts'
import type { Rules } from './issuer.ts'

/** Marks a key as used; false when it was already. Exact over all brokers of one ledger, and over restarts. */
export type Spend = (key: string, expiresAt: Date) => Promise<boolean>

/**
 * Uses up a single-use token. Called last, so that a token refused for another reason is not lost.
 *
 * @throws Refusal `replayed`, BrokerError `store_unavailable`
 */
export async function spendOnce(token: Compact, claims: Claims, rules: Rules, expiry: number, spend: Spend): Promise<void> {
  let first: boolean
  try {
    // Kept until no broker accepts the token any more, not even one whose clock is behind by the skew.
    first = await spend(replayKey(token, claims, rules), new Date((expiry + 2 * skew) * 1_000))
  } catch (error) {
    if (error instanceof BrokerError) throw error
    throw new BrokerError('store_unavailable', 'The ledger could not be written', { cause: error })
  }
  if (!first) throw new Refusal('replayed')
}

/**
 * The same value for all forms of one token: its `jti`, otherwise the signed content. Never the whole token, because anyone can compute the
 * twin (r, n-s) of its ECDSA signature (r, s), which verifies too.
 */
function replayKey(token: Compact, { jti }: Claims, { issuer, trustDomain }: Rules): string {
  const one = jti === undefined ? token.signed : JSON.stringify([issuer ?? `spiffe://${trustDomain}`, jti])
  return createHash('sha256').update(one).digest('hex')
}
