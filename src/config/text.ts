import { readFile } from 'node:fs/promises'

/** What was looked for, or the words of a fault. */
export type Found = { readonly found: string } | { readonly fault: string }

/** Bytes. The largest file that a configuration names beside itself is a chain of certificates or a key set, of some thousand. */
const largest = 65_536

/** Text of a small file. The fault has no path in it: where somebody put a secret in the place of a path, it would be printed. */
export async function readText(file: string): Promise<Found> {
  let bytes: Uint8Array
  try {
    bytes = await readFile(file)
  } catch (error) {
    return { fault: `cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unreadable'})` }
  }
  if (bytes.length > largest) return { fault: `has more than ${largest} bytes` }
  try {
    return { found: new TextDecoder('utf-8', { fatal: true }).decode(bytes) }
  } catch {
    return { fault: 'is not UTF-8 text' }
  }
}
