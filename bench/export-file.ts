import { open } from 'node:fs/promises'
import { signCheckpoint } from '../src/proof/checkpoint.ts'
import { type CompactTree, emptyTree, grow, headOf } from '../src/proof/compact.ts'
import { type EntryFields, leafOf } from '../src/proof/leaf.ts'
import { type LogLine, lineText, parseLine, type PolicyLine } from '../src/proof/lines.ts'
import { type Head, leafHash } from '../src/proof/merkle.ts'
import { createSigner } from '../src/proof/note.ts'

/** One life as a broker exported it: what its task began with, what it ended with, and the policies that decided. */
export interface Life {
  readonly policies: readonly PolicyLine[]
  readonly opening: readonly LogLine[]
  readonly ending: readonly LogLine[]
}

/** The life of the only task in an export. */
export function lifeIn(exported: string): Life {
  const lines = exported.split('\n').flatMap((text) => parseLine(text) ?? [])
  const told = lines.filter((line) => 'number' in line).filter(({ entry }) => entry?.task !== undefined)
  const end = told.findIndex(({ entry }) => /^(task\.closing|lease\.revoking|lease\.revoked)$/.test(entry!.kind))
  if (end < 1) throw new Error('there is no task in this export that lived and ended')
  return { policies: lines.filter((line) => 'policy' in line), opening: told.slice(0, end), ending: told.slice(end) }
}

/** Lives that are open at the same time, one that begins each so many milliseconds: minutes of a busy broker, of whose lives a reader has to keep track. */
const [living, apart] = [10_000, 10]

/** Entries under one checkpoint, as the sequencer signs them. */
const batch = 1_000

/**
 * Writes a ledger of so many entries, at least: one life again and again, each with ids and times of its own, in the order in which they would have come.
 * The checkpoint that it begins with covers all of it, and is written last, in the place of one that is as long.
 *
 * @returns the key with which it verifies, and what is in it
 */
export async function writeExport(file: string, life: Life, least: number): Promise<{ key: string; entries: number; bytes: number }> {
  const signer = createSigner('bench.example.com', new Uint8Array(32).fill(1))
  const begin = (head: Head): string => lineText({ export: 'mayfly-ledger@v1', checkpoint: signCheckpoint(signer, head) })
  const entries = countOf(life, least) * (life.opening.length + life.ending.length)
  const out = await open(file, 'w')
  let text = begin({ size: entries, root: Buffer.alloc(32) }) + life.policies.map(lineText).join('')
  let tree: CompactTree = emptyTree
  for (const { entry, answers } of livesOf(life, least)) {
    const hash = leafHash(leafOf(entry))
    const number = tree.size
    tree = grow(tree, [hash], () => {})
    const checkpoint = tree.size % batch === 0 ? { checkpoint: signCheckpoint(signer, headOf(tree)) } : {}
    text += lineText({ number, leaf_hash: hash.toString('base64'), entry, ...(answers && { answers }), ...checkpoint })
    if (text.length < 1_000_000) continue
    await out.write(text)
    text = ''
  }
  await out.write(text)
  await out.write(begin(headOf(tree)), 0)
  const { size: bytes } = await out.stat()
  await out.close()
  return { key: signer.key.text, entries, bytes }
}

/** How many lives it takes. */
const countOf = ({ opening, ending }: Life, least: number): number => Math.ceil(least / (opening.length + ending.length))

interface Told {
  readonly entry: EntryFields
  readonly answers: LogLine['answers']
}

function* livesOf(life: Life, least: number): Iterable<Told> {
  const count = countOf(life, least)
  const tell = [life.opening, life.ending].map(teller)
  for (let step = 0; step < count + living; step++) {
    if (step < count) yield* tell[0]!(step, step)
    if (step >= living) yield* tell[1]!(step - living, step)
  }
}

/** Tells a part of the life of task number `task` as it was at `step`. */
function teller(part: readonly LogLine[]): (task: number, step: number) => Iterable<Told> {
  const texts = part.map(({ entry, answers }) => ({ pieces: JSON.stringify(entry).split(changing), answers }))
  return function* (task, step) {
    for (const [at, { pieces, answers }] of texts.entries()) {
      const entry = JSON.parse(pieces.map((piece, index) => (index % 2 === 0 ? piece : changed(piece, task, step, at))).join('')) as EntryFields
      yield { entry: { ...entry, xid: String(firstTransaction + step * 2 + (task === step ? 0 : 1)) }, answers }
    }
  }
}

const firstTransaction = 1_000_000

/** Ids and times, which are each life's own. */
const changing = /((?:task|lease|dec|ent)_[0-9a-z]{26}|\d{4}-\d\d-\d\dT[\d:.]+Z)/

function changed(text: string, task: number, step: number, at: number): string {
  const noun = text.slice(0, text.indexOf('_') + 1)
  if (noun === '') return new Date(Date.parse(text) + step * apart).toISOString()
  // Entries of one commit are in the order of their ids.
  const number = noun === 'ent_' ? step * 100 + (task === step ? 0 : 50) + at : task
  return noun + String(number).padStart(26, '0')
}
