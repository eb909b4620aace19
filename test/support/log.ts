import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { delay } from '../../src/base/time.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { listLogs } from '../../src/ledger/checkpoints.ts'
import { readTile, proveEntry } from '../../src/ledger/proofs.ts'
import { type KnownHead, type SignedLog, stepLog } from '../../src/ledger/signing.ts'
import { openCheckpoint } from '../../src/proof/checkpoint.ts'
import { emptyTree, grow, headOf } from '../../src/proof/compact.ts'
import { type EntryFields, leafOf } from '../../src/proof/leaf.ts'
import { type Hash, leafHash } from '../../src/proof/merkle.ts'
import type { VerifierKey } from '../../src/proof/note.ts'
import { checkProof, proofText } from '../../src/proof/entry-proof.ts'
import { bundleOf } from '../../src/proof/tiles.ts'
import type { Finding } from './audit.ts'

/**
 * Asks until everything that was written is settled: a transaction of another test in the same cluster holds it back for as long as it is open. Bounded by
 * the test's own time.
 */
export async function settled(ledger: Ledger): Promise<void> {
  const isSettled = sql`select coalesce(max(xid) < pg_snapshot_xmin(pg_current_snapshot()), true) as settled from entries`
  while (!(await ledger.run<{ settled: boolean }>(isSettled))[0]!.settled) await delay(20)
}

/** Writes so many entries that are about no task, in one commit. Their place they get from whoever grows the log. */
export const writeEntries = (ledger: Ledger, count: number): Promise<unknown> =>
  ledger.run(
    sql`insert into entries (kind, body) select 'policy.activated', json_build_object('at', at) from generate_series(1, ${count}::int) as at`,
  )

/** Steps until every entry has its place. Bounded by the test's own time. */
export async function growAll(log: SignedLog, memory: KnownHead = { head: undefined }, batch?: number): Promise<void> {
  await settled(log.ledger)
  for (;;) {
    const step = await stepLog(log, memory, batch)
    if (step.outcome === 'refused') throw new Error(`refused: ${step.why}`)
    if (step.outcome === 'nothing new' && step.lag.entries === 0) return
  }
}

/** With what the logs of a running broker are checked: the keys in its folder, under the names that the logs give themselves. Oldest first. */
export async function verifiersOf(ledger: Ledger, folder: string): Promise<VerifierKey[]> {
  return await Promise.all(
    (await listLogs(ledger)).map(async ({ log, origin, closed }) => {
      const seed = await readFile(path.join(folder, 'keys', closed ? `log.${log.number}.key` : 'log.key'))
      return (await logKeyOf(seed).signerFor(origin))!.key
    }),
  )
}

/** Asks until every entry that there is has its place. Bounded by the test's own time. */
export async function everyEntryPlaced(ledger: Ledger): Promise<void> {
  const open = sql`select 1 from entries where id not in (select entry_id from leaves) limit 1`
  while ((await ledger.run(open)).length > 0);
}

interface Row {
  readonly index: number
  readonly hash: string
  readonly entry: Record<string, unknown>
}

/**
 * Derives every log again from the history alone, and holds everything that is kept or served against it.
 *
 * @param keys of the logs, oldest first
 * @param proofs how many entries of each are asked for their proof, spread over it
 */
export async function auditLog(ledger: Ledger, keys: VerifierKey | readonly VerifierKey[], proofs = 40): Promise<Finding[]> {
  const findings: Finding[] = []
  const expect = (holds: boolean, otherwise: Finding): void => void (holds || findings.push(otherwise))
  const rows = await ledger.run<Row>(sql`
    select leaf.index::int as index, encode(leaf.hash, 'hex') as hash, to_json(entry) as entry
    from leaves as leaf join entries as entry on entry.id = leaf.entry_id order by leaf.index`)
  const starts = await ledger.run<{ first: number }>(sql`select first::int as first from logs order by number`)
  const openings = new Set(starts.slice(1).map(({ first }) => first))
  const [order] = await ledger.run<{ ids: string[] | null }>(sql`
    select json_agg(id order by xid, id) as ids from (
      select * from entries where kind <> 'log.opened' order by xid, id limit ${rows.length - openings.size}
    ) as first`)
  expect(
    rows.every(({ index }, at) => index === at),
    'the places are not contiguous',
  )
  expect(
    JSON.stringify(rows.filter((_, at) => !openings.has(at)).map(({ entry }) => entry['id'])) === JSON.stringify(order?.ids ?? []),
    'the logs do not begin with the oldest entries, in order',
  )
  const trusted = [keys].flat()
  expect(trusted.length === starts.length, `there are ${starts.length} logs`)
  for (const [at, { first }] of starts.entries()) {
    const own = rows.slice(first, starts[at + 1]?.first)
    findings.push(...(await auditOne(ledger, trusted[at]!, at + 1, first, own, proofs)).map((finding) => `log ${at + 1}: ${finding}`))
  }
  return findings
}

async function auditOne(ledger: Ledger, key: VerifierKey, log: number, first: number, rows: readonly Row[], proofs: number): Promise<Finding[]> {
  const findings: Finding[] = []
  const expect = (holds: boolean, otherwise: Finding): void => void (holds || findings.push(otherwise))
  const leaves = rows.map(({ entry }) => leafOf(exported(entry)))
  const hashes = leaves.map(leafHash)
  hashes.forEach((hash, at) => expect(hash.toString('hex') === rows[at]!.hash, `another leaf is kept at ${at}`))
  const above = new Map<string, Hash>()
  const roots = new Map<number, Hash>()
  let tree = emptyTree
  for (const hash of hashes) {
    tree = grow(tree, [hash], ({ height, index }, root) => height % 8 === 0 && height > 0 && above.set(`${height / 8}/${index}`, root))
    roots.set(tree.size, headOf(tree).root)
  }
  findings.push(...(await checkpointFaults(ledger, key, first, roots, tree.size)))
  const kept = await ledger.run<{ place: string; hash: string }>(
    sql`select level || '/' || index as place, encode(hash, 'hex') as hash from subtrees where log = ${log}`,
  )
  expect(kept.length === above.size, 'there are subtrees too many or too few')
  for (const { place, hash } of kept) expect(above.get(place)?.toString('hex') === hash, `another subtree is kept at ${place}`)

  for (let index = 0; index * 256 < tree.size; index++) {
    const [from, width] = [index * 256, Math.min(256, tree.size - index * 256)]
    const [tile, bundle] = [await readTile(ledger, log, { level: 0, index, width }), await readTile(ledger, log, { level: 'entries', index, width })]
    expect(tile?.equals(Buffer.concat(hashes.slice(from, from + width))) === true, `tile ${index}`)
    expect(bundle?.equals(bundleOf(leaves.slice(from, from + width))) === true, `bundle ${index}`)
  }
  for (let at = 0; at < tree.size; at += Math.max(1, Math.ceil(tree.size / proofs))) {
    const proof = await proveEntry(ledger, String(rows[at]!.entry['id']))
    const checked = typeof proof === 'object' && checkProof(proofText(proof), hashes[at]!, [key])
    expect(checked !== false && checked.ok && checked.index === at && checked.checkpoint.size === tree.size, `the proof of ${at}`)
  }
  return findings
}

/** Every checkpoint of a log is over what the history came to then, and each goes on from the one before. */
async function checkpointFaults(ledger: Ledger, key: VerifierKey, first: number, roots: ReadonlyMap<number, Hash>, size: number): Promise<Finding[]> {
  const rows = await ledger.run<{ size: number; previous: number; root: string; note: string }>(sql`
    select size::int - ${first}::int as size, previous::int - ${first}::int as previous, encode(root, 'hex') as root, note
    from checkpoints where size > ${first} and size <= ${first + size} order by checkpoints.size`)
  let last = 0
  const findings = rows.flatMap(({ size, previous, root, note }) => {
    const opened = openCheckpoint(note, [key])
    const isRight = opened.ok && opened.checkpoint.size === size && opened.checkpoint.root.toString('hex') === root
    const follows = previous === last
    last = size
    return isRight && follows && roots.get(size)?.toString('hex') === root ? [] : [`the checkpoint of ${size} is not right`]
  })
  return last === size ? findings : [...findings, 'the last checkpoint does not cover the log']
}

/** An entry as it is exported, from its row: written anew here, so that it does not rest on what it holds to account. */
function exported(row: Record<string, unknown>): EntryFields {
  const { task_id: task, lease_id: lease, decision_id: decision, agent, at, xid, body, ...rest } = row
  const optional = Object.entries({ agent, task, lease, decision }).filter(([, value]) => value !== null)
  const moment = new Date(String(at)).toISOString()
  return { ...rest, ...Object.fromEntries(optional), at: moment, xid: String(xid), body } as EntryFields
}
