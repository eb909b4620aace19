import { BrokerError, describe, ifInRange } from '../base/errors.ts'
import { openCheckpoint } from '../proof/checkpoint.ts'
import { type CompactTree, compactTreeOf, emptyTree, grow, headOf } from '../proof/compact.ts'
import { consistencyPath, type Head, verifyConsistency } from '../proof/merkle.ts'
import type { VerifierKey } from '../proof/note.ts'
import { subtreesIn, tileLevel, tilesOf } from '../proof/tiles.ts'
import { isUnlawful, type Ledger } from './connect.ts'
import { leavesOf } from './leaves.ts'
import type { LogKey, LogSigner } from './log-key.ts'
import { appendToLog, type Leaf, type TreeHash } from './append.ts'
import { latestCheckpoint, listLogs, type LogPlace, originOfNote, type SignedHead } from './checkpoints.ts'
import { type Lag, type Look, lookAtLog } from './look.ts'
import { readTiles } from './tiles.ts'
import { readRoots } from './proofs.ts'

/** Why the log is not signed any further, in the words of the alarm. */
export const refusals = {
  'another key':
    'the log was signed with a key that this broker does not have: give it the log.key or log_key of the others, or leave the signing to them',
  'closed log': 'the log that this broker has the key of was closed, and goes on under another key: give it the new log.key, and start it again',
  'forged checkpoint': 'the last checkpoint is not what this key signed',
  'altered tree': 'the tree in the store does not come to the root that was signed',
  'lost entry': 'the last entry of the log is missing from the history',
  'rolled back': 'the log in the store does not contain the one that this broker has signed or seen',
  'key away': 'the key that signs it is kept elsewhere and does not answer: nothing is lost, and the log catches up when it does',
  'wrong signature': 'what was given as its signature is not one: nothing of it was kept',
  'unreadable entry': 'an entry has no canonical form and can be no leaf: no broker wrote it, and nothing behind it can be signed',
  'older transactions': "the store's transaction ids are behind the log's, as after a restore from a dump: new entries would go unnoticed",
} as const

export type LogRefusal = keyof typeof refusals

/** What one step came to. `overtaken`: another broker appended at the same moment. */
export type Step =
  | { readonly outcome: 'appended' | 'overtaken' | 'nothing new'; readonly lag: Lag; readonly more: boolean }
  /** `error`: the words of whoever keeps the key, for operators only. */
  | { readonly outcome: 'refused'; readonly why: LogRefusal; readonly lag: Lag; readonly error?: string }

/** What a step needs. */
export interface SignedLog {
  readonly ledger: Ledger
  readonly key: LogKey
  /** What the log is called if it begins now. One that has begun keeps its name. */
  readonly origin: string
}

/** The newest checkpoint that was found to be right: what comes later must contain it. It begins unknown and is kept from step to step. */
export interface KnownHead {
  head: SignedHead | undefined
}

/** Entries of one step: a second of a broker at full load, so that what a step costs by itself is paid once a second. More are appended right behind. */
export const usualBatch = 2_500

/**
 * Appends what is settled to the log, and signs it.
 *
 * The order of the log is a matter of the history alone (`lookAtLog`), and the write is one commit guarded by the head that it goes on from. So it does not
 * matter how many brokers do this at once, nor where one of them dies: the log can be behind, but it can neither fork nor leave an entry out. An
 * advisory lock would add nothing but a way to hang.
 *
 * Before it signs, the tree that is kept must come to the root that this key signed last, and must contain every checkpoint that it remembers. Where it
 * does not, somebody has changed the store, and nothing is signed until a person has looked.
 *
 * @throws BrokerError `store_unavailable`; the next step finds out whether this one was carried out
 */
export async function stepLog(log: SignedLog, memory: KnownHead, batch = usualBatch, signal?: AbortSignal): Promise<Step> {
  const look = await lookAtLog(log.ledger, batch)
  try {
    return await advance(log, memory, look, batch, signal)
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'provider_unavailable')
      return { outcome: 'refused', why: 'key away', lag: look.lag, error: describe(error) }
    throw error
  }
}

/** From where the log was found. @throws BrokerError also `provider_unavailable`, while the key does not answer */
async function advance(
  log: SignedLog,
  memory: KnownHead,
  { head, last, next, lag }: Look,
  batch: number,
  signal: AbortSignal | undefined,
): Promise<Step> {
  const { ledger } = log
  const refused = (why: LogRefusal): Step => ({ outcome: 'refused', why, lag })

  const signer = await log.key.signerFor(head ? originOfNote(head.note) : log.origin, signal)
  if (!signer) return refused('forged checkpoint')
  const fault = (head && (await keyFault(log, head, signer, signal))) ?? (await memoryFault(ledger, memory.head, head))
  if (fault) return refused(fault)
  if (last !== 'as it was') return refused(last === 'gone' ? 'lost entry' : 'older transactions')
  memory.head = head
  if (next.length === 0) return { outcome: 'nothing new', lag, more: false }

  const tree = head ? await keptTree(ledger, head) : emptyTree
  if (!tree) return refused('altered tree')
  const leaves = await leavesOf(ledger, next)
  if (!leaves) return refused('unreadable entry')
  const grown = growth(tree, leaves)
  const to = await signedBy(signer, head?.log ?? firstLog, grown.head, signal)
  // A key that is elsewhere is believed no more than a store: what was kept once could not be taken back.
  if (headFault(to, signer.key)) return refused('wrong signature')
  const name = { ...to.log, origin: signer.key.name, key: signer.key.text }
  const appended = await appendToLog(ledger, head, to, { ...grown, logs: [name] }).catch((error: unknown) => {
    // A place or an entry that is taken though no checkpoint covers it: nobody who signs leaves such a thing.
    if (isUnlawful(error)) return undefined
    throw error
  })
  if (appended === undefined) return refused('altered tree')
  if (appended) memory.head = to
  return { outcome: appended ? 'appended' : 'overtaken', lag, more: next.length === batch }
}

const firstLog: LogPlace = { number: 1, first: 0 }

/** What entries make of a tree: its head, and all of it that has to be kept. */
interface Growth {
  readonly head: Head
  readonly leaves: readonly Leaf[]
  readonly above: readonly TreeHash[]
}

/** What a tree comes to with these leaves. */
export function growth(tree: CompactTree, leaves: readonly Leaf[]): Growth {
  const above: TreeHash[] = []
  const hashes = leaves.map(({ hash }) => hash)
  const grown = grow(tree, hashes, (subtree, hash) => {
    const level = tileLevel(subtree)
    if (level !== undefined && level > 0) above.push({ level, index: subtree.index, hash })
  })
  return { head: headOf(grown), leaves, above }
}

/** A head of this log, signed: by a key that may be elsewhere, and so is to be looked at with `headFault`. */
export const signedBy = async (signer: LogSigner, log: LogPlace, head: Head, signal?: AbortSignal): Promise<SignedHead> => ({
  ...head,
  log,
  note: await signer.sign(head, signal),
})

/** Why this key cannot go on from the head: a key that signed a log before this one is told that from one that has nothing to do with it. */
async function keyFault(
  { ledger, key }: SignedLog,
  head: SignedHead,
  signer: LogSigner,
  signal: AbortSignal | undefined,
): Promise<LogRefusal | undefined> {
  const fault = headFault(head, signer.key)
  if (fault !== 'another key') return fault
  for (const { log, origin, key: known } of await listLogs(ledger)) {
    const isClosed = log.number < head.log.number
    if (isClosed && known !== undefined && (await key.signerFor(origin, signal))?.key.text === known) return 'closed log'
  }
  return fault
}

/** What is wrong with a head by this key. */
export function headFault(head: SignedHead, key: VerifierKey): 'another key' | 'forged checkpoint' | undefined {
  const opened = openCheckpoint(head.note, [key])
  if (!opened.ok) return opened.fault === 'unknown_key' ? 'another key' : 'forged checkpoint'
  const { size, root } = opened.checkpoint
  return size === head.size && root.equals(head.root) ? undefined : 'forged checkpoint'
}

/**
 * Whether the store has lost or changed what is remembered of the log, as it would by a restore, or a failover to a server that was behind. Of a log that
 * was closed meanwhile, its final checkpoint must contain it.
 */
async function memoryFault(ledger: Ledger, known: SignedHead | undefined, head: SignedHead | undefined): Promise<LogRefusal | undefined> {
  if (!known || known.note === head?.note) return undefined
  const wasClosed = head !== undefined && known.log.number < head.log.number
  const newest = wasClosed ? await latestCheckpoint(ledger, known.log.number) : head
  if (wasClosed && newest?.note === known.note) return undefined
  if (newest?.log.number !== known.log.number || newest.size <= known.size) return 'rolled back'
  const path = await readRoots(ledger, newest.log, consistencyPath(known.size, newest.size), newest.size)
  return path && verifyConsistency(known, newest, path) ? undefined : 'rolled back'
}

/** The right edge of the tree that is kept. Undefined where it does not come to this head. */
export async function keptTree(ledger: Ledger, { log, ...head }: SignedHead): Promise<CompactTree | undefined> {
  const tiles = await readTiles(ledger, log, tilesOf([{ start: 0, count: head.size }]), head.size)
  const tree = ifInRange(() => compactTreeOf(head.size, subtreesIn(tiles)))
  return tree && headOf(tree).root.equals(head.root) ? tree : undefined
}
