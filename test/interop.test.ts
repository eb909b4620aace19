import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { openCheckpoint, signCheckpoint } from '../src/proof/checkpoint.ts'
import { compactTreeOf, headOf } from '../src/proof/compact.ts'
import {
  consistencyPath,
  type Hash,
  inclusionPath,
  leafHash,
  type Range,
  rangeRoot,
  verifyConsistency,
  verifyInclusion,
} from '../src/proof/merkle.ts'
import { createSigner, parseVerifierKey } from '../src/proof/note.ts'
import { bundleOf, subtreesIn, tilePath, tileWidth, widthIn } from '../src/proof/tiles.ts'
import { leafAt, naiveRoot } from './proof/naive.ts'

/** The Go program beside this file, which is built and run, and the log that goes in and comes out. Bytes are base64. */
interface Log {
  readonly key: string
  readonly checkpoint: string
  readonly tiles: Readonly<Record<string, string>>
  readonly inclusion: readonly { readonly index: number; readonly size: number; readonly path: readonly string[] | null }[]
  readonly consistency: readonly { readonly from: number; readonly size: number; readonly path: readonly string[] | null }[]
}

interface OurLog extends Log {
  readonly leaves: readonly string[]
  readonly bundles: Readonly<Record<string, string>>
}

/** Two full tiles, the beginning of a third, and two hashes of the level above. */
const size = 700

const signer = createSigner('mayfly.example.com', new Uint8Array(32).fill(7))
const leaves = Array.from({ length: size }, (_, index) => leafAt(index))

/** Go as it is found; undefined where there is none, which CI does not take for an answer. */
const go = findGo()

describe.runIf(go !== undefined)("Go's own transparency log", () => {
  test('accepts every note, proof, tile and bundle of ours, and makes the same', async () => {
    const made = await held(ourLog())

    const opened = openCheckpoint(made.checkpoint, [parseVerifierKey(made.key)!])
    expect(opened).toEqual({ ok: true, checkpoint: { ...headAt(size), origin: 'go.example.com/log' } })
    expect(made.tiles).toEqual(ourLog().tiles)
    for (const { index, size, path } of made.inclusion) expect(verifyInclusion(index, leafHash(leafAt(index)), hashes(path), headAt(size))).toBe(true)
    for (const { from, size, path } of made.consistency) expect(verifyConsistency(headAt(from), headAt(size), hashes(path))).toBe(true)
  })

  test.each([
    ['a signature', (log: OurLog) => ({ ...log, checkpoint: log.checkpoint.replace('\n700\n', '\n699\n') }), /could not verify|invalid signature/],
    ['an inclusion proof', (log: OurLog) => ({ ...log, inclusion: [{ ...log.inclusion[3]!, index: 5 }] }), /invalid transparency proof/],
    ['a consistency proof', (log: OurLog) => ({ ...log, consistency: [{ ...log.consistency[3]!, from: 5 }] }), /invalid transparency proof/],
    ['a tile', (log: OurLog) => ({ ...log, tiles: { ...log.tiles, 'tile/0/001': log.tiles['tile/0/000']! } }), /invalid transparency proof/],
    [
      'a bundle',
      (log: OurLog) => ({ ...log, bundles: { ...log.bundles, 'tile/entries/001': log.bundles['tile/entries/000']! } }),
      /another entry at 256/,
    ],
  ])('refuses %s that was changed, so that its consent means something', async (_, change, reason) => {
    await expect(held(change(ourLog()))).rejects.toThrow(reason)
  })
})

function ourLog(): OurLog {
  const places = [0, 1, 2].flatMap((level) => [0, 1, 2].map((index) => ({ level, index, width: widthIn(size, { level, index }) })))
  const tiles = places.filter(({ width }) => width > 0).map((tile) => [tilePath(tile), Buffer.concat(hashesAt(tile)).toString('base64')] as const)
  const bundles = [0, 1, 2].map((index) => {
    const width = widthIn(size, { level: 'entries', index })
    return [tilePath({ level: 'entries', index, width }), bundleOf(leaves.slice(index * tileWidth, index * tileWidth + width)).toString('base64')]
  })
  const sizes = [1, 2, 3, 255, 256, 257, 511, 512, 513, 699, 700]
  const pairs = sizes.flatMap((from) => sizes.filter((to) => from <= to).map((to) => ({ from, size: to })))
  return {
    key: signer.key.text,
    checkpoint: signCheckpoint(signer, headAt(size)),
    leaves: leaves.map((leaf) => leaf.toString('base64')),
    tiles: Object.fromEntries(tiles),
    bundles: Object.fromEntries(bundles) as Record<string, string>,
    inclusion: pairs.map(({ from, size }) => ({ index: from - 1, size, path: proofOf(inclusionPath(from - 1, size), size) })),
    consistency: pairs.map((pair) => ({ ...pair, path: proofOf(consistencyPath(pair.from, pair.size), pair.size) })),
  }
}

const hashesAt = ({ level, index }: { level: number; index: number }, of = size): Hash[] =>
  Array.from({ length: widthIn(of, { level, index }) }, (_, at) =>
    naiveRoot({ start: (index * tileWidth + at) * tileWidth ** level, count: tileWidth ** level }),
  )

const proofOf = (ranges: readonly Range[], of: number): string[] =>
  ranges.map((range) =>
    rangeRoot(
      range,
      subtreesIn((place) => hashesAt(place, of)),
    ).toString('base64'),
  )

const headAt = (of: number) =>
  headOf(
    compactTreeOf(
      of,
      subtreesIn((place) => hashesAt(place, of)),
    ),
  )

const hashes = (path: readonly string[] | null): Hash[] => (path ?? []).map((hash) => Buffer.from(hash, 'base64'))

function findGo(): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).concat('/usr/local/go/bin')
  const found = folders.map((folder) => path.join(folder, 'go')).find((file) => existsSync(file))
  if (found !== undefined) return found
  if (process.env['CI'] !== undefined) throw new Error('no Go: install one (`apt-get install golang`)')
  process.stderr.write('the test against Go is left out: there is no Go on this machine\n')
  return undefined
}

/** What the program makes of a log. It is built by the first call, and taken from Go's cache by the others. */
async function held(log: Log): Promise<Log> {
  const running = promisify(execFile)(go!, ['run', '.'], {
    cwd: path.join(import.meta.dirname, 'interop'),
    env: { ...process.env, GOFLAGS: '-mod=readonly' },
    maxBuffer: 16 * 1024 * 1024,
  })
  running.child.stdin!.end(JSON.stringify(log))
  return JSON.parse((await running).stdout) as Log
}
