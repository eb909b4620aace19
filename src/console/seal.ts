import { createHmac, timingSafeEqual } from 'node:crypto'
import type { ZodType } from 'zod'
import type { Clock } from '../base/time.ts'

/** Writes values that only brokers with the same key can have written: for cookies and one-time links. They are signed, not hidden. */
export interface Seal<Value extends { readonly expiresAt: number }> {
  write(value: Value): string
  /** Undefined for whatever this seal did not write, and once it has expired. */
  read(text: string | undefined): Value | undefined
}

/** Characters of a sealed text: a cookie may have four thousand. */
const longest = 4_000

/**
 * A seal with a key of its own for each purpose, so that a text of one can never be presented as one of another. HMAC-SHA-256.
 *
 * @param purpose also what else must not have changed in between for a text to be believed
 * @param shape whose `expiresAt` is in milliseconds
 */
export function createSeal<Value extends { readonly expiresAt: number }>(
  key: Uint8Array,
  purpose: string,
  shape: ZodType<Value>,
  clock: Clock,
): Seal<Value> {
  const own = createHmac('sha256', key).update(purpose).digest()
  const sign = (payload: string): Buffer => createHmac('sha256', own).update(payload).digest()
  return {
    write(value) {
      const payload = Buffer.from(JSON.stringify(value)).toString('base64url')
      return `${payload}.${sign(payload).toString('base64url')}`
    },
    read(text) {
      if (text === undefined || text.length > longest) return undefined
      const [payload = '', signature = '', ...more] = text.split('.')
      const [presented, wanted] = [Buffer.from(signature, 'base64url'), sign(payload)]
      if (more.length > 0 || presented.length !== wanted.length || !timingSafeEqual(presented, wanted)) return undefined
      const { data } = shape.safeParse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
      return data && data.expiresAt > clock() ? data : undefined
    },
  }
}
