import { randomInt } from 'node:crypto'
import { sql, type SQL } from 'drizzle-orm'
import type { LeaseId } from '../base/ids.ts'
import { cohortName, isFresh } from './cohorts.ts'

/** A lease whose session is to have a name, of one role of a pool. */
export interface NameAsked {
  readonly id: LeaseId
  readonly provider: string
  readonly roles: readonly string[]
}

/** Seconds past its end for which a session is still listed: how far the clocks of AWS and of the store, and what AWS has heard, may be behind. */
const linger = 120

/** When the kill list of its role may forget a session that ends then. */
export const forgottenAfter = (end: SQL): SQL => sql`${end} + make_interval(secs => ${linger})`

/** Step of the overflow ladder at which a role takes no further session. */
export const shutRung = 6

/**
 * Seconds for which a role takes no session behind its cutoff, which lies up to two minutes ahead when it is written: AWS's clock may be behind by as much, and
 * would deny the session from its birth.
 */
const behindCutoff = 60

/** Whether a session of the role that is named now will live. Before its first one the role has no list. */
const takesSessions = sql`(list.rung is distinct from ${shutRung} and coalesce(list.cutoff + make_interval(secs => ${behindCutoff}) <= now(), true))`

/** Denied sessions that are counted to find the role with the fewest. Roles with more are alike: neither has room for their names one by one. */
const countedMost = 1_000

/**
 * The queries `chosen` and `open`, by lease: of the roles that take sessions, the one with the fewest denied sessions; and its list, where names may still be
 * given out in its cohort. Whoever takes a name reads from `open` before anything else is locked: a kill list comes first in this room.
 *
 * `for share`: names of a role are taken side by side, and whoever closes its cohort waits for all of them.
 */
export function openRoles(asked: readonly NameAsked[]): SQL {
  const rows = asked.map((one) => ({ ...one, number: newNumber() }))
  return sql`
    chosen as materialized (
      select distinct on (lease.id) lease.id, lease.number, lease.provider, pool.role
      from json_to_recordset(${JSON.stringify(rows)}::text::json) as lease(id text, provider text, roles json, number text)
      cross join lateral json_array_elements_text(lease.roles) as pool(role)
      left join kill_lists as list on list.provider = lease.provider and list.role = pool.role
      cross join lateral (
        select count(*) as denied from (
          select from role_sessions as session where session.provider = lease.provider and session.role = pool.role and session.denied_at is not null limit ${countedMost}
        ) as counted
      ) as load
      where ${takesSessions} order by lease.id, load.denied, random()
    ),
    open as materialized (
      select chosen.id, chosen.number, list.provider, list.role, list.cohort from chosen
      join kill_lists as list on list.provider = chosen.provider and list.role = chosen.role
      where ${takesSessions} and ${isFresh} order by list.provider, list.role for share of list
    )`
}

/** The query `named`: a name of `open` for each lease of `naming`, a query with `id` and `forget_at`, but for one whose number somebody else drew. */
export const takeNames = (naming: SQL): SQL => sql`
  named as (
    insert into role_sessions (provider, role, name, lease_id, forget_at)
    select open.provider, open.role, ${cohortName(sql`open.cohort`)} || open.number, open.id, naming.forget_at from open join ${naming} as naming on naming.id = open.id
    on conflict do nothing returning lease_id, role, name
  )`

/** What is journaled of a name of `named`. */
export const namedHandles = sql`jsonb_build_array(jsonb_build_object('kind', 'session', 'role', named.role, 'session_name', named.name))`

const newNumber = (): string =>
  randomInt(36 ** 5)
    .toString(36)
    .padStart(5, '0')
