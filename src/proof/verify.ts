import type { Json } from '../base/json.ts'
import { type Checkpoint, openCheckpoint } from './checkpoint.ts'
import { cosignedAt, type WitnessKey } from './cosignature.ts'
import { createDecisionCheck } from './decisions.ts'
import type { Fault } from './fault.ts'
import type { EntryFields } from './leaf.ts'
import type { LogLine, LogStart } from './lines.ts'
import { createLogPart, type LogPart, type LogVerdict } from './log-part.ts'
import type { VerifierKey } from './note.ts'
import { openingKind } from './opening.ts'
import { checkOpening } from './opening-check.ts'
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

export interface VerifyOptions {
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
const mostFaults = 100

/** What was signed, in the words of a reader. */
const notes = {
  malformed: 'is not a checkpoint',
  unknown_key: 'is not signed by this key',
  bad_signature: 'has a signature that is not of this key: it is forged, or was changed',
} as const

/**
 * Holds a ledger against a checkpoint: every entry against its leaf, all leaves of each log against the roots that were signed, each against the pinned checkpoint and all
 * others on the way, each log against the final checkpoint that the next one names, and then the story that the entries tell against the promises of the broker.
 */
export function verifyLedger({ keys, checkpoint, logs, since, witnesses = [], now }: VerifyOptions): Verification {
  const faults = createFaults()
  const parts = (logs ?? [{ origin: checkpoint.slice(0, checkpoint.indexOf('\n')), first: 0 }]).map((log) => createLogPart(log, keys, faults.add))
  const newest = parts.at(-1)!
  // Of one log alone its checkpoint says so.
  const keyless = logs ? parts.filter(({ hasKey }) => !hasKey) : []
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
      parts[at]!.skip()
    }
    return true
  }

  /** The log that the place is of. With its first entry the one before it is over. */
  function turnTo(line: LogLine): LogPart {
    while (at + 1 < parts.length && line.number >= parts[at + 1]!.first) {
      at++
      if (line.number === parts[at]!.first) checkOpening(line, parts[at - 1]!, parts[at]!, opened, faults.add)
      else faults.add({ number: parts[at]!.first, message: `the entry that opens ${parts[at]!.origin} is missing` })
    }
    return parts[at]!
  }

  function compareHere(part: LogPart, { number, checkpoint: note }: LogLine): void {
    const size = number + 1 - part.first
    if (note !== undefined && part.hasKey) {
      checkpoints++
      const head = opened(note, 'the checkpoint over the log up to here', number)
      if (head && head.origin !== part.origin) faults.add({ number, message: `the checkpoint over the log up to here is one of ${head.origin}` })
      else if (head && head.size === size) part.compare(head, 'a checkpoint that was signed on the way')
      else if (head) faults.add({ number, message: `the checkpoint over the log up to here is one over ${head.size} entries` })
    }
    if (pinned?.origin === part.origin && pinned.size === size && !part.head().root.equals(pinned.root)) {
      faults.add({
        message: `the log does not contain the pinned checkpoint: up to entry ${number} it is another one than was signed then (a fork, or rewritten history)`,
      })
    }
    if (signed && number + 1 === end) part.compare(signed, 'the checkpoint')
  }

  /** Whether an entry stands in the order of the history, in which the opening of a log has no place. */
  function checkOrder(part: LogPart, number: number, entry: EntryFields): void {
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
      const isReadable = part.addLeaf(line)
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
      return {
        ...faults.all(),
        checkpoint: signed,
        logs: parts.map((part) => part.judge()),
        entries,
        decisions: decisions.count(),
        checkpoints,
        lives,
        witnessed,
      }
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
