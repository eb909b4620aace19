import { setMaxListeners } from 'node:events'
import { ProviderError } from '../../provider.ts'

/** Waits. @param ms milliseconds */
export type Pause = (ms: number) => Promise<void>

/** Somebody who needs what was denied before now to be in force. */
export interface Waiter {
  /** How far that is, for whoever gives up waiting. */
  progress: () => string
  /** No more is needed. */
  done(): void
}

/** Those who wait for one kill list. A round serves everybody who came before it began. */
export interface Rounds {
  /** Resolves when a document that was drawn after this call is in force. @throws ProviderError `downstream` with how far it is, when the signal fires */
  covering(signal: AbortSignal): Promise<void>
}

/** Milliseconds to the next round after one that failed, doubled with each, and the most. Full jitter: brokers that failed together do not come back together. */
const backoff = { first: 500, most: 10_000 }

/**
 * One round at a time while anybody waits. Who gives up leaves the round to the others; when nobody is left it ends by itself.
 *
 * @param round is given those who wait, in the moment before it reads the store; it takes those out whom it served or will serve, and answers with the
 *   milliseconds until the next. What it throws is told to all who wait.
 */
export function createRounds(pause: Pause, round: (waiting: Set<Waiter>) => Promise<number>, told: (error: unknown) => string): Rounds {
  const waiting = new Set<Waiter>()
  let running = false
  let failures = 0

  async function run(): Promise<void> {
    while (waiting.size > 0) {
      const wait = await round(waiting).then(
        (next) => {
          failures = 0
          return next
        },
        (error: unknown) => {
          const why = told(error)
          for (const waiter of waiting) waiter.progress = () => `denied, and not written yet: ${why}`
          return Math.random() * Math.min(backoff.most, backoff.first * 2 ** Math.min(failures++, 10))
        },
      )
      if (wait > 0) await pause(wait)
    }
    running = false
  }

  return {
    covering(signal) {
      return new Promise((resolve, reject) => {
        const giveUp = (): void => {
          waiting.delete(waiter)
          reject(new ProviderError('downstream', waiter.progress(), 'maybe'))
        }
        const waiter: Waiter = {
          progress: () => 'denied, and not written yet',
          done() {
            signal.removeEventListener('abort', giveUp)
            resolve()
          },
        }
        if (signal.aborted) return giveUp()
        // One signal may stand behind many lists; Node takes eleven listeners for a leak.
        setMaxListeners(0, signal)
        signal.addEventListener('abort', giveUp, { once: true })
        waiting.add(waiter)
        if (running) return
        running = true
        void run()
      })
    },
  }
}
