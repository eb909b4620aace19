import { type Checkpoint, openCheckpoint } from './checkpoint.ts'
import { type Hash, verifyInclusion } from './merkle.ts'
import type { VerifierKey } from './note.ts'
import { fromBase64, fromDecimal } from './spelling.ts'

/** What proves offline that an entry is in a log: where, the hashes on the way to the root, and the root as the log signed it. */
export interface EntryProof {
  readonly index: number
  readonly path: readonly Hash[]
  /** The signed checkpoint, as it was served. */
  readonly note: string
  /** The bytes of its leaf, which say what the entry is. The path does without. */
  readonly leaf?: Buffer | undefined
}

export type CheckedProof =
  /** `leaf`: the bytes that came with the proof, which were not held against the hash that was proven. */
  | { readonly ok: true; readonly checkpoint: Checkpoint; readonly index: number; readonly leaf: Buffer | undefined }
  /** `not_included`: the log signed a tree in which this entry does not stand there. */
  | { readonly ok: false; readonly fault: 'malformed' | 'unknown_key' | 'bad_signature' | 'not_included' }

const version = 'c2sp.org/tlog-proof@v1'

/** A path of a tree below 2^53 leaves is no longer. */
const longestPath = 53

/** A proof as text (C2SP tlog-proof), the leaf as its extra data: self-contained, to be kept in a file. */
export function proofText({ index, path, note, leaf }: EntryProof): string {
  const extra = leaf ? [`extra ${leaf.toString('base64')}`] : []
  return `${[version, ...extra, `index ${index}`, ...path.map((hash) => hash.toString('base64'))].join('\n')}\n\n${note}`
}

/** Reads a proof. Undefined where it is not one. Extra data of others is taken for a leaf, which comes to no hash that is looked for. */
export function parseProof(text: string): EntryProof | undefined {
  const blank = text.indexOf('\n\n')
  if (blank === -1) return undefined
  const [first, ...rest] = text.slice(0, blank).split('\n')
  const extra = rest[0]?.startsWith('extra ') ? rest.shift() : undefined
  const leaf = extra === undefined ? undefined : fromBase64(extra.slice('extra '.length))
  if (extra !== undefined && leaf === undefined) return undefined
  const [line = '', ...encoded] = rest
  const index = line.startsWith('index ') ? fromDecimal(line.slice('index '.length)) : undefined
  if (first !== version || index === undefined || encoded.length > longestPath) return undefined
  const path = encoded.map(fromBase64)
  return path.every((hash) => hash?.length === 32) ? { index, path: path as Hash[], note: text.slice(blank + 2), leaf } : undefined
}

/** Whether the leaf with this hash is in a log that one of these keys signs for. Whatever it is given, it answers. */
export function checkProof(text: string, leaf: Hash, keys: readonly VerifierKey[]): CheckedProof {
  const proof = parseProof(text)
  if (!proof) return { ok: false, fault: 'malformed' }
  const opened = openCheckpoint(proof.note, keys)
  if (!opened.ok) return opened
  const { checkpoint } = opened
  if (!verifyInclusion(proof.index, leaf, proof.path, checkpoint)) return { ok: false, fault: 'not_included' }
  return { ok: true, checkpoint, index: proof.index, leaf: proof.leaf }
}
