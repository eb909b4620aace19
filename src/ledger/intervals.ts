import { sql, type SQL } from 'drizzle-orm'

/** So many milliseconds, to be added to a moment of the store's. */
export const milliseconds = (count: number): SQL => sql`make_interval(secs => ${count}::double precision / 1000)`
