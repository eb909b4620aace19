import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { Command } from 'commander'
import { z } from 'zod'
import { MayflyProblem } from '../client/client.ts'
import { type CheckedProof, checkProof } from '../proof/entry-proof.ts'
import { entryInLeaf } from '../proof/leaf.ts'
import { type Hash, leafHash } from '../proof/merkle.ts'
import type { VerifierKey } from '../proof/note.ts'
import { fromBase64 } from '../proof/spelling.ts'
import { Unsuccessful, UsageError } from './failure.ts'
import { oneMore, readKeys, readText } from './ledger-verify.ts'
import { paint, plain, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'

interface Options {
  readonly key: readonly string[]
  readonly url?: string
  readonly proofs?: string
  readonly keep?: string
}

/** `mayfly ledger check-receipts`: whether what an agent was told stands in the log, for somebody who trusts neither the broker nor its database. */
export const checkReceiptsCommand = (outputOf: OutputOf): Command =>
  new Command('check-receipts')
    .description('whether the receipts of an answer stand in the log; exit 1 where one does not')
    .argument('<file>', 'an answer with its receipts, as --json and the API give it, or a list of receipts')
    .requiredOption(
      '--key <key>',
      'the verifier key of the log, name+id+key, or a file that holds it, one a line; again for each log that was closed',
      oneMore,
    )
    .option('--url <url>', 'of the broker that is asked for the proofs (operators and reviewers); MAYFLY_URL where absent')
    .option('--proofs <folder>', 'where they were kept, in the place of a broker')
    .option('--keep <folder>', 'where to keep the proofs that were found to be right, each in a file named like its entry')
    .action(async (file: string, options: Options, command: Command) => {
      if (options.url !== undefined && options.proofs !== undefined) throw new UsageError('--url and --proofs cannot stand together')
      const output = outputOf(command)
      const keys = (await Promise.all(options.key.map(readKeys))).flat()
      const proofOf = options.proofs === undefined ? askedOf(options.url) : keptIn(options.proofs)
      const checked: Checked[] = []
      for (const receipt of await receiptsIn(file)) checked.push(await check(receipt, await proofOf(receipt.entry), keys))
      if (options.keep !== undefined) await keepIn(options.keep, checked)
      const isProven = checked.every(({ ok }) => ok)
      output.result({ ok: isProven, receipts: checked.map(({ proof: _proof, ...shown }) => shown) }, () => wordsOf(output, checked))
      if (!isProven) throw new Unsuccessful()
    })

/** Entry ids name files here, so nothing else may stand in their place. */
const receipt = z.object({ entry: z.string().regex(/^ent_[0-9a-z]{26}$/), kind: z.string(), leaf_hash: z.string() })
const receipts = z.array(receipt).min(1)
const answer = z.union([receipts, z.object({ receipts })])
type Receipt = z.infer<typeof receipt>

interface Checked extends Receipt {
  readonly ok: boolean
  /** Where the entry stands, and in which log. */
  readonly number?: number
  readonly origin?: string
  readonly size?: number
  /** Why it is not proven. */
  readonly why?: string
  readonly proof: string | undefined
}

/** A proof, or why there is none. */
type Proof = { readonly text: string } | { readonly missing: string }

async function receiptsIn(file: string): Promise<readonly Receipt[]> {
  const text = await readText(file, 'the answer')
  try {
    const parsed = answer.parse(JSON.parse(text))
    return Array.isArray(parsed) ? parsed : parsed.receipts
  } catch {
    // Without the cause: an answer holds secrets.
    throw new UsageError(`the answer ${file} holds no receipts`)
  }
}

function askedOf(url: string | undefined): (entry: string) => Promise<Proof> {
  const client = connect({ url })
  return async (entry) => {
    try {
      return { text: await client.showProof(entry) }
    } catch (error) {
      // No such entry, or none yet that has its place: the broker says which.
      if (error instanceof MayflyProblem && error.code === 'not_found') return { missing: error.detail }
      throw error
    }
  }
}

const keptIn =
  (folder: string) =>
  async (entry: string): Promise<Proof> => ({ text: await readText(path.join(folder, entry), '--proofs') })

/** What a proof lacks, in the words of a reader. */
const faults: Record<Extract<CheckedProof, { ok: false }>['fault'], string> = {
  malformed: 'its proof is none',
  unknown_key: 'its proof rests on a checkpoint that is not signed by this key',
  bad_signature: 'its proof rests on a checkpoint that is forged, or was changed',
  not_included: 'this is not what stands in the log: the broker has written something else than it told',
}

async function check(kept: Receipt, proof: Proof, keys: readonly VerifierKey[]): Promise<Checked> {
  if ('missing' in proof) return { ...kept, ok: false, why: proof.missing, proof: undefined }
  const leaf = fromBase64(kept.leaf_hash)
  if (leaf?.length !== 32) return { ...kept, ok: false, why: 'its leaf hash is none', proof: undefined }
  const checked = checkProof(proof.text, leaf, keys)
  if (!checked.ok) return { ...kept, ok: false, why: faults[checked.fault], proof: undefined }
  const { origin, size } = checked.checkpoint
  const why = entryFault(kept, leaf, checked.leaf)
  if (why !== undefined) return { ...kept, ok: false, why, proof: undefined }
  return { ...kept, ok: true, number: checked.index, origin, size, proof: proof.text }
}

/** Why a leaf that stands in the log is not shown to be the entry of the receipt: a hash says neither which entry it is of, nor of what kind. */
function entryFault({ entry, kind }: Receipt, hash: Hash, leaf: Buffer | undefined): string | undefined {
  if (!leaf)
    return 'its hash stands in the log, but its proof lacks the entry, as those of an older broker do, so nothing shows what it is the hash of'
  if (!leafHash(leaf).equals(hash)) return 'its hash stands in the log, but its proof has another entry in its place: the history was changed'
  const found = entryInLeaf(leaf)
  if (!found) return 'what stands in the log with its hash is no entry'
  const isSame = found.id === entry && found.kind === kind
  return isSame ? undefined : `what stands in the log with its hash is ${found.id}, ${found.kind}`
}

async function keepIn(folder: string, checked: readonly Checked[]): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const { entry, proof } of checked) if (proof !== undefined) await writeFile(path.join(folder, entry), proof)
}

const wordsOf = (output: Output, checked: readonly Checked[]): string =>
  checked
    .map(({ ok, entry, kind, number, origin, size, why }) =>
      ok
        ? `${paint(output, 'green', 'proven')}  ${entry}  ${plain(kind)}: number ${number} of ${size} in ${plain(origin!)}`
        : `${paint(output, 'red', 'FAULT')}   ${entry}  ${plain(kind)}: ${plain(why!)}`,
    )
    .join('\n')
