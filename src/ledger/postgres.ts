import path from 'node:path'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import type { Door } from './connect.ts'
import { openConnections } from './connections.ts'

export const migrationsFolder = path.join(import.meta.dirname, '../../migrations')

/** Any number will do, as long as every broker takes the same: the advisory lock under which migrations run. */
const migrationLock = 7420_0001

/**
 * How the store is to look for rows. Every statement of the broker reads few rows by their keys, whatever the tables hold; a plan made while they
 * were small or unknown, and kept by a connection for as long as it lives, would read all of them instead. Compiling pays for large reports only.
 */
export const planByKey = { enable_seqscan: 'off', enable_hashjoin: 'off', enable_mergejoin: 'off', jit: 'off' } as const

/**
 * The types of arrays are of no use here, and asking for them is what postgres.js does behind everybody's back: where the server ends the connection just
 * then, nobody catches the error, and the process dies of it.
 */
const ofAnyClient = { fetch_types: false, onnotice: () => {} }

/** Where NOTIFY and LISTEN meet. The payload is empty: due work is found by looking. */
export const dueChannel = 'mayfly_due'

/**
 * The production door: postgres.js, prepared statements, as the role `mayfly_app` even where the login is the owner of the tables, so that no
 * statement of the broker can change history.
 */
export async function openPostgres(url: string, pool: number): Promise<Door> {
  await migratePostgres(url)
  const open = (onclose?: () => void) =>
    postgres(url, {
      ...ofAnyClient,
      max: 1,
      // A recovered database has to be found again within seconds.
      connect_timeout: 2,
      backoff: (failures: number) => Math.min(0.05 * 2 ** failures, 1),
      // The driver would end a connection under a statement that it was just given.
      max_lifetime: 0,
      idle_timeout: 0,
      ...(onclose && { onclose }),
      connection: {
        application_name: 'mayfly',
        role: 'mayfly_app',
        TimeZone: 'UTC',
        statement_timeout: 10_000,
        idle_in_transaction_session_timeout: 10_000,
        ...planByKey,
      },
    })
  const connections = openConnections(open)
  const waking = open()
  return {
    embedded: false,
    connections: pool,
    query: connections.query,
    async onDue(listener) {
      await waking.listen(dueChannel, listener, listener)
    },
    hasRoom: async () => true,
    // By now nothing is under way but LISTEN, whose connection may be one that was lost.
    close: async () => void (await Promise.all([connections.close(), waking.end({ timeout: 1 })])),
  }
}

/**
 * Brings the schema up to date, one broker at a time: without the lock, starters that come together fail with a duplicate key.
 * A login that may not create tables passes as long as nothing is pending, since it finds that out by reading.
 */
export async function migratePostgres(url: string): Promise<void> {
  const client = postgres(url, {
    ...ofAnyClient,
    max: 1,
    connect_timeout: 5,
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
