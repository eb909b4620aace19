import type { Checkpoint } from './checkpoint.ts'
import { emptyTree, grow, headOf } from './compact.ts'
import type { Fault } from './fault.ts'
import { leafHashOf } from './leaf.ts'
import type { LogLine, LogStart } from './lines.ts'
import type { Hash, Head } from './merkle.ts'
import type { VerifierKey } from './note.ts'
import { fromBase64 } from './spelling.ts'

/** How far a log could be verified. */
export interface LogVerdict extends LogStart {
  /** Of its entries. */
  readonly read: number
  /** How many of them, from its first on, are covered by a checkpoint that a trusted key has signed and that they come to. */
  readonly proven: number
  /** Over what was read, base64. */
  readonly root: string
  /** Whether there is a key that could have signed for it. */
  readonly hasKey: boolean
}

/** One of the logs that a ledger was signed into, as it is read. */
export interface LogPart extends LogStart {
  readonly hasKey: boolean
  /** Over the leaves that were read, as they are kept. */
  head(): Head
  /** Whether it is known not to come to what was signed: whatever follows from that is not told again. */
  isBroken(): boolean
  /** Entries of it are missing from here on. */
  skip(): void
  /** @returns whether what the entry tells can be read */
  addLeaf(line: LogLine): boolean
  /** Holds what was read against a head that was signed. Whatever is wrong between the last one that was right and this is told once. */
  compare(head: Checkpoint, what: string): void
  judge(): LogVerdict
}

/**
 * Two trees are grown: one over the leaf hashes as they are kept, one over the entries as they are. Where the first comes to the signed root, an entry that does
 * not come to its leaf is exactly what was changed; where only the second does, it was the leaf.
 *
 * @param keys those of other names do not sign for it
 */
export function createLogPart({ origin, first }: LogStart, keys: readonly VerifierKey[], fault: (fault: Fault) => void): LogPart {
  const hasKey = keys.some(({ name }) => name === origin)
  let [kept, real] = [emptyTree, emptyTree]
  let proven = 0
  let isBroken = false
  return {
    origin,
    first,
    hasKey,
    head: () => headOf(kept),
    isBroken: () => isBroken,
    skip: () => void (isBroken = true),

    addLeaf({ number, entry, missing, leaf_hash: hash }) {
      const leaf = hashIn(hash)
      if (!leaf) fault({ number, id: entry?.id ?? missing, message: 'has a leaf that is no hash' })
      const keptHash = leaf ?? noHash
      const own = entry && leafHashOf(entry)
      if (!entry) fault({ number, id: missing, message: 'was removed from the history' })
      else if (!own) fault({ number, id: entry.id, message: 'has no canonical form, and so can be no leaf: it was changed' })
      else if (!own.equals(keptHash))
        fault({ number, id: entry.id, message: 'is not what the log has as its leaf: it was changed, or stands in the place of another' })
      kept = grow(kept, [keptHash], () => {})
      real = grow(real, [own ?? keptHash], () => {})
      return own !== undefined
    },

    compare({ size, root }, what) {
      if (headOf(kept).root.equals(root)) {
        proven = kept.size
        return
      }
      if (isBroken) return
      isBroken = true
      const cause = headOf(real).root.equals(root)
        ? 'the entries are what was signed, but leaves of the tree were changed'
        : 'what was signed there was something else'
      const [from, to] = [first + proven, first + kept.size - 1]
      fault({ message: `entries ${from} to ${to} do not come to the root of ${what} (size ${size}): ${cause}` })
    },

    judge: () => ({ origin, first, read: kept.size, proven, root: headOf(kept).root.toString('base64'), hasKey }),
  }
}

/** Stands in the tree for a leaf that is none. */
const noHash: Hash = Buffer.alloc(32)

function hashIn(text: string): Hash | undefined {
  const bytes = fromBase64(text)
  return bytes?.length === 32 ? bytes : undefined
}
