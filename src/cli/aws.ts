import { Command, InvalidArgumentError } from 'commander'
import type { OpenTask } from '../client/client.ts'
import { wholeEnvironment } from '../config/environment.ts'
import { lastMoment } from './aws/delivery.ts'
import { type Changes, serveSession } from './aws/serve.ts'
import { onlySessionOf } from './aws/session.ts'
import { type AskedGrants, durationOption, grantOption, grantsOf, paramOption, some } from './grants.ts'
import { write } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect, longPatience } from './session.ts'
import { orComplete } from './taken.ts'

interface Options extends AskedGrants {
  readonly kind: string
  readonly duration?: string
}

/** `mayfly aws …`: AWS sessions for programs that know nothing of Mayfly. */
export const awsCommand = (outputOf: OutputOf, exitWith: (status: number) => void): Command =>
  new Command('aws')
    .description('AWS sessions for SDKs that know nothing of Mayfly')
    .addCommand(serveCommand(outputOf, exitWith))
    .addCommand(processCommand())

const serveCommand = (outputOf: OutputOf, exitWith: (status: number) => void): Command =>
  new Command('serve')
    .description('open a task and serve its session on loopback, as containers are served, until it is stopped; then complete the task')
    .requiredOption('--kind <name>', 'kind of task')
    .addOption(grantOption().makeOptionMandatory())
    .addOption(paramOption())
    .addOption(durationOption('how long at a time; it is renewed while it serves and the workload token lives'))
    .option('--port <number>', 'on 127.0.0.1; any that is free, where absent', portOf, 0)
    .addHelpText(
      'after',
      `
Prints, once, what a shell is to read before it starts whatever is to use the session, and goes on serving:
  rm -f session; mayfly aws serve … > session & until [ -s session ]; do sleep 1; done; . ./session
That shell has no other AWS identity from then on: an SDK looks for keys, profiles and roles before it asks here, and would take what it finds. With
--json, null is what must not be set. AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE opens the session: whoever can read that file (0600) is the task.`,
    )
    .action(async ({ port, ...options }: Options & { readonly port: number }, command: Command) => {
      const { kind, duration } = options
      const output = outputOf(command)
      const asked = { kind, grants: grantsOf(options), ...some({ duration }), port, environment: wholeEnvironment() }
      const ready = (changes: Changes): void =>
        output.result(Object.fromEntries(Object.entries(changes).map(([name, value]) => [name, value ?? null])), () => forShell(changes))
      exitWith(await serveSession(connect({ patience: longPatience }), asked, ready, (line) => output.note(`mayfly: ${line}`)))
    })

/** For a shell to read. A name that no variable of a shell has could be a command of its own. */
function forShell(changes: Changes): string {
  const all = Object.entries(changes).filter(([name]) => /^\w+$/.test(name))
  const gone = all.flatMap(([name, value]) => (value === undefined ? [name] : []))
  const given = all.flatMap(([name, value]) => (value === undefined ? [] : [`export ${name}='${value.replaceAll("'", String.raw`'\''`)}'`]))
  return [`unset ${gone.join(' ')}`, ...given].join('\n')
}

function portOf(text: string): number {
  const port = Number(text)
  if (/^\d{1,5}$/.test(text) && port <= 65_535) return port
  throw new InvalidArgumentError('must be a port')
}

const processCommand = (): Command =>
  new Command('process')
    .description('credential_process of an AWS profile: opens a task and prints its session as the SDKs read it')
    .requiredOption('--kind <name>', 'kind of task')
    .addOption(grantOption().makeOptionMandatory())
    .addOption(paramOption())
    .addOption(durationOption('how long the task may last; the most that its kind allows, where absent'))
    .addHelpText(
      'after',
      `
Each call opens a task of its own, and nobody completes it: its lease lives until the deadline. Keep --duration short, or use mayfly exec.`,
    )
    .action(async (options: Options) => {
      const { kind, duration } = options
      const task = await connect().open({ kind, grants: grantsOf(options), ...some({ duration }) })
      await orComplete(task, () => printSession(task))
    })

/** @throws UsageError for a task with anything else than one AWS session, and the stream's error where nobody took it */
async function printSession(task: OpenTask): Promise<void> {
  const session = onlySessionOf(task.leases)
  const { access_key_id: AccessKeyId, secret_access_key: SecretAccessKey, session_token: SessionToken } = session
  await write(`${JSON.stringify({ Version: 1, AccessKeyId, SecretAccessKey, SessionToken, Expiration: lastMoment(session, task.task.deadline) })}\n`)
}
