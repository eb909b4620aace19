import { sql, type SQL } from 'drizzle-orm'
import type { Ledger } from './connect.ts'

/** Seconds for which names are given out in one cohort. A kill list of sessions that last an hour then knows thirteen of them at most. */
const cohortSeconds = 300

const alphabet = sql.raw(`'0123456789abcdefghijklmnopqrstuvwxyz'`)

/** Three characters of base36. */
const count = 36 ** 3

/** What the names of a cohort begin with. @param number as `kill_lists` has it */
export const cohortName = (number: SQL): SQL => sql`
  (substr(${alphabet}, ${number} / 1296 + 1, 1) || substr(${alphabet}, ${number} / 36 % 36 + 1, 1) || substr(${alphabet}, ${number} % 36 + 1, 1))`

/** Whether names may still be given out in the open cohort of `list`. */
export const isFresh = sql`list.cohort_since > now() - make_interval(secs => ${cohortSeconds})`

/**
 * The cohort that follows the open one of `list`: one after the other, over those that a session still has, or that were given up.
 *
 * Not at random: what AWS has still denies cohorts that are forgotten here, until there is a reason to write again, and a cohort of that name would be
 * dead from birth. In turn, one comes again after months; after half a day where a storm closes one each second.
 */
export const nextCohort = sql`(
    select next.number from (
      select (list.cohort + step) % ${sql.raw(String(count))} as number, step from generate_series(1, 100) as step
    ) as next
    where not list.killed @> to_jsonb(${cohortName(sql`next.number`)}) and not exists (
      select from role_sessions as session where session.provider = list.provider and session.role = list.role
        and session.name between ${cohortName(sql`next.number`)} || '00000' and ${cohortName(sql`next.number`)} || 'zzzzz'
    )
    order by next.step limit 1
  )`

/**
 * Sees to it that each of the roles has a cohort that names may be given out in. The first one is any: of a ledger that was lost, nobody knows which
 * AWS still denies. Several may do this at once; in the order of names, as names are taken, so that they cannot block each other.
 */
export async function openCohorts(ledger: Ledger, provider: string, roles: readonly string[]): Promise<void> {
  await ledger.run(sql`
    insert into kill_lists as list (provider, role, cohort)
    select ${provider}, pool.role, floor(random() * ${sql.raw(String(count))})::int
      from json_array_elements_text(${JSON.stringify([...new Set(roles)])}::text::json) as pool(role)
      where not exists (select from kill_lists as list where list.provider = ${provider} and list.role = pool.role and ${isFresh})
      order by pool.role
    on conflict (provider, role) do update set cohort = ${nextCohort}, cohort_since = now() where not (${isFresh})`)
}
