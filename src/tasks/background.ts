import { describe } from '../base/errors.ts'
import type { Log } from '../telemetry.ts'

/** Work that outlives the request or the lap that began it. Bounded by the bulkheads of what it calls; the ledger knows all of it. */
export interface Background {
  /**
   * Runs work; the promise never rejects. What fails is logged and stays due in the ledger, and comes to nothing here. The signal fires when the broker stops
   * and has waited long enough.
   */
  run<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result | undefined>
  /** Resolves when no work is left. */
  settled(): Promise<void>
  /** Waits for all work, at most `grace` milliseconds, then aborts it: what was begun is due in the ledger and another broker's reaper takes it. */
  drain(grace: number): Promise<void>
}

export function createBackground(log: Log): Background {
  const running = new Set<Promise<unknown>>()
  const stop = new AbortController()
  const settled = async () => {
    while (running.size > 0) await Promise.all(running)
  }
  return {
    run(work) {
      const done = guarded(work, stop.signal, log).finally(() => running.delete(done))
      running.add(done)
      return done
    },
    settled,
    async drain(grace) {
      const timer = setTimeout(() => stop.abort(), grace)
      await settled()
      clearTimeout(timer)
    },
  }
}

async function guarded<Result>(work: (signal: AbortSignal) => Promise<Result>, signal: AbortSignal, log: Log): Promise<Result | undefined> {
  try {
    return await work(signal)
  } catch (error) {
    log.warn({ error: describe(error) }, 'work in the background failed; the ledger still has it due')
    return undefined
  }
}
