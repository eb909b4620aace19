import { readFile, stat } from 'node:fs/promises'

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
