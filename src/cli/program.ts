import { Command, CommanderError, Option } from 'commander'
import { version } from '../base/version.ts'
import { clientSettings } from '../config/environment.ts'
import { explain, failureView } from './failure.ts'
import { createOutput, type Output, say } from './output.ts'

/** How a command gets its output: `--json` may stand on any level. */
export type OutputOf = (command: Command) => Output

/** How a command says with which status the program is to end, where that is not its own to say. */
type ExitWith = (status: number) => void

type Load = (outputOf: OutputOf, exitWith: ExitWith) => Promise<Command>

/** The commands by their names, in the order of the help. Each is loaded where it is called, since most of what one needs the others do not. */
const commands: Readonly<Record<string, Load>> = {
  serve: async () => (await import('./serve.ts')).serveCommand(),
  dev: async (outputOf) => (await import('./dev.ts')).devCommand(outputOf),
  demo: async (outputOf) => (await import('./demo.ts')).demoCommand(outputOf),
  task: async (outputOf) => (await import('./task.ts')).taskCommand(outputOf),
  lease: async (outputOf) => (await import('./lease.ts')).leaseCommand(outputOf),
  revoke: async (outputOf) => (await import('./revoke.ts')).revokeCommand(outputOf),
  revocations: async (outputOf) => (await import('./revoke.ts')).revocationsCommand(outputOf),
  issuing: async (outputOf) => (await import('./issuing.ts')).issuingCommand(outputOf),
  ledger: async (outputOf) => (await import('./ledger.ts')).ledgerCommand(outputOf),
  policy: async (outputOf) => (await import('./policy.ts')).policyCommand(outputOf),
  provider: async (outputOf) => (await import('./provider.ts')).providerCommand(outputOf),
  migrate: async (outputOf) => (await import('./migrate.ts')).migrateCommand(outputOf),
  aws: async (outputOf, exitWith) => (await import('./aws.ts')).awsCommand(outputOf, exitWith),
  exec: async (_, exitWith) => (await import('./exec-command.ts')).execCommand(exitWith),
}

/** The one that is called; all of them where none is, for the help, and for the name that is nearest to a wrong one. */
function calledBy(argv: readonly string[]): Load[] {
  const name = argv.slice(2).find((word) => !word.startsWith('-')) ?? ''
  return Object.hasOwn(commands, name) ? [commands[name]!] : Object.values(commands)
}

/** Runs the command line. @returns 0 done, 1 refused or failed, 2 usage; `exec` passes on the status of what it ran */
export async function main(argv: readonly string[]): Promise<number> {
  let status = 0
  let unwritten: Error | undefined
  process.stdout.on('error', (error: Error) => (unwritten ??= error))
  // Of a log that nobody reads any more, nobody can be told. Ending what has to end goes on.
  process.stderr.on('error', () => {})
  let isAnswered = false
  let output: Output | undefined
  const outputOf: OutputOf = (command) => {
    const json = command.optsWithGlobals<{ json?: boolean }>().json ?? false
    return createOutput({ json, colour: clientSettings().colour && process.stdout.isTTY }, () => (isAnswered = true))
  }
  const program = new Command('mayfly')
    .description('Secrets for one task, taken back when the task ends')
    .version(version, '--version', 'print the version')
    .option('--json', 'answer with JSON')
    .addHelpText('after', environmentHelp)
  try {
    for (const load of calledBy(argv)) program.addCommand(await load(outputOf, (code) => (status = code)))
    everyCommand(program, (command) => command.exitOverride().showHelpAfterError('(add --help for what is possible)'))
    program.hook('preAction', (_, command) => {
      if (!writesOtherwise.has(command.name())) output = outputOf(command)
    })
    await program.parseAsync([...argv])
    await new Promise<void>((settled) => {
      process.stdout.write('', () => settled())
    })
    if (unwritten) throw unwritten
    return status
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    const { lines, status: failed } = explain(error)
    for (const line of lines) say(line)
    const view = output?.json && !isAnswered ? failureView(error) : undefined
    if (view) output?.result(view, () => '')
    return failed
  }
}

const environmentHelp = `
The broker is at MAYFLY_URL (http://127.0.0.1:7420 where it is not set), and who you are says MAYFLY_TOKEN, or the file that MAYFLY_TOKEN_FILE names. NO_COLOR: no colours.
To a broker that asks for one, the client certificate in MAYFLY_CLIENT_CERT_FILE is shown, with the key in MAYFLY_CLIENT_KEY_FILE.
Exit status: 0 done, 1 refused or failed, 2 called in a way that cannot work; exec passes on that of its command.`

/** Whose stdout is for something else than an answer: what they ran, lines of the ledger, what an SDK reads. They take `--json` as all do, and it changes nothing. */
const writesOtherwise: ReadonlySet<string> = new Set(['exec', 'export', 'process'])

function everyCommand(command: Command, visit: (command: Command) => void): void {
  visit(command)
  for (const inner of command.commands) {
    if (!inner.options.some(({ long }) => long === '--json'))
      inner.addOption(new Option('--json', 'answer with JSON').hideHelp(writesOtherwise.has(inner.name())))
    everyCommand(inner, visit)
  }
}
