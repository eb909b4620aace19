import { importJWK, type CryptoKey } from 'jose'
import { ageOf, type Clock } from '../../base/time.ts'
import type { KeyFile } from './keyfile.ts'
import { ahead, type Algorithm, knownKeys, newKey, publicPart, type Ring, type RingKey, rotationDue, signerOf } from './ring.ts'

/** Milliseconds between two looks at the file: a tenth of what a new key is known ahead. */
const lookEvery = 60_000
/** Milliseconds between two looks for keys that are not in the ring, however many tokens with invented keys arrive. */
const unknownEvery = 1_000

/** A key with which this broker signs, ready to use. */
export interface Signer {
  readonly alg: Algorithm
  readonly kid: string
  readonly key: CryptoKey
}

/** The living keys of one provider: read from the shared file, looked at once a minute, rotated by whichever broker sees first that it is time. */
export interface Keyring {
  /** The key that signs now. Never fails once the ring was read: an unreadable file stops no issuance, `check` reports it. */
  signer(): Promise<Signer>
  /** The public key that verifies tokens of this `kid`. A kid that is not known may be new: then the file is looked at once more. */
  verifier(kid: string): Promise<Signer | undefined>
  /** Public keys, RFC 7517, the next signer's included. */
  published(): Promise<readonly Record<string, string>[]>
  /** @throws Error that says why the file cannot be used */
  check(): Promise<void>
}

/** @throws Error that says why the file cannot be used */
export async function openKeyring(
  file: KeyFile,
  settings: { readonly algorithm: Algorithm; readonly rotateEvery: number },
  clock: Clock,
): Promise<Keyring> {
  await file.create(async () => ({ keys: [await newKey(settings.algorithm, clock(), clock())] }))
  let version = await file.version()
  let ring = await file.read()
  let lookedAt = clock()
  let looking: Promise<void> | undefined
  const imported = new Map<string, Promise<CryptoKey>>()

  /** Reads the ring if it has changed, and adds a key if it is time for one. */
  async function look(): Promise<void> {
    lookedAt = clock()
    await reread()
    if (!rotationDue(ring, settings.algorithm, settings.rotateEvery, clock())) return
    await file.replace(async (current) => {
      const now = clock()
      // Looked at again under the lock: another broker may have rotated since.
      if (!rotationDue(current, settings.algorithm, settings.rotateEvery, now)) return undefined
      return { keys: [...knownKeys(current, now), await newKey(settings.algorithm, now, now + ahead)] }
    })
    await reread()
  }

  async function reread(): Promise<void> {
    const found = await file.version()
    if (found === version) return
    ring = await file.read()
    version = found
  }

  /** One look at a time; whoever comes meanwhile waits for it. */
  const lookOnce = (): Promise<void> => (looking ??= look().finally(() => (looking = undefined)))

  /** The ring, looked at if the last look is old. With an unreadable file the last good ring goes on: its keys are still the right ones. */
  async function current(): Promise<Ring> {
    if (ageOf(lookedAt, clock) >= lookEvery) await lookOnce().catch(() => undefined)
    return ring
  }

  /** WebCrypto keys are made once: importing costs as much as signing. */
  function imports(jwk: Record<string, string>, key: RingKey): Promise<CryptoKey> {
    const name = `${'d' in jwk ? 'private' : 'public'} ${key.kid}`
    const known = imported.get(name) ?? importKey(jwk, key.alg)
    imported.set(name, known)
    return known
  }

  const find = (kid: string): RingKey | undefined => knownKeys(ring, clock()).find((key) => key.kid === kid)

  async function signer(): Promise<Signer> {
    const key = signerOf(await current(), clock())
    return { alg: key.alg, kid: key.kid, key: await imports(privatePart(key), key) }
  }

  // Shows at the start, and not at the first token, that the keys are keys.
  await signer()
  return {
    signer,
    async verifier(kid) {
      await current()
      if (!find(kid) && ageOf(lookedAt, clock) >= unknownEvery) await lookOnce().catch(() => undefined)
      const key = find(kid)
      return key && { alg: key.alg, kid, key: await imports(publicPart(key), key) }
    },
    published: async () => knownKeys(await current(), clock()).map(publicPart),
    check: lookOnce,
  }
}

const privatePart = ({ created_at: _created, signs_from: _from, ...jwk }: RingKey): Record<string, string> => jwk

async function importKey(jwk: Record<string, string>, algorithm: Algorithm): Promise<CryptoKey> {
  const key = await importJWK(jwk, algorithm)
  if (key instanceof Uint8Array) throw new TypeError('not an asymmetric key')
  return key
}
