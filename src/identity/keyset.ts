import { type CryptoKey, importJWK } from 'jose'
import { z } from 'zod'
import type { Algorithm } from './algorithm.ts'
import { type KeyRules, type PublicKey, readKeys } from './jwk.ts'

/** A key that is ready to verify. Made once: importing costs as much as verifying. */
export interface VerificationKey {
  readonly kid: string
  readonly alg: Algorithm
  readonly key: CryptoKey
}

/** All keys of one issuer at one time. Never merged with another's and never changed: a new set takes its place. */
export interface KeySet {
  readonly keys: ReadonlyMap<string, VerificationKey>
  /** Equal for sets with the same keys, in whatever order they stood. */
  readonly fingerprint: string
  /** Of a SPIFFE bundle: grows with each change. */
  readonly sequence: number | undefined
  /** Milliseconds after which the issuer wants to be asked again, where it says so. */
  readonly refreshHint: number | undefined
}

const bundleShape = z.looseObject({
  spiffe_sequence: z.int().min(0).optional(),
  /** Seconds. */
  spiffe_refresh_hint: z.number().min(0).max(1e9).optional().catch(undefined),
})

/** @throws SyntaxError when the document is no key set, or one of nobody's keys where that can only be a mistake */
export async function importKeys(document: unknown, rules: KeyRules): Promise<KeySet> {
  const bundle = rules.profile === 'spiffe' ? bundleShape.safeParse(document) : undefined
  if (bundle?.success === false) throw new SyntaxError('spiffe_sequence is not a whole number')
  const imported = (await Promise.all(readKeys(document, rules).map(importKey))).filter((key) => key !== undefined)
  // An empty SPIFFE bundle revokes everything (Trust domain and bundle, section 4.1). Of other issuers it is known only from accidents.
  if (imported.length === 0 && rules.profile !== 'spiffe') throw new SyntaxError('the set has no key that can be used')

  const prints = imported.map(({ source }) => JSON.stringify(source)).toSorted()
  const hint = bundle?.data?.spiffe_refresh_hint
  return {
    keys: new Map(imported.map(({ ready }) => [ready.kid, ready])),
    fingerprint: prints.join('\n'),
    sequence: bundle?.data?.spiffe_sequence,
    refreshHint: hint === undefined ? undefined : hint * 1_000,
  }
}

async function importKey(source: PublicKey): Promise<{ readonly source: PublicKey; readonly ready: VerificationKey } | undefined> {
  const { kid, alg, jwk } = source
  try {
    const key = await importJWK(jwk, alg)
    return key instanceof Uint8Array ? undefined : { source, ready: { kid, alg, key } }
  } catch {
    // A point that is not on its curve, for one: unfit like the others, and left out like them.
    return undefined
  }
}
