import { type Hash, type Head, nodeHash, partsOf, rootOf, type Subtree, type SubtreeRoot } from './merkle.ts'

/** All of a tree that growing it needs: its size, and the root of each of the whole subtrees that it falls into, largest first. 53 at most. */
export interface CompactTree {
  readonly size: number
  readonly peaks: readonly Hash[]
}

export const emptyTree: CompactTree = { size: 0, peaks: [] }

/** A tree of this size, read from where its subtrees are kept. */
export const compactTreeOf = (size: number, root: SubtreeRoot): CompactTree => ({ size, peaks: partsOf({ start: 0, count: size }).map(root) })

export const headOf = ({ size, peaks }: CompactTree): Head => ({ size, root: rootOf(peaks) })

/**
 * The tree with further leaves: about two hashes a leaf, however large it is.
 *
 * @param whole called for each subtree that a leaf makes whole, the leaf itself first
 */
export function grow(tree: CompactTree, leaves: readonly Hash[], whole: (subtree: Subtree, root: Hash) => void): CompactTree {
  const peaks = [...tree.peaks]
  let size = tree.size
  for (const leaf of leaves) {
    let [height, index, root] = [0, size, leaf]
    whole({ height, index }, root)
    // Like carrying in an addition: each whole left neighbour becomes one with what was just made whole.
    for (; index % 2 === 1; height++, index = (index - 1) / 2) {
      root = nodeHash(peaks.pop()!, root)
      whole({ height: height + 1, index: (index - 1) / 2 }, root)
    }
    peaks.push(root)
    size++
  }
  return { size, peaks }
}
