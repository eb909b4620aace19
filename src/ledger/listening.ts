import type postgres from 'postgres'
import { BrokerError } from '../base/errors.ts'
import { delay } from '../base/time.ts'
import { type Hooks, pauseAfter, withPatience } from './connections.ts'

/** Somebody who hears of a channel of Postgres until it is stopped, whatever becomes of the connection. */
export interface Listening {
  /** Resolves when it has begun. Rejects with why it could not at first; that is tried again all the same. */
  readonly began: Promise<void>
  stop(): Promise<void>
}

/**
 * Listens over a connection of its own. The driver's own `listen` connects again by itself, without a pause for as long as a server accepts and hangs up,
 * and in objects of which nobody knows what is left in them: see connections.ts.
 *
 * @param open a client of one connection
 * @param heard called for what is announced, and whenever listening begins: nobody knows what was announced before
 */
export function startListening(open: (hooks: Hooks) => postgres.Sql, channel: string, heard: () => void): Listening {
  const over = new AbortController()
  let begin = (): void => {}
  let fail: (error: unknown) => void = begin
  const began = new Promise<void>((resolve, reject) => ([begin, fail] = [resolve, reject]))

  /** Until the connection is lost. @throws the driver's error where it could not begin */
  async function listen(): Promise<void> {
    let lose = (): void => {}
    const lost = new Promise<void>((resolve) => (lose = resolve))
    const client = open({ onclose: lose, onnotify: (at) => void (at === channel && heard()) })
    over.signal.addEventListener('abort', lose, { once: true })
    try {
      await withPatience(Promise.race([client.unsafe(`listen "${channel}"`), lost.then(hungUp)]))
      begin()
      heard()
      await lost
    } finally {
      over.signal.removeEventListener('abort', lose)
      await client.end({ timeout: 0 })
    }
  }

  async function keepListening(): Promise<void> {
    let failures = 0
    while (!over.signal.aborted) {
      await listen().then(
        () => (failures = 0),
        (error: unknown) => {
          failures++
          fail(error)
        },
      )
      await delay(pauseAfter(failures + 1), over.signal).catch(() => {})
    }
  }

  const kept = keepListening()
  async function stop(): Promise<void> {
    over.abort()
    await kept
  }
  return { began, stop }
}

const hungUp = (): never => {
  throw new BrokerError('store_unavailable', 'The ledger hung up before it answered', { retryAfter: 1 })
}
