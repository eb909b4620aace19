import { sql, type SQL } from 'drizzle-orm'
import { type EntryFields } from '../proof/leaf.ts'
import type { Hash, Head } from '../proof/merkle.ts'
import { tileWidth, type TilePlace, widthIn } from '../proof/tiles.ts'
import type { Ledger } from './connect.ts'
import { rfc3339 } from './entries.ts'

/** A tree head as it was signed and kept. */
export interface SignedHead extends Head {
  /** The signed checkpoint. */
  readonly note: string
}

/** What waits for its place in the log. */
export interface Lag {
  /** Entries, those too that are not settled yet; counted up to `mostCounted`. */
  readonly entries: number
  /** Age of the one that is next; 0 where none waits. */
  readonly seconds: number
}

export interface Look {
  /** Undefined: nothing was ever signed. */
  readonly head: SignedHead | undefined
  /** Whether the last entry of the log is in the history still, and its transaction in the past. */
  readonly last: 'as it was' | 'gone' | 'in the future'
  /** What is next, in order. */
  readonly next: readonly EntryFields[]
  readonly lag: Lag
}

/** Where counting what waits ends: a count costs what it counts, and this is seconds of a busy broker's history. */
const mostCounted = 10_000

/** An entry's row as it is exported; `fieldsOf` drops what does not apply. */
export const exported = (entry: SQL): SQL => sql`json_build_object('id', ${entry}.id, 'at', ${rfc3339(sql`${entry}.at`)}, 'xid', ${entry}.xid::text,
  'kind', ${entry}.kind, 'agent', ${entry}.agent, 'task', ${entry}.task_id, 'lease', ${entry}.lease_id, 'decision', ${entry}.decision_id, 'body', ${entry}.body)`

/** What does not apply is null. */
export type ExportedRow = Pick<EntryFields, 'id' | 'at' | 'xid' | 'kind' | 'body'> & {
  readonly [Name in 'agent' | 'task' | 'lease' | 'decision']: string | null
}

/** Not in the statement: that would take the nulls out of bodies too. One by one, for every entry of the log passes here. */
export const fieldsOf = ({ id, at, xid, kind, agent, task, lease, decision, body }: ExportedRow): EntryFields => ({
  id,
  at,
  xid,
  kind,
  ...(agent !== null && { agent }),
  ...(task !== null && { task }),
  ...(lease !== null && { lease }),
  ...(decision !== null && { decision }),
  body,
})

interface HeadRow {
  readonly size: number
  readonly root: string
  readonly note: string
}

const headOf = ({ size, root, note }: HeadRow): SignedHead => ({ size, root: Buffer.from(root, 'hex'), note })

const headRow = sql`json_build_object('size', size, 'root', encode(root, 'hex'), 'note', note)`

/**
 * Where the log stands, and up to `limit` entries that come next.
 *
 * In the order of (xid, id), and only those whose transaction is below every one that is still open: nothing that commits later can come before them.
 * So the history alone says which entry comes next, whoever asks and whenever: two who append at once append the same. Read behind the last one and not
 * by what has no leaf yet, which would cost all there ever was.
 */
export async function lookAtLog(ledger: Ledger, limit: number): Promise<Look> {
  const [row] = await ledger.run<{
    head: HeadRow | null
    last: Look['last'] | null
    next: ExportedRow[] | null
    waiting: number
    seconds: number | null
  }>(sql`
    with head as materialized (select size, root, note from checkpoints order by size desc limit 1),
    last as materialized (
      select entry.xid, entry.id from head join leaves as leaf on leaf.index = head.size - 1 join entries as entry on entry.id = leaf.entry_id
    ),
    after as materialized (select coalesce((select xid from last), '0'::xid8) as xid, coalesce((select id from last), '') as id),
    next as materialized (
      select entry.* from after cross join lateral (
        select * from entries where (entries.xid, entries.id) > (after.xid, after.id) and entries.xid < pg_snapshot_xmin(pg_current_snapshot())
        order by entries.xid, entries.id limit ${limit}
      ) as entry
    ),
    oldest as (
      select entry.at from after cross join lateral (
        select at from entries where (entries.xid, entries.id) > (after.xid, after.id) order by entries.xid, entries.id limit 1
      ) as entry
    ),
    waiting as (
      select from after cross join lateral (
        -- Ordered, though it only counts: else Postgres would look up everything that waits before it takes the first ones.
        select from entries where (entries.xid, entries.id) > (after.xid, after.id) order by entries.xid, entries.id limit ${mostCounted}
      ) as entry
    )
    select
      (select ${headRow} from head) as head,
      case when not exists (select from head) then 'as it was'
        when not exists (select from last) then 'gone'
        when (select xid from last) >= pg_snapshot_xmin(pg_current_snapshot()) then 'in the future' else 'as it was' end as last,
      (select json_agg(${exported(sql`next`)} order by next.xid, next.id) from next) as next,
      (select count(*)::int from waiting) as waiting,
      (select greatest(extract(epoch from clock_timestamp() - at), 0)::double precision from oldest) as seconds`)
  return {
    head: row?.head ? headOf(row.head) : undefined,
    last: row?.last ?? 'as it was',
    next: (row?.next ?? []).map(fieldsOf),
    lag: { entries: row?.waiting ?? 0, seconds: row?.seconds ?? 0 },
  }
}

/** An entry with its place. */
export interface Leaf {
  readonly index: number
  readonly entry: string
  readonly hash: Hash
}

/** A hash of the tree above its leaves. */
export interface TreeHash extends TilePlace {
  readonly hash: Hash
}

/**
 * Appends leaves, and with them the tree above them and the checkpoint over it, in one commit: whatever has its place is signed, and a crash leaves
 * all of it or nothing.
 *
 * Guarded by the head that it goes on from. Two who do so at once meet at the checkpoint: the second waits for the first, and then appends nothing.
 *
 * @returns whether it was appended; false: somebody else was faster
 */
export async function appendToLog(
  ledger: Ledger,
  from: Head | undefined,
  to: SignedHead,
  leaves: readonly Leaf[],
  above: readonly TreeHash[],
): Promise<boolean> {
  const hex = (rows: readonly { readonly hash: Hash }[]) => JSON.stringify(rows.map((row) => ({ ...row, hash: row.hash.toString('hex') })))
  const rows = await ledger.run(sql`
    with signed as (
      insert into checkpoints (size, previous, root, note)
      select ${to.size}::bigint, ${from?.size ?? 0}::bigint, decode(${to.root.toString('hex')}, 'hex'), ${to.note}::text
      where coalesce((select encode(root, 'hex') from checkpoints order by size desc limit 1), '') = ${from?.root.toString('hex') ?? ''}
      on conflict do nothing returning size
    ),
    numbered as (
      insert into leaves (index, entry_id, hash) select leaf.index, leaf.entry, decode(leaf.hash, 'hex')
      from signed cross join json_to_recordset(${hex(leaves)}::text::json) as leaf(index bigint, entry text, hash text)
    ),
    grown as (
      insert into subtrees (level, index, hash) select above.level, above.index, decode(above.hash, 'hex')
      from signed cross join json_to_recordset(${hex(above)}::text::json) as above(level int, index bigint, hash text)
    )
    select size from signed`)
  return rows.length > 0
}

/** Hashes of the tree by the tile that they are in. */
export type Tiles = (place: TilePlace) => readonly Hash[] | undefined

/** Reads these tiles as they are in a tree of `size` leaves. One of which a hash is missing is missing. */
export async function readTiles(ledger: Ledger, places: readonly TilePlace[], size: number): Promise<Tiles> {
  const asked = places.map((place) => ({ ...place, start: place.index * tileWidth, width: widthIn(size, place) }))
  const rows = await ledger.run<{ level: number; index: number; hashes: string[] | null }>(sql`
    select tile.level, tile.index::double precision as index, (
      select json_agg(encode(found.hash, 'hex') order by found.index) from (
        select leaves.index, leaves.hash from leaves where tile.level = 0 and leaves.index >= tile.start and leaves.index < tile.start + tile.width
        union all
        select subtrees.index, subtrees.hash from subtrees
        where subtrees.level = tile.level and subtrees.index >= tile.start and subtrees.index < tile.start + tile.width
      ) as found
    ) as hashes
    from json_to_recordset(${JSON.stringify(asked)}::text::json) as tile(level int, index bigint, start bigint, width bigint)`)
  const tiles = new Map<string, readonly Hash[]>()
  for (const { level, index, hashes } of rows) {
    if (hashes?.length !== widthIn(size, { level, index })) continue
    tiles.set(
      `${level}/${index}`,
      hashes.map((hash) => Buffer.from(hash, 'hex')),
    )
  }
  return ({ level, index }) => tiles.get(`${level}/${index}`)
}

/** The newest checkpoint, and when it was signed, by the store's clock. Undefined: nothing was signed yet. */
export async function latestCheckpoint(ledger: Ledger): Promise<(SignedHead & { readonly signedAt: Date }) | undefined> {
  const [row] = await ledger.run<{ head: HeadRow; at: number }>(sql`
    select ${headRow} as head, (extract(epoch from at) * 1000)::double precision as at from checkpoints order by size desc limit 1`)
  return row && { ...headOf(row.head), signedAt: new Date(row.at) }
}

/** The entries from this place on, in the order of the log. */
export async function readLeaves(ledger: Ledger, start: number, count: number): Promise<readonly EntryFields[]> {
  const rows = await ledger.run<{ entry: ExportedRow }>(sql`
    select ${exported(sql`entry`)} as entry from leaves as leaf join entries as entry on entry.id = leaf.entry_id
    where leaf.index >= ${start}::bigint and leaf.index < ${start}::bigint + ${count}::bigint order by leaf.index`)
  return rows.map(({ entry }) => fieldsOf(entry))
}

/** An entry with all that its leaf is made of. Undefined: there is none with this id. */
export async function readEntry(ledger: Ledger, id: string): Promise<EntryFields | undefined> {
  const [row] = await ledger.run<{ entry: ExportedRow }>(sql`select ${exported(sql`entry`)} as entry from entries as entry where entry.id = ${id}`)
  return row && fieldsOf(row.entry)
}

/** Where an entry is in the log, and the newest checkpoint. `waiting`: it has no place yet. Undefined: there is no such entry. */
export async function placeOf(ledger: Ledger, entry: string): Promise<{ index: number; head: SignedHead } | 'waiting' | undefined> {
  const [row] = await ledger.run<{ index: number | null; head: HeadRow | null }>(sql`
    select (select index::double precision from leaves where entry_id = entry.id) as index,
      (select ${headRow} from checkpoints order by size desc limit 1) as head
    from entries as entry where entry.id = ${entry}`)
  if (!row) return undefined
  return row.index === null || row.head === null ? 'waiting' : { index: row.index, head: headOf(row.head) }
}
