import path from 'node:path'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import { stopwatch } from '../base/time.ts'
import type { Door } from './connect.ts'

export const migrationsFolder = path.join(import.meta.dirname, '../../migrations')

/** Any number will do, as long as every broker takes the same: the advisory lock under which migrations run. */
const migrationLock = 7420_0001

/** Milliseconds after which a statement is given up by this side, for a connection that was cut without a word. Postgres' own limit is lower. */
const patience = 12_000

/**
 * How the store is to look for rows. Every statement of the broker reads few rows by their keys, whatever the tables hold; a plan made while they
 * were small or unknown, and kept by a connection for as long as it lives, would read all of them instead. Compiling pays for large reports only.
 */
export const planByKey = { enable_seqscan: 'off', enable_hashjoin: 'off', enable_mergejoin: 'off', jit: 'off' } as const

/** Where NOTIFY and LISTEN meet. The payload is empty: due work is found by looking. */
export const dueChannel = 'mayfly_due'

/**
 * The production door: postgres.js, prepared statements, as the role `mayfly_app` even where the login is the owner of the tables, so that no
 * statement of the broker can change history.
 */
export async function openPostgres(url: string, pool: number): Promise<Door> {
  await migratePostgres(url)
  const open = () =>
    postgres(url, {
      max: pool,
      // A recovered database has to be found again within seconds: an attempt that began before is lost, and the default backs off to many.
      connect_timeout: 2,
      backoff: (failures: number) => Math.min(0.05 * 2 ** failures, 1),
      onnotice: () => {},
      connection: {
        application_name: 'mayfly',
        role: 'mayfly_app',
        TimeZone: 'UTC',
        statement_timeout: 10_000,
        idle_in_transaction_session_timeout: 10_000,
        ...planByKey,
      },
    })
  let client = open()
  let sinceRenewal = () => Infinity
  const waking = open()

  /** Other connections from now on. Those that wait for a dead peer would be waited for until TCP gives up, a quarter of an hour later. */
  function renew(stale: postgres.Sql): void {
    if (stale !== client || sinceRenewal() < renewEvery) return
    client = open()
    sinceRenewal = stopwatch()
    void stale.end({ timeout: 1 })
  }

  return {
    embedded: false,
    connections: pool,
    async query(text, parameters, plan) {
      const ask = async () => {
        const asked = client
        try {
          return await withPatience(asked.unsafe(text, parameters as postgres.ParameterOrJSON<never>[], { prepare: plan !== 'fresh' }))
        } catch (error) {
          if (isOfItsConnection(error)) renew(asked)
          throw error
        }
      }
      try {
        return await ask()
      } catch (error) {
        if (!isReadOnly(error)) throw error
        // It had not happened, so this is safe. A connection that was opened meanwhile may be allowed to write.
        return await ask()
      }
    },
    async onDue(listener) {
      await waking.listen(dueChannel, listener, listener)
    },
    hasRoom: async () => true,
    // By now nothing is under way but LISTEN, whose connection may be one that was lost.
    close: async () => void (await Promise.all([client.end({ timeout: 1 }), waking.end({ timeout: 1 })])),
  }
}

/** Milliseconds between two times that all connections are replaced: while the store fails, each statement would be a reason. */
const renewEvery = 500

const tooLate = 'The ledger did not answer in time'

/** Whether a statement was refused because it writes, by a connection to a server that could only be read, as the primary of yesterday is. */
const isReadOnly = (error: unknown): boolean => (error as { code?: unknown }).code === '25006'

/** What another connection may not have: no answer at all, or a server that can only be read. */
const isOfItsConnection = (error: unknown): boolean => (error instanceof BrokerError && error.detail === tooLate) || isReadOnly(error)

async function withPatience<Row>(query: PromiseLike<Row>): Promise<Row> {
  let timer: NodeJS.Timeout | undefined
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new BrokerError('store_unavailable', tooLate, { retryAfter: 1 })), patience)
  })
  try {
    return await Promise.race([query, tooLong])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Brings the schema up to date, one broker at a time: without the lock, starters that come together fail with a duplicate key.
 * A login that may not create tables passes as long as nothing is pending, since it finds that out by reading.
 */
export async function migratePostgres(url: string): Promise<void> {
  const client = postgres(url, {
    max: 1,
    connect_timeout: 5,
    onnotice: () => {},
    connection: { application_name: 'mayfly migrate', TimeZone: 'UTC' },
  })
  try {
    await client`select pg_advisory_lock(${migrationLock})`
    if (await pending(client)) await migrate(drizzle(client), { migrationsFolder, migrationsSchema: 'mayfly_schema' })
  } catch (error) {
    throw migrationFault(error)
  } finally {
    await client.end({ timeout: 5 })
  }
}

async function pending(client: postgres.Sql): Promise<boolean> {
  const { readMigrationFiles } = await import('drizzle-orm/migrator')
  const newest = readMigrationFiles({ migrationsFolder }).at(-1)!
  const [table] = await client`select to_regclass('mayfly_schema.__drizzle_migrations') as name`
  if (!table?.['name']) return true
  const [last] = await client`select max(created_at) as at from mayfly_schema.__drizzle_migrations`
  return Number(last?.['at'] ?? 0) < newest.folderMillis
}

function migrationFault(error: unknown): Error {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const { code } = cause as { code?: unknown }
  if (code === '42501') {
    return new ConfigurationError([
      'store: this login may not change the schema, and a migration is pending: run `mayfly migrate` as the owner of the database',
    ])
  }
  return new BrokerError('store_unavailable', 'The ledger cannot be opened', { cause: new Error(describe(cause)) })
}
