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
 * Uses up a single-use token. Called last, so that a token which is refused for something else is not lost.
 *
 * @throws Refusal `replayed`, BrokerError `store_unavailable`
 */
export async function spendOnce(token: Compact, claims: Claims, rules: Rules, expiry: number, spend: Spend): Promise<void> {
  let first: boolean
  try {
    // Kept until no broker accepts the token, one whose clock is behind by the skew included.
    first = await spend(replayKey(token, claims, rules), new Date((expiry + 2 * skew) * 1_000))
  } catch (error) {
    if (error instanceof BrokerError) throw error
    throw new BrokerError('store_unavailable', 'The ledger could not be written', { cause: error })
  }
  if (!first) throw new Refusal('replayed')
}

/**
 * What is the same in all forms of one token: its `jti`, else what was signed. Never the whole token, whose ECDSA signature (r, s) has the twin (r, n-s) that anyone can
 * compute and that verifies too.
 */
function replayKey(token: Compact, { jti }: Claims, { issuer, trustDomain }: Rules): string {
  const one = jti === undefined ? token.signed : JSON.stringify([issuer ?? `spiffe://${trustDomain}`, jti])
  return createHash('sha256').update(one).digest('hex')
}
