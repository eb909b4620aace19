import { readFile } from 'node:fs/promises'
import { ConfigurationError, describe } from './errors.ts'

/**
 * The text of a file as it stands, a byte order mark included. Not for a path in whose place somebody may have put a secret: the faults repeat it.
 *
 * @throws ConfigurationError where it cannot be read, has more than `most` bytes, or is not UTF-8
 */
export async function readText(file: string, most: number): Promise<string> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(file)
  } catch (error) {
    throw new ConfigurationError([`${file}: cannot be read: ${describe(error)}`])
  }
  if (bytes.length > most) throw new ConfigurationError([`${file}: has more than ${most} bytes`])
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new ConfigurationError([`${file}: is not UTF-8 text`])
  }
}
