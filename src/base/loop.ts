import { describe } from './errors.ts'
import { stopwatch } from './time.ts'

/** Work that is repeated until it is stopped. */
export interface Loop {
  /** There may be something to do: another round follows at once, also if one is running, because that one may have missed the work. */
  wake(): void
  /** Milliseconds since a round last ended without an error. */
  lastRound(): number
  /** Resolves when the current round is over. */
  stop(): Promise<void>
}

/**
 * Runs one round after the other.
 *
 * @param pauseAfter the milliseconds until the next one, unless something wakes the loop earlier. Not asked where something has already
 * @param retryAfter milliseconds until the next round after one that failed
 * @param failed is called for each round that fails, with words that are safe to log
 */
export function startLoop(
  round: (isOver: () => boolean) => Promise<void>,
  pauseAfter: () => Promise<number>,
  retryAfter: number,
  failed: (error: string) => void,
): Loop {
  let stopped = false
  let woken = false
  let wakeUp = (): void => {}
  // Not the clock: a jump of it would hide that the loop stands still.
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
      await round(() => stopped)
      const pause = woken || stopped ? 0 : await pauseAfter()
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
