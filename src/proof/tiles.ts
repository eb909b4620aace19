import { type Hash, nodeHash, partsOf, type Range, type Subtree, type SubtreeRoot } from './merkle.ts'
import { fromDecimal } from './spelling.ts'

/** Hashes of a full tile. Fixed by C2SP tlog-tiles. */
export const tileWidth = 256

const tileHeight = 8

/** A tile of hashes by its level, or a bundle of entries. Where `width` is less than 256 it is the right edge of a tree of some size. */
export interface Tile {
  readonly level: number | 'entries'
  readonly index: number
  readonly width: number
}

/** A tile of hashes, whatever its width. */
export interface TilePlace {
  readonly level: number
  readonly index: number
}

/** The path of a tile (C2SP tlog-tiles): `tile/0/x001/x234/067`, `tile/entries/000.p/17`. */
export function tilePath({ level, index, width }: Tile): string {
  const digits = String(index)
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, '0').match(/\d{3}/g)!
  const last = groups.pop()!
  return `tile/${[level, ...groups.map((group) => `x${group}`), last].join('/')}${width < tileWidth ? `.p/${width}` : ''}`
}

/** The tile of a path. Undefined where it is not one, or not its one spelling. */
export function parseTilePath(path: string): Tile | undefined {
  if (path.length > 64) return undefined
  const [, name = '', places = '', partial] = /^tile\/(\w+)\/((?:x\d{3}\/)*\d{3})(?:\.p\/(\d+))?$/.exec(path) ?? []
  const level = name === 'entries' ? ('entries' as const) : fromDecimal(name)
  const index = fromDecimal(places.replaceAll(/[x/]/g, '').replace(/^0+(?=\d)/, ''))
  const width = partial === undefined ? tileWidth : fromDecimal(partial)
  if (level === undefined || index === undefined || width === undefined || width < 1 || (level !== 'entries' && level > 63)) return undefined
  const tile = { level, index, width }
  // An `x000` too many, or a full tile that is called partial.
  return tilePath(tile) === path ? tile : undefined
}

/** How wide a tile is in a tree of `size` leaves; 0 where that tree has no such tile. */
export function widthIn(size: number, { level, index }: Pick<Tile, 'level' | 'index'>): number {
  const hashes = Math.floor(size / tileWidth ** (level === 'entries' ? 0 : level))
  return Math.min(tileWidth, Math.max(0, hashes - index * tileWidth))
}

/** Whether this subtree's root is one of the hashes of a tile: its level, if so. */
export const tileLevel = ({ height }: Subtree): number | undefined => (height % tileHeight === 0 ? height / tileHeight : undefined)

/** Where in which tile the hashes stand over which the root of a subtree is. */
function placeOf({ height, index }: Subtree): TilePlace & Range {
  const count = 2 ** (height % tileHeight)
  const first = index * count
  return { level: Math.floor(height / tileHeight), index: Math.floor(first / tileWidth), start: first % tileWidth, count }
}

/** The tiles that hold all that is asked for of these ranges, each once. */
export function tilesOf(ranges: readonly Range[]): TilePlace[] {
  const places = ranges.flatMap(partsOf).map(placeOf)
  return [...new Map(places.map(({ level, index }) => [`${level}/${index}`, { level, index }])).values()]
}

/** Reads the roots of subtrees out of tiles. What it returns throws RangeError for a subtree whose hashes are not there. */
export function subtreesIn(tiles: (place: TilePlace) => readonly Hash[] | undefined): SubtreeRoot {
  return (subtree) => {
    const { start, count, ...place } = placeOf(subtree)
    const hashes = tiles(place)?.slice(start, start + count) ?? []
    if (hashes.length !== count) throw new RangeError('a tile is missing, or too short')
    return rootOfWhole(hashes)
  }
}

/** The root over hashes whose number is a power of two. */
function rootOfWhole(hashes: readonly Hash[]): Hash {
  const half = hashes.length / 2
  return half < 1 ? hashes[0]! : nodeHash(rootOfWhole(hashes.slice(0, half)), rootOfWhole(hashes.slice(half)))
}

/** Bytes of an entry at most: its length is written in two of them. */
export const longestEntry = 65_535

/** Entries as they travel: each behind its length, two bytes, big-endian. @throws RangeError for one that is too long */
export function bundleOf(entries: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    entries.flatMap((entry) => {
      if (entry.length > longestEntry) throw new RangeError('an entry is too long for a bundle')
      return [Buffer.of(entry.length >> 8, entry.length & 255), entry]
    }),
  )
}

/** The entries of a bundle. Undefined where the bytes are not exactly `width` of them. */
export function entriesOf(bytes: Uint8Array, width: number): Buffer[] | undefined {
  const bundle = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  const entries: Buffer[] = []
  let at = 0
  while (at + 2 <= bundle.length && entries.length <= width) {
    const end = at + 2 + bundle.readUInt16BE(at)
    if (end > bundle.length) return undefined
    entries.push(bundle.subarray(at + 2, end))
    at = end
  }
  return at === bundle.length && entries.length === width ? entries : undefined
}
