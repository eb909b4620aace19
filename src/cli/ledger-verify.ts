import { readFile, writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { systemClock } from '../base/time.ts'
import { parseWitnessKey, type WitnessKey } from '../proof/cosignature.ts'
import { parseVerifierKey, type VerifierKey } from '../proof/note.ts'
import type { Fault } from '../proof/fault.ts'
import type { LogVerdict } from '../proof/log-part.ts'
import { type Verdict, type VerifyOptions, verifyLedger } from '../proof/verify.ts'
import { Unsuccessful, UsageError } from './failure.ts'
import { type Lines, linesIn, linesOf } from './ledger-lines.ts'
import { counted, paint, plain, type Output } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'

interface Options {
  readonly url?: string
  readonly export?: string
  readonly key: readonly string[]
  readonly since?: string
  readonly witness?: readonly string[]
  readonly keep?: string
}

/** `mayfly ledger verify`: whether a ledger is complete and unaltered, and its broker has kept its promises, for somebody who trusts neither. */
export const verifyCommand = (outputOf: OutputOf): Command =>
  new Command('verify')
    .description('whether the ledger is complete and unaltered, and each lease was ended as promised; exit 1 where it is not')
    .option('--url <url>', 'of the broker; MAYFLY_URL where absent')
    .option('--export <file>', 'a file that `mayfly ledger export` wrote, in the place of a broker')
    .requiredOption(
      '--key <key>',
      'the verifier key of the log, name+id+key, or a file that holds it, one a line; again for each log that was closed',
      oneMore,
    )
    .option('--since <file>', 'a checkpoint that was kept before: the log must still contain it')
    .option(
      '--witness <key>',
      'the verifier key of a witness that must have cosigned the checkpoint of --since, name+id+key; again for each',
      oneMore,
    )
    .option('--keep <file>', 'where to keep the checkpoint, for --since another time; only one that was found to be right')
    .action(async (options: Options, command: Command) => {
      const output = outputOf(command)
      if (options.url !== undefined && options.export !== undefined) throw new UsageError('--url and --export cannot stand together')
      if (options.witness !== undefined && options.since === undefined) throw new UsageError('--witness is about the checkpoint of --since')
      const witnesses = options.witness?.map(readWitnessKey)
      const keys = (await Promise.all(options.key.map(readKeys))).flat()
      const since = options.since === undefined ? undefined : await readText(options.since, '--since')
      const lines = options.export === undefined ? linesOf(connect({ url: options.url })) : linesIn(options.export)
      // What a file says is as old as the file; a broker is asked about now.
      const now = options.export === undefined ? systemClock() : undefined
      const verdict = await verify(lines, { keys, since, witnesses, now })
      output.result(viewVerdict(verdict), () => wordsOf(output, verdict, since !== undefined))
      if (verdict.found === 0 && options.keep !== undefined) await writeFile(options.keep, verdict.note)
      if (verdict.found > 0) throw new Unsuccessful()
    })

async function verify(
  lines: Lines,
  options: Pick<VerifyOptions, 'keys' | 'since' | 'witnesses' | 'now'>,
): Promise<Verdict & { readonly note: string }> {
  let note = ''
  let verification: ReturnType<typeof verifyLedger> | undefined
  for await (const line of lines) {
    if ('export' in line) {
      if (verification) throw new UsageError('there are two exports in this file')
      verification = verifyLedger({ ...options, checkpoint: line.checkpoint, logs: line.logs })
      note = line.checkpoint
    } else if (!verification) throw new UsageError('an export begins with the checkpoint that it is held against')
    else if ('policy' in line) verification.policy(line.policy.digest, line.policy.document)
    else verification.line(line)
  }
  if (!verification) throw new Error('the export is empty')
  return { ...verification.finish(), note }
}

/** Of an option that may stand more than once. */
export const oneMore = (key: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), key]

/** Verifier keys as they were given: one itself, or a file that holds them, one a line. @throws UsageError */
export async function readKeys(given: string): Promise<VerifierKey[]> {
  const key = parseVerifierKey(given)
  if (key) return [key]
  const lines = (await readKeyFile(given)).split('\n').filter((line) => line.trim() !== '')
  const keys = lines.map((line) => parseVerifierKey(line.trim()))
  if (keys.length === 0 || keys.includes(undefined))
    throw new UsageError('--key: not a verifier key, which looks like broker.example.com+0a1b2c3d+AbCd…')
  return keys as VerifierKey[]
}

/** Without what was given: it may be the private half, by mistake. */
const readKeyFile = (given: string): Promise<string> =>
  readFile(given, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(
      `--key: neither a verifier key, which looks like broker.example.com+0a1b2c3d+AbCd…, nor a file that can be read (${error.code ?? 'unknown'})`,
    )
  })

function readWitnessKey(given: string): WitnessKey {
  const key = parseWitnessKey(given)
  if (!key)
    throw new UsageError('--witness: not the verifier key of a witness (Ed25519, type 4), which looks like witness.example.com+0a1b2c3d+BAbC…')
  return key
}

/** A file that somebody named. @throws UsageError with the option by which they did */
export const readText = (file: string, option: string): Promise<string> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`${option} ${file} cannot be read (${error.code ?? 'unknown'})`)
  })

const at = (seconds: number): string => new Date(seconds * 1_000).toISOString()

const viewVerdict = ({ checkpoint, logs, faults, found, entries, decisions, checkpoints, lives, witnessed }: Verdict) => ({
  ok: found === 0,
  found,
  faults,
  entries,
  decisions,
  checkpoints,
  lives,
  witnessed: witnessed.map(({ witness, time }) => ({ witness, at: at(time) })),
  logs: logs.map(({ hasKey: has_key, ...log }) => ({ ...log, has_key })),
  ...(checkpoint && { checkpoint: { origin: checkpoint.origin, size: checkpoint.size, root: checkpoint.root.toString('base64') } }),
})

function wordsOf(
  output: Output,
  { faults, found, checkpoint, logs, entries, decisions, checkpoints, lives, witnessed }: Verdict,
  isPinned: boolean,
): string {
  const { tasks, leases, alive, late, latest } = lives
  return [
    ...logs.slice(0, -1).map((log) => `log         ${closedLog(log)}`),
    checkpoint
      ? `log         ${plain(checkpoint.origin)}, ${entriesOf(checkpoint.size)}, root ${checkpoint.root.toString('base64')}`
      : `log         ${logs.length > 1 ? `${plain(logs.at(-1)!.origin)}, ` : ''}not signed by ${logs.length > 1 ? 'a key that was given' : 'this key'}`,
    `read        ${entriesOf(entries)}, ${counted(decisions, 'decision')} with ${decisions === 1 ? 'its' : 'their'} inputs, ${counted(checkpoints, 'checkpoint')} on the way`,
    `lives       ${counted(tasks, 'task')}, ${counted(leases, 'lease')}, ${alive} of them alive`,
    ...(late > 0 ? [`late        the end of ${counted(late, 'lease')} was late; the worst is ${latest?.lease}, by ${latest?.seconds} s`] : []),
    ...witnessed.map(({ witness, time }) => `witness     ${plain(witness)} had seen the pinned checkpoint by ${at(time)}, and no other history`),
    ...(isPinned ? [] : ['pinned      nothing: with --since and a checkpoint that you kept, a log that was cut or written anew is found out too']),
    '',
    ...faults.map((fault) => `${paint(output, 'red', 'FAULT')}  ${placeOf(fault)}${plain(fault.message)}`),
    ...(found > faults.length ? [`and ${found - faults.length} more`] : []),
    found === 0
      ? paint(output, 'green', 'The ledger is complete and unaltered, and every promise in it was kept.')
      : found === logs.filter(({ hasKey }) => !hasKey).length
        ? `As far as keys were given all is as it should be: ${provenOf(logs)}. Nothing else is proven.`
        : `${counted(found, 'fault')}: this ledger is not what was signed, or tells of broken promises.`,
  ].join('\n')
}

const entriesOf = (count: number): string => counted(count, 'entry', 'entries')

/** How far a log is proven that another one goes on from. */
const closedLog = ({ origin, first, read, proven, root }: LogVerdict): string =>
  proven === read
    ? `${plain(origin)}, ${entriesOf(read)}, closed, root ${root}`
    : `${plain(origin)}, closed, ${proven === 0 ? 'nothing of it' : `entries ${first} to ${first + proven - 1}`} proven of ${entriesOf(read)}`

/** The entries that are proven, in words. */
const provenOf = (logs: readonly LogVerdict[]): string =>
  logs
    .filter(({ proven }) => proven > 0)
    .map(({ first, proven }) => `entries ${first} to ${first + proven - 1}`)
    .join(', ') || 'no entry'

const placeOf = ({ number, id }: Fault): string => (number === undefined ? '' : `entry ${number}${id === undefined ? '' : ` (${plain(id)})`}: `)
