import { randomBytes, randomUUID } from 'node:crypto'
import { link, lstat, mkdir, open, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { ConfigurationError, describe } from './errors.ts'

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
    await createOnce(file, length)
    const found = await lstat(file)
    if (!found.isFile() || (found.mode & 0o077) !== 0) throw new Error('it must be a file of mode 0600')
    const key = await readFile(file)
    if (key.length !== length) throw new Error(`it must hold ${length} bytes`)
    return key
  } catch (error) {
    throw new ConfigurationError([`keys: ${file}: ${describe(error)}`])
  }
}

/**
 * Makes the folder where it is missing, and refuses one that is another user's, root aside, or that others can look into: whoever may write there puts
 * a key of their own in the place of ours.
 */
export async function privateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { mode, uid } = await stat(folder)
  const self = process.geteuid?.()
  if (self !== undefined && uid !== self && uid !== 0) throw new Error(`${folder} is open to others: it is user ${uid}'s; chown it to ${self}`)
  if ((mode & 0o077) !== 0) throw new Error(`${folder} is open to others; chmod 700 it`)
}

async function createOnce(file: string, length: number): Promise<void> {
  if (await lstat(file).then(() => true, isMissing)) return
  const draft = `${file}.${randomUUID()}`
  await writeFile(draft, randomBytes(length), { mode: 0o600, flag: 'wx', flush: true })
  // A link fails where the name is taken: of two first starters one wins, and both read the same key.
  await link(draft, file).catch(unlessTaken)
  // Whoever finished a rotation meanwhile may have removed it.
  await unlink(draft).catch(isMissing)
  // What is signed with it, or encrypted, may be committed a moment later, and must not outlive it where the power fails.
  await using folder = await open(path.dirname(file))
  await folder.sync()
}

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code

function isMissing(error: unknown): false {
  if (codeOf(error) !== 'ENOENT') throw error
  return false
}

function unlessTaken(error: unknown): void {
  if (codeOf(error) !== 'EEXIST') throw error
}
