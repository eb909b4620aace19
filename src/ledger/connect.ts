import { type SQL } from 'drizzle-orm'
// Not of pg-core itself, which loads every type of column.
import { PgDialect } from 'drizzle-orm/pg-core/dialect'
import { BrokerError } from '../base/errors.ts'
import { createTurns, type Rank } from './turns.ts'

/** Where the ledger lives: a folder of this process alone, or a Postgres that many brokers share. */
export type StoreSettings =
  | { readonly embedded: string }
  | {
      readonly url: string
      /** Connections that this broker holds at most. */
      readonly pool?: number
    }

/**
 * Whether Postgres may keep the plan of a statement. `fresh` where the best one depends on the values: a kept plan is made without them, and reads
 * every task of a busy agent to find none that failed, or every task there is to close the few that are due.
 */
export type Plan = 'kept' | 'fresh'

/** What differs between the two stores; everything above speaks to one of these. */
export interface Door {
  readonly embedded: boolean
  /** Whether its schema was made by a newer version of the broker, which may keep promises that this one does not know. */
  readonly isNewer: boolean
  /** How many statements it runs at once. It is never given more. */
  readonly connections: number
  /** Runs one statement. Parameters are text, numbers, booleans or null: the two drivers disagree about everything else. Rejects with the driver's error. */
  query(text: string, parameters: readonly unknown[], plan?: Plan): Promise<readonly Record<string, unknown>[]>
  /** Calls back whenever any broker announces that work is due. It only wakes earlier: what is due is found by looking. */
  onDue(listener: () => void): Promise<void>
  /** Whether there is room to write; always, as far as anybody here can know, where the disk is somebody else's. */
  hasRoom(): Promise<boolean>
  close(): Promise<void>
}

/** The store behind one repository layer. Each verb of this room is one statement: one commit, one round trip, all or nothing. */
export interface Ledger {
  readonly embedded: boolean
  readonly isNewer: boolean
  /**
   * Rows of one statement. @param rank `later` for new work, which everything else goes before
   * @throws BrokerError `store_unavailable`, whoever asked may retry; `internal` where a constraint caught a bug of ours
   */
  run<Row extends object>(statement: SQL, rank?: Rank, plan?: Plan): Promise<readonly Row[]>
  onDue(listener: () => void): Promise<void>
  /** How many statements so far failed because of the store: each may have been carried out or not, and somebody may have stopped half-way. */
  failures(): number
  hasRoom(): Promise<boolean>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Opens the store and brings its schema up to date. @throws BrokerError `store_unavailable`, ConfigurationError where the folder is not ours alone */
export async function connect(settings: StoreSettings): Promise<Ledger> {
  if ('embedded' in settings) {
    const { openFolder } = await import('./embedded.ts')
    return overDoor(await openFolder(settings.embedded))
  }
  const { openPostgres } = await import('./postgres.ts')
  return overDoor(await openPostgres(settings.url, settings.pool ?? 10))
}

/** Whether a guard of the schema refused a statement for what it says: the same statement would be refused again. */
export const isUnlawful = (error: unknown): boolean => error instanceof BrokerError && error.code === 'internal'

/** How often a statement is run again that Postgres itself ended to break a deadlock or a tie. It had not happened, so this is safe. */
const tries = 4

export function overDoor(door: Door): Ledger {
  const dialect = new PgDialect()
  const turns = createTurns(door.connections)
  const close = () => door.close()
  let failures = 0
  return {
    embedded: door.embedded,
    isNewer: door.isNewer,
    failures: () => failures,
    onDue: (listener) => door.onDue(listener),
    hasRoom: () => door.hasRoom(),
    close,
    [Symbol.asyncDispose]: close,
    async run<Row extends object>(statement: SQL, rank: Rank = 'first', plan: Plan = 'kept'): Promise<readonly Row[]> {
      const { sql: text, params } = dialect.sqlToQuery(statement)
      let begun = false
      const ask = () => {
        begun = true
        return door.query(text, params, plan)
      }
      for (let attempt = 1; ; attempt++) {
        try {
          return (await turns.take(rank, ask)) as readonly Row[]
        } catch (error) {
          const fault = storeFault(error)
          if (attempt < tries && (fault.state === '40P01' || fault.state === '40001')) continue
          // What never had its turn changed nothing, and neither did what another transaction kept waiting.
          if (begun && fault.state !== '55P03' && fault.error.code === 'store_unavailable') failures++
          throw fault.error
        }
      }
    },
  }
}

/**
 * The safe face of a driver's error. Its parameters, its query and its detail are dropped, for they may be sensitive; the SQLSTATE and the
 * message stay for operators. Class 23 and 42 mean that a guard of the schema caught a mistake of ours: retrying would not help.
 */
function storeFault(error: unknown): { state: string; error: BrokerError } {
  if (error instanceof BrokerError) return { state: '', error }
  const { code, message } = error as { code?: unknown; message?: unknown }
  const state = typeof code === 'string' ? code : ''
  const cause = new Error(`${state} ${typeof message === 'string' ? message : 'the store gave no reason'}`.trim())
  if (/^(23|42|22)/.test(state)) return { state, error: new BrokerError('internal', 'The ledger refused an unlawful change', { cause }) }
  return { state, error: new BrokerError('store_unavailable', 'The ledger cannot be read or written', { cause, retryAfter: 1 }) }
}
