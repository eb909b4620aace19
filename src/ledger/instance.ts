import { access, rename, rm, statfs } from 'node:fs/promises'
import path from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { BrokerError, describe } from '../base/errors.ts'

/** The Postgres of a folder. Statements take turns, and one that was too much for it does not take the next ones with it. */
export interface Instance {
  run<Result>(work: (database: PGlite) => Promise<Result>): Promise<Result>
  /** Waits for what is under way: a close that races a statement wedged earlier versions for good (pglite 1084, 1058). */
  close(): Promise<void>
}

/** Bytes that must be free: two segments of Postgres' log. It asks for a whole one at a time, and gives up on itself where it does not get it. */
const leastRoom = 2 * 16 * 1024 * 1024

/** Milliseconds between two attempts to start what does not start. Each holds up the process for about a second. */
const patience = 10_000

/** Whether the disk of this folder has room for what is yet to be written. */
export async function hasRoom(folder: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(folder)
  return bavail * bsize >= leastRoom
}

/**
 * Starts Postgres on a folder, and again whenever it has given up on itself.
 *
 * On a PANIC, such as a log that cannot grow, a real Postgres starts anew from its log. PGlite (0.5.16) goes on as if nothing had been, and the very
 * next statement waits for a lock that nobody holds any more, with the whole process: so that instance is dropped as it is, like that of a killed process.
 *
 * @param prepare what each start needs before its first statement
 * @throws BrokerError `store_unavailable`
 */
export async function startInstance(folder: string, prepare: (database: PGlite) => Promise<void>): Promise<Instance> {
  if (!(await exists(folder))) await makeCluster(folder)
  let database: PGlite | undefined = await start(folder, prepare)
  let refused: unknown
  let last: Promise<unknown> = Promise.resolve()

  async function living(): Promise<PGlite> {
    if (database) return database
    if (refused !== undefined) throw refused
    if (!(await hasRoom(folder))) throw new BrokerError('store_unavailable', 'The disk of the embedded ledger is full', { retryAfter: 1 })
    try {
      return (database = await start(folder, prepare))
    } catch (error) {
      refused = error
      setTimeout(() => (refused = undefined), patience).unref()
      throw error
    }
  }

  return {
    run(work) {
      const turn = last.then(async () => {
        const on = await living()
        try {
          return await work(on)
        } catch (error) {
          if (gaveUp(error)) database = undefined
          throw error
        }
      })
      last = turn.catch(() => {})
      return turn
    },
    async close() {
      await last
      await database?.close()
    },
  }
}

/**
 * Makes a cluster beside its place, and moves it there when it is whole. PGlite (0.5.16) copies a new one file by file, and one that was copied
 * halfway when the process died would be taken for whole, and never start.
 */
async function makeCluster(folder: string): Promise<void> {
  const draft = `${folder}.new`
  await rm(draft, { recursive: true, force: true })
  const database = await start(draft, async () => {})
  await database.close()
  await rename(draft, folder)
}

const exists = (folder: string): Promise<boolean> =>
  access(folder).then(
    () => true,
    () => false,
  )

async function start(folder: string, prepare: (database: PGlite) => Promise<void>): Promise<PGlite> {
  try {
    const database = await PGlite.create({ dataDir: folder, postgresqlconf: ['shared_buffers=16MB', 'max_wal_size=64MB'] })
    await prepare(database)
    return database
  } catch (error) {
    // PGlite has no words of its own for a disk that is full.
    const why = (await hasRoom(path.dirname(folder)))
      ? describe(error)
      : `the disk of ${folder} has less than ${leastRoom / 2 ** 20} MiB left: make room`
    throw new BrokerError('store_unavailable', 'The embedded ledger cannot be opened', { cause: new Error(why) })
  }
}

const gaveUp = (error: unknown): boolean => {
  const { severity } = error as { severity?: unknown }
  return severity === 'PANIC' || severity === 'FATAL'
}
