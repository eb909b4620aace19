import { sql, type SQL } from 'drizzle-orm'
import type { Lease } from './records.ts'

/**
 * A provider that leases are ended at. One of another kind that was given its name is another: its word on what that one made is no evidence, for it
 * knows nothing of it.
 */
export interface Ender {
  readonly name: string
  readonly kind: string
}

/** Whether a lease was announced for it. A broker from before kinds were kept told none. */
export const isEndedAt = ({ provider, providerKind }: Pick<Lease, 'provider' | 'providerKind'>, { name, kind }: Ender): boolean =>
  provider === name && (providerKind ?? kind) === kind

/** The same of rows. Not by `coalesce`: what that gives Postgres knows nothing of, and believes that there are hardly any such rows. */
export const endedAt = (lease: SQL, ender: SQL): SQL =>
  sql`${lease}.provider = ${ender}.name and (${lease}.provider_kind is null or ${lease}.provider_kind = ${ender}.kind)`

/** The same, whether any of these is the one. */
export const endedAtAny = (lease: SQL, enders: readonly Ender[]): SQL =>
  sql`exists (select from json_to_recordset(${JSON.stringify(enders)}::text::json) as ender(name text, kind text) where ${endedAt(lease, sql`ender`)})`
