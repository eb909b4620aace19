import { createHash } from 'node:crypto'
import { access, chmod, constants, lstat, mkdir, realpath } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import path from 'node:path'
import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import type { Door } from './connect.ts'
import { hasRoom, type Instance, startInstance } from './instance.ts'
import { migrate } from './migrations.ts'
import { dueChannel, planByKey } from './postgres.ts'

/** Milliseconds between two checkpoints. PGlite 0.5.16 has neither a checkpointer nor autovacuum: without these its log and its indexes only grow. */
const usualUpkeep = 5 * 60_000

/**
 * The embedded door: Postgres in WebAssembly on a folder of this process alone. For development, tests and a single node.
 *
 * Survives a killed process. Promises nothing about a power cut: its runtime stubs fsync (pglite issue 1107).
 *
 * @param upkeepEvery milliseconds
 */
export async function openFolder(folder: string, upkeepEvery = usualUpkeep): Promise<Door> {
  await ownPrivately(folder)
  const lock = await lockFolder(folder)
  try {
    return await openDatabase(path.join(folder, 'postgres'), lock, upkeepEvery)
  } catch (error) {
    lock.close()
    throw error
  }
}

async function openDatabase(folder: string, lock: Server, upkeepEvery: number): Promise<Door> {
  const listeners: (() => void)[] = []
  let isNewer = false
  const instance = await startInstance(folder, async (database) => {
    // PGlite makes its files world-writable whatever the umask is; the 0700 folder around them is what protects them.
    await chmod(folder, 0o700)
    isNewer = (await migrate(async (text) => (await database.exec(text))[0]?.rows ?? [])).isNewer
    // Upkeep is this process' own work here. On a Postgres of its own the role has neither right.
    await database.exec('grant pg_checkpoint, pg_maintain to mayfly_app')
    await database.exec('set role mayfly_app')
    for (const [name, value] of Object.entries(planByKey)) await database.exec(`set ${name} = ${value}`)
    for (const listener of listeners) await database.listen(dueChannel, listener)
  })
  let closed = false
  // One round after the other: the next is set when the last is through.
  const round = (): NodeJS.Timeout => setTimeout(() => void tidy(instance).then(() => (upkeep = closed ? upkeep : round())), upkeepEvery).unref()
  let upkeep = round()
  return {
    embedded: true,
    isNewer,
    connections: 1,
    async query(text, parameters) {
      if (closed) throw new BrokerError('store_unavailable', 'The ledger is closed')
      const { rows } = await instance.run((database) => database.query<Record<string, unknown>>(text, [...parameters]))
      return rows
    },
    async onDue(listener) {
      listeners.push(listener)
      await instance.run((database) => database.listen(dueChannel, listener))
    },
    hasRoom: () => hasRoom(folder),
    async close() {
      if (closed) return
      closed = true
      clearTimeout(upkeep)
      await instance.close()
      lock.close()
    },
  }
}

/**
 * One statement after the other, each in its turn. What keeps it from succeeding, such as a full disk, meets every other statement too, and is told
 * there; the next round tries again.
 */
async function tidy(instance: Instance): Promise<void> {
  await instance
    .run((database) => database.exec('checkpoint'))
    .then(() => instance.run((database) => database.exec('vacuum analyze')))
    .catch(() => {})
}

/** The folder is made 0700, or was; PGlite's files inside would be open to everybody otherwise. */
async function ownPrivately(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const found = await lstat(folder)
    if (!found.isDirectory()) throw new ConfigurationError([`store.embedded: ${folder} is not a folder`])
    if ((found.mode & 0o077) !== 0) {
      throw new ConfigurationError([`store.embedded: ${folder} is open to others (mode ${(found.mode & 0o777).toString(8)}): chmod 700 it`])
    }
    await access(folder, constants.W_OK)
  } catch (error) {
    if (error instanceof ConfigurationError) throw error
    throw new ConfigurationError([`store.embedded: ${folder} cannot be used: ${describe(error)}`])
  }
}

/**
 * Takes the folder for this process. Two that share one lose each other's rows without a complaint (pglite 1106).
 *
 * On Linux an abstract socket named after the folder: the kernel frees it even on SIGKILL, which a lock file would not survive. Its names belong to
 * a network namespace, so two containers that share a volume are not kept apart: docs/operating.md says so. Elsewhere a socket in the folder.
 */
async function lockFolder(folder: string): Promise<Server> {
  const name = createHash('sha256')
    .update(await realpath(folder))
    .digest('hex')
  const address = process.platform === 'linux' ? `\0mayfly-${name}` : path.join(folder, 'lock.sock')
  const lock = createServer((connection) => connection.destroy()).unref()
  return await new Promise((resolve, reject) => {
    lock.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new ConfigurationError([`store.embedded: ${folder} is in use by another broker: stop it, or talk to it over HTTP`])
          : error,
      ),
    )
    lock.listen(address, () => resolve(lock))
  })
}
