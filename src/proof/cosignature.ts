import { type KeyObject, verify } from 'node:crypto'
import { parseNote, parseVerifierKey } from './note.ts'

/** Whom a reader trusts to have looked: the key of a witness. Not a `VerifierKey`, since what it signs is not the note alone. */
export interface WitnessKey {
  readonly name: string
  /** Eight hexadecimal digits. */
  readonly id: string
  /** As it is handed around: `name+id+key`. */
  readonly text: string
  readonly cosigns: KeyObject
}

/** The key of a witness (C2SP tlog-cosignature, "Format"): Ed25519. Undefined where it is not one, is of another type, or its id is not its own. */
export function parseWitnessKey(text: string): WitnessKey | undefined {
  const key = parseVerifierKey(text, 'cosignature')
  return key && { name: key.name, id: key.id, text: key.text, cosigns: key.publicKey }
}

/** What a witness signs (C2SP tlog-cosignature, "Ed25519 signed message"). @param text of the checkpoint's note @param time seconds since 1970 */
export const cosignedMessage = (text: string, time: bigint): Buffer => Buffer.from(`cosignature/v1\ntime ${time}\n${text}`)

/** The end of the year 9999: what is later is no time that anybody could write down. */
const latest = 253_402_300_799n

/** Bytes of a cosignature: its time, and the signature itself. */
const [ofTime, ofSignature] = [8, 64]

/**
 * When this witness has seen the checkpoint of a note, and nothing that contradicts it: seconds since 1970, by its own clock. Undefined where it says no such
 * thing. Cosignatures of others are ignored; a wrong one of this witness makes all of them worthless. Whatever it is given, it answers.
 */
export function cosignedAt(note: string, { name, id, cosigns }: WitnessKey): number | undefined {
  const { text, signatures } = parseNote(note) ?? { text: '', signatures: [] }
  const times = signatures.filter((each) => each.name === name && each.id === id).map(({ signature }) => timeOf(text, signature, cosigns))
  return times.every((time) => time !== undefined) ? times[0] : undefined
}

function timeOf(text: string, signature: Buffer, key: KeyObject): number | undefined {
  if (signature.length !== ofTime + ofSignature) return undefined
  const time = signature.readBigUInt64BE()
  if (time === 0n || time > latest) return undefined
  return verify(null, cosignedMessage(text, time), key, signature.subarray(ofTime)) ? Number(time) : undefined
}
