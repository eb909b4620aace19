import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { ConfigurationError, describe } from '../base/errors.ts'
import { keyFile } from './jwt/keyfile.ts'
import { openKeyring } from './jwt/keyring.ts'
import type { ProviderSurroundings, SignedTokens } from './provider.ts'

/** By what the broker names itself to a backend: JWTs of its own, under keys that its JWK set publishes. */
export interface Assertions {
  /** One for one login (RFC 7523 section 3). @param subject the broker itself unless it is given */
  sign(subject?: string): Promise<string>
  readonly tokens: SignedTokens
}

/** Who takes an assertion, and for how many seconds: the backends take the same one as often as it is shown, so it is short-lived. */
export interface Addressed {
  readonly audience: string
  readonly life: number
}

/** Keys of its own, apart from those of access tokens. @throws ConfigurationError */
export async function openAssertions(
  name: string,
  { audience, life }: Addressed,
  { publicUrl, keys, clock }: ProviderSurroundings,
): Promise<Assertions> {
  const file = keyFile(join(keys, `${name}.json`), clock)
  const keyring = await openKeyring(file, { algorithm: 'ES256', rotateEvery: 24 * 3_600_000 }, clock).catch((cause: unknown) => {
    throw new ConfigurationError([`provider ${name}: ${describe(cause)}`])
  })
  return {
    async sign(subject = publicUrl) {
      const { alg, kid, key } = await keyring.signer()
      const iat = Math.floor(clock() / 1_000)
      const claims = { iss: publicUrl, sub: subject, aud: audience, iat, nbf: iat, exp: iat + life, jti: randomUUID() }
      return await new SignJWT(claims).setProtectedHeader({ typ: 'JWT', alg, kid }).sign(key)
    },
    tokens: {
      keys: () => keyring.published(),
      // None of them is an access token: whoever is shown one is told that it is not active.
      read: async () => undefined,
    },
  }
}
