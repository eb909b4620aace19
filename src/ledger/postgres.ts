import postgres from 'postgres'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import type { Door } from './connect.ts'
import { type Hooks, openConnections } from './connections.ts'
import { type Listening, startListening } from './listening.ts'
import { migrate } from './migrations.ts'
import { socketsOf } from './sockets.ts'

/** Any number will do, as long as every broker takes the same: the advisory lock under which migrations run. */
const migrationLock = 7420_0001

/** Milliseconds that a start waits for another broker's migration, and for tables that others hold. Longer than any migration takes, so that what is told is a lock that is kept. */
const longestWait = 60_000

/**
 * How the store is to look for rows. Every statement of the broker reads few rows by their keys, whatever the tables hold; a plan made while they
 * were small or unknown, and kept by a connection for as long as it lives, would read all of them instead. Compiling pays for large reports only.
 */
export const planByKey = { enable_seqscan: 'off', enable_hashjoin: 'off', enable_mergejoin: 'off', jit: 'off' } as const

/**
 * Whatever is set for the database or the login. A statement looks again at a row that it had to wait for, and sees what was committed before it began; under a
 * stricter isolation it would be refused instead, or go by what was there before a stop.
 */
const asStatementsExpect = { default_transaction_isolation: 'read committed' } as const

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
  const { isNewer, losesCommits } = await migratePostgres(url)
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
        ...asStatementsExpect,
        // What is stricter, such as waiting for a standby to have applied it, stays.
        ...(losesCommits && { synchronous_commit: 'on' }),
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
 *
 * @param wait milliseconds that it waits for its lock
 * @returns whether a newer version had brought it further already, and whether this login is told of commits that a crash may lose
 * @throws ConfigurationError where the login may not; BrokerError `store_unavailable` where the store does not answer, or somebody else keeps the lock
 */
export async function migratePostgres(url: string, wait = longestWait): Promise<{ isNewer: boolean; losesCommits: boolean }> {
  const client: postgres.Sql = postgres(url, {
    ...ofAnyClient,
    ...socketsOf(() => void client.end({ timeout: 0 })),
    max: 1,
    connect_timeout: 5,
    connection: { application_name: 'mayfly migrate', TimeZone: 'UTC', lock_timeout: wait },
  })
  try {
    await client`select pg_advisory_lock(${migrationLock})`
    const migrated = await migrate((text) => client.unsafe(text))
    const [row] = await client`show synchronous_commit`
    return { ...migrated, losesCommits: row?.['synchronous_commit'] === 'off' }
  } catch (error) {
    throw migrationFault(error)
  } finally {
    await client.end({ timeout: 1 })
  }
}

function migrationFault(error: unknown): Error {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const { code } = cause as { code?: unknown }
  if (code === '42501') {
    return new ConfigurationError([
      'store: this login may not change the schema, and a migration is pending: run `mayfly migrate` as the owner of the database, who may create roles (CREATEROLE) or has run deploy/postgres/roles.sql',
    ])
  }
  if (code === '55P03')
    return new BrokerError(
      'store_unavailable',
      `Another session keeps what migrations wait for, the advisory lock ${migrationLock} or a table: look in pg_locks who`,
    )
  return new BrokerError('store_unavailable', 'The ledger cannot be opened', { cause: new Error(describe(cause)) })
}
