import path from 'node:path'
import type { MigrationMeta } from 'drizzle-orm/migrator'
import postgres from 'postgres'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import type { Door } from './connect.ts'
import { type Hooks, openConnections } from './connections.ts'
import { type Listening, startListening } from './listening.ts'
import { socketsOf } from './sockets.ts'

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
  const { isNewer } = await migratePostgres(url)
  const open = (hooks: Hooks) =>
    postgres(url, {
      ...ofAnyClient,
      ...hooks,
      ...socketsOf(hooks.onclose),
      max: 1,
      // Seconds from an accepted connection to one that can be asked.
      connect_timeout: 2,
      // The driver would end a connection under a statement that it was just given.
      max_lifetime: 0,
      idle_timeout: 0,
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
  const listening: Listening[] = []
  return {
    embedded: false,
    isNewer,
    connections: pool,
    query: connections.query,
    async onDue(listener) {
      const one = startListening(open, dueChannel, listener)
      listening.push(one)
      await one.began
    },
    hasRoom: async () => true,
    close: async () => void (await Promise.all([connections.close(), ...listening.map((one) => one.stop())])),
  }
}

/**
 * Brings the schema up to date, one broker at a time: without the lock, starters that come together fail with a duplicate key.
 * A login that may not create tables passes as long as nothing is pending, since it finds that out by reading.
 *
 * @returns whether a newer version had brought it further already
 */
export async function migratePostgres(url: string): Promise<{ isNewer: boolean }> {
  const client: postgres.Sql = postgres(url, {
    ...ofAnyClient,
    ...socketsOf(() => void client.end({ timeout: 0 })),
    max: 1,
    connect_timeout: 5,
    connection: { application_name: 'mayfly migrate', TimeZone: 'UTC' },
  })
  try {
    await client`select pg_advisory_lock(${migrationLock})`
    const [table] = await client`select to_regclass(${migrationsTable}) as name`
    const [last] = table?.['name'] ? await client.unsafe(newestMigration) : []
    const { pending, isNewer } = await migrationsSince(Number(last?.['at'] ?? 0))
    if (pending.length > 0) await client.unsafe(inOneTransaction(pending))
    return { isNewer }
  } catch (error) {
    throw migrationFault(error)
  } finally {
    await client.end({ timeout: 1 })
  }
}

const migrationsTable = 'mayfly_schema.__drizzle_migrations'

/** When the newest migration was written that a store has had, in milliseconds: that is what tells them apart. */
export const newestMigration = `select max(created_at)::float8 as at from ${migrationsTable}`

/** What is still to be done to a store whose newest migration is of that moment; and whether this version does not even know that one. */
export async function migrationsSince(last: number): Promise<{ pending: MigrationMeta[]; isNewer: boolean }> {
  const { readMigrationFiles } = await import('drizzle-orm/migrator')
  const known = readMigrationFiles({ migrationsFolder })
  return { pending: known.filter(({ folderMillis }) => folderMillis > last), isNewer: known.every(({ folderMillis }) => folderMillis < last) }
}

/**
 * Migrations with their notes, as drizzle's own migrator of the embedded store writes them, in one message. That migrator would go through the driver's
 * `begin`, which ends the process where the connection is lost within it: its `rollback` is written to a socket that is gone.
 */
const inOneTransaction = (migrations: readonly MigrationMeta[]): string =>
  [
    'begin',
    'create schema if not exists mayfly_schema',
    `create table if not exists ${migrationsTable} (id serial primary key, hash text not null, created_at bigint)`,
    ...migrations.flatMap(({ sql, hash, folderMillis }) => [
      ...sql,
      `insert into ${migrationsTable} (hash, created_at) values ('${hash}', ${folderMillis})`,
    ]),
    'commit',
    // A statement may end with a comment.
  ].join('\n;\n')

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
