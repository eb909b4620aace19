import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { ConfigurationError, describe } from '../../base/errors.ts'
import { keyFile } from '../jwt/keyfile.ts'
import { openKeyring } from '../jwt/keyring.ts'
import type { ProviderSurroundings, SignedTokens } from '../provider.ts'

/** By what the broker names itself to Vault: JWTs of its own, under keys that its JWK set publishes. */
export interface Assertions {
  /** One for one login (RFC 7523 section 3). Vault does not look at `jti`, so it is short-lived. */
  sign(): Promise<string>
  readonly tokens: SignedTokens
}

/** Seconds: Vault takes the same assertion as often as it is shown (seen on OpenBao 2.7.2). */
const life = 60

/** Keys of its own, apart from those of access tokens. @throws ConfigurationError */
export async function openAssertions(name: string, audience: string, { publicUrl, keys, clock }: ProviderSurroundings): Promise<Assertions> {
  const file = keyFile(join(keys, `${name}.json`), clock)
  const keyring = await openKeyring(file, { algorithm: 'ES256', rotateEvery: 24 * 3_600_000 }, clock).catch((cause: unknown) => {
    throw new ConfigurationError([`provider ${name}: ${describe(cause)}`])
  })
  return {
    async sign() {
      const { alg, kid, key } = await keyring.signer()
      const iat = Math.floor(clock() / 1_000)
      const claims = { iss: publicUrl, sub: publicUrl, aud: audience, iat, nbf: iat, exp: iat + life, jti: randomUUID() }
      return await new SignJWT(claims).setProtectedHeader({ typ: 'JWT', alg, kid }).sign(key)
    },
    tokens: {
      keys: () => keyring.published(),
      // None of them is an access token: whoever is shown one is told that it is not active.
      read: async () => undefined,
    },
  }
}
