import { BrokerError } from '../base/errors.ts'
import { emptyTree } from '../proof/compact.ts'
import { leafHashOf } from '../proof/leaf.ts'
import { type Opening, openingKind } from '../proof/opening.ts'
import { parseVerifierKey, type VerifierKey } from '../proof/note.ts'
import type { Ledger } from './connect.ts'
import type { LogKey, LogSigner } from './log-key.ts'
import { appendToLog, nextEntry } from './append.ts'
import { listLogs, type LogRecord, signedEntries } from './checkpoints.ts'
import { type Look, lookAtLog } from './look.ts'
import { growth, headFault, keptTree, refusals, signedBy } from './signing.ts'

/** What to rotate, and by whose keys. */
export interface Rotating {
  readonly ledger: Ledger
  /** What the log that is open was signed with. Undefined where that is lost: then its verifier key, as the store has it, must do. */
  readonly key: LogKey | undefined
  /** What the next log is signed with. */
  readonly next: LogKey
}

/** The log that was closed, with its final checkpoint, and the one that goes on from it. */
export interface Rotated {
  readonly closed: LogRecord
  readonly opened: LogRecord
}

/** Each is overtaken only by an append of a broker in the same milliseconds, and those come once a second. */
const tries = 20

/**
 * Closes the log that is open at its last checkpoint, and opens the next one: under a name and a key of its own, with an entry that names the final checkpoint.
 *
 * One commit, guarded as every append is. Before it nothing has happened, behind it nobody can add to the closed log: whoever tries goes on from a head
 * that is the last no more. What had no place yet gets it in the new log.
 *
 * @throws BrokerError `conflict` with what speaks against it; `store_unavailable`: it was carried out or not, and doing it again with the same keys finds
 * out which
 */
export async function rotateLog({ ledger, key, next }: Rotating): Promise<Rotated> {
  for (let attempt = 1; attempt <= tries; attempt++) {
    const [look, logs] = [await lookAtLog(ledger, 0), await listLogs(ledger)]
    const [open, before] = [logs.at(-1), logs.at(-2)]
    if (!look.head || !open) return refuse('it has not begun: it does with its first entry')
    if (open.note !== look.head.note) continue
    // By somebody who was interrupted then, or is at it at this moment.
    if (before && (await isSignedBy(next, open))) return { closed: before, opened: open }

    const closed = { ...open, key: await examine(ledger, look, open, key), closed: true }
    const origin = `${logs[0]!.origin}/log/${open.log.number + 1}`
    const opened = await openNext(ledger, closed, (await next.signerFor(origin)) ?? refuse('the next one would have a name that no key can have'))
    if (opened) return { closed, opened }
  }
  throw new BrokerError('store_unavailable', 'The log is appended to faster than it can be closed', { retryAfter: 1 })
}

/** The verifier key of the open log, which is found to be as that has signed it: nothing else is closed. */
async function examine(ledger: Ledger, { last }: Look, open: LogRecord, key: LogKey | undefined): Promise<string> {
  const trusted = key ? (await key.signerFor(open.origin))?.key : parseVerifierKey(open.key ?? '')
  if (!trusted) return refuse('its verifier key is not known here, so that nobody could say what is closed')
  const moved = last === 'as it was' ? undefined : last === 'gone' ? 'lost entry' : 'older transactions'
  const fault = headFault(open, trusted) ?? moved ?? ((await keptTree(ledger, open)) ? undefined : 'altered tree')
  if (fault === 'another key') return refuse(`${refusals[fault]}. Where that key is lost for good, the log can be closed without it: --lost`)
  return fault ? refuse(refusals[fault]) : trusted.text
}

/** Undefined: somebody has added to the log meanwhile. */
async function openNext(ledger: Ledger, closed: LogRecord & { readonly key: string }, signer: LogSigner): Promise<LogRecord | undefined> {
  const log = { number: closed.log.number + 1, first: signedEntries(closed) }
  const opening = { ...(await nextEntry(ledger)), xid: '0', kind: openingKind, body: openingOf(log.number, signer.key, closed) } as const
  const { head, ...rows } = growth(emptyTree, [{ entry: opening.id, hash: leafHashOf(opening) ?? refuse(refusals['unreadable entry']) }])
  const to = await signedBy(signer, log, head)
  if (headFault(to, signer.key)) return refuse(refusals['wrong signature'])
  const name = { origin: signer.key.name, key: signer.key.text }
  const logs = [
    { ...closed.log, origin: closed.origin, key: closed.key },
    { ...log, ...name },
  ]
  const appended = await appendToLog(ledger, closed, to, { ...rows, logs, opening })
  return appended ? { ...to, ...name, closed: false } : undefined
}

function refuse(why: string): never {
  throw new BrokerError('conflict', 'The log cannot be closed', { cause: new Error(why) })
}

async function isSignedBy(key: LogKey, log: LogRecord): Promise<boolean> {
  const signer = await key.signerFor(log.origin)
  return signer !== undefined && headFault(log, signer.key) === undefined
}

const openingOf = (log: number, { name: origin, text: key }: VerifierKey, closed: LogRecord & { readonly key: string }): Opening => ({
  log,
  origin,
  key,
  closed: {
    origin: closed.origin,
    key: closed.key,
    size: closed.size,
    root: closed.root.toString('base64'),
    checkpoint: closed.note,
  },
})
