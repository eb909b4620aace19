import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { consistencyPath, type Hash, inclusionPath, leafHash, rangeRoot } from '../../src/proof/merkle.ts'
import { bundleOf, entriesOf, parseTilePath, subtreesIn, type TilePlace, tilePath, tilesOf, widthIn } from '../../src/proof/tiles.ts'
import { leafAt, naiveConsistency, naiveInclusion, naiveRoot } from './naive.ts'

describe('the path of a tile', () => {
  test.each([
    [{ level: 0, index: 0, width: 256 }, 'tile/0/000'],
    [{ level: 0, index: 1_234_067, width: 256 }, 'tile/0/x001/x234/067'],
    [{ level: 1, index: 999, width: 1 }, 'tile/1/999.p/1'],
    [{ level: 5, index: 1_000, width: 255 }, 'tile/5/x001/000.p/255'],
    [{ level: 'entries', index: 17, width: 3 }, 'tile/entries/017.p/3'],
    [{ level: 63, index: 2 ** 53 - 1, width: 256 }, 'tile/63/x009/x007/x199/x254/x740/991'],
  ] as const)('of %j is %s', (tile, path) => {
    expect(tilePath(tile)).toBe(path)
    expect(parseTilePath(path)).toEqual(tile)
  })

  test.each([
    '',
    'tile',
    'tile/0',
    'tile/0/',
    'tile/0/0',
    'tile/0/00',
    'tile/0/0000',
    'tile/00/000',
    'tile/64/000',
    'tile/-1/000',
    'tile/entry/000',
    'tile/0/x000/000',
    'tile/0/001/000',
    'tile/0/x001',
    'tile/0/x001/',
    'tile/0/X001/000',
    'tile/0/000.p',
    'tile/0/000.p/',
    'tile/0/000.p/0',
    'tile/0/000.p/01',
    'tile/0/000.p/256',
    'tile/0/000.p/-1',
    'tile/0/000.p/1/',
    'tile/0/x009/x007/x199/x254/x740/992',
    `tile/0/${'x001/'.repeat(1000)}000`,
    '/tile/0/000',
    'tile/0/000\n',
    'tile/0/٠٠٠',
    'tile/8/0/000',
  ])('is not %j', (path) => {
    expect(parseTilePath(path)).toBeUndefined()
  })

  test('has one spelling, and text of any sort is either that or nothing', () => {
    const text = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.stringMatching(/^tile\/([0-9]{1,2}|entries)\/(x[0-9]{3}\/){0,3}[0-9]{3}(\.p\/[0-9]{1,3})?$/),
    )
    fc.assert(
      fc.property(text, (path) => {
        const tile = parseTilePath(path)
        if (tile) expect(tilePath(tile)).toBe(path)
      }),
      { numRuns: 2_000 },
    )
  })
})

/** The hashes of the tiles of a tree, as a server keeps them; those that were asked for are counted. */
function tilesAt(size: number): { read: (place: TilePlace) => readonly Hash[]; asked: Set<string> } {
  const asked = new Set<string>()
  return {
    asked,
    read({ level, index }) {
      asked.add(`${level}/${index}`)
      const width = 256 ** level
      const hash = (at: number): Hash => naiveRoot({ start: (index * 256 + at) * width, count: width })
      return Array.from({ length: widthIn(size, { level, index }) }, (_, at) => hash(at))
    },
  }
}

describe('tiles', () => {
  test('are as wide as the specification says of its example', () => {
    const widths = (level: number | 'entries', from: number): number[] => [from, from + 1].map((index) => widthIn(70_000, { level, index }))
    expect(widths(0, 272)).toEqual([256, 112])
    expect(widths('entries', 273)).toEqual([112, 0])
    expect(widths(1, 0)).toEqual([256, 17])
    expect(widths(2, 0)).toEqual([1, 0])
    expect(widths(3, 0)).toEqual([0, 0])
    expect(widthIn(256, { level: 0, index: 0 })).toBe(256)
    expect(widthIn(256, { level: 1, index: 0 })).toBe(1)
  })

  test('are all that a proof needs, and no more of them are asked for than are named beforehand', () => {
    for (const size of [1, 2, 255, 256, 257, 511, 512, 600, 770]) {
      for (const other of [0, 1, 127, 128, 255, 256, 257, 511, 599, size - 1].filter((each) => each < size)) {
        for (const [ranges, expected] of [
          [inclusionPath(other, size), naiveInclusion(other, size)],
          [consistencyPath(other + 1, size), naiveConsistency(other + 1, size)],
        ] as const) {
          const { read, asked } = tilesAt(size)
          const root = subtreesIn(read)
          expect(ranges.map((range) => rangeRoot(range, root))).toEqual(expected)
          expect([...asked].toSorted()).toEqual(
            tilesOf(ranges)
              .map(({ level, index }) => `${level}/${index}`)
              .toSorted(),
          )
        }
      }
    }
  })

  test('that are missing or too short are a mistake that is noticed', () => {
    expect(() =>
      rangeRoot(
        { start: 0, count: 4 },
        subtreesIn(() => undefined),
      ),
    ).toThrow(RangeError)
    expect(() =>
      rangeRoot(
        { start: 0, count: 4 },
        subtreesIn(() => [leafHash(leafAt(0))]),
      ),
    ).toThrow(RangeError)
  })
})

describe('a bundle of entries', () => {
  test('is read as it was written', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }), (entries) => {
        expect(entriesOf(bundleOf(entries), entries.length)).toEqual(entries.map((entry) => Buffer.from(entry)))
      }),
    )
    expect(entriesOf(bundleOf([Buffer.alloc(65_535)]), 1)?.[0]).toHaveLength(65_535)
    expect(bundleOf([Buffer.from('ab'), Buffer.of()]).toString('hex')).toBe('000261620000')
  })

  test('cannot hold an entry whose length does not fit into two bytes', () => {
    expect(() => bundleOf([Buffer.alloc(65_536)])).toThrow(RangeError)
  })

  test('of another number of entries, or of bytes that are none, is refused', () => {
    const bundle = bundleOf([Buffer.from('one'), Buffer.from('two')])
    for (const width of [0, 1, 3]) expect(entriesOf(bundle, width)).toBeUndefined()
    for (let end = 0; end < bundle.length; end++) expect(entriesOf(bundle.subarray(0, end), 2)).toBeUndefined()
    expect(entriesOf(Buffer.concat([bundle, Buffer.of(0)]), 2)).toBeUndefined()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(8), (bytes, width) => {
        const entries = entriesOf(bytes, width)
        if (entries) expect(bundleOf(entries)).toEqual(Buffer.from(bytes))
      }),
    )
  })
})
