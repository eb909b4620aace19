import { sql, type SQL } from 'drizzle-orm'
import { boundless, headOf, headRow, type HeadRow, type SignedHead } from './checkpoints.ts'
import type { Ledger } from './connect.ts'

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
