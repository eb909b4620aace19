import type { TokenClaims } from '../providers/provider.ts'
import type { Broker } from './task.ts'
import { isAlive } from '../ledger/tokens.ts'

/**
 * The claims of a living token that the broker signed (RFC 7662); undefined for anything else, without saying what was wrong with it.
 *
 * Whether it lives is read from the ledger each time: inactive in the very next answer of any broker after its end was committed.
 * @param audiences those whose tokens the caller may see
 */
export async function introspect(broker: Broker, token: string, audiences: readonly string[] | 'all'): Promise<TokenClaims | undefined> {
  for (const { provider } of broker.targets.values()) {
    const claims = await provider.tokens?.read(token)
    if (!claims) continue
    if (audiences !== 'all' && !audiences.includes(claims.aud)) return undefined
    return (await isAlive(broker.ledger, { lease: claims.jti, exp: claims.exp })) ? claims : undefined
  }
  return undefined
}
