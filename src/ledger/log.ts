import { sql, type SQL } from 'drizzle-orm'
import type { Json } from '../base/json.ts'
import { type EntryFields } from '../proof/leaf.ts'
import type { Hash, Head } from '../proof/merkle.ts'
import { tileWidth, type TilePlace, widthIn } from '../proof/tiles.ts'
import type { Ledger } from './connect.ts'
import { exported, type ExportedRow, fieldsOfEntry, json, rfc3339 } from './entries.ts'

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

/** What waits for its place in the log. */
export interface Lag {
  /** Entries, those too that are not settled yet; counted up to `mostCounted`. */
  readonly entries: number
  /** Age of the one that is next; 0 where none waits. */
  readonly seconds: number
  /** Ids of strays among the newest entries, up to ten: they stand where the log has been already, and wait in vain. */
  readonly strays: readonly string[]
}

export interface Look {
  /** Undefined: nothing was ever signed. */
  readonly head: SignedHead | undefined
  /** Whether the last entry of the log is in the history still, and its transaction in the past. */
  readonly last: 'as it was' | 'gone' | 'in the future'
  /** The ids of what is next, in order. */
  readonly next: readonly string[]
  readonly lag: Lag
}

/** Where counting what waits ends: a count costs what it counts, and this is seconds of a busy broker's history. */
const mostCounted = 10_000

/** One is an alarm; their names help whoever looks. */
const mostStrays = 10

interface HeadRow {
  readonly log: LogPlace
  /** Counted through all logs. */
  readonly size: number
  readonly root: string
  readonly note: string
}

const headOf = ({ log, size, root, note }: HeadRow): SignedHead => ({ log, size: size - log.first, root: Buffer.from(root, 'hex'), note })

/** Of a row of `checkpoints`. A log that began before logs had rows is the first. */
const headRow = sql`json_build_object('size', size, 'root', encode(root, 'hex'), 'note', note, 'log', coalesce(
  (select json_build_object('number', number, 'first', first) from logs where logs.first < checkpoints.size order by logs.first desc limit 1),
  json_build_object('number', 1, 'first', 0)))`

/** What a log that goes on from another begins with. It is written with its place, and in the order of the history it has none: its transaction is 0. */
export interface OpeningEntry {
  readonly id: string
  readonly at: string
  readonly xid: '0'
  readonly kind: 'log.opened'
  readonly body: Json
}

/**
 * The queries `head`, the newest checkpoint, and `last`, the last entry in the order of the history that has its place. Whatever stands before that and has
 * none is a stray. No broker can leave one, for the log takes only what nothing that commits later can come before; but the owner of the database can write
 * an entry with whatever transaction they like.
 */
const ending = sql`
    head as materialized (select size, previous, ${headRow} as row from checkpoints order by size desc limit 1),
    place as (
      -- Openings may follow one another.
      select max(place) as last from head, generate_series(head.size - 1 - (select count(*) from logs), head.size - 1) as place
      where not exists (select from logs where logs.first = place and logs.number > 1)
    ),
    last as materialized (
      select entry.xid, entry.id from place join leaves as leaf on leaf.index = place.last join entries as entry on entry.id = leaf.entry_id
    )`

/** Whether an entry stands where the log has been already. */
const isPassed = (entry: SQL): SQL => sql`coalesce((${entry}.xid, ${entry}.id) <= (select xid, id from last), false)`

/**
 * Where the log stands, and up to `limit` entries that come next.
 *
 * In the order of (xid, id), and only those whose transaction is below every one that is still open: nothing that commits later can come before them.
 * So the history alone says which entry comes next, whoever asks and whenever: two who append at once append the same. Read behind the last one and not
 * by what has no leaf yet, which would cost all there ever was. The last one in that order: the opening of a log stands where the log before it was closed.
 *
 * Strays are looked for where the store itself would put them: behind the ids that had their place one checkpoint ago, and not while much waits. What is
 * elsewhere is found later, by whoever goes through the whole history (`seekStrays`, `readLogLines`).
 */
export async function lookAtLog(ledger: Ledger, limit: number): Promise<Look> {
  const [row] = await ledger.run<{
    head: HeadRow | null
    last: Look['last'] | null
    next: string[] | null
    waiting: number
    seconds: number | null
    strays: string[] | null
  }>(sql`
    with ${ending},
    after as materialized (select coalesce((select xid from last), '0'::xid8) as xid, coalesce((select id from last), '') as id),
    next as materialized (
      select entry.* from after cross join lateral (
        select xid, id from entries where (entries.xid, entries.id) > (after.xid, after.id) and entries.xid < pg_snapshot_xmin(pg_current_snapshot())
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
    ),
    newest as (
      select id, xid from entries
      where id > coalesce((select entry_id from leaves where index = (select previous - 1 from head)), '')
        and (select count(*) from waiting) < ${mostCounted} order by id limit ${mostCounted}
    ),
    stray as (
      -- One by one: of a join Postgres might think that it is cheaper to read all leaves.
      select id from newest where ${isPassed(sql`newest`)} and (select index from leaves where entry_id = newest.id) is null limit ${mostStrays}
    )
    select
      (select row from head) as head,
      case when not exists (select from head) then 'as it was'
        when not exists (select from last) then 'gone'
        when (select xid from last) >= pg_snapshot_xmin(pg_current_snapshot()) then 'in the future' else 'as it was' end as last,
      (select json_agg(id order by xid, id) from next) as next,
      (select count(*)::int from waiting) as waiting,
      (select greatest(extract(epoch from clock_timestamp() - at), 0)::double precision from oldest) as seconds,
      (select json_agg(id) from stray) as strays`)
  return {
    head: row?.head ? headOf(row.head) : undefined,
    last: row?.last ?? 'as it was',
    next: row?.next ?? [],
    lag: { entries: row?.waiting ?? 0, seconds: row?.seconds ?? 0, strays: row?.strays ?? [] },
  }
}

/** How far somebody has gone through the history, in the order of the log. */
export interface Reached {
  readonly xid: string
  readonly id: string
}

/** Before the first entry. */
export const beginning: Reached = { xid: '0', id: '' }

/** Which of the next `limit` entries that the log has been past are strays. @returns how far that is; undefined: to where the log is */
export async function seekStrays(
  ledger: Ledger,
  from: Reached,
  limit: number,
): Promise<{ readonly strays: readonly string[]; readonly reached: Reached | undefined }> {
  const [row] = await ledger.run<{ strays: string[] | null; reached: Reached | null }>(sql`
    with ${ending},
    passed as materialized (
      select entry.* from last cross join lateral (
        select xid, id from entries where (entries.xid, entries.id) > (${from.xid}::text::xid8, ${from.id}::text) and (entries.xid, entries.id) <= (last.xid, last.id)
        order by entries.xid, entries.id limit ${limit}
      ) as entry
    )
    select
      -- One by one, as above.
      (select json_agg(id) from passed where (select index from leaves where entry_id = passed.id) is null) as strays,
      (select json_build_object('xid', xid::text, 'id', id) from passed order by xid, id offset ${limit - 1}) as reached`)
  return { strays: row?.strays ?? [], reached: row?.reached ?? undefined }
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

/** Hashes of the tree by the tile that they are in. */
export type Tiles = (place: TilePlace) => readonly Hash[] | undefined

/** Reads these tiles as they are in a log's tree of `size` leaves. One of which a hash is missing is missing. */
export async function readTiles(ledger: Ledger, log: LogPlace, places: readonly TilePlace[], size: number): Promise<Tiles> {
  const asked = places.map((place) => ({ ...place, start: place.index * tileWidth, width: widthIn(size, place) }))
  const rows = await ledger.run<{ level: number; index: number; hashes: string[] | null }>(sql`
    select tile.level, tile.index::double precision as index, (
      select json_agg(encode(found.hash, 'hex') order by found.index) from (
        select leaves.index, leaves.hash from leaves where tile.level = 0
          and leaves.index >= ${log.first}::bigint + tile.start and leaves.index < ${log.first}::bigint + tile.start + tile.width
        union all
        select subtrees.index, subtrees.hash from subtrees
        where subtrees.log = ${log.number}::int and subtrees.level = tile.level and subtrees.index >= tile.start and subtrees.index < tile.start + tile.width
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

/** Larger than any size. */
const boundless = sql`9223372036854775807`

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

/** The entries of a log from this place in it on, in its order. */
export async function readLeaves(ledger: Ledger, log: LogPlace, start: number, count: number): Promise<readonly EntryFields[]> {
  const from = log.first + start
  const rows = await ledger.run<{ entry: ExportedRow }>(sql`
    select ${exported(sql`entry`)} as entry from leaves as leaf join entries as entry on entry.id = leaf.entry_id
    where leaf.index >= ${from}::bigint and leaf.index < ${from}::bigint + ${count}::bigint order by leaf.index`)
  return rows.map(({ entry }) => fieldsOfEntry(entry))
}

/** Why an entry has no place: it has none yet, or the log has been where it stands, and it never gets one. */
export type Placeless = 'waiting' | 'stray'

/** Where an entry is in its log, and the newest or final checkpoint of that; or why it has no place. Undefined: there is no such entry. */
export async function placeOf(ledger: Ledger, entry: string): Promise<{ index: number; head: SignedHead } | Placeless | undefined> {
  const [row] = await ledger.run<{ index: number | null; passed: boolean; head: HeadRow | null }>(sql`
    with ${ending}
    select leaf.index::double precision as index, ${isPassed(sql`entry`)} as passed, (
      select ${headRow} from checkpoints
      where size <= coalesce((select first from logs where first > leaf.index order by first limit 1), ${boundless}) order by size desc limit 1
    ) as head
    from entries as entry left join leaves as leaf on leaf.entry_id = entry.id where entry.id = ${entry}`)
  if (!row) return undefined
  if (row.index === null || row.head === null) return row.passed ? 'stray' : 'waiting'
  const head = headOf(row.head)
  return { index: row.index - head.log.first, head }
}
