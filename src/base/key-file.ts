import { randomBytes, randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, link, lstat, mkdir, open, stat, unlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { ConfigurationError, describe } from './errors.ts'
import { unlessMissing } from './missing.ts'

/**
 * A secret of random bytes in a 0600 file, made where there is none. Every broker of one ledger needs the same file, and it is kept outside the database.
 *
 * @param length bytes
 * @throws ConfigurationError where the file or its folder is open to others, its folder is another user's, or the file is of another length
 */
export async function openKeyFile(file: string, length: number): Promise<Uint8Array> {
  await privateFolder(path.dirname(file)).catch((error: unknown) => {
    throw new ConfigurationError([`keys: ${describe(error)}`])
  })
  try {
    await createOnce(file, () => randomBytes(length))
    await using handle = await openPrivate(file)
    if ((await handle.stat()).size !== length) throw new Error(`${file} must hold ${length} bytes`)
    return await handle.readFile()
  } catch (error) {
    throw new ConfigurationError([`keys: ${describe(error)}`])
  }
}

/**
 * Makes the folder if it is missing. Refuses one that belongs to another user (except root) or is open to others, because whoever can write
 * there can replace our key with theirs.
 */
export async function privateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { mode, uid } = await stat(folder)
  const self = process.geteuid?.()
  if (self !== undefined && uid !== self && uid !== 0) throw new Error(`${folder} is open to others: it is user ${uid}'s; chown it to ${self}`)
  if ((mode & 0o077) !== 0) throw new Error(`${folder} is open to others; chmod 700 it`)
}

/**
 * Makes a 0600 file if there is none. If two processes start at once, one wins, and both go on with what it wrote.
 *
 * @param make what is in it; not asked where there is one
 */
export async function createOnce(file: string, make: () => string | Uint8Array | Promise<string | Uint8Array>): Promise<void> {
  if (await lstat(file).catch(unlessMissing)) return
  const draft = `${file}.${randomUUID()}`
  try {
    await writeFile(draft, await make(), { mode: 0o600, flag: 'wx', flush: true })
    // A link, because it fails where a name is taken.
    await link(draft, file).catch(unlessTaken)
  } finally {
    // Whoever finished a rotation meanwhile may have removed it.
    await unlink(draft).catch(unlessMissing)
  }
  await syncFolder(file)
}

/** What is signed with a key, or encrypted, may be committed a moment later, and must not outlive it where the power fails: a link or a rename is on disk once its folder is. */
export async function syncFolder(file: string): Promise<void> {
  await using folder = await open(path.dirname(file))
  await folder.sync()
}

/** Opens a file that nobody else may read, and that is no link to somewhere else. @throws Error that says what is wrong with it, or `ENOENT` */
export async function openPrivate(file: string): Promise<FileHandle> {
  // Without blocking: whoever opens a pipe waits for somebody to write into it.
  const handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch((error: unknown) => {
    throw codeOf(error) === 'ELOOP' ? new Error(`${file} is a symbolic link`) : error
  })
  const found = await handle.stat()
  const fault = !found.isFile() ? 'is no file' : (found.mode & 0o077) !== 0 ? 'can be read by others; chmod 600 it' : undefined
  if (fault === undefined) return handle
  await handle.close()
  throw new Error(`${file} ${fault}`)
}

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code

function unlessTaken(error: unknown): void {
  if (codeOf(error) !== 'EEXIST') throw error
}
