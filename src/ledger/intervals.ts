import { sql, type SQL } from 'drizzle-orm'

/** So many milliseconds, to be added to a moment of the store's. */
export const milliseconds = (count: number): SQL => sql`make_interval(secs => ${count}::double precision / 1000)`

/** A lease whose minting changes nothing outside the broker ends with its token, which counts in whole seconds: so says every answer. */
export function endOf(lease: SQL, latest: SQL): SQL {
  return sql`case when ${lease}.local then date_trunc('second', ${latest}) else ${latest} end`
}

/** The earlier of what was asked for as a duration, in milliseconds, and as a moment. Null where no moment was named. */
export const deadlineIn = (duration: SQL, moment: SQL): SQL => sql`least(now() + make_interval(secs => ${duration} / 1000), ${moment})`

/** The same of one request, with its values as parameters. */
export const deadlineOf = ({ duration, deadline }: { readonly duration: number; readonly deadline: Date | undefined }): SQL =>
  deadlineIn(sql`${duration}::double precision`, sql`${deadline?.toISOString() ?? null}::text::timestamptz`)

/**
 * When the reaper looks at an active lease of an outside provider by itself: at its own end. One that ends with its task is closed with it, and would be
 * claimed in vain until then: of ten thousand deadlines in one second each would be put back, in front of those that are closed already. It is looked at a
 * minute later, where its task has not been closed by then. The last second of a task counts as its end, for Vault grants whole ones.
 */
export const dueByItself = (end: SQL, deadline: SQL): SQL =>
  sql`case when ${end} < ${deadline} - interval '1 second' then ${end} else ${deadline} + interval '1 minute' end`
