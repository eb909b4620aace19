import { decodeProtectedHeader, jwtVerify, SignJWT } from 'jose'
import { z } from 'zod'
import { isId, type LeaseId, type TaskId } from '../../base/ids.ts'
import type { TokenClaims } from '../provider.ts'
import type { Keyring, Signer } from './keyring.ts'

/** Characters of a token, for it travels in a header. Ours have about 900; a subject may take 2,048, a scope 1,024, and each parameter 256. */
export const longestToken = 8_192

/** Claims of RFC 9068, exactly those that we write. */
const claims: z.ZodType<TokenClaims> = z.strictObject({
  iss: z.string(),
  sub: z.string(),
  aud: z.string(),
  client_id: z.string(),
  scope: z.string(),
  jti: z.custom<LeaseId>((value) => typeof value === 'string' && isId('lease', value)),
  iat: z.int(),
  exp: z.int(),
  task: z.custom<TaskId>((value) => typeof value === 'string' && isId('task', value)),
  policy_digest: z.string(),
  authorization_details: z
    .tuple([z.strictObject({ type: z.literal('urn:mayfly:grant'), identifier: z.string(), parameters: z.record(z.string(), z.string()) })])
    .exactOptional(),
})

/** An access token as RFC 9068 section 2 shapes it. */
export function signToken(content: TokenClaims, { alg, kid, key }: Signer): Promise<string> {
  return new SignJWT({ ...content }).setProtectedHeader({ typ: 'at+jwt', alg, kid }).sign(key)
}

/** The claims of a token that one of our keys signed, whether or not it has ended. Why another was refused matters to nobody: it is not active. */
export async function readToken(token: string, issuer: string, keyring: Keyring): Promise<TokenClaims | undefined> {
  if (token.length > longestToken) return undefined
  try {
    const { kid } = decodeProtectedHeader(token)
    const verifier = kid === undefined ? undefined : await keyring.verifier(kid)
    if (!verifier) return undefined
    // jose always checks `exp`; at the beginning of time nothing has ended.
    const verified = await jwtVerify(token, verifier.key, { typ: 'at+jwt', algorithms: [verifier.alg], issuer, currentDate: new Date(0) })
    return claims.parse(verified.payload)
  } catch {
    // jose and zod throw for every kind of bad token, and anyone may present anything.
    return undefined
  }
}
