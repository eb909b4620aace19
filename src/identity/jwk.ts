import { z } from 'zod'
import { type Algorithm, isRsa, sameAlgorithm } from './algorithm.ts'
import type { ProfileName } from './actor.ts'
import { isPrintable } from './claims.ts'

/** A public key that is fit for use, with the one algorithm that it is for (RFC 8725bis: one algorithm per key). */
export interface PublicKey {
  readonly kid: string
  readonly alg: Algorithm
  /** Only the members that make the key, so that nothing else of the document decides. */
  readonly jwk: Readonly<Record<string, string>>
}

const base64url = z
  .string()
  .max(2_048)
  .regex(/^[A-Za-z0-9_-]+$/)

/** Every member that only a private or a symmetric key has (RFC 7518 section 6, RFC 8037). */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'] as const

/** Whether a JWK holds more than a public key. Who publishes that has lost the key. */
export const holdsPrivate = (key: object): boolean => privateMembers.some((member) => member in key)

/** A public key by RFC 7518 section 6 and RFC 8037, and nothing more. */
const keyShape = z
  .discriminatedUnion('kty', [
    z.looseObject({ kty: z.literal('RSA'), n: base64url, e: base64url }),
    z.looseObject({ kty: z.literal('EC'), crv: z.enum(['P-256', 'P-384', 'P-521']), x: base64url, y: base64url }),
    z.looseObject({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), x: base64url }),
  ])
  .refine((key) => !holdsPrivate(key))

const aboutShape = z.looseObject({
  kid: z.string().min(1).max(512).refine(isPrintable),
  alg: z.string().optional(),
  use: z.string().optional(),
  key_ops: z.array(z.string()).optional(),
})

/** Keys of one set. Azure, which has the most, publishes about ten. */
const setShape = z.looseObject({ keys: z.array(z.unknown()).max(64) })

export interface KeyRules {
  readonly profile: ProfileName
  readonly algorithms: readonly Algorithm[]
}

/**
 * The keys of a JWK set (RFC 7517) or SPIFFE bundle that may be used. What is unfit is left out and the rest stays, since sets hold keys for other uses too. Two different keys of
 * one `kid` are both left out: which of them is meant would be a guess.
 *
 * @throws SyntaxError when it is no key set at all
 */
export function readKeys(document: unknown, rules: KeyRules): readonly PublicKey[] {
  const set = setShape.safeParse(document)
  if (!set.success) throw new SyntaxError('not a JWK set of at most 64 keys')
  const fit = set.data.keys.flatMap((entry) => readKey(entry, rules) ?? [])
  const unlike = (one: PublicKey, other: PublicKey): boolean => one.kid === other.kid && JSON.stringify(one) !== JSON.stringify(other)
  const clear = fit.filter((key) => !fit.some((other) => unlike(key, other)))
  return clear.filter((key, at) => clear.findIndex(({ kid }) => kid === key.kid) === at)
}

function readKey(entry: unknown, { profile, algorithms }: KeyRules): PublicKey | undefined {
  const about = aboutShape.safeParse(entry).data
  const key = keyShape.safeParse(entry).data
  if (!about || !key) return undefined
  // SPIFFE bundles say what each key is for, and one that does not say it is for nothing (SPIFFE trust domain and bundle, section 4.2.2).
  if (about.use !== (profile === 'spiffe' ? 'jwt-svid' : 'sig') && (profile === 'spiffe' || about.use !== undefined)) return undefined
  if (about.key_ops && !about.key_ops.includes('verify')) return undefined
  if (key.kty === 'RSA' && !isStrong(key.n, key.e)) return undefined

  const alg = algorithmOf(key, about.alg, algorithms)
  return alg && { kid: about.kid, alg, jwk: membersOf(key) }
}

type Key = z.output<typeof keyShape>

/** What the key is for: what it says, as far as its type can do that and the issuer may. An RSA key that says nothing is for the first RSA algorithm of the issuer. */
function algorithmOf(key: Key, declared: string | undefined, allowed: readonly Algorithm[]): Algorithm | undefined {
  const fits = (algorithm: Algorithm): boolean => (key.kty === 'RSA' ? isRsa(algorithm) : sameAlgorithm(algorithm, ofCurve[key.crv]))
  return allowed.find(
    (algorithm) => fits(algorithm) && (declared === undefined || declared === algorithm || (key.kty === 'OKP' && declared === 'EdDSA')),
  )
}

const ofCurve = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512', Ed25519: 'Ed25519' } as const

function membersOf(key: Key): Readonly<Record<string, string>> {
  if (key.kty === 'RSA') return { kty: key.kty, n: key.n, e: key.e }
  return key.kty === 'EC' ? { kty: key.kty, crv: key.crv, x: key.x, y: key.y } : { kty: key.kty, crv: key.crv, x: key.x }
}

/**
 * An odd modulus of 2048 to 8192 bits and an odd exponent from 65537 on (BSI TR-02102, FIPS 186-5). jose takes an exponent of 1, with which every signature is its own
 * message; the upper bounds keep a verification cheap.
 */
function isStrong(n: string, e: string): boolean {
  const modulus = numberOf(n)
  const exponent = numberOf(e)
  const bits = modulus.toString(2).length
  return bits >= 2_048 && bits <= 8_192 && modulus % 2n === 1n && exponent >= 65_537n && exponent < 2n ** 64n && exponent % 2n === 1n
}

const numberOf = (base64url: string): bigint => BigInt(`0x${Buffer.from(base64url, 'base64url').toString('hex') || '0'}`)
