import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import { fromBase64 } from './spelling.ts'

/** Whom a reader trusts: a public key under a name. */
export interface VerifierKey {
  readonly name: string
  /** Eight hexadecimal digits. It tells keys apart and proves nothing: anybody can make a key with the same. */
  readonly id: string
  /** As it is handed around: `name+id+key`. */
  readonly text: string
  readonly publicKey: KeyObject
}

/** Signs texts under a name. */
export interface Signer {
  readonly key: VerifierKey
  /** The text with its signature, ready to be handed out. @param text ends in a newline */
  sign(text: string): string
}

export type OpenedNote =
  | { readonly ok: true; readonly text: string; readonly by: readonly VerifierKey[] }
  /** `unknown_key`: nobody who is trusted has signed. `bad_signature`: somebody pretends to be one who is. */
  | { readonly ok: false; readonly fault: 'malformed' | 'unknown_key' | 'bad_signature' }

/** The types of signatures that are spoken here (C2SP signed-note, "Signature types"): Ed25519, and Ed25519 of a witness, with a time. */
const types = { signature: Buffer.of(1), cosignature: Buffer.of(4) }

type SignatureType = keyof typeof types

/** What stands before the 32 bytes of a key in the encodings that Node reads (RFC 8410, section 10). */
const [pkcs8, spki] = [Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.from('302a300506032b6570032100', 'hex')]

/** Characters of a note, and signatures in it. Sixteen must be read, and one of another type may be nearly 7 kB. */
const [longest, mostSignatures] = [1_000_000, 100]

/** What no note may hold: control characters below U+0020 other than newline, and what is not valid UTF-8 (C2SP signed-note, "Format"). */
const notInNotes = /(?![\n\x7f-\x9f])\p{Cc}|\p{Surrogate}/u

const isName = (name: string): boolean => name !== '' && !/[\p{White_Space}+]/u.test(name) && !notInNotes.test(name)

const keyId = (name: string, key: Buffer): string =>
  createHash('sha256')
    .update(Buffer.concat([Buffer.from(`${name}\n`), key]))
    .digest('hex')
    .slice(0, 8)

/** @param raw the 32 bytes of an Ed25519 public key (RFC 8032, 5.1.5) @throws RangeError where it has another length, or the name cannot stand in a note */
export function verifierKeyOf(name: string, raw: Uint8Array, type: SignatureType = 'signature'): VerifierKey {
  if (raw.length !== 32 || !isName(name)) throw new RangeError('a verifier key needs 32 bytes and a name without white space and plus')
  const typed = Buffer.concat([types[type], raw])
  const id = keyId(name, typed)
  const publicKey = createPublicKey({ key: Buffer.concat([spki, raw]), format: 'der', type: 'spki' })
  return { name, id, text: `${name}+${id}+${typed.toString('base64')}`, publicKey }
}

/** A verifier key (C2SP signed-note, "Verifier keys"). Undefined where it is not one, is of another type, or its id is not its own. */
export function parseVerifierKey(text: string, type: SignatureType = 'signature'): VerifierKey | undefined {
  // Base64 may hold the sign that separates the parts.
  const [, name = '', id = '', encoded = ''] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(text) ?? []
  const typed = fromBase64(encoded)
  if (!isName(name) || typed?.length !== 33 || !typed.subarray(0, 1).equals(types[type]) || keyId(name, typed) !== id) return undefined
  return verifierKeyOf(name, typed.subarray(1), type)
}

/** The note of a text that this key has signed. @param signature over the text as UTF-8 @throws RangeError where the text cannot stand in a note */
export function signedNote({ name, id }: VerifierKey, text: string, signature: Uint8Array): string {
  if (!text.endsWith('\n') || notInNotes.test(text)) throw new RangeError('only lines of text can be signed')
  return `${text}\n— ${name} ${Buffer.concat([Buffer.from(id, 'hex'), signature]).toString('base64')}\n`
}

/** @param seed the 32 bytes of an Ed25519 private key (RFC 8032, 5.1.5) @throws RangeError where it has another length, or the name cannot stand in a note */
export function createSigner(name: string, seed: Uint8Array): Signer {
  if (seed.length !== 32 || !isName(name)) throw new RangeError('a signer needs a seed of 32 bytes and a name without white space and plus')
  const privateKey = createPrivateKey({ key: Buffer.concat([pkcs8, seed]), format: 'der', type: 'pkcs8' })
  const raw = createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(spki.length)
  const key = verifierKeyOf(name, raw)
  return { key, sign: (text) => signedNote(key, text, sign(null, Buffer.from(text), privateKey)) }
}

/**
 * The text of a note that at least one of these keys has signed (C2SP signed-note). Signatures of others are ignored; a wrong one of a known key
 * makes the whole note refused. Whatever it is given, it answers.
 */
export function openNote(note: string, keys: readonly VerifierKey[]): OpenedNote {
  const parsed = parseNote(note)
  if (!parsed) return { ok: false, fault: 'malformed' }
  const { text, signatures } = parsed
  const by = new Set<VerifierKey>()
  for (const { name, id, signature } of signatures) {
    const key = keys.find((known) => known.name === name && known.id === id)
    if (!key) continue
    if (!verify(null, Buffer.from(text), key.publicKey, signature)) return { ok: false, fault: 'bad_signature' }
    by.add(key)
  }
  return by.size === 0 ? { ok: false, fault: 'unknown_key' } : { ok: true, text, by: [...by] }
}

interface NamedSignature {
  readonly name: string
  readonly id: string
  readonly signature: Buffer
}

/** The parts of a note, of which nothing is proven yet. Undefined where it is not one. */
export function parseNote(note: string): { readonly text: string; readonly signatures: readonly NamedSignature[] } | undefined {
  if (note.length > longest || notInNotes.test(note) || !note.endsWith('\n')) return undefined
  const blank = note.lastIndexOf('\n\n')
  if (blank === -1) return undefined
  const lines = note.slice(blank + 2, -1).split('\n')
  if (lines.length > mostSignatures) return undefined
  const signatures = lines.map(parseSignature)
  return signatures.every((each) => each !== undefined) ? { text: note.slice(0, blank + 1), signatures } : undefined
}

function parseSignature(line: string): NamedSignature | undefined {
  const [, name = '', encoded = ''] = /^— ([^ ]+) ([^ ]+)$/u.exec(line) ?? []
  const bytes = fromBase64(encoded)
  if (!isName(name) || bytes === undefined || bytes.length < 5) return undefined
  return { name, id: bytes.toString('hex', 0, 4), signature: bytes.subarray(4) }
}
