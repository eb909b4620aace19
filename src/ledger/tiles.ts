import { sql } from 'drizzle-orm'
import type { EntryFields } from '../proof/leaf.ts'
import type { Hash } from '../proof/merkle.ts'
import { type TilePlace, tileWidth, widthIn } from '../proof/tiles.ts'
import type { LogPlace } from './checkpoints.ts'
import type { Ledger } from './connect.ts'
import { exported, type ExportedRow, fieldsOfEntry } from './entries.ts'

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

/** The entries of a log from this place in it on, in its order. */
export async function readLeaves(ledger: Ledger, log: LogPlace, start: number, count: number): Promise<readonly EntryFields[]> {
  const from = log.first + start
  const rows = await ledger.run<{ entry: ExportedRow }>(sql`
    select ${exported(sql`entry`)} as entry from leaves as leaf join entries as entry on entry.id = leaf.entry_id
    where leaf.index >= ${from}::bigint and leaf.index < ${from}::bigint + ${count}::bigint order by leaf.index`)
  return rows.map(({ entry }) => fieldsOfEntry(entry))
}
