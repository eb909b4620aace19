import { join } from 'node:path'
import { z } from 'zod'
import { durationWithin } from '../../base/duration.ts'
import { ConfigurationError, describe } from '../../base/errors.ts'
import { Secret } from '../../base/secret.ts'
import type { AuthorizationDetail, Minted, Provider, ProviderKind, Reservation } from '../provider.ts'
import { ProviderError } from '../provider.ts'
import { keyFile } from './keyfile.ts'
import { openKeyring } from './keyring.ts'
import { longestLife } from './ring.ts'
import { longestToken, readToken, signToken } from './token.ts'

/** Its entry under `providers:`. An hour at least, because a key is known ten minutes before it signs; 90 days at most. */
const settings = z.strictObject({
  algorithm: z.enum(['ES256', 'EdDSA']).default('ES256'),
  rotate_every: durationWithin(3_600_000, 90 * 24 * 3_600_000).prefault('24h'),
})

const grant = z.strictObject({
  /** Who may accept the token: the resource server's identifier, RFC 8707 section 2. */
  audience: z
    .string()
    .max(2_048)
    .refine((uri) => URL.canParse(uri) && !uri.includes('#'), 'must be an absolute URI without a fragment'),
  /** RFC 6749 section 3.3. */
  scope: z
    .string()
    .max(1_024)
    .regex(/^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/, 'must be scope names with one space between them'),
})

export type JwtSettings = z.output<typeof settings>
export type JwtGrant = z.output<typeof grant>

/** Access tokens that the broker signs itself: works with nothing else installed. They are dead as soon as introspection knows of their end. */
export const jwtKind: ProviderKind<JwtSettings, JwtGrant> = {
  kind: 'jwt',
  settings,
  grant,
  async connect(name, { algorithm, rotate_every }, { publicUrl, keys, clock }) {
    const file = keyFile(join(keys, `${name}.json`), clock)
    const keyring = await openKeyring(file, { algorithm, rotateEvery: rotate_every }, clock).catch((cause: unknown) => {
      throw new ConfigurationError([`provider ${name}: ${describe(cause)}`])
    })

    async function mint(reservation: Reservation<JwtGrant>): Promise<Minted> {
      const { iat, exp } = lifeOf(reservation, name)
      const content = {
        iss: publicUrl,
        sub: reservation.subject,
        aud: reservation.settings.audience,
        client_id: reservation.agent,
        scope: reservation.settings.scope,
        jti: reservation.lease,
        iat,
        exp,
        task: reservation.task,
        policy_digest: reservation.policyDigest,
        ...narrowed(reservation),
      }
      const token = await signToken(content, await keyring.signer())
      if (token.length > longestToken)
        throw new ProviderError('refused', `${name} signs no token of more than ${longestToken} characters, and this one has ${token.length}`, 'no')
      return { credential: { type: 'bearer_token', token: new Secret(token) }, expiresAt: new Date(exp * 1_000) }
    }

    return {
      name,
      kind: 'jwt',
      revocation: () => 'provider',
      local: true,
      mint,
      // The same lease with a later end. The token before it ends with the lease, or by its own `exp`.
      refresh: mint,
      revoke: async () => ({ by: 'broker', statement: 'introspection answers inactive', at: new Date(clock()).toISOString() }),
      // A signature leaves nothing behind: a token whose answer was lost is known to nobody.
      recover: async () => ({ minted: false }),
      async check() {
        await keyring.check().catch((cause: unknown) => {
          throw new ProviderError('unavailable', `${name} cannot use its key file; it signs with the keys it has`, 'no', { cause })
        })
      },
      tokens: {
        keys: () => keyring.published(),
        read: (token) => readToken(token, publicUrl, keyring),
      },
    } satisfies Provider<JwtGrant>
  },
}

/** Nothing where there are no parameters: an empty detail would read like a limit. */
function narrowed({ grant, parameters }: Reservation): { authorization_details?: [AuthorizationDetail] } {
  if (Object.keys(parameters).length === 0) return {}
  return { authorization_details: [{ type: 'urn:mayfly:grant', identifier: grant, parameters }] }
}

/** Whole seconds, and so never past the end that was granted; a day at most, for as long as keys are kept. @throws ProviderError */
function lifeOf({ issuedAt, expiresAt }: Reservation, name: string): { iat: number; exp: number } {
  const iat = Math.floor(issuedAt.getTime() / 1_000)
  const exp = Math.min(Math.floor(expiresAt.getTime() / 1_000), iat + longestLife / 1_000)
  if (exp <= iat) throw new ProviderError('refused', `${name} signs nothing that lives for less than a second`, 'no')
  return { iat, exp }
}
