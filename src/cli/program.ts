import { Command, CommanderError } from 'commander'
import { version } from '../base/version.ts'
import { clientSettings } from '../config.ts'
import { awsCommand } from './aws.ts'
import { demoCommand } from './demo.ts'
import { devCommand } from './dev.ts'
import { execCommand } from './exec-command.ts'
import { explain } from './failure.ts'
import { issuingCommand } from './issuing.ts'
import { leaseCommand } from './lease.ts'
import { ledgerCommand } from './ledger.ts'
import { migrateCommand } from './migrate.ts'
import { createOutput, type Output } from './output.ts'
import { policyCommand } from './policy.ts'
import { providerCommand } from './provider.ts'
import { revocationsCommand, revokeCommand } from './revoke.ts'
import { serveCommand } from './serve.ts'
import { taskCommand } from './task.ts'

/** How a command gets its output: `--json` may stand on any level. */
export type OutputOf = (command: Command) => Output

/** Runs the command line. @returns 0 done, 1 refused or failed, 2 usage; `exec` passes on the status of what it ran */
export async function main(argv: readonly string[]): Promise<number> {
  let status = 0
  let unwritten: Error | undefined
  process.stdout.on('error', (error: Error) => (unwritten ??= error))
  // Of a log that nobody reads any more, nobody can be told. Ending what has to end goes on.
  process.stderr.on('error', () => {})
  const outputOf: OutputOf = (command) => {
    const json = command.optsWithGlobals<{ json?: boolean }>().json ?? false
    return createOutput({ json, colour: clientSettings().colour && process.stdout.isTTY })
  }
  const program = new Command('mayfly')
    .description('Secrets for one task, taken back when the task ends')
    .version(version, '--version', 'print the version')
    .option('--json', 'answer with JSON')
    .showHelpAfterError('(add --help for what is possible)')
    .exitOverride()
  for (const build of [
    serveCommand,
    devCommand,
    demoCommand,
    taskCommand,
    leaseCommand,
    revokeCommand,
    revocationsCommand,
    issuingCommand,
    ledgerCommand,
    policyCommand,
    providerCommand,
    migrateCommand,
  ]) {
    program.addCommand(build(outputOf))
  }
  program.addCommand(awsCommand(outputOf, (code) => (status = code)))
  program.addCommand(execCommand((code) => (status = code)))
  everyCommand(program, (command) => command.exitOverride())
  try {
    await program.parseAsync([...argv])
    await new Promise<void>((settled) => {
      process.stdout.write('', () => settled())
    })
    if (unwritten) throw unwritten
    return status
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    const { lines, status: failed } = explain(error)
    for (const line of lines) console.error(line)
    return failed
  }
}

function everyCommand(command: Command, visit: (command: Command) => void): void {
  visit(command)
  for (const inner of command.commands) {
    if (!inner.options.some(({ long }) => long === '--json')) inner.option('--json', 'answer with JSON')
    everyCommand(inner, visit)
  }
}
