import { createHash } from 'node:crypto'
import type { Hash, Range } from '../../src/proof/merkle.ts'

const sha256 = (...parts: readonly Uint8Array[]): Hash => createHash('sha256').update(Buffer.concat(parts)).digest()

/** The leaf at a place: any will do, as long as no two are alike. */
export const leafAt = (index: number): Buffer => Buffer.from(`leaf ${index}`)

const known = new Map<string, Hash>()

/** MTH of RFC 6962, 2.1, word for word, over the leaves of `leafAt`. What was worked out is kept: the tests ask for the same ranges again and again. */
export function naiveRoot({ start, count }: Range): Hash {
  const key = `${start}+${count}`
  const found = known.get(key)
  if (found) return found
  const root = naively(start, count)
  known.set(key, root)
  return root
}

function naively(start: number, count: number): Hash {
  if (count === 0) return sha256()
  if (count === 1) return sha256(Buffer.of(0), leafAt(start))
  const k = largestPowerBelow(count)
  return sha256(Buffer.of(1), naiveRoot({ start, count: k }), naiveRoot({ start: start + k, count: count - k }))
}

const largestPowerBelow = (n: number): number => [...Array(53).keys()].map((power) => 2 ** power).findLast((power) => power < n)!

/** PATH of RFC 6962, 2.1.1, word for word. */
export function naiveInclusion(index: number, size: number, start = 0): Hash[] {
  if (size === 1) return []
  const k = largestPowerBelow(size)
  return index < k
    ? [...naiveInclusion(index, k, start), naiveRoot({ start: start + k, count: size - k })]
    : [...naiveInclusion(index - k, size - k, start + k), naiveRoot({ start, count: k })]
}

/** PROOF of RFC 6962, 2.1.2, word for word. */
export const naiveConsistency = (from: number, size: number): Hash[] => subproof(from, 0, size, true)

function subproof(m: number, start: number, n: number, isOld: boolean): Hash[] {
  if (m === n) return isOld ? [] : [naiveRoot({ start, count: n })]
  const k = largestPowerBelow(n)
  return m <= k
    ? [...subproof(m, start, k, isOld), naiveRoot({ start: start + k, count: n - k })]
    : [...subproof(m - k, start + k, n - k, false), naiveRoot({ start, count: k })]
}
