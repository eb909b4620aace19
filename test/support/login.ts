import postgres from 'postgres'

/** What a task is given to log in at a database with. */
export interface Login {
  readonly username: string
  readonly password: string
}

/**
 * One connection of a login that may be cut at any moment. Without the question for types that postgres.js begins with: nobody waits for its answer, so that a
 * connection which is cut there is an error that nobody catches, and a query that never ends.
 *
 * @param connection settings that the session begins with
 */
export const connectAs = (url: string, { username, password }: Login, connection: Readonly<Record<string, string | number>> = {}): postgres.Sql =>
  postgres(url, {
    username,
    password,
    connection,
    max: 1,
    fetch_types: false,
    onnotice: () => {},
    connect_timeout: 10,
    idle_timeout: 0,
    max_lifetime: null,
  })
