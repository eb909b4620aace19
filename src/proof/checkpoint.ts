import type { Head } from './merkle.ts'
import { openNote, parseNote, type Signer, type VerifierKey } from './note.ts'
import { fromBase64, fromDecimal } from './spelling.ts'

/** A tree head of the log that goes by this name. */
export interface Checkpoint extends Head {
  readonly origin: string
}

export type OpenedCheckpoint =
  | { readonly ok: true; readonly checkpoint: Checkpoint }
  | { readonly ok: false; readonly fault: 'malformed' | 'unknown_key' | 'bad_signature' }

/** The text of a checkpoint (C2SP tlog-checkpoint), without extension lines, which nobody could audit. */
export const checkpointText = ({ origin, size, root }: Checkpoint): string => `${origin}\n${size}\n${root.toString('base64')}\n`

/** Reads the text of a checkpoint. Undefined where it is not one. Extension lines of others are let pass unread. */
export function parseCheckpoint(text: string): Checkpoint | undefined {
  if (!text.endsWith('\n')) return undefined
  const lines = text.slice(0, -1).split('\n')
  const [origin = '', decimal = '', encoded = ''] = lines
  const [size, root] = [fromDecimal(decimal), fromBase64(encoded)]
  if (lines.length < 3 || lines.includes('') || size === undefined || root?.length !== 32) return undefined
  return { origin, size, root }
}

/** The checkpoint of a note, whoever has signed it. Undefined where it is not one. */
export const checkpointIn = (note: string): Checkpoint | undefined => parseCheckpoint(parseNote(note)?.text ?? '')

/** A signed checkpoint of the log that goes by the signer's name. */
export const signCheckpoint = (signer: Signer, head: Head): string => signer.sign(checkpointText({ ...head, origin: signer.key.name }))

/**
 * The checkpoint of a note that one of these keys has signed under its own name: a key signs for the log that is called like it, and for no other.
 * Whatever it is given, it answers.
 */
export function openCheckpoint(note: string, keys: readonly VerifierKey[]): OpenedCheckpoint {
  const opened = openNote(note, keys)
  if (!opened.ok) return opened
  const checkpoint = parseCheckpoint(opened.text)
  if (!checkpoint) return { ok: false, fault: 'malformed' }
  return opened.by.some(({ name }) => name === checkpoint.origin) ? { ok: true, checkpoint } : { ok: false, fault: 'unknown_key' }
}
