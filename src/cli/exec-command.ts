import { Command } from 'commander'
import { childEnvironment, wholeEnvironment } from '../config/environment.ts'
import { runWithTask } from './exec.ts'
import { UsageError } from './failure.ts'
import { type AskedGrants, durationOption, grantOption, grantsOf, pair, paramOption, some } from './grants.ts'
import { say } from './output.ts'
import { connect, longPatience } from './session.ts'

interface Options extends AskedGrants {
  readonly kind: string
  readonly purpose?: string
  readonly duration?: string
  readonly env?: Record<string, string>
  readonly keepToken?: boolean
}

/** `mayfly exec … -- CMD`: runs a command under a task. */
export const execCommand = (exitWith: (status: number) => void): Command =>
  new Command('exec')
    .description('open a task, run a command with its credentials, and complete the task when the command ends')
    .requiredOption('--kind <name>', 'kind of task')
    .addOption(grantOption())
    .addOption(paramOption())
    .option('--purpose <text>', 'for people; never decides')
    .addOption(durationOption('how long at a time; it is renewed while the command runs and the workload token lives'))
    .option('--env <grant=VAR>', "put the grant's secret into this variable of the command; without it, secrets are in files only", pair)
    .option('--keep-token', 'leave MAYFLY_TOKEN and MAYFLY_TOKEN_FILE in the environment of the command')
    .argument('<command...>', 'what to run, behind --')
    .addHelpText(
      'after',
      `
The command finds its credentials in the folder that MAYFLY_CREDENTIALS names (0700, files 0600): GRANT.json, and GRANT.token for bearer tokens. Files
are replaced when credentials are refreshed. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; the status is the command's. At a
terminal the first SIGINT or SIGQUIT is left to the terminal, which gives it to the command by itself: from elsewhere, end it with SIGTERM. When the
task is ended early, the command gets SIGTERM, then SIGKILL. If another signal, such as SIGKILL, ends exec itself, nobody reports: the task then ends at
its deadline, and the files stay.`,
    )
    .action(async (command: [string, ...string[]], options: Options) => {
      const { kind, purpose, duration } = options
      const grants = grantsOf(options)
      const env = new Map(Object.entries(options.env ?? {}))
      for (const grant of env.keys()) if (!grants.some(({ name }) => name === grant)) throw new UsageError(`--env ${grant}: no such --grant`)
      const environment = options.keepToken ? wholeEnvironment() : childEnvironment()
      const asked = { kind, grants, ...some({ purpose, duration }), env, command, environment }
      exitWith(await runWithTask(connect({ patience: longPatience }), asked, (line) => say(`mayfly: ${line}`)))
    })
