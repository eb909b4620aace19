import { describe } from '../../base/errors.ts'
import { delay, stopwatch, systemClock } from '../../base/time.ts'
import { type Client, type HeldLease, MayflyProblem, type OpenTask } from '../../client/client.ts'
import type { TaskView } from '../../http/contract.ts'
import { endOf, sessionOf } from '../aws/session.ts'
import { createReplacements } from './another.ts'
import type { Child } from './child.ts'

/** How often things are done, in milliseconds. */
export interface Pace {
  /** Between two looks whether the task is still open. */
  readonly look: number
  /** From SIGTERM to SIGKILL, when the task was ended early. */
  readonly grace: number
  /** The shortest wait before asking for more time, so that a broker in trouble is not hammered. */
  readonly shortest: number
}

/** Takes a line for people, never with a secret. */
export type Tell = (line: string) => void

/** A look every 5 s costs the broker little next to what it costs a person to wait for a revoked command to stop. */
export const usualPace: Pace = { look: 5_000, grace: 10_000, shortest: 1_000 }

/** A task that is kept alive while its command runs. */
export interface Kept {
  readonly client: Client
  readonly task: OpenTask
  readonly tell: Tell
  readonly pace: Pace
  /** The task's end as the broker last said it; renewing moves it. */
  deadline: string
  /** How it stood when it was found ended while its command ran. */
  ended: TaskView | undefined
}

/** The longest a task may be told to take, which bounds what an answer can make a timer do. */
const longest = 24 * 3_600_000

/**
 * Milliseconds from one moment to another, both by the broker's clock: this machine's may be wrong.
 * @param from when the answer was made; the latest of several, since a repeated answer repeats older times. Now, by this machine's clock, where the broker
 * does not say. @returns NaN where a time is not one
 */
export const between = (from: readonly (string | undefined)[], to: string): number => Date.parse(to) - latest(from)

function latest(moments: readonly (string | undefined)[]): number {
  const known = moments.flatMap((moment) => (moment === undefined ? [] : [Date.parse(moment)]))
  return known.length === 0 ? systemClock() : Math.max(...known)
}

/** The task was found ended. Whoever finds it first says why: it is what exec ends with, also where its command ends by itself meanwhile. */
function foundEnded(kept: Kept, task: TaskView): void {
  if (kept.ended === undefined) kept.tell(`the task was ended (${wordsFor(task)}), and this ends with it`)
  kept.ended = task
}

/**
 * Looks until the task is no longer open, then stops its command. A broker that is away stops nothing: what it issued lives on until its end.
 * @throws the signal's reason
 */
async function stopWhenEnded(kept: Kept, child: Pick<Child, 'stop'>, signal: AbortSignal): Promise<void> {
  const { client, task, tell, pace } = kept
  const once = saidOnce(tell)
  for (;;) {
    await delay(pace.look, signal)
    const shown = await client.showTask(task.id, task.token, signal).catch((error: unknown) => {
      signal.throwIfAborted()
      once(`cannot see whether the task is still open, and goes on: ${describe(error)}`)
    })
    if (shown === undefined || shown.task.state === 'open') continue
    foundEnded(kept, shown.task)
    return child.stop(pace.grace)
  }
}

/**
 * Keeps a task and its credentials alive until it is told to stop, and stops its command where the task is ended early.
 * @param put takes each fresh credential
 */
export async function keepAll(
  kept: Kept,
  duration: string | undefined,
  child: Pick<Child, 'stop'>,
  put: (fresh: HeldLease) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  // Settled together and from the start: each ends with an abort, and nobody waits for one alone.
  await Promise.allSettled([
    keepOpen(kept, duration, signal),
    stopWhenEnded(kept, child, signal),
    ...kept.task.leases.map((lease) => keepFresh(kept, lease, put, signal)),
  ])
}

/** Renews the task at half of what is left of it, again and again. A refusal is final: the task then ends at its deadline. */
async function keepOpen(kept: Kept, duration: string | undefined, signal: AbortSignal): Promise<void> {
  const { client, task, tell, pace } = kept
  const once = saidOnce(tell)
  const left = between([task.task.opened_at, ...task.leases.map(({ issued_at }) => issued_at)], kept.deadline)
  await atHalves(left, pace.shortest, signal, async () => {
    try {
      const renewed = await client.renewTask(task.id, duration === undefined ? {} : { duration }, signal)
      kept.deadline = renewed.task.deadline
      return between([renewed.decision.decided_at], kept.deadline)
    } catch (error) {
      signal.throwIfAborted()
      once(`the task is not renewed and ends at ${kept.deadline}: ${describe(error)}`)
      return isFinal(error) ? 'done' : 'again'
    }
  })
}

/**
 * Refreshes the credential of a lease at half of what is left of it, again and again, where its provider has fresh ones. An AWS session is asked for
 * beyond its end too, as long as the task lasts: a broker that was away for long gives the next one when it is back. Where its lease has ended by itself
 * meanwhile, another lease of the same grant takes its place.
 */
async function keepFresh(kept: Kept, first: HeldLease, put: (fresh: HeldLease) => Promise<void>, signal: AbortSignal): Promise<void> {
  const { client, task, tell, pace } = kept
  const once = saidOnce(tell)
  const replacements = createReplacements(client, task, { first: pace.shortest, most: 2 * pace.look })
  const isSession = sessionOf(first) !== undefined
  let lease = first
  let ends = endOf(lease)
  // By the broker's clock, when it gave what is held, and how long ago that is.
  let given = latest([lease.issued_at ?? task.decision.decided_at])
  let since = stopwatch()
  const until = (moment: string): number => Date.parse(moment) - given

  /** @returns milliseconds that it has left */
  async function hold(fresh: HeldLease, decidedAt: string | undefined): Promise<number> {
    // Under the name of the first: whoever reads its files or asks the endpoint does not care which lease it is.
    await put({ ...fresh, id: first.id })
    lease = fresh
    ends = endOf(fresh)
    given = latest([fresh.issued_at, decidedAt])
    since = stopwatch()
    return until(ends)
  }

  async function replaced(): Promise<number | 'done'> {
    const outcome = await replacements.instead(lease, given + since(), signal)
    if (outcome.outcome === 'given') return await hold(outcome.lease, outcome.decidedAt)
    // Known here before the next look: the endpoint has nothing to give from now on.
    if (outcome.outcome === 'task_ended') foundEnded(kept, outcome.task)
    return 'done'
  }

  await atHalves(until(ends), pace.shortest, signal, async () => {
    // Nothing that is fresh could outlive the task; once that is renewed, asking makes sense.
    if (Date.parse(ends) >= Date.parse(kept.deadline)) return 'again'
    const onTrouble = (error: unknown): boolean => {
      signal.throwIfAborted()
      once(`the credential of ${lease.grant} is not refreshed and ends at ${ends}: ${describe(error)}`)
      return isFinal(error)
    }
    try {
      const { decision, lease: fresh } = await client.refreshLease(lease.id, task.token, signal)
      replacements.worked()
      return await hold(fresh, decision.decided_at)
    } catch (error) {
      const final = onTrouble(error)
      if (!isSession) return final ? 'done' : 'again'
      try {
        if (final) return await replaced()
      } catch (further) {
        if (onTrouble(further)) return 'done'
      }
      return since() < until(kept.deadline) ? 2 * pace.look : 'again'
    }
  })
}

/**
 * Asks for more time when half of it has passed, until there is none left or no more to be had.
 *
 * Half rather than shortly before the end: a broker that is away costs nothing as long as it is back within the other half.
 *
 * @param left milliseconds at first
 * @param ask gives the milliseconds that are left then; `again` at half of what is left now
 */
async function atHalves(left: number, shortest: number, signal: AbortSignal, ask: () => Promise<number | 'again' | 'done'>): Promise<void> {
  while (left > 0) {
    const passed = stopwatch()
    await delay(Math.min(longest, Math.max(shortest, left / 2)), signal)
    const more = await ask()
    if (more === 'done') return
    left = more === 'again' ? left - passed() : more
  }
}

/** Whether asking again would be answered the same. */
const isFinal = (error: unknown): boolean => error instanceof MayflyProblem && error.retry === 'no'

const wordsFor = ({ state, cause, reason }: TaskView): string => [cause ?? state, ...(reason === undefined ? [] : [reason])].join(': ')

/** Says the first thing it is told, and no more: a broker in trouble would fill the command's own output. */
export function saidOnce(tell: (line: string) => void): (line: string) => void {
  let said = false
  return (line) => {
    if (!said) tell(line)
    said = true
  }
}
