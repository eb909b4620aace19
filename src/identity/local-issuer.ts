import { randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, SignJWT } from 'jose'
import { z } from 'zod'
import { ifJson } from '../base/json.ts'
import { createOnce, openPrivate } from '../base/key-file.ts'

/** Signs workload tokens for development and tests. Its subjects are `agent:<name>`, `operator:<name>` and `resource:<name>`. */
export interface LocalIssuer {
  /** Its public keys, to be pinned. */
  readonly jwks: { readonly keys: readonly Readonly<Record<string, string>>[] }
  /** A token with these claims; `iss`, `iat`, `exp` and `jti` are added. @param now milliseconds since 1970 */
  sign(claims: LocalClaims, now: number): Promise<string>
}

export interface LocalClaims {
  readonly sub: string
  readonly aud: string
  readonly lifetimeSeconds: number
  readonly [claim: string]: unknown
}

/** Not a URL, so that nobody is ever asked for its keys. */
export const localIssuer = 'urn:mayfly:local-issuer'

const base64url = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const keyShape = z.strictObject({ kty: z.literal('EC'), crv: z.literal('P-256'), x: base64url, y: base64url, d: base64url })

/** Loads the ES256 key in this file, or makes both. @throws Error that says why the file cannot be used */
export async function openLocalIssuer(file: string): Promise<LocalIssuer> {
  await createOnce(file, newKey)
  const jwk = await readKey(file)
  const key = await importJWK(jwk, 'ES256')
  const { d: _private, ...open } = jwk
  const kid = await calculateJwkThumbprint(open)

  return {
    jwks: { keys: [{ ...open, kid, alg: 'ES256', use: 'sig' }] },
    sign({ lifetimeSeconds, ...claims }, now) {
      const iat = Math.floor(now / 1_000)
      const all = { ...claims, iss: localIssuer, iat, exp: iat + lifetimeSeconds, jti: randomUUID() }
      return new SignJWT(all).setProtectedHeader({ alg: 'ES256', kid, typ: 'JWT' }).sign(key)
    },
  }
}

type PrivateKey = z.output<typeof keyShape>

/** The key in the file. Refused if others can read it, because they could then act as any agent and any operator. */
async function readKey(file: string): Promise<PrivateKey> {
  await using handle = await openPrivate(file)
  const { size } = await handle.stat()
  const { data } = keyShape.safeParse(size <= 4_096 ? ifJson(await handle.readFile('utf8')) : undefined)
  if (!data) throw new Error(`${file} is not the key of a local issuer`)
  return data
}

async function newKey(): Promise<string> {
  const { privateKey } = await generateKeyPair('ES256', { extractable: true })
  return `${JSON.stringify(keyShape.parse(await exportJWK(privateKey)))}\n`
}
