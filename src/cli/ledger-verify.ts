import { readFile, writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { systemClock } from '../base/time.ts'
import { parseVerifierKey, type VerifierKey } from '../proof/note.ts'
import { type Fault, type Verdict, verifyLedger } from '../proof/verify.ts'
import { Unsuccessful, UsageError } from './failure.ts'
import { type Lines, linesIn, linesOf } from './ledger-lines.ts'
import { paint, plain, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'

interface Options {
  readonly url?: string
  readonly export?: string
  readonly key: string
  readonly since?: string
  readonly keep?: string
}

/** `mayfly ledger verify`: whether a ledger is complete and unaltered, and its broker has kept its promises, for somebody who trusts neither. */
export const verifyCommand = (outputOf: OutputOf): Command =>
  new Command('verify')
    .description('whether the ledger is complete and unaltered, and each lease was ended as promised; exit 1 where it is not')
    .option('--url <url>', 'of the broker; MAYFLY_URL where absent')
    .option('--export <file>', 'a file that `mayfly ledger export` wrote, in the place of a broker')
    .requiredOption('--key <key>', 'the verifier key of the log, name+id+key, or a file that holds it')
    .option('--since <file>', 'a checkpoint that was kept before: the log must still contain it')
    .option('--keep <file>', 'where to keep the checkpoint, for --since another time; only one that was found to be right')
    .action(async (options: Options, command: Command) => {
      const output = outputOf(command)
      if (options.url !== undefined && options.export !== undefined) throw new UsageError('--url and --export cannot stand together')
      const key = await readKey(options.key)
      const since = options.since === undefined ? undefined : await readText(options.since, '--since')
      const lines = options.export === undefined ? linesOf(connect({ url: options.url })) : linesIn(options.export)
      // What a file says is as old as the file; a broker is asked about now.
      const now = options.export === undefined ? systemClock() : undefined
      const verdict = await verify(lines, { key, since, now })
      output.result(viewVerdict(verdict), () => wordsOf(output, verdict, since !== undefined))
      if (verdict.found === 0 && options.keep !== undefined) await writeFile(options.keep, verdict.note)
      if (verdict.found > 0) throw new Unsuccessful()
    })

async function verify(
  lines: Lines,
  question: { key: VerifierKey; since: string | undefined; now: number | undefined },
): Promise<Verdict & { readonly note: string }> {
  let note = ''
  let verification: ReturnType<typeof verifyLedger> | undefined
  for await (const line of lines) {
    if ('export' in line) {
      if (verification) throw new UsageError('there are two exports in this file')
      verification = verifyLedger({ ...question, checkpoint: line.checkpoint })
      note = line.checkpoint
    } else if (!verification) throw new UsageError('an export begins with the checkpoint that it is held against')
    else if ('policy' in line) verification.policy(line.policy.digest, line.policy.document)
    else verification.line(line)
  }
  if (!verification) throw new UsageError('the export is empty')
  return { ...verification.finish(), note }
}

/** A verifier key as it was given: itself, or a file that holds it. @throws UsageError */
export async function readKey(given: string): Promise<VerifierKey> {
  const key = parseVerifierKey(given) ?? parseVerifierKey((await readText(given, '--key')).trim())
  if (!key) throw new UsageError('--key: not a verifier key, which looks like broker.example.com+0a1b2c3d+AbCd…')
  return key
}

/** A file that somebody named. @throws UsageError with the option by which they did */
export const readText = (file: string, option: string): Promise<string> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`${option} ${file} cannot be read (${error.code ?? 'unknown'})`)
  })

const viewVerdict = ({ checkpoint, faults, found, entries, decisions, checkpoints, lives }: Verdict) => ({
  ok: found === 0,
  found,
  faults,
  entries,
  decisions,
  checkpoints,
  lives,
  ...(checkpoint && { checkpoint: { origin: checkpoint.origin, size: checkpoint.size, root: checkpoint.root.toString('base64') } }),
})

function wordsOf(output: Output, { faults, found, checkpoint, entries, decisions, checkpoints, lives }: Verdict, isPinned: boolean): string {
  const { tasks, leases, alive, late, latest } = lives
  return [
    checkpoint
      ? `log         ${plain(checkpoint.origin)}, ${checkpoint.size} entries, root ${checkpoint.root.toString('base64')}`
      : 'log         not signed by this key',
    `read        ${entries} entries, ${decisions} decisions with their inputs, ${checkpoints} checkpoints on the way`,
    `lives       ${tasks} tasks, ${leases} leases, ${alive} of them alive`,
    ...(late > 0 ? [`late        the end of ${late} leases was begun late; the worst is ${latest?.lease}, by ${latest?.seconds} s`] : []),
    ...(isPinned ? [] : ['pinned      nothing: with --since and a checkpoint that you kept, a log that was cut or written anew is found out too']),
    '',
    ...faults.map((fault) => `${paint(output, 'red', 'FAULT')}  ${placeOf(fault)}${plain(fault.message)}`),
    ...(found > faults.length ? [`and ${found - faults.length} more`] : []),
    found === 0
      ? paint(output, 'green', 'The ledger is complete and unaltered, and every promise in it was kept.')
      : `${found} faults: this ledger is not what was signed, or tells of broken promises.`,
  ].join('\n')
}

const placeOf = ({ number, id }: Fault): string => (number === undefined ? '' : `entry ${number}${id === undefined ? '' : ` (${plain(id)})`}: `)
