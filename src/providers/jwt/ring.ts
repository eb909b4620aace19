import { calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'
import { z } from 'zod'

/** The longest life of a token, in milliseconds. With it stands for how long a key must stay known after it signed for the last time. */
export const longestLife = 24 * 3_600_000

/**
 * Milliseconds that a new key is known before it signs. Every broker looks at the file once a minute, and resource servers keep a key set for a
 * few minutes: all of them know a key before they meet its first token.
 */
export const ahead = 10 * 60_000

export type Algorithm = 'ES256' | 'EdDSA'

const base64url = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const about = {
  kid: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/),
  created_at: z.iso.datetime(),
  signs_from: z.iso.datetime(),
}

/** A private key as it stands in the file: RFC 7517, with the two times that rotation lives by. */
const ringKey = z.discriminatedUnion('alg', [
  z.strictObject({ alg: z.literal('ES256'), kty: z.literal('EC'), crv: z.literal('P-256'), x: base64url, y: base64url, d: base64url, ...about }),
  z.strictObject({ alg: z.literal('EdDSA'), kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: base64url, d: base64url, ...about }),
])

export type RingKey = z.output<typeof ringKey>

/** All keys of one provider, oldest first: a JWK set. */
export const ringShape = z.strictObject({ keys: z.array(ringKey).min(1).max(256) })

export type Ring = z.output<typeof ringShape>

/** A new key. @param signsFrom milliseconds since 1970, like `now` */
export async function newKey(algorithm: Algorithm, now: number, signsFrom: number): Promise<RingKey> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
  const jwk = await exportJWK(privateKey)
  const times = { created_at: new Date(now).toISOString(), signs_from: new Date(signsFrom).toISOString() }
  return ringKey.parse({ ...jwk, alg: algorithm, kid: await calculateJwkThumbprint(jwk), ...times })
}

/** The key that signs now: the newest whose time has come. The oldest where this machine's clock is behind that of whoever made the ring. */
export function signerOf(ring: Ring, now: number): RingKey {
  const [oldest] = ring.keys
  if (!oldest) throw new RangeError('a ring has at least one key')
  return ring.keys.findLast((key) => Date.parse(key.signs_from) <= now) ?? oldest
}

/** The keys with which a living token may have been signed, and the one that signs next. A key leaves once its successor has signed for a day. */
export function knownKeys(ring: Ring, now: number): RingKey[] {
  return ring.keys.filter((_, at) => {
    const successor = ring.keys[at + 1]
    return !successor || now < Date.parse(successor.signs_from) + longestLife
  })
}

/** Whether it is time for a new key: the newest already signs, and is too old or of an algorithm that is no longer wanted. */
export function rotationDue(ring: Ring, algorithm: Algorithm, rotateEvery: number, now: number): boolean {
  const newest = ring.keys.at(-1)
  if (!newest || now < Date.parse(newest.signs_from)) return false
  return newest.alg !== algorithm || now >= Date.parse(newest.created_at) + rotateEvery
}

/** What anyone may see of a key. */
export function publicPart({ alg, kid, ...key }: RingKey): Record<string, string> {
  const { kty, crv, x } = key
  return { kty, crv, x, ...('y' in key ? { y: key.y } : {}), kid, alg, use: 'sig' }
}
