import type { Json } from '../base/json.ts'
import { type Checkpoint, openCheckpoint } from './checkpoint.ts'
import { type CompactTree, emptyTree, grow, headOf } from './compact.ts'
import { createDecisionCheck } from './decisions.ts'
import { type EntryFields, leafHashOf } from './leaf.ts'
import type { LogLine } from './lines.ts'
import type { Hash } from './merkle.ts'
import type { VerifierKey } from './note.ts'
import { fromBase64 } from './spelling.ts'
import { createStories, type Lives } from './stories.ts'

/** What is wrong, and where. */
export interface Fault {
  /** The number of the entry in the log, from 0. */
  readonly number?: number | undefined
  /** Its id, where it is known. */
  readonly id?: string | undefined
  readonly message: string
}

export interface Verdict {
  /** In the order of the log; the first `mostFaults`. */
  readonly faults: readonly Fault[]
  /** How many there are. The ledger is as it should be where this is 0. */
  readonly found: number
  /** What was held against; undefined where no trusted key has signed it. */
  readonly checkpoint: Checkpoint | undefined
  readonly entries: number
  readonly decisions: number
  readonly checkpoints: number
  readonly lives: Lives
}

export interface Question {
  /** Whom the reader trusts. */
  readonly key: VerifierKey
  /** The signed checkpoint that all is held against. */
  readonly checkpoint: string
  /** One that the reader pinned before: the log must still contain what it covers. */
  readonly since?: string | undefined
  /** Milliseconds since 1970 at which the ledger was read; where absent, the time of its last entry. */
  readonly now?: number | undefined
}

/** Takes a ledger line by line. Never throws for what it is given, and keeps nothing but what lives and what is wrong. */
export interface Verification {
  /** A policy set of the archive, before the first decision that rests on it. */
  policy(digest: string, document: Json): void
  line(line: LogLine): void
  finish(): Verdict
}

/** Faults that are told one by one: a ledger that was written anew has one for each entry. */
export const mostFaults = 100

/** What was signed, in the words of a reader. */
const notes = {
  malformed: 'is not a checkpoint',
  unknown_key: 'is not signed by this key',
  bad_signature: 'has a signature that is not of this key: it is forged, or was changed',
} as const

/**
 * Holds a ledger against a checkpoint: every entry against its leaf, all leaves against the root that was signed, each against the pinned checkpoint and all others on
 * the way, and then the story that the entries tell against the promises of the broker.
 *
 * Two trees are grown: one over the leaf hashes as they are kept, one over the entries as they are. Where the first comes to the signed root, an entry that does not come to
 * its leaf is exactly what was changed; where only the second does, it was the leaf.
 */
export function verifyLedger({ key, checkpoint, since, now }: Question): Verification {
  const faults = createFaults()
  const signed = opened(checkpoint, 'the checkpoint')
  const pinned = since === undefined ? undefined : opened(since, 'the pinned checkpoint')
  const decisions = createDecisionCheck(faults.add)
  const stories = createStories(faults.add)
  let [kept, real]: [CompactTree, CompactTree] = [emptyTree, emptyTree]
  let entries = 0
  let checkpoints = 0
  let next = 0
  let before: EntryFields | undefined
  /** The largest size up to which the kept leaves are known to be what was signed. */
  let good = 0
  let isBroken = false

  if (pinned && signed && pinned.size > signed.size) {
    faults.add({ message: `the log was cut: it had ${pinned.size} entries when its checkpoint was pinned, and has ${signed.size}` })
  }

  function opened(note: string, what: string, number?: number): Checkpoint | undefined {
    const result = openCheckpoint(note, [key])
    if (!result.ok) faults.add({ number, message: `${what} ${notes[result.fault]}` })
    return result.ok ? result.checkpoint : undefined
  }

  /** Holds the kept leaves so far against a head that was signed. Whatever is wrong between the last one that was right and this is told once. */
  function compare(head: Checkpoint, what: string): void {
    const root = headOf(kept).root
    if (root.equals(head.root)) {
      good = kept.size
      return
    }
    if (isBroken) return
    isBroken = true
    const cause = headOf(real).root.equals(head.root)
      ? 'the entries are what was signed, but leaves of the tree were changed'
      : 'what was signed there was something else'
    faults.add({ message: `entries ${good} to ${kept.size - 1} do not come to the root of ${what} (size ${head.size}): ${cause}` })
  }

  /** Whether it stands where it says. One that was there already, or comes too late, is not looked at. */
  function isNext({ number, missing, entry }: LogLine): boolean {
    if (number < next) {
      faults.add({ number, id: entry?.id ?? missing, message: 'stands in the log twice, or out of its order' })
      return false
    }
    if (number > next) {
      faults.add({
        number: next,
        message: `${number - next === 1 ? `entry ${next} is` : `entries ${next} to ${number - 1} are`} missing from the log`,
      })
      isBroken = true
    }
    return true
  }

  /** @returns whether what it tells can be read */
  function addLeaf(line: LogLine): boolean {
    const { number, entry, missing } = line
    const leaf = fromBase64(line.leaf_hash)
    if (leaf?.length !== 32) faults.add({ number, id: entry?.id ?? missing, message: 'has a leaf that is no hash' })
    const hash: Hash = leaf?.length === 32 ? leaf : Buffer.alloc(32)
    const own = entry && leafHashOf(entry)
    if (!entry) faults.add({ number, id: missing, message: 'was removed from the history' })
    else if (!own) faults.add({ number, id: entry.id, message: 'has no canonical form, and so can be no leaf: it was changed' })
    else if (!own.equals(hash))
      faults.add({ number, id: entry.id, message: 'is not what the log has as its leaf: it was changed, or stands in the place of another' })
    kept = grow(kept, [hash], () => {})
    real = grow(real, [own ?? hash], () => {})
    return own !== undefined
  }

  function compareHere({ number, checkpoint: note }: LogLine): void {
    const size = number + 1
    if (note !== undefined) {
      checkpoints++
      const head = opened(note, 'the checkpoint over the log up to here', number)
      if (head && head.size === size) compare(head, 'a checkpoint that was signed on the way')
      else if (head) faults.add({ number, message: `the checkpoint over the log up to here is one over ${head.size} entries` })
    }
    if (pinned?.size === size && !headOf(kept).root.equals(pinned.root)) {
      faults.add({
        message: `the log does not contain the pinned checkpoint: up to entry ${number} it is another one than was signed then (a fork, or rewritten history)`,
      })
    }
    if (signed?.size === size) compare(signed, 'the checkpoint')
  }

  return {
    policy: (digest, document) => decisions.policy(digest, document),

    line(line) {
      const { number, entry } = line
      // Grown since the checkpoint was taken: not covered by it.
      if (signed && number >= signed.size) return
      if (!isNext(line)) return
      next = number + 1
      entries++
      const isReadable = addLeaf(line)
      compareHere(line)
      if (!entry || !isReadable) return
      if (before && !isOrdered(before, entry)) {
        faults.add({
          number,
          id: entry.id,
          message: `stands behind ${before.id}, which comes after it in the order of the history: they were swapped`,
        })
      }
      before = entry
      if (entry.kind === 'decision.made') decisions.check(number, entry, line.answers)
      stories.tell(number, entry)
    },

    finish() {
      if (signed && next < signed.size)
        faults.add({ number: next, message: `the log ends before entry ${next}, but ${signed.size} were signed: its tail was cut` })
      const lives = stories.finish(now)
      return { ...faults.all(), checkpoint: signed, entries, decisions: decisions.count(), checkpoints, lives }
    },
  }
}

/** The order of the log is that of (xid, id). Decimals of another length are compared by it. */
const isOrdered = (one: EntryFields, other: EntryFields): boolean =>
  one.xid === other.xid ? one.id < other.id : one.xid.length === other.xid.length ? one.xid < other.xid : one.xid.length < other.xid.length

function createFaults() {
  const first: Fault[] = []
  let found = 0
  return {
    add(fault: Fault): void {
      found++
      if (first.length < mostFaults) first.push(fault)
    },
    all: () => ({ faults: first.toSorted((a, b) => (a.number ?? -1) - (b.number ?? -1)), found }),
  }
}
