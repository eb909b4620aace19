import path from 'node:path'
import { type MigrationMeta, readMigrationFiles } from 'drizzle-orm/migrator'

const migrationsFolder = path.join(import.meta.dirname, '../../migrations')

const notes = 'mayfly_schema.__drizzle_migrations'

/**
 * Brings the schema up to date, whichever store it is of. Where nothing is pending it only reads, so that a login passes that may not create tables.
 *
 * @param run runs SQL of one or more statements, and answers with the rows of what is one
 * @returns whether a newer version had brought it further already
 */
export async function migrate(run: (text: string) => Promise<readonly Record<string, unknown>[]>): Promise<{ isNewer: boolean }> {
  const [table] = await run(`select to_regclass('${notes}') as name`)
  // When a migration was written, in milliseconds, is what tells them apart.
  const [newest] = table?.['name'] ? await run(`select max(created_at)::float8 as at from ${notes}`) : []
  const last = Number(newest?.['at'] ?? 0)
  const known = readMigrationFiles({ migrationsFolder })
  const pending = known.filter(({ folderMillis }) => folderMillis > last)
  if (pending.length > 0) await run(inOneTransaction(pending))
  return { isNewer: known.every(({ folderMillis }) => folderMillis < last) }
}

/**
 * Migrations with their notes, as drizzle's own migrator writes them, in one message. That migrator would go through the driver's `begin`, which in
 * postgres.js ends the process where the connection is lost within it: its `rollback` is written to a socket that is gone.
 */
const inOneTransaction = (migrations: readonly MigrationMeta[]): string =>
  [
    'begin',
    'create schema if not exists mayfly_schema',
    `create table if not exists ${notes} (id serial primary key, hash text not null, created_at bigint)`,
    ...migrations.flatMap(({ sql, hash, folderMillis }) => [...sql, `insert into ${notes} (hash, created_at) values ('${hash}', ${folderMillis})`]),
    'commit',
    // A statement may end with a comment.
  ].join('\n;\n')
