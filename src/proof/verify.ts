import type { Json } from '../base/json.ts'
import { type Checkpoint, openCheckpoint } from './checkpoint.ts'
import { cosignedAt, type WitnessKey } from './cosignature.ts'
import { type CompactTree, emptyTree, grow, headOf } from './compact.ts'
import { createDecisionCheck } from './decisions.ts'
import { type EntryFields, leafHashOf } from './leaf.ts'
import type { LogLine, LogStart } from './lines.ts'
import type { Fault } from './fault.ts'
import type { Hash } from './merkle.ts'
import type { VerifierKey } from './note.ts'
import { openingKind, parseOpening } from './opening.ts'
import { fromBase64 } from './spelling.ts'
import { createStories, type Lives } from './stories.ts'

export interface Verdict {
  /** In the order of the log; the first `mostFaults`. */
  readonly faults: readonly Fault[]
  /** How many there are. The ledger is as it should be where this is 0. */
  readonly found: number
  /** What was held against; undefined where no trusted key has signed it. */
  readonly checkpoint: Checkpoint | undefined
  /** Each log that the ledger was signed into, oldest first. */
  readonly logs: readonly LogVerdict[]
  readonly entries: number
  readonly decisions: number
  readonly checkpoints: number
  readonly lives: Lives
  /** What witnesses have said of the pinned checkpoint. */
  readonly witnessed: readonly Witnessed[]
}

export interface Witnessed {
  readonly witness: string
  /** When it had seen the checkpoint and nothing that contradicts it, by its own clock. Seconds since 1970. */
  readonly time: number
}

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

export interface Question {
  /** Whom the reader trusts: the keys of each log. */
  readonly keys: readonly VerifierKey[]
  /** The signed checkpoint that all is held against. */
  readonly checkpoint: string
  /** The logs that the ledger says it has, oldest first; believed no further than what is signed says so. Absent: that of the checkpoint alone. */
  readonly logs?: readonly LogStart[] | undefined
  /** One that the reader pinned before: the log must still contain what it covers. */
  readonly since?: string | undefined
  /** Who must have cosigned that one. */
  readonly witnesses?: readonly WitnessKey[] | undefined
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

/** A log under verification. */
interface Part extends LogStart {
  /** Those that may sign for it. */
  readonly keys: readonly VerifierKey[]
  /** Over the leaf hashes as they are kept, and over the entries as they are. */
  kept: CompactTree
  real: CompactTree
  /** The largest size up to which the kept leaves are known to be what was signed. */
  good: number
  isBroken: boolean
}

/**
 * Holds a ledger against a checkpoint: every entry against its leaf, all leaves of each log against the roots that were signed, each against the pinned checkpoint and all
 * others on the way, each log against the final checkpoint that the next one names, and then the story that the entries tell against the promises of the broker.
 *
 * Two trees are grown of each log: one over the leaf hashes as they are kept, one over the entries as they are. Where the first comes to the signed root, an entry that does
 * not come to its leaf is exactly what was changed; where only the second does, it was the leaf.
 */
export function verifyLedger({ keys, checkpoint, logs, since, witnesses = [], now }: Question): Verification {
  const faults = createFaults()
  const parts = (logs ?? [{ origin: checkpoint.slice(0, checkpoint.indexOf('\n')), first: 0 }]).map(partOf)
  const newest = parts.at(-1)!
  // Of one log alone its checkpoint says so.
  const keyless = logs ? parts.filter((part) => part.keys.length === 0) : []
  const signed = opened(checkpoint, 'the checkpoint')
  const pinned = since === undefined ? undefined : opened(since, 'the pinned checkpoint')
  const witnessed = witnesses.flatMap(witnessedBy)
  const end = signed?.origin === newest.origin ? newest.first + signed.size : Infinity
  const decisions = createDecisionCheck(faults.add)
  const stories = createStories(faults.add)
  let at = 0
  let entries = 0
  let checkpoints = 0
  let next = 0
  let before: EntryFields | undefined

  if (signed && signed.origin !== newest.origin)
    faults.add({ message: `the checkpoint is one of ${signed.origin}, which is not the last of the logs here` })
  if (pinned) checkPinned(pinned)
  for (const { origin, first } of keyless)
    faults.add({ number: first, message: `the log by the name of ${origin} begins here, for which no key was given: nothing of it is proven` })

  function partOf({ origin, first }: LogStart): Part {
    return { origin, first, keys: keys.filter(({ name }) => name === origin), kept: emptyTree, real: emptyTree, good: 0, isBroken: false }
  }

  /** A log without a key is told once, and not for each of its checkpoints. */
  function opened(note: string, what: string, number?: number): Checkpoint | undefined {
    const result = openCheckpoint(note, keys)
    if (result.ok) return result.checkpoint
    const isOfNoKey = result.fault === 'unknown_key' && keyless.some(({ origin }) => note.startsWith(`${origin}\n`))
    if (!isOfNoKey) faults.add({ number, message: `${what} ${notes[result.fault]}` })
    return undefined
  }

  function witnessedBy(key: WitnessKey): Witnessed[] {
    const time = cosignedAt(since ?? '', key)
    if (time === undefined) faults.add({ message: `the pinned checkpoint is not cosigned by ${key.name}` })
    return time === undefined ? [] : [{ witness: key.name, time }]
  }

  function checkPinned({ origin, size }: Checkpoint): void {
    const place = parts.findIndex((part) => part.origin === origin)
    if (place === -1) return faults.add({ message: `the pinned checkpoint is one of ${origin}, and this ledger has no log by that name` })
    const has = (parts[place + 1]?.first ?? end) - parts[place]!.first
    if (size > has) faults.add({ message: `the log was cut: it had ${size} entries when its checkpoint was pinned, and has ${has}` })
  }

  /** Holds the kept leaves so far against a head that was signed. Whatever is wrong between the last one that was right and this is told once. */
  function compare(part: Part, head: Checkpoint, what: string): void {
    if (headOf(part.kept).root.equals(head.root)) {
      part.good = part.kept.size
      return
    }
    if (part.isBroken) return
    part.isBroken = true
    const cause = headOf(part.real).root.equals(head.root)
      ? 'the entries are what was signed, but leaves of the tree were changed'
      : 'what was signed there was something else'
    const [from, to] = [part.first + part.good, part.first + part.kept.size - 1]
    faults.add({ message: `entries ${from} to ${to} do not come to the root of ${what} (size ${head.size}): ${cause}` })
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
      parts[at]!.isBroken = true
    }
    return true
  }

  /** The log that the place is of. With its first entry the one before it is over. */
  function turnTo(line: LogLine): Part {
    while (at + 1 < parts.length && line.number >= parts[at + 1]!.first) {
      at++
      if (line.number === parts[at]!.first) checkOpening(line, parts[at - 1]!, parts[at]!)
      else faults.add({ number: parts[at]!.first, message: `the entry that opens ${parts[at]!.origin} is missing` })
    }
    return parts[at]!
  }

  /** Whether the first entry of a log names the one before it as that has ended here. */
  function checkOpening({ number, entry, missing }: LogLine, closed: Part, part: Part): void {
    const say = (message: string): void => faults.add({ number, id: entry?.id ?? missing, message })
    const opening = entry?.kind === openingKind ? parseOpening(entry.body) : undefined
    if (!opening) return say(`is the first of ${part.origin}, and does not open it`)
    if (opening.origin !== part.origin || opening.closed.origin !== closed.origin)
      return say(`opens ${opening.origin} behind ${opening.closed.origin}, where ${part.origin} begins behind ${closed.origin}`)
    const { size, root, checkpoint: note } = opening.closed
    const final = closed.keys.length === 0 ? undefined : opened(note, 'names as the final checkpoint of the log before it what', number)
    if (final && (final.origin !== closed.origin || final.size !== size || final.root.toString('base64') !== root))
      return say('contradicts itself: the final checkpoint is not what it says of it')
    // Told already.
    if (closed.isBroken) return
    const has = closed.kept.size
    if (size > has) return say(`goes on from ${size} entries of ${closed.origin}, of which ${has} are here: its tail was cut`)
    if (size < has) return say(`goes on from ${size} entries of ${closed.origin}, of which ${has} are here: a fork at the seam`)
    if (headOf(closed.kept).root.toString('base64') !== root)
      return say(`goes on from another end of ${closed.origin} than is here: a fork at the seam`)
    if (final) closed.good = has
  }

  /** @returns whether what it tells can be read */
  function addLeaf(part: Part, line: LogLine): boolean {
    const { number, entry, missing } = line
    const leaf = fromBase64(line.leaf_hash)
    if (leaf?.length !== 32) faults.add({ number, id: entry?.id ?? missing, message: 'has a leaf that is no hash' })
    const hash: Hash = leaf?.length === 32 ? leaf : Buffer.alloc(32)
    const own = entry && leafHashOf(entry)
    if (!entry) faults.add({ number, id: missing, message: 'was removed from the history' })
    else if (!own) faults.add({ number, id: entry.id, message: 'has no canonical form, and so can be no leaf: it was changed' })
    else if (!own.equals(hash))
      faults.add({ number, id: entry.id, message: 'is not what the log has as its leaf: it was changed, or stands in the place of another' })
    part.kept = grow(part.kept, [hash], () => {})
    part.real = grow(part.real, [own ?? hash], () => {})
    return own !== undefined
  }

  function compareHere(part: Part, { number, checkpoint: note }: LogLine): void {
    const size = number + 1 - part.first
    if (note !== undefined && part.keys.length > 0) {
      checkpoints++
      const head = opened(note, 'the checkpoint over the log up to here', number)
      if (head && head.origin !== part.origin) faults.add({ number, message: `the checkpoint over the log up to here is one of ${head.origin}` })
      else if (head && head.size === size) compare(part, head, 'a checkpoint that was signed on the way')
      else if (head) faults.add({ number, message: `the checkpoint over the log up to here is one over ${head.size} entries` })
    }
    if (pinned?.origin === part.origin && pinned.size === size && !headOf(part.kept).root.equals(pinned.root)) {
      faults.add({
        message: `the log does not contain the pinned checkpoint: up to entry ${number} it is another one than was signed then (a fork, or rewritten history)`,
      })
    }
    if (signed && number + 1 === end) compare(part, signed, 'the checkpoint')
  }

  /** Whether an entry stands in the order of the history, in which the opening of a log has no place. */
  function checkOrder(part: Part, number: number, entry: EntryFields): void {
    const say = (message: string): void => faults.add({ number, id: entry.id, message })
    if (entry.kind === openingKind) {
      if (number !== part.first || part === parts[0]) say('opens a log where none begins')
      return
    }
    if (before && !isOrdered(before, entry)) say(`stands behind ${before.id}, which comes after it in the order of the history: they were swapped`)
    before = entry
  }

  return {
    policy: (digest, document) => decisions.policy(digest, document),

    line(line) {
      const { number, entry } = line
      // Grown since the checkpoint was taken: not covered by it.
      if (number >= end || !isNext(line)) return
      next = number + 1
      entries++
      if (line.stray !== undefined)
        faults.add({
          number,
          id: line.stray,
          message: 'is in the history right before this entry and has no place in the log: it was written there afterwards',
        })
      const part = turnTo(line)
      const isReadable = addLeaf(part, line)
      compareHere(part, line)
      if (!entry || !isReadable) return
      checkOrder(part, number, entry)
      if (entry.kind === 'decision.made') decisions.check(number, entry, line.answers)
      if (entry.kind !== openingKind) stories.tell(number, entry, line.answers)
    },

    finish() {
      if (end !== Infinity && next < end)
        faults.add({ number: next, message: `the log ends before entry ${next}, but ${end} were signed: its tail was cut` })
      const lives = stories.finish(now)
      return { ...faults.all(), checkpoint: signed, logs: parts.map(judge), entries, decisions: decisions.count(), checkpoints, lives, witnessed }
    },
  }
}

const judge = ({ origin, first, keys, kept, good }: Part): LogVerdict => ({
  origin,
  first,
  read: kept.size,
  proven: good,
  root: headOf(kept).root.toString('base64'),
  hasKey: keys.length > 0,
})

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
