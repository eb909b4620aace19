import type { EntryId } from '../base/ids.ts'
import type { Json } from '../base/json.ts'
import type { Receipt } from '../base/receipt.ts'
import { canonical, digestOfText } from './canonical.ts'
import { type Hash, leafHash } from './merkle.ts'
import { longestEntry } from './tiles.ts'

/** An entry of the history as it is exported: every column of its row, those left out that do not apply. */
export interface EntryFields {
  readonly id: string
  /** RFC 3339, UTC, milliseconds. */
  readonly at: string
  /** The transaction that wrote it, in decimal: entries of one are of one commit. As text, because it may be larger than a number is exact. */
  readonly xid: string
  readonly kind: string
  readonly agent?: string
  readonly task?: string
  readonly lease?: string
  readonly decision?: string
  readonly body: Json
}

/**
 * The bytes of an entry in the log: its canonical JSON (RFC 8785). Anybody who has the entry can make them again; they must never change for an
 * entry that is already in the log, so a column that is added later is left out where it has no value.
 *
 * An entry that would not fit into a bundle has the digest of its body in the body's place: it can be proven like every other, and its body with it.
 */
export function leafOf(entry: EntryFields): Buffer {
  const leaf = Buffer.from(canonical(entry))
  if (leaf.length <= longestEntry) return leaf
  const { body, ...rest } = entry
  return Buffer.from(canonical({ ...rest, body_digest: digestOfText(canonical(body)) }))
}

/**
 * The same. Undefined where an entry has no canonical form: a number that is not finite, half of a surrogate pair, nesting without end. No
 * broker writes such a thing, but the store holds whatever somebody puts into it, and neither the log nor whoever verifies it may fall over that.
 */
export function leafIn(entry: EntryFields): Buffer | undefined {
  try {
    return leafOf(entry)
  } catch {
    return undefined
  }
}

/** What an entry comes to in the tree. Undefined where it has no canonical form. */
export function leafHashOf(entry: EntryFields): Hash | undefined {
  const leaf = leafIn(entry)
  return leaf && leafHash(leaf)
}

/** Which entry the bytes of a leaf are, and of what kind. Undefined where they are not the canonical form of one. */
export function entryInLeaf(leaf: Buffer): Pick<EntryFields, 'id' | 'kind'> | undefined {
  try {
    const entry = JSON.parse(leaf.toString()) as Partial<Record<'id' | 'kind', unknown>>
    const { id, kind } = entry
    // A key that stands there twice would be read by others as the other one.
    const isCanonical = Buffer.from(canonical(entry)).equals(leaf)
    return isCanonical && typeof id === 'string' && typeof kind === 'string' ? { id, kind } : undefined
  } catch {
    return undefined
  }
}

/** What is kept of an entry by whoever was told of it. */
export const receiptOf = (entry: EntryFields): Receipt => ({
  entry: entry.id as EntryId,
  kind: entry.kind,
  leafHash: leafHash(leafOf(entry)).toString('base64'),
})
