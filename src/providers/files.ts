import { access, constants, readFile, stat } from 'node:fs/promises'
import { ConfigurationError, describe } from '../base/errors.ts'

/** Text of a file and a mark that changes with it. */
export interface FileText {
  readonly text: string
  readonly version: string
}

/**
 * Reads a small file, and reads it again whenever it has been replaced: tokens and certificates are rotated under a running broker. Asked on
 * every use, because a `stat` costs microseconds and a watcher misses what a mounted secret does. Links are followed: mounted secrets are links.
 *
 * @param most bytes
 */
export function freshFile(path: string, most: number): () => Promise<FileText> {
  let last: FileText | undefined
  return async () => {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true })
    const version = `${dev}:${ino}:${size}:${mtimeNs}`
    if (last?.version === version) return last
    if (size > most) throw new RangeError(`larger than ${most} bytes`)
    last = { text: await readFile(path, 'utf8'), version }
    return last
  }
}

/** The token in a file, such as one that a platform rotates: one line, as it is now. @throws Error without the token in it */
export function freshToken(path: string): () => Promise<string> {
  const read = freshFile(path, 8_192)
  return async () => {
    const token = (await read()).text.trim()
    if (!/^[\x21-\x7e]+$/.test(token)) throw new Error('the token file does not hold one line with a token')
    return token
  }
}

/**
 * A file that cannot be read is a fault of the configuration while the broker starts, and an unavailable backend afterwards.
 *
 * @param files by the settings that name them
 * @throws ConfigurationError with each of them
 */
export async function refuseUnreadable(provider: string, files: Readonly<Record<string, string | undefined>>): Promise<void> {
  const faults: string[] = []
  for (const [key, path] of Object.entries(files)) {
    if (path === undefined) continue
    await access(path, constants.R_OK).catch((error: unknown) => faults.push(`provider ${provider}: ${key} cannot be read: ${describe(error)}`))
  }
  if (faults.length > 0) throw new ConfigurationError(faults)
}
