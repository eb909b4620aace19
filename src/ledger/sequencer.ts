import { describe } from '../base/errors.ts'
import { delay, stopwatch } from '../base/time.ts'
import type { Telemetry } from '../telemetry.ts'
import { type Alarm, createAlarm } from './alarm.ts'
import { signedEntries, type SignedHead } from './checkpoints.ts'
import { type KnownHead, type LogRefusal, refusals, type SignedLog, type Step, stepLog, usualBatch } from './signing.ts'
import { createStrayWatch } from './strays.ts'

/** The loop that keeps the log up with the history. */
export interface Sequencer {
  /** What stood in the way when it last looked. Undefined: nothing, or it has not looked yet. */
  refusal(): LogRefusal | undefined
  /** Whether it has met entries that stand where the log had been already: nothing is in the way, but the history is not what brokers wrote. */
  hasStrays(): boolean
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Milliseconds between two looks while there is no more than a batch: how old an entry gets before it can be proven. */
const pause = 1_000

/** Seconds that an entry may wait before it is an alarm: a commit lasts 10 s at most, and holds back those that came after it. */
export const longestWait = 20

/** What is left after a step: whether the log has more to append, and for how many seconds the first of it had waited. */
export interface Remaining {
  readonly more: boolean
  readonly behind: number
}

/**
 * Milliseconds until the next step. A backlog gets half of the time, for whoever declares meanwhile is served by the same thread and the same store; all of
 * it where what is next becomes older all the same: under a load that needs more than that, and behind an outage under such a load, until it is caught up.
 *
 * @param before seconds that it was behind at the step before
 * @param took milliseconds of this one
 */
export function restAfter({ more, behind }: Remaining, before: number, took: number): number {
  if (!more) return pause
  return behind < before ? Math.min(took, pause) : 0
}

/** @param signed is told of each checkpoint that was signed or found to be right, once; it must not wait */
export function startSequencer(log: SignedLog, telemetry: Telemetry, signed: (note: string) => void = () => {}): Sequencer {
  const { log: lines, metrics } = telemetry
  const memory: KnownHead = { head: undefined }
  const strays = createStrayWatch(log.ledger, telemetry)
  const alarm = createAlarm((fields, message) => lines.error(fields, message))
  const stopping = new AbortController()
  let told: string | undefined
  let refusal: LogRefusal | undefined
  metrics.logKeyUp.set(1)

  async function step(): Promise<Remaining> {
    const done = await stepLog(log, memory, usualBatch, stopping.signal)
    // Who stops has hung up on the key.
    if (done.outcome === 'refused' && stopping.signal.aborted) return { more: false, behind: done.lag.seconds }
    refusal = done.outcome === 'refused' ? done.why : undefined
    strays.remember(done.lag.strays)
    report(done, memory.head, metrics, alarm)
    if (memory.head && memory.head.note !== told) signed((told = memory.head.note))
    return { more: done.outcome !== 'refused' && done.more, behind: done.lag.seconds }
  }

  /** Strays are sought also while much waits, where a step looks for none. */
  async function round(): Promise<Remaining> {
    const remaining = await step()
    if (!stopping.signal.aborted)
      await strays
        .seek()
        .catch((error: unknown) => lines.warn({ error: describe(error) }, 'the history could not be gone through for entries without a place'))
    return remaining
  }

  async function loop(): Promise<void> {
    let before = Number.POSITIVE_INFINITY
    while (!stopping.signal.aborted) {
      const elapsed = stopwatch()
      const { more, behind } = await round().catch((error: unknown) => {
        lines.warn({ error: describe(error) }, 'the log could not be looked at or written; it is tried again in a second')
        return { more: false, behind: before }
      })
      await delay(restAfter({ more, behind }, before, elapsed()), stopping.signal).catch(() => {})
      before = behind
    }
  }

  const looping = loop()
  async function stop(): Promise<void> {
    stopping.abort()
    await looping
  }
  return { refusal: () => refusal, hasStrays: strays.hasAny, stop, [Symbol.asyncDispose]: stop }
}

/** What a step came to, for operators. */
function report(done: Step, head: SignedHead | undefined, metrics: Telemetry['metrics'], alarm: Alarm): void {
  const { lag } = done
  const refusal = done.outcome === 'refused' ? done.why : undefined
  metrics.logLagEntries.set(lag.entries)
  metrics.logLagSeconds.set(lag.seconds)
  // A key that does not answer is an outage, which the lag tells of: nobody has changed anything.
  metrics.logRefused.set(refusal === undefined || refusal === 'key away' ? 0 : 1)
  metrics.logKeyUp.set(refusal === 'key away' ? 0 : 1)
  metrics.logSize.set(head ? signedEntries(head) : 0)
  if (done.outcome === 'refused')
    alarm({ reason: done.why, ...(done.error !== undefined && { error: done.error }) }, `the log is not signed any further: ${refusals[done.why]}`)
  else if (lag.seconds > longestWait) alarm({ entries: lag.entries, seconds: lag.seconds }, 'the log is behind the history')
}
