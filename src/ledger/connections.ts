import postgres from 'postgres'
import { BrokerError } from '../base/errors.ts'
import { inTime } from '../base/signal.ts'
import { delay, stopwatch } from '../base/time.ts'
import type { Door } from './connect.ts'

/** Connections to one Postgres, each for one statement at a time. */
export interface Connections {
  /** Rejects with the driver's error. */
  readonly query: Door['query']
  close(): Promise<void>
}

/** What a client of the driver calls. */
export interface Hooks {
  /** When its socket is closed, or there is none to be had. */
  readonly onclose: () => void
  /** When something was announced, with the channel. The driver knows it, and its types do not. */
  readonly onnotify?: (channel: string) => void
}

/** Milliseconds after which a statement is given up by this side, for a connection that was cut without a word. Postgres' own limit is lower. */
const patience = 12_000

/** Milliseconds between two times that all connections are replaced: while the store fails, each statement would be a reason. */
const renewEvery = 500

/** Milliseconds that a connection is used for. The server keeps every statement that was prepared on it, and a balancer may have a better place by then. */
const lifetime = 45 * 60_000

/** Milliseconds to wait after so many connections failed that never answered, so that a store which comes up is not asked by everybody at once. */
export const pauseAfter = (failures: number): number => (failures === 0 ? 0 : Math.min(50 * 2 ** failures, 1_000))

interface Connection {
  readonly client: postgres.Sql
  /** Milliseconds since it was opened. */
  readonly age: () => number
  answered: boolean
  /** Its socket was closed, or it may not be what it was: it is never used again. */
  lost: boolean
}

/**
 * Connections that are used again for as long as they live, and no longer.
 *
 * A client of postgres.js (3.4.9) goes on in the same objects after its socket was closed, and what was in them at that moment stays: it may never
 * connect again (porsager/postgres issues 1154 and 1208), answer a statement that was never sent as if it had been done, or put rows of the one before in
 * front of an answer. So its own pool is not used: a client has one connection, and both are forgotten together.
 *
 * @param open a client of one connection, which never ends it by itself
 */
export function openConnections(open: (hooks: Hooks) => postgres.Sql): Connections {
  const all = new Set<Connection>()
  /** The last one used last: those that a quiet broker does not need are left alone. */
  const idle: Connection[] = []
  let closed = false
  let failures = 0
  let sinceFailure = () => Infinity
  let sinceRenewal = () => Infinity

  async function connection(): Promise<Connection> {
    for (;;) {
      if (closed) throw new BrokerError('store_unavailable', 'The ledger is closed')
      const free = idle.pop()
      if (free) return free
      const wait = pauseAfter(failures) - sinceFailure()
      if (wait <= 0) break
      await delay(wait)
    }
    const opened: Connection = { client: open({ onclose: () => forget(opened) }), age: stopwatch(), answered: false, lost: false }
    all.add(opened)
    return opened
  }

  function noteAnswer(one: Connection): void {
    if (!one.answered) failures = 0
    one.answered = true
  }

  function forget(one: Connection): void {
    if (one.lost) return
    one.lost = true
    all.delete(one)
    if (idle.includes(one)) idle.splice(idle.indexOf(one), 1)
    if (!one.answered) {
      failures++
      sinceFailure = stopwatch()
    }
    // Whatever was asked of it in its last moment is rejected by this.
    void one.client.end({ timeout: 0 })
  }

  /** Those that wait for a dead peer would be waited for until TCP gives up, a quarter of an hour later; and yesterday's primary can only be read. */
  function forgetIdle(): void {
    if (sinceRenewal() < renewEvery) return
    sinceRenewal = stopwatch()
    for (const one of idle.splice(0)) forget(one)
  }

  async function ask(text: string, parameters: readonly unknown[], prepare: boolean): Promise<postgres.Row[]> {
    const asked = await connection()
    try {
      const rows = await withPatience(asked.client.unsafe(text, parameters as postgres.ParameterOrJSON<never>[], { prepare }))
      noteAnswer(asked)
      return rows
    } catch (error) {
      if (isRefusal(error)) noteAnswer(asked)
      if (!isRefusal(error) || isReadOnly(error)) forget(asked)
      if (isTooLate(error) || isReadOnly(error)) forgetIdle()
      throw error
    } finally {
      if (asked.age() > lifetime) forget(asked)
      if (!asked.lost) idle.push(asked)
    }
  }

  return {
    async query(text, parameters, plan) {
      const prepare = plan !== 'fresh'
      try {
        return await ask(text, parameters, prepare)
      } catch (error) {
        if (!isReadOnly(error)) throw error
        // It had not happened, so this is safe. A connection that was opened meanwhile may be allowed to write.
        return await ask(text, parameters, prepare)
      }
    },
    async close() {
      closed = true
      await Promise.all([...all].map(({ client }) => client.end({ timeout: 1 })))
    },
  }
}

/** Whether the server refused a statement, over a connection that is as good as before. */
const isRefusal = (error: unknown): boolean => error instanceof postgres.PostgresError && error.severity === 'ERROR'

/** Whether it did so because the statement writes, and the server can only be read. */
const isReadOnly = (error: unknown): boolean => error instanceof postgres.PostgresError && error.code === '25006'

const tooLate = 'The ledger did not answer in time'

const isTooLate = (error: unknown): boolean => error instanceof BrokerError && error.detail === tooLate

/** What a statement comes to, if it does so in time. @throws BrokerError `store_unavailable` */
export const withPatience = <Answer>(query: PromiseLike<Answer>): Promise<Answer> =>
  inTime(patience, query, () => {
    throw new BrokerError('store_unavailable', tooLate, { retryAfter: 1 })
  })
