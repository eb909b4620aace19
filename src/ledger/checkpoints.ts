import { sql } from 'drizzle-orm'
import type { Head } from '../proof/merkle.ts'
import type { Ledger } from './connect.ts'

/** One of the logs that the history was signed into, one after the other. */
export interface LogPlace {
  /** From 1. */
  readonly number: number
  /** The place of its first entry among all that were signed, counted through all logs. Its own tree begins at 0. */
  readonly first: number
}

/** A tree head as it was signed and kept: the size is that of its own log. */
export interface SignedHead extends Head {
  readonly log: LogPlace
  /** The signed checkpoint. */
  readonly note: string
}

/** Entries that have a place, counted through all logs. */
export const signedEntries = ({ log, size }: SignedHead): number => log.first + size

/** The name that a checkpoint gives its log. It is worth nothing before the signature was checked under it. */
export const originOfNote = (note: string): string => note.slice(0, note.indexOf('\n'))

export interface HeadRow {
  readonly log: LogPlace
  /** Counted through all logs. */
  readonly size: number
  readonly root: string
  readonly note: string
}

export const headOf = ({ log, size, root, note }: HeadRow): SignedHead => ({ log, size: size - log.first, root: Buffer.from(root, 'hex'), note })

/** Of a row of `checkpoints`. A log that began before logs had rows is the first. */
export const headRow = sql`json_build_object('size', size, 'root', encode(root, 'hex'), 'note', note, 'log', coalesce(
  (select json_build_object('number', number, 'first', first) from logs where logs.first < checkpoints.size order by logs.first desc limit 1),
  json_build_object('number', 1, 'first', 0)))`

/** Larger than any size. */
export const boundless = sql`9223372036854775807`

/**
 * The newest checkpoint, and when it was signed, by the store's clock; of one log the newest of that, which is its final one where it is closed.
 * Undefined: nothing was signed yet, or there is no such log.
 */
export async function latestCheckpoint(ledger: Ledger, log?: number): Promise<(SignedHead & { readonly signedAt: Date }) | undefined> {
  const ofLog = sql`where size <= coalesce((select first from logs where number = ${log ?? null}::int + 1), ${boundless})`
  const [row] = await ledger.run<{ head: HeadRow; at: number }>(sql`
    select ${headRow} as head, (extract(epoch from at) * 1000)::double precision as at from checkpoints
    ${log === undefined ? sql`` : ofLog} order by size desc limit 1`)
  const found = row && { ...headOf(row.head), signedAt: new Date(row.at) }
  return found && (log === undefined || found.log.number === log) ? found : undefined
}

/** A log with its newest checkpoint, or, where it is closed, its final one. */
export interface LogRecord extends SignedHead {
  readonly origin: string
  /** The verifier key. Undefined of one that began before keys were kept, until its next append. */
  readonly key: string | undefined
  readonly closed: boolean
}

/** Every log, oldest first. */
export async function listLogs(ledger: Ledger): Promise<readonly LogRecord[]> {
  const rows = await ledger.run<{ origin: string; key: string; closed: boolean; head: HeadRow | null }>(sql`
    select log.origin, log.key, next.first is not null as closed, (
      select ${headRow} from checkpoints where size <= coalesce(next.first, ${boundless}) order by size desc limit 1
    ) as head
    from logs as log left join logs as next on next.number = log.number + 1 order by log.number`)
  const known = rows.flatMap(({ head, ...log }) => (head === null ? [] : [{ ...headOf(head), ...log }]))
  const head = known.length > 0 ? undefined : await latestCheckpoint(ledger)
  return head ? [{ ...head, origin: originOfNote(head.note), key: undefined, closed: false }] : known
}
