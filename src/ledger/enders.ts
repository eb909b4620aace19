import { sql, type SQL } from 'drizzle-orm'
import type { Lease } from './records.ts'

/**
 * The provider, by name and kind, that must end a lease. By kind too: where a removed Vault's name is given to an http provider, that one's word proves
 * nothing about Vault's leases.
 */
export interface Ender {
  readonly name: string
  readonly kind: string
}

/** Whether a lease was announced for it. A broker from before kinds were kept told none. */
export const isEndedAt = ({ provider, providerKind }: Pick<Lease, 'provider' | 'providerKind'>, { name, kind }: Ender): boolean =>
  provider === name && (providerKind ?? kind) === kind

/** The same of rows. Not by `coalesce`, of whose values Postgres keeps no statistics: it would plan as if there were hardly any such rows. */
export const endedAt = (lease: SQL, ender: SQL): SQL =>
  sql`${lease}.provider = ${ender}.name and (${lease}.provider_kind is null or ${lease}.provider_kind = ${ender}.kind)`

/** The same, whether any of these is the one. */
export const endedAtAny = (lease: SQL, enders: readonly Ender[]): SQL =>
  sql`exists (select from json_to_recordset(${JSON.stringify(enders)}::text::json) as ender(name text, kind text) where ${endedAt(lease, sql`ender`)})`
