import type { SQL } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'

const dialect = new PgDialect()

/** A statement as the store is given it: its text, and its parameters. */
export const queryOf = (statement: SQL) => dialect.sqlToQuery(statement)
