import { sql, type SQL } from 'drizzle-orm'

/** Which tasks or leases are meant: those that agree with everything that it names. One that names nothing means everything. */
export interface Selector {
  readonly agent?: string | undefined
  readonly owner?: string | undefined
  /** By which the task's declarant was vouched for, as the configuration names it. */
  readonly issuer?: string | undefined
  readonly kind?: string | undefined
  readonly grant?: string | undefined
  readonly provider?: string | undefined
}

/** Whether single leases are meant, whose tasks go on. All else means whole tasks. A row that was read names nothing by null. */
export const meansLeases = ({
  grant,
  provider,
}: {
  readonly grant?: string | null | undefined
  readonly provider?: string | null | undefined
}): boolean => (grant ?? provider ?? null) !== null

/** The columns of a selector in its table, in the order of `selectorValues`. */
export const selectorColumns = sql.raw('agent, owner, issuer, kind, grant_name, provider')

export const selectorValues = ({ agent, owner, issuer, kind, grant, provider }: Selector): SQL =>
  sql`${agent ?? null}::text, ${owner ?? null}::text, ${issuer ?? null}::text, ${kind ?? null}::text, ${grant ?? null}::text, ${provider ?? null}::text`

/** What a row of such a table says in words of the wire, without what it does not name. */
export const selectorIn = (
  row: SQL,
): SQL => sql`jsonb_strip_nulls(jsonb_build_object('agent', ${row}.agent, 'owner', ${row}.owner, 'issuer', ${row}.issuer,
  'kind', ${row}.kind, 'grant', ${row}.grant_name, 'provider', ${row}.provider))`

/** Whether a row of such a table agrees with a task. */
export const agreesWithTask = (row: SQL, task: SQL): SQL => sql`(
  (${row}.agent is null or ${row}.agent = ${task}.agent) and (${row}.owner is null or ${row}.owner = ${task}.owner)
  and (${row}.issuer is null or ${row}.issuer = ${task}.actor->>'issuer') and (${row}.kind is null or ${row}.kind = ${task}.kind))`

/** Whether it agrees with a lease of that task. @param grant its grant's name, in whichever column that is */
export const agreesWithLease = (row: SQL, grant: SQL, provider: SQL): SQL => sql`(
  (${row}.grant_name is null or ${row}.grant_name = ${grant}) and (${row}.provider is null or ${row}.provider = ${provider}))`

/** Whether it means single leases. */
export const namesLeases = (row: SQL): SQL => sql`(${row}.grant_name is not null or ${row}.provider is not null)`
