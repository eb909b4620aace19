import { leafIn, leafOf } from '../proof/leaf.ts'
import { consistencyPath, type Hash, inclusionPath, type Range, rangeRoot } from '../proof/merkle.ts'
import type { EntryProof } from '../proof/entry-proof.ts'
import { bundleOf, subtreesIn, type Tile, tileWidth, tilesOf, widthIn } from '../proof/tiles.ts'
import { BrokerError, ifInRange } from '../base/errors.ts'
import type { Ledger } from './connect.ts'
import { readEntry } from './entries.ts'
import { latestCheckpoint, listLogs, type LogPlace } from './checkpoints.ts'
import { type Placeless, placeOf } from './look.ts'
import { readLeaves, readTiles } from './tiles.ts'

/**
 * The bytes of a tile or a bundle (C2SP tlog-tiles) of one log. They never change. Undefined: there is no such log, or what is signed of it has no such tile,
 * or not of this width.
 *
 * @throws BrokerError `internal` where the store has lost a part of it
 */
export async function readTile(ledger: Ledger, log: number, tile: Tile): Promise<Buffer | undefined> {
  const { level, index, width } = tile
  const head = await latestCheckpoint(ledger, log)
  if (!head || widthIn(head.size, tile) < width) return undefined
  if (level === 'entries') {
    const entries = await readLeaves(ledger, head.log, index * tileWidth, width)
    return entries.length === width ? bundleOf(entries.map(leafOf)) : lost()
  }
  const hashes = (await readTiles(ledger, head.log, [{ level, index }], head.size))({ level, index })
  return hashes ? Buffer.concat(hashes.slice(0, width)) : lost()
}

/** Why an entry cannot be proven, for whoever asked for its proof. */
export const placeless: Readonly<Record<Placeless, string>> = {
  waiting: 'The entry has no place in the log yet: it gets one within seconds',
  stray: 'The entry has no place in the log and never gets one: it was written where the log had been already, as no broker does',
}

/** What proves that an entry is in the log, with what the history has as its leaf. `waiting`: not yet; ask again in a second. `stray`: it never will be. Undefined: there is no such entry. @throws BrokerError `internal` */
export async function proveEntry(ledger: Ledger, entry: string): Promise<EntryProof | Placeless | undefined> {
  const place = await placeOf(ledger, entry)
  if (typeof place !== 'object') return place
  const { index, head } = place
  const [path, fields] = await Promise.all([rootsOf(ledger, head.log, inclusionPath(index, head.size), head.size), readEntry(ledger, entry)])
  return { index, note: head.note, path, leaf: fields && leafIn(fields) }
}

/** What proves that a log of `size` leaves goes on from that of `from`. Undefined: it never had these sizes. @throws BrokerError `internal` */
export async function proveConsistency(ledger: Ledger, log: number, from: number, size: number): Promise<readonly Hash[] | undefined> {
  const head = await latestCheckpoint(ledger, log)
  if (!head || from < 1 || from > size || size > head.size) return undefined
  return await rootsOf(ledger, head.log, consistencyPath(from, size), size)
}

/** What proves that this checkpoint goes on from its log as it was at `from` entries. Undefined: it does not, or there is no such log. @throws BrokerError `internal` */
export async function proveGrowth(
  ledger: Ledger,
  { origin, size }: { readonly origin: string; readonly size: number },
  from: number,
): Promise<readonly Hash[] | undefined> {
  const named = (await listLogs(ledger)).find((known) => known.origin === origin)
  return named && (await proveConsistency(ledger, named.log.number, from, size))
}

const rootsOf = async (...asked: Parameters<typeof readRoots>): Promise<readonly Hash[]> => (await readRoots(...asked)) ?? lost()

/** The roots of these ranges of a log, out of what is kept of its tree. Undefined where a part of that is missing. */
export async function readRoots(ledger: Ledger, log: LogPlace, ranges: readonly Range[], size: number): Promise<readonly Hash[] | undefined> {
  const root = subtreesIn(await readTiles(ledger, log, tilesOf(ranges), size))
  return ifInRange(() => ranges.map((range) => rangeRoot(range, root)))
}

function lost(): never {
  throw new BrokerError('internal', 'A part of the log is missing from the store')
}
