import { describe } from '../base/errors.ts'
import type { Client, HeldLease } from '../client/client.ts'
import { type Delivery, deliver } from './aws/delivery.ts'
import { withoutOtherAws } from './aws/environment.ts'
import { type AwsSession, sessionOf } from './aws/session.ts'
import { type Child, type Signals, start, statusOf } from './exec/child.ts'
import { type CredentialFiles, writeCredentials } from './exec/credential-files.ts'
import { keepAll, type Kept, saidOnce, type Tell, usualPace } from './exec/keep.ts'
import { type Declared, endedEarly, withTask } from './exec/with-task.ts'
import { UsageError } from './failure.ts'

export interface ExecOptions extends Declared {
  /** Variables of the command, by the grant whose secret they hold. */
  readonly env: ReadonlyMap<string, string>
  readonly command: readonly [string, ...string[]]
  /** The command's environment, before its credentials are added. */
  readonly environment: Record<string, string | undefined>
}

/**
 * Runs a command under a task of its own: opens it, gives the command its credentials, keeps both alive, and completes the task when the command ends.
 *
 * Whatever happens from the opening on, the task is completed and the credential files are removed. Only a signal to which this
 * process does not listen, such as SIGKILL, leaves the one to its deadline and the other where they are.
 *
 * @param tell a line for people, never with a secret
 * @returns the command's status, 128 and the number of the signal that ended it; 127 not found, 126 not runnable, 1 the task was ended early
 * @throws UsageError, MayflyProblem (the broker refused), BrokerUnreachable; then the command was not started
 */
export async function runWithTask(client: Client, options: ExecOptions, tell: Tell, pace = usualPace): Promise<number> {
  checkVariables(options)
  return withTask(client, options, tell, pace, (kept, signals) => runCommand(kept, options, signals))
}

async function runCommand(kept: Kept, options: ExecOptions, signals: Signals): Promise<number> {
  const { task, tell } = kept
  const variables = variablesOf(options.env, task.leases)
  const session = onlySession(task.leases)
  const files = await writeCredentials(task.leases, options.environment['XDG_RUNTIME_DIR'])
  let delivery: Delivery | undefined
  try {
    delivery = session && (await deliver(session, kept, files))
    const environment = { ...options.environment, ...(delivery && (await withoutOtherAws(options.environment, files))) }
    // Between the last look at `first` and the command's start nothing waits, so that no signal is lost.
    if (signals.first !== undefined) return statusOf(signals.first)
    const child = start(options.command, { ...environment, ...variables, ...delivery?.variables, MAYFLY_CREDENTIALS: files.folder }, tell)
    signals.hear = signals.handOn = (signal) => child.pass(signal)
    return await keepWhileRunning(kept, child, files, delivery, options)
  } finally {
    await delivery?.close()
    await files.remove().catch((error: unknown) => tell(`the credentials in ${files.folder} could not be removed: ${describe(error)}`))
  }
}

async function keepWhileRunning(
  kept: Kept,
  child: Child,
  files: CredentialFiles,
  delivery: Delivery | undefined,
  { env, duration }: ExecOptions,
): Promise<number> {
  const once = saidOnce(kept.tell)
  const put = async (fresh: HeldLease): Promise<void> => {
    delivery?.hold(fresh)
    await files.replace(fresh)
    const variable = env.get(fresh.grant)
    if (variable !== undefined) once(`the fresh credential of ${fresh.grant} is in its file; ${variable} keeps the first one`)
  }
  const stop = new AbortController()
  const keeping = keepAll(kept, duration, child, put, stop.signal)
  const status = await child.ended
  stop.abort()
  await keeping
  return kept.ended === undefined ? status : endedEarly
}

/** @throws UsageError for what no credential can satisfy, before anything is asked for */
function checkVariables({ grants, env }: ExecOptions): void {
  for (const [grant, variable] of env) {
    const asked = grants.filter(({ name }) => name === grant).length
    if (asked === 0) throw new UsageError(`--env ${grant}: no such --grant`)
    if (asked > 1) throw new UsageError(`--env ${grant}: asked for ${asked} times; read the credentials from their files`)
    if (!/^[A-Za-z_]\w*$/.test(variable) || variable === 'MAYFLY_CREDENTIALS')
      throw new UsageError(`--env ${grant}: ${variable} cannot be its variable`)
  }
  if (new Set(env.values()).size < env.size) throw new UsageError('--env: one variable cannot hold two secrets')
}

/**
 * The AWS session among the leases, where there is one.
 * @throws UsageError for several: an SDK takes its credentials from one place
 */
function onlySession(leases: readonly HeldLease[]): AwsSession | undefined {
  const sessions = leases.flatMap((lease) => sessionOf(lease) ?? [])
  if (sessions.length > 1) throw new UsageError(`${sessions.length} AWS sessions do not fit one command: run one command for each`)
  return sessions[0]
}

/** @throws UsageError for a credential that has no one secret part */
function variablesOf(env: ExecOptions['env'], leases: readonly HeldLease[]): Record<string, string> {
  const secretOf = (grant: string): string => {
    const credential = leases.find((lease) => lease.grant === grant)?.credential
    const secret = credential?.secret()
    // A NUL ends a variable, and Node would print the whole value in its complaint.
    if (secret === undefined || secret.includes('\0')) {
      throw new UsageError(`--env ${grant}: its credential (${credential?.type ?? 'none'}) does not fit one variable; read it from its file`)
    }
    return secret
  }
  return Object.fromEntries([...env].map(([grant, variable]) => [variable, secretOf(grant)]))
}
