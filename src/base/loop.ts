import { describe } from './errors.ts'
import { stopwatch } from './time.ts'

/** Work that is taken up again and again, until it is stopped. */
export interface Loop {
  /** There may be something to do: the next round follows at once. One that came during a round counts, for it may have been behind the round's back. */
  wake(): void
  /** Milliseconds since a round was last over without an error. */
  lastRound(): number
  /** Resolves when the round that is under way is over. */
  stop(): Promise<void>
}

/**
 * Takes one round after the other.
 *
 * @param round resolves with the milliseconds until the next one, where nothing wakes the loop earlier
 * @param retryAfter milliseconds until the next one where a round fails
 * @param failed hears of each that fails, in words that are safe to log
 */
export function startLoop(round: (isOver: () => boolean) => Promise<number>, retryAfter: number, failed: (error: string) => void): Loop {
  let stopped = false
  let woken = false
  let wakeUp = (): void => {}
  // Not the clock: one that jumps would hide that it stands still.
  let sinceRound = stopwatch()

  async function loop(): Promise<void> {
    while (!stopped) {
      woken = false
      const pause = await taken()
      if (!woken && !stopped) await sleep(pause)
    }
  }

  async function taken(): Promise<number> {
    try {
      const pause = await round(() => stopped)
      sinceRound = stopwatch()
      return pause
    } catch (error) {
      failed(describe(error))
      return retryAfter
    }
  }

  const sleep = (pause: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, pause)
      wakeUp = () => {
        clearTimeout(timer)
        resolve()
      }
    })

  function wake(): void {
    woken = true
    wakeUp()
  }

  // Not before whoever started it has it: a round may wake its own loop.
  const running = Promise.resolve().then(loop)
  return {
    wake,
    lastRound: () => sinceRound(),
    async stop() {
      stopped = true
      wake()
      await running
    },
  }
}
