import { hash } from 'node:crypto'

/** SHA-256, 32 bytes. */
export type Hash = Buffer

/** Leaves `start` to `start + count - 1` of a tree. */
export interface Range {
  readonly start: number
  readonly count: number
}

/** A whole subtree: the 2^height leaves from `index * 2^height` on. */
export interface Subtree {
  readonly height: number
  readonly index: number
}

/** Looks up the root of a whole subtree. */
export type SubtreeRoot = (subtree: Subtree) => Hash

/** A tree head: how many leaves, and the root over them. */
export interface Head {
  readonly size: number
  readonly root: Hash
}

/**
 * Sizes and indices are numbers in here: they are exact below 2^53, and a log that grows by a million entries a second stays below that for 285 years.
 * Whatever reads one from outside refuses what is not whole or not exact, and every verdict here does too.
 */
const isExact = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

/** What separates a leaf from a node: without it, two leaves that look like a node would pass for its children (RFC 6962, 2.1). */
const [leafPrefix, nodePrefix] = [Buffer.of(0), Buffer.of(1)]

const isHash = (value: Uint8Array): boolean => value.length === 32

/** In one call: a `createHash` for each node takes three times as long. */
const sha256 = (...parts: readonly Uint8Array[]): Hash => hash('sha256', Buffer.concat(parts), 'buffer')

/** The hash of a leaf (RFC 6962, 2.1). */
export const leafHash = (leaf: Uint8Array): Hash => sha256(leafPrefix, leaf)

/** The hash of a node over its two children (RFC 6962, 2.1). */
export const nodeHash = (left: Hash, right: Hash): Hash => sha256(nodePrefix, left, right)

/** The root of a tree without leaves. */
export const emptyRoot: Hash = sha256()

/** The whole subtrees that a range falls into, left to right, largest first. A range of a tree begins where a subtree of its size may. */
export function partsOf({ start, count }: Range): Subtree[] {
  const parts: Subtree[] = []
  for (let height = 52, left = count, at = start; height >= 0; height--) {
    const width = 2 ** height
    if (left < width) continue
    parts.push({ height, index: at / width })
    at += width
    left -= width
  }
  return parts
}

/** The root over neighbours, left to right: each one is the left child of all that is right of it. */
export const rootOf = (roots: readonly Hash[]): Hash => (roots.length === 0 ? emptyRoot : roots.reduceRight((right, left) => nodeHash(left, right)))

/** The root over a range. */
export const rangeRoot = (range: Range, root: SubtreeRoot): Hash => rootOf(partsOf(range).map(root))

/** Where a range divides: the largest power of two below its size. */
function split(count: number): number {
  let half = 1
  while (half * 2 < count) half *= 2
  return half
}

const halves = ({ start, count }: Range): readonly [Range, Range] => {
  const left = split(count)
  return [
    { start, count: left },
    { start: start + left, count: count - left },
  ]
}

/**
 * The audit path of a leaf: what its root is made of besides it, from the leaf's sibling up (RFC 6962, 2.1.1). As ranges, so that whoever keeps the
 * tree sees at once which of its hashes are asked for. @throws RangeError where the tree has no such leaf
 */
export function inclusionPath(index: number, size: number): Range[] {
  if (!isExact(index) || !isExact(size) || index >= size) throw new RangeError('the tree has no such leaf')
  const path: Range[] = []
  for (let range: Range = { start: 0, count: size }; range.count > 1;) {
    const [left, right] = halves(range)
    const isLeft = index < right.start
    path.unshift(isLeft ? right : left)
    range = isLeft ? left : right
  }
  return path
}

/**
 * What proves that a tree of `from` leaves was only appended to (RFC 6962, 2.1.2), as ranges. Empty where nothing was appended.
 *
 * @throws RangeError where `from` is 0, of which nothing can be proven, or larger than the tree
 */
export function consistencyPath(from: number, size: number): Range[] {
  if (!isExact(from) || !isExact(size) || from < 1 || from > size) throw new RangeError('there is no proof between these sizes')
  const path: Range[] = []
  let range: Range = { start: 0, count: size }
  while (from !== range.start + range.count) {
    const [left, right] = halves(range)
    const isLeft = from <= right.start
    path.unshift(isLeft ? right : left)
    range = isLeft ? left : right
  }
  // The whole old tree: whoever asks knows its root.
  return range.start === 0 ? path : [range, ...path]
}

/** Whether the leaf with this hash stands at `index` under the head (RFC 9162, 2.1.3.2). Whatever it is given, it answers. */
export function verifyInclusion(index: number, leaf: Hash, path: readonly Hash[], { size, root }: Head): boolean {
  if (!isExact(index) || !isExact(size) || index >= size || !isHash(leaf) || !isHash(root) || !path.every(isHash)) return false
  let [first, last, reached] = [index, size - 1, leaf]
  for (const sibling of path) {
    if (last === 0) return false
    if (isOdd(first) || first === last) {
      reached = nodeHash(sibling, reached)
      ;[first, last] = upFromRight(first, last)
    } else reached = nodeHash(reached, sibling)
    ;[first, last] = [half(first), half(last)]
  }
  return last === 0 && reached.equals(root)
}

/** Whether the tree of the second head begins with all of the first one's (RFC 9162, 2.1.4.2). Whatever it is given, it answers. */
export function verifyConsistency(from: Head, to: Head, path: readonly Hash[]): boolean {
  if (!isExact(from.size) || !isExact(to.size) || from.size < 1 || from.size > to.size) return false
  if (![from.root, to.root, ...path].every(isHash)) return false
  if (from.size === to.size) return path.length === 0 && from.root.equals(to.root)
  const [seed, ...rest] = isPowerOfTwo(from.size) ? [from.root, ...path] : path
  if (seed === undefined) return false
  let [first, last] = [from.size - 1, to.size - 1]
  while (isOdd(first)) [first, last] = [half(first), half(last)]
  let [older, newer] = [seed, seed]
  for (const sibling of rest) {
    if (last === 0) return false
    if (isOdd(first) || first === last) {
      older = nodeHash(sibling, older)
      newer = nodeHash(sibling, newer)
      ;[first, last] = upFromRight(first, last)
    } else newer = nodeHash(newer, sibling)
    ;[first, last] = [half(first), half(last)]
  }
  return last === 0 && older.equals(from.root) && newer.equals(to.root)
}

// Not by bits: JavaScript's operators on them end at 2^32.
const isOdd = (value: number): boolean => value % 2 === 1
const half = (value: number): number => Math.floor(value / 2)

function isPowerOfTwo(value: number): boolean {
  while (value % 2 === 0) value /= 2
  return value === 1
}

/** Past the levels on which the last node has no sibling. */
function upFromRight(first: number, last: number): [number, number] {
  while (first !== 0 && !isOdd(first)) [first, last] = [half(first), half(last)]
  return [first, last]
}
