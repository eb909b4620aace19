import { describe } from '../../base/errors.ts'
import type { Client, OpenTask } from '../../client/client.ts'
import { listenToSignals, type Signals, statusOf } from './child.ts'
import type { Kept, Pace, Tell } from './keep.ts'

/** The exit status when the task was ended by somebody else while it was worked under. */
export const endedEarly = 1

/** What a task is opened for. */
export interface Declared {
  readonly kind: string
  readonly grants: readonly { readonly name: string; readonly parameters: Record<string, string> }[]
  readonly purpose?: string
  /** How long at a time; without it, the longest that the kind allows. */
  readonly duration?: string
}

/**
 * Works under a task of its own: whatever happens from the opening on, the task is completed. Only a signal to which this process does not listen, such as
 * SIGKILL, leaves it to its deadline.
 *
 * @param tell a line for people, never with a secret
 * @param work gives the exit status
 * @returns that status; 128 and the number of a signal that came before the task was open
 * @throws MayflyProblem (the broker refused), BrokerUnreachable; then there was nothing to work with
 */
export async function withTask(
  client: Client,
  declared: Declared,
  tell: Tell,
  pace: Pace,
  work: (kept: Kept, signals: Signals) => Promise<number>,
): Promise<number> {
  const signals = listenToSignals()
  try {
    const task = await open(client, declared, signals, tell)
    if (task === undefined) return statusOf(signals.first ?? 'SIGTERM')
    const kept: Kept = { client, task, tell, pace, deadline: task.task.deadline, ended: undefined }
    try {
      return await work(kept, signals)
    } finally {
      if (kept.ended === undefined) await complete(kept, signals)
    }
  } finally {
    signals.close()
  }
}

/** The task; undefined where a signal came first. */
async function open(client: Client, declared: Declared, signals: Signals, tell: Tell): Promise<OpenTask | undefined> {
  const { kind, grants, purpose, duration } = declared
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

/** Says so where something takes longer than people like to look at nothing. */
async function whileWaiting<Result>(tell: Tell, line: string, work: Promise<Result>): Promise<Result> {
  const timer = setTimeout(() => tell(line), 3_000)
  try {
    return await work
  } finally {
    clearTimeout(timer)
  }
}
