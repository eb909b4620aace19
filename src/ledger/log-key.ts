import { link, readdir, rename, unlink } from 'node:fs/promises'
import path from 'node:path'
import { BrokerError, ConfigurationError, describe, ifInRange } from '../base/errors.ts'
import { openKeyFile } from '../base/key-file.ts'
import type { SigningKey } from '../base/signing-key.ts'
import { checkpointText, signCheckpoint } from '../proof/checkpoint.ts'
import type { Head } from '../proof/merkle.ts'
import { createSigner, signedNote, type VerifierKey, verifierKeyOf } from '../proof/note.ts'

/** Bytes: the seed of an Ed25519 key (RFC 8032, 5.1.5). */
const length = 32

/** What the log is signed with. It may be elsewhere: whoever asks waits for an answer. */
export interface LogKey {
  /** Who signs the log that goes by this name. Undefined where nothing can be called so. @throws BrokerError `provider_unavailable` while the key does not answer */
  signerFor(origin: string, signal?: AbortSignal): Promise<LogSigner | undefined>
}

/** Signs the log of one name. */
export interface LogSigner {
  readonly key: VerifierKey
  /** The checkpoint of this head, as it is handed out. What is elsewhere may have signed something else: see for yourself. Same error. */
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

/**
 * The key that the next log will be signed with, beside the other one: made where there is none, so that whoever was interrupted goes on with the same.
 *
 * @throws ConfigurationError as `openLogKey`
 */
export async function openNextLogKey(folder: string): Promise<LogKey> {
  return logKeyOf(await openKeyFile(path.join(folder, nextFile), length))
}

const nextFile = 'log.next.key'

/**
 * Puts the next key in the place of the one before it. Done twice, or by two at once, it is done once.
 *
 * @param closed the log that the one before it has signed, under whose number it is kept: `log.N.key`. Undefined where it has signed none
 */
export async function takeNextLogKey(folder: string, closed: number | undefined): Promise<void> {
  const [current, next] = [path.join(folder, 'log.key'), path.join(folder, nextFile)]
  if (closed !== undefined) await link(current, path.join(folder, `log.${closed}.key`)).catch(unless('EEXIST', 'ENOENT'))
  await rename(next, current).catch(unless('ENOENT'))
  // Whoever was killed while making the key may have left a copy of it, which would outlive it unnoticed.
  const left = (await readdir(folder)).filter((name) => isDraft.test(name))
  for (const draft of left) await unlink(path.join(folder, draft)).catch(unless('ENOENT'))
}

/** What the next key is written to before it has its name (base/key-file.ts). */
const isDraft = /^log\.next\.key\.[0-9a-f-]{36}$/

const unless =
  (...expected: readonly string[]) =>
  (error: NodeJS.ErrnoException): void => {
    if (!expected.includes(error.code ?? '')) throw new ConfigurationError([`keys: ${describe(error)}`])
  }

export function logKeyOf(seed: Uint8Array): LogKey {
  let last: LogSigner | undefined
  return {
    async signerFor(origin) {
      if (last?.key.name === origin) return last
      const signer = ifInRange(() => createSigner(origin, seed))
      return (last = signer && { key: signer.key, sign: async (head) => signCheckpoint(signer, head) })
    },
  }
}

/** The key of the log, kept by somebody else, so that whoever takes over this machine can sign with it only for as long. Nobody who has it can take it along. */
export function remoteLogKey(remote: SigningKey): LogKey {
  let last: LogSigner | undefined

  async function sign(key: VerifierKey, head: Head, signal: AbortSignal): Promise<string> {
    const text = checkpointText({ ...head, origin: key.name })
    return signedNote(key, text, await remote.sign(Buffer.from(text), signal).catch(isAway))
  }

  return {
    async signerFor(origin, signal = patient) {
      if (last?.key.name === origin) return last
      const raw = await remote.publicKey(signal).catch(isAway)
      const key = ifInRange(() => verifierKeyOf(origin, raw))
      return (last = key && { key, sign: (head, until = patient) => sign(key, head, until) })
    },
  }
}

/** Of callers who leave it to the key how long it takes, which is bounded there. */
const patient = new AbortController().signal

function isAway(cause: unknown): never {
  throw new BrokerError('provider_unavailable', 'The key that signs the log does not answer', { cause, retryAfter: 5 })
}

/** What the log of a broker is called: its public URL without the scheme, which is where its tiles are (C2SP tlog-tiles, "Parameters"). */
export const originOf = (publicUrl: string): string => publicUrl.replace(/^https?:\/\//, '')
