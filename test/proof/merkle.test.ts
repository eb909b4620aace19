import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compactTreeOf, emptyTree, grow, headOf } from '../../src/proof/compact.ts'
import {
  consistencyPath,
  emptyRoot,
  type Hash,
  inclusionPath,
  leafHash,
  nodeHash,
  partsOf,
  type Range,
  rangeRoot,
  rootOf,
  type SubtreeRoot,
  verifyConsistency,
  verifyInclusion,
} from '../../src/proof/merkle.ts'
import { leafAt, naiveConsistency, naiveInclusion, naiveRoot } from './naive.ts'

/** Sizes of which every leaf is tried: all small ones, and those around a full tile. */
const sizes = [...Array.from({ length: 130 }, (_, at) => at + 1), 191, 192, 193, 254, 255, 256, 257, 258]

const largest = 260

const subtree: SubtreeRoot = ({ height, index }) => naiveRoot({ start: index * 2 ** height, count: 2 ** height })
const headAt = (size: number) => ({ size, root: naiveRoot({ start: 0, count: size }) })
const roots = new Map<string, Hash>()
/** The root of a range by the code under test, worked out once: tens of thousands of proofs are made of the same few ranges. */
function root(range: Range): Hash {
  const key = `${range.start}+${range.count}`
  if (!roots.has(key)) roots.set(key, rangeRoot(range, subtree))
  return roots.get(key)!
}
const inclusion = (index: number, size: number): Hash[] => inclusionPath(index, size).map(root)
const consistency = (from: number, size: number): Hash[] => consistencyPath(from, size).map(root)
const leaf = (index: number): Hash => leafHash(leafAt(index))

const hash = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes))
const anyBytes = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
const anyNumber = fc.oneof(fc.integer(), fc.double(), fc.nat(300), fc.constantFrom(-0, 2 ** 32, 2 ** 53 - 1, 2 ** 53, Infinity, Number.NaN))

/** Flips one bit of one hash. */
const flipped = (path: readonly Hash[], at: number): Hash[] =>
  path.map((each, place) => (place === Math.floor(at / 256) % path.length ? flip(each, at % 256) : each))
function flip(bytes: Hash, bit: number): Hash {
  const copy = Buffer.from(bytes)
  copy[bit >> 3]! ^= 1 << (bit & 7)
  return copy
}

describe('a tree', () => {
  test('has the roots that the test vectors of Certificate Transparency give', () => {
    const leaves = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f']
    const roots = [
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
      'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
      'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
      'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
      '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
      '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
      'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
      '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
    ]
    let tree = emptyTree
    expect(headOf(tree).root).toEqual(emptyRoot)
    expect(emptyRoot.toString('hex')).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
    leaves.forEach((each, index) => {
      tree = grow(tree, [leafHash(Buffer.from(each, 'hex'))], () => {})
      expect(headOf(tree).root.toString('hex')).toBe(roots[index])
    })
  })

  test('is the same however many leaves are appended at once, and reports each subtree that becomes whole', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(40), { maxLength: 12 }), (batches) => {
        const told = new Map<string, Hash>()
        let tree = emptyTree
        for (const count of batches) {
          const leaves = Array.from({ length: count }, (_, at) => leaf(tree.size + at))
          tree = grow(tree, leaves, ({ height, index }, root) => told.set(`${height}/${index}`, root))
          expect(headOf(tree)).toEqual(headAt(tree.size))
          expect(compactTreeOf(tree.size, subtree)).toEqual(tree)
        }
        const whole = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((height) =>
          Array.from({ length: Math.floor(tree.size / 2 ** height) }, (_, index) => [`${height}/${index}`, subtree({ height, index })] as const),
        )
        expect(told).toEqual(new Map(whole))
      }),
    )
  })

  test('falls into whole subtrees that cover it without a gap', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (count) => {
        const widths = partsOf({ start: 0, count }).map(({ height, index }) => ({ at: index * 2 ** height, width: 2 ** height }))
        let at = 0
        for (const each of widths) {
          expect(each.at).toBe(at)
          at += each.width
        }
        expect(at).toBe(count)
      }),
    )
    expect(rootOf([])).toEqual(emptyRoot)
  })
})

describe('an inclusion proof', () => {
  test('of every leaf in every tree is the one of RFC 6962, and holds for no other leaf, place or size', () => {
    for (const size of sizes) {
      const head = headAt(size)
      for (let index = 0; index < size; index++) {
        const path = inclusion(index, size)
        if (size % 16 < 2 || size < 40) expect(path).toEqual(naiveInclusion(index, size))
        if (!verifyInclusion(index, leaf(index), path, head)) throw new Error(`leaf ${index} of ${size}`)
        if (verifyInclusion(index, leaf(index + 1), path, head)) throw new Error(`another leaf at ${index} of ${size}`)
        if (verifyInclusion((index + 1) % (size + 1), leaf(index), path, head)) throw new Error(`leaf ${index} of ${size} at another place`)
      }
    }
  })

  test('that was changed anywhere is refused', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: largest }), fc.nat(), fc.nat(), hash, (size, chosen, bit, foreign) => {
        const index = chosen % size
        const [path, head] = [inclusion(index, size), headAt(size)]
        expect(verifyInclusion(index, leaf(index), flipped(path, bit), head)).toBe(false)
        expect(verifyInclusion(index, flip(leaf(index), bit % 256), path, head)).toBe(false)
        expect(verifyInclusion(index, leaf(index), path, { size, root: flip(head.root, bit % 256) })).toBe(false)
        expect(verifyInclusion(index, leaf(index), path.slice(1), head)).toBe(false)
        expect(verifyInclusion(index, leaf(index), path.slice(0, -1), head)).toBe(false)
        expect(verifyInclusion(index, leaf(index), [...path, foreign], head)).toBe(false)
        expect(verifyInclusion(index, leaf(index), [foreign, ...path], head)).toBe(false)
        for (const wrong of [index + size, -1, index + 0.5, 2 ** 53, Number.NaN]) expect(verifyInclusion(wrong, leaf(index), path, head)).toBe(false)
        expect(verifyInclusion(index, leaf(index), [Buffer.alloc(31), ...path.slice(1)], head)).toBe(false)
      }),
    )
  })

  test('is no longer than its tree is high, even where its hashes come to the root', () => {
    const root = nodeHash(leaf(9), leaf(0))
    expect(verifyInclusion(0, leaf(0), [leaf(9)], { size: 1, root })).toBe(false)
    expect(verifyInclusion(1, leaf(0), [leaf(9)], { size: 2, root })).toBe(true)
    expect(verifyConsistency({ size: 1, root: leaf(0) }, { size: 2, root: nodeHash(headAt(2).root, leaf(9)) }, [leaf(1), leaf(9)])).toBe(false)
  })

  test('works for the largest tree there can be', () => {
    // All leaves alike, so that each whole subtree of a height has the same root.
    const alike: Hash[] = [leafHash(Buffer.of())]
    for (let height = 1; height <= 53; height++) alike.push(rootOf([alike[height - 1]!, alike[height - 1]!]))
    const size = Number.MAX_SAFE_INTEGER
    const root: SubtreeRoot = ({ height }) => alike[height]!
    const head = headOf(compactTreeOf(size, root))
    for (const index of [0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 52, size - 1]) {
      const path = inclusionPath(index, size).map((range) => rangeRoot(range, root))
      expect(verifyInclusion(index, alike[0]!, path, head)).toBe(true)
      expect(verifyInclusion(index, alike[0]!, path, { ...head, size: 2 ** 53 })).toBe(false)
    }
    const older = headOf(compactTreeOf(2 ** 40 + 5, root))
    const path = consistencyPath(older.size, size).map((range) => rangeRoot(range, root))
    expect(verifyConsistency(older, head, path)).toBe(true)
    expect(verifyConsistency({ ...older, size: older.size + 1 }, head, path)).toBe(false)
  })

  test('is not made for a leaf that is not there', () => {
    for (const [index, size] of [
      [0, 0],
      [1, 1],
      [-1, 3],
      [0.5, 3],
      [0, 2 ** 53],
    ] as const)
      expect(() => inclusionPath(index, size)).toThrow(RangeError)
  })
})

describe('a consistency proof', () => {
  test('between every two trees is the one of RFC 6962, and holds for no other size', () => {
    for (const size of sizes) {
      const head = headAt(size)
      for (let from = 1; from <= size; from++) {
        const path = consistency(from, size)
        if (size % 16 < 2 || size < 40) expect(path).toEqual(naiveConsistency(from, size))
        if (!verifyConsistency(headAt(from), head, path)) throw new Error(`from ${from} to ${size}`)
        if (from < size && verifyConsistency({ ...headAt(from), size: from + 1 }, head, path))
          throw new Error(`from ${from} to ${size} as ${from + 1}`)
      }
    }
  })

  test('that was changed anywhere, or is of a tree that was, is refused', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: largest }), fc.nat(), fc.nat(), hash, (size, chosen, bit, foreign) => {
        const from = 1 + (chosen % (size - 1))
        const [path, older, newer] = [consistency(from, size), headAt(from), headAt(size)]
        expect(verifyConsistency(older, newer, flipped(path, bit))).toBe(false)
        expect(verifyConsistency({ ...older, root: flip(older.root, bit % 256) }, newer, path)).toBe(false)
        expect(verifyConsistency(older, { ...newer, root: flip(newer.root, bit % 256) }, path)).toBe(false)
        expect(verifyConsistency(older, newer, path.slice(1))).toBe(false)
        expect(verifyConsistency(older, newer, path.slice(0, -1))).toBe(false)
        expect(verifyConsistency(older, newer, [...path, foreign])).toBe(false)
        expect(verifyConsistency(newer, older, path)).toBe(false)
      }),
    )
  })

  test('of nothing appended is empty, and of an empty tree there is none', () => {
    expect(verifyConsistency(headAt(7), headAt(7), [])).toBe(true)
    expect(verifyConsistency(headAt(7), headAt(7), [headAt(7).root])).toBe(false)
    expect(verifyConsistency(headAt(7), { size: 7, root: headAt(8).root }, [])).toBe(false)
    expect(verifyConsistency(headAt(0), headAt(7), [])).toBe(false)
    for (const [from, size] of [
      [0, 5],
      [6, 5],
      [1.5, 5],
      [1, 2 ** 53],
    ] as const)
      expect(() => consistencyPath(from, size)).toThrow(RangeError)
  })
})

test('a verdict is given about anything at all, and it is no', () => {
  fc.assert(
    fc.property(anyNumber, anyNumber, anyBytes, anyBytes, fc.array(fc.oneof(hash, anyBytes), { maxLength: 60 }), (one, other, leaf, root, path) => {
      expect(verifyInclusion(one, leaf, path, { size: other, root })).toBe(false)
      expect(verifyConsistency({ size: one, root: leaf }, { size: other, root }, path)).toBe(false)
    }),
    { numRuns: 2_000 },
  )
})
