import path from 'node:path'
import { openKeyFile } from '../base/key-file.ts'
import { signCheckpoint } from '../proof/checkpoint.ts'
import type { Head } from '../proof/merkle.ts'
import { createSigner, type VerifierKey } from '../proof/note.ts'

/** Bytes: the seed of an Ed25519 key (RFC 8032, 5.1.5). */
const length = 32

/** What the log is signed with. It may be elsewhere: whoever asks waits for an answer. */
export interface LogKey {
  /** Who signs the log that goes by this name. Undefined where nothing can be called so. */
  signerFor(origin: string, signal?: AbortSignal): Promise<LogSigner | undefined>
}

/** Signs the log of one name. */
export interface LogSigner {
  readonly key: VerifierKey
  /** The checkpoint of this head, as it is handed out. */
  sign(head: Head, signal?: AbortSignal): Promise<string>
}

/**
 * The key of the log, in the keys folder. Outside the database, so that whoever may change the database alone cannot sign what they made of it.
 * Every broker of one ledger needs the same file: one whose own is another leaves the signing to those who began.
 *
 * @throws ConfigurationError where the file is open to others, or not a key
 */
export async function openLogKey(folder: string): Promise<LogKey> {
  return logKeyOf(await openKeyFile(path.join(folder, 'log.key'), length))
}

export function logKeyOf(seed: Uint8Array): LogKey {
  let last: LogSigner | undefined
  return {
    async signerFor(origin) {
      if (last?.key.name === origin) return last
      try {
        const signer = createSigner(origin, seed)
        return (last = { key: signer.key, sign: async (head) => signCheckpoint(signer, head) })
      } catch (error) {
        if (error instanceof RangeError) return undefined
        throw error
      }
    },
  }
}

/** What the log of a broker is called: its public URL without the scheme, which is where its tiles are (C2SP tlog-tiles, "Parameters"). */
export const originOf = (publicUrl: string): string => publicUrl.replace(/^https?:\/\//, '')
