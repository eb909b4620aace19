import { describe } from '../base/errors.ts'
import type { Client, HeldLease, OpenTask } from '../client/client.ts'
import { type Child, listenToSignals, type Signals, start, statusOf } from './exec/child.ts'
import { type CredentialFiles, writeCredentials } from './exec/credential-files.ts'
import { keepFresh, keepOpen, type Kept, type Pace, saidOnce, stopWhenEnded } from './exec/keep.ts'
import { UsageError } from './failure.ts'

export interface ExecOptions {
  readonly kind: string
  readonly grants: readonly { readonly name: string; readonly parameters: Record<string, string> }[]
  readonly purpose?: string
  /** How long at a time; without it, the longest that the kind allows. */
  readonly duration?: string
  /** Variables of the command, by the grant whose secret they hold. */
  readonly env: ReadonlyMap<string, string>
  readonly command: readonly [string, ...string[]]
  /** The command's environment, before its credentials are added. */
  readonly environment: Record<string, string | undefined>
}

/** Takes a line for people. */
type Tell = (line: string) => void

/** A look every 5 s costs the broker little next to what it costs a person to wait for a revoked command to stop. */
const usualPace: Pace = { look: 5_000, grace: 10_000, shortest: 1_000 }

/** The exit status when the task was ended while its command ran. */
const endedEarly = 1

/**
 * Runs a command under a task of its own: opens it, gives the command its credentials, keeps both alive, and completes the task when the command ends.
 *
 * Whatever happens from the opening on, the task is completed and the credential files are removed. Only SIGKILL to this process leaves
 * the one to its deadline and the other where they are.
 *
 * @param tell a line for people, never with a secret
 * @returns the command's status, 128 and the number of the signal that ended it; 127 not found, 126 not runnable, 1 the task was ended early
 * @throws UsageError, MayflyProblem (the broker refused), BrokerUnreachable; then the command was not started
 */
export async function runWithTask(client: Client, options: ExecOptions, tell: Tell, pace = usualPace): Promise<number> {
  checkVariables(options)
  const signals = listenToSignals()
  try {
    const task = await open(client, options, signals, tell)
    if (task === undefined) return statusOf(signals.first ?? 'SIGTERM')
    const kept: Kept = { client, task, tell, pace, deadline: task.task.deadline, ended: undefined }
    try {
      return await runCommand(kept, options, signals)
    } finally {
      if (kept.ended === undefined) await complete(kept, signals)
    }
  } finally {
    signals.close()
  }
}

/** The task; undefined where a signal came first. */
async function open(client: Client, options: ExecOptions, signals: Signals, tell: Tell): Promise<OpenTask | undefined> {
  const { kind, grants, purpose, duration } = options
  const declaration = { kind, grants: [...grants], ...(purpose !== undefined && { purpose }), ...(duration !== undefined && { duration }) }
  const stop = new AbortController()
  signals.hear = () => stop.abort()
  try {
    return await whileWaiting(tell, `waiting for the broker at ${client.url}`, client.open(declaration, { signal: stop.signal }))
  } catch (error) {
    if (signals.first === undefined) throw error
    tell('stopped before the command was started; if the broker opened the task nevertheless, it ends at its deadline')
    return undefined
  }
}

async function runCommand(kept: Kept, options: ExecOptions, signals: Signals): Promise<number> {
  const { task, tell } = kept
  const variables = variablesOf(options.env, task.leases)
  const files = await writeCredentials(task.leases, options.environment['XDG_RUNTIME_DIR'])
  try {
    // Between the last look at `first` and the command's start nothing waits, so that no signal is lost.
    if (signals.first !== undefined) return statusOf(signals.first)
    const child = start(options.command, { ...options.environment, ...variables, MAYFLY_CREDENTIALS: files.folder }, tell)
    signals.hear = (signal) => child.pass(signal)
    return await keepWhileRunning(kept, child, files, options)
  } finally {
    await files.remove().catch((error: unknown) => tell(`the credentials in ${files.folder} could not be removed: ${describe(error)}`))
  }
}

async function keepWhileRunning(kept: Kept, child: Child, files: CredentialFiles, { env, duration }: ExecOptions): Promise<number> {
  const once = saidOnce(kept.tell)
  const put = async (fresh: HeldLease): Promise<void> => {
    await files.replace(fresh)
    const variable = env.get(fresh.grant)
    if (variable !== undefined) once(`the fresh credential of ${fresh.grant} is in its file; ${variable} keeps the first one`)
  }
  const stop = new AbortController()
  // Settled together and from the start: each ends with an abort, and nobody waits for one alone.
  const keeping = Promise.allSettled([
    keepOpen(kept, duration, stop.signal),
    stopWhenEnded(kept, child, stop.signal),
    ...kept.task.leases.map((lease) => keepFresh(kept, lease, put, stop.signal)),
  ])
  const status = await child.ended
  stop.abort()
  await keeping
  return kept.ended === undefined ? status : endedEarly
}

/** Reports the end; what cannot be reported is told, since the command's status matters more. The client waits for a broker that is away. */
async function complete({ task, tell, deadline }: Kept, signals: Signals): Promise<void> {
  const giveUp = new AbortController()
  let heard = 0
  signals.hear = () => {
    if (heard++ > 0) giveUp.abort()
    else tell('completion is being reported; another signal leaves the task to its deadline')
  }
  try {
    const { leases, ended } = await whileWaiting(tell, `waiting for the broker to end ${task.id}`, task.complete({ signal: giveUp.signal }))
    const alive = leases
      .filter(({ ended_at }) => ended_at === undefined)
      .map(({ grant, state, expires_at }) => `${grant} (${state}, until ${expires_at})`)
    if (!ended) tell(`${task.id} is completed; the broker is still ending ${alive.join(', ')}`)
  } catch (error) {
    tell(`the completion of ${task.id} could not be reported, so it ends at ${deadline}: ${describe(error)}`)
  }
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

/** Says so where something takes longer than people like to look at nothing. */
async function whileWaiting<Result>(tell: Tell, line: string, work: Promise<Result>): Promise<Result> {
  const timer = setTimeout(() => tell(line), 3_000)
  try {
    return await work
  } finally {
    clearTimeout(timer)
  }
}
