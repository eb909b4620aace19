import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import type { Ledger } from '../../src/ledger/connect.ts'
import type { OpenedStore } from './stores.ts'

/** Statements of whoever owns the database, behind the broker's back and past every trigger. */
export async function asOwner(ledger: Ledger, { settings }: OpenedStore, statements: readonly string[]): Promise<void> {
  if ('url' in settings) {
    const owner = postgres(settings.url, { max: 1, onnotice: () => {} })
    for (const statement of ["set session_replication_role = 'replica'", ...statements]) await owner.unsafe(statement)
    await owner.end()
    return
  }
  // The one session of the embedded store is its owner's, who stepped down.
  const all = ['reset role', "set session_replication_role = 'replica'", ...statements, 'reset session_replication_role', 'set role mayfly_app']
  for (const statement of all) await ledger.run(sql.raw(statement))
}
