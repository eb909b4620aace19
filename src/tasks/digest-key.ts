import { randomBytes, randomUUID } from 'node:crypto'
import { link, lstat, mkdir, readFile, unlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { ConfigurationError, describe } from '../base/errors.ts'

/** Bytes of the key: as many as the digest that it keys has. */
const length = 32

/**
 * The key of the digests by which a leaked secret is recognised: 32 bytes in a 0600 file of the keys folder, made at the first start. Every broker of
 * one ledger needs the same file. It is kept outside the database, so that whoever reads the ledger alone cannot test guesses.
 *
 * @throws ConfigurationError where the file is open to others, or not a key
 */
export async function openDigestKey(folder: string): Promise<Uint8Array> {
  const file = path.join(folder, 'digest.key')
  try {
    await createOnce(folder, file)
    const found = await lstat(file)
    if (!found.isFile() || (found.mode & 0o077) !== 0) throw new Error('it must be a file of mode 0600')
    const key = await readFile(file)
    if (key.length !== length) throw new Error(`it must hold ${length} bytes`)
    return key
  } catch (error) {
    throw new ConfigurationError([`keys: ${file}: ${describe(error)}`])
  }
}

async function createOnce(folder: string, file: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  if (await lstat(file).then(() => true, isMissing)) return
  const draft = `${file}.${randomUUID()}`
  await writeFile(draft, randomBytes(length), { mode: 0o600, flag: 'wx' })
  // A link fails where the name is taken: of two first starters one wins, and both read the same key.
  await link(draft, file).catch(unlessTaken)
  await unlink(draft)
}

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code

function isMissing(error: unknown): false {
  if (codeOf(error) !== 'ENOENT') throw error
  return false
}

function unlessTaken(error: unknown): void {
  if (codeOf(error) !== 'EEXIST') throw error
}
