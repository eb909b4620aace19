import { sql, type SQL } from 'drizzle-orm'
import type { Json } from '../base/json.ts'
import type { Hash } from '../proof/merkle.ts'
import type { TilePlace } from '../proof/tiles.ts'
import { type LogPlace, signedEntries, type SignedHead } from './checkpoints.ts'
import type { Ledger } from './connect.ts'
import { json, rfc3339 } from './entries.ts'

/** What a log that goes on from another begins with. It is written with its place, and in the order of the history it has none: its transaction is 0. */
export interface OpeningEntry {
  readonly id: string
  readonly at: string
  readonly xid: '0'
  readonly kind: 'log.opened'
  readonly body: Json
}

/** An entry with what it comes to in the tree. */
export interface Leaf {
  readonly entry: string
  readonly hash: Hash
}

/** A hash of the tree above its leaves. */
export interface TreeHash extends TilePlace {
  readonly hash: Hash
}

/** A log with its name and its verifier key. */
export interface NamedLog extends LogPlace {
  readonly origin: string
  readonly key: string
}

/** What an append writes besides entries that there are. */
export interface Append {
  /** The last of the log's tree, in order. */
  readonly leaves: readonly Leaf[]
  readonly above: readonly TreeHash[]
  /** The log that it is of, and the one that it closes: kept where they are not yet. */
  readonly logs: readonly NamedLog[]
  /** The first entry of a log that goes on from another, which is written with its place. */
  readonly opening?: OpeningEntry
}

/**
 * Appends leaves, and with them the tree above them and the checkpoint over it, in one commit: whatever has its place is signed, and a crash leaves
 * all of it or nothing.
 *
 * Guarded by the head that it goes on from. Two who do so at once meet at the checkpoint: the second waits for the first, and then appends nothing. That
 * goes for closing a log too, which is to open the next one from its head: nobody can go on from the same head any more.
 *
 * @returns whether it was appended; false: somebody else was faster
 */
export async function appendToLog(
  ledger: Ledger,
  from: SignedHead | undefined,
  to: SignedHead,
  { leaves, above, logs, opening }: Append,
): Promise<boolean> {
  const start = signedEntries(to) - leaves.length
  const subtrees = above.map((subtree) => ({ ...subtree, hash: subtree.hash.toString('hex') }))
  const rows = await ledger.run(sql`
    with signed as (
      insert into checkpoints (size, previous, root, note)
      select ${signedEntries(to)}::bigint, ${from ? signedEntries(from) : 0}::bigint, decode(${to.root.toString('hex')}, 'hex'), ${to.note}::text
      where coalesce((select encode(root, 'hex') from checkpoints order by size desc limit 1), '') = ${from?.root.toString('hex') ?? ''}
      on conflict do nothing returning size
    ),
    named as (
      insert into logs (number, origin, key, first) select log.number, log.origin, log.key, log.first
      from signed cross join json_to_recordset(${JSON.stringify(logs)}::text::json) as log(number int, origin text, key text, first bigint)
      where not exists (select from logs where logs.number = log.number)
    ),
    ${opening ? sql`opened as (${insertOpening(opening)} from signed),` : sql``}
    -- One text of all, for to read a record of each costs as much as to write it.
    hashes as materialized (select decode(${Buffer.concat(leaves.map(({ hash }) => hash)).toString('hex')}, 'hex') as bytes),
    numbered as (
      insert into leaves (index, entry_id, hash) select ${start}::bigint + leaf.number - 1, leaf.entry, substr(hashes.bytes, (leaf.number::int - 1) * 32 + 1, 32)
      from signed cross join hashes cross join json_array_elements_text(${JSON.stringify(leaves.map(({ entry }) => entry))}::text::json)
        with ordinality as leaf(entry, number)
    ),
    grown as (
      insert into subtrees (log, level, index, hash) select ${to.log.number}::int, above.level, above.index, decode(above.hash, 'hex')
      from signed cross join json_to_recordset(${JSON.stringify(subtrees)}::text::json) as above(level int, index bigint, hash text)
    )
    select size from signed`)
  return rows.length > 0
}

const insertOpening = ({ id, at, xid, kind, body }: OpeningEntry): SQL => sql`
  insert into entries (id, at, xid, kind, body) select ${id}::text, ${at}::text::timestamptz, ${xid}::text::xid8, ${kind}::text, ${json(body)}`

/** The next id and the time of the history, for an entry that is hashed before it is written. */
export async function nextEntry(ledger: Ledger): Promise<Pick<OpeningEntry, 'id' | 'at'>> {
  const [row] = await ledger.run<Pick<OpeningEntry, 'id' | 'at'>>(sql`select entry_id() as id, ${rfc3339(sql`now()`)} as at`)
  return row!
}
