import { createHmac } from 'node:crypto'
import type { ZodType } from 'zod'
import { isSameSecret } from '../base/equal.ts'
import type { Clock } from '../base/time.ts'
import { skew } from '../identity/claims.ts'

/** Writes values that only brokers with the same key can have written: for cookies and one-time links. They are signed, not hidden. */
export interface Seal<Value extends { readonly expiresAt: number }> {
  /** @returns the value with its end, which is a lifetime from now */
  write(value: Omit<Value, 'expiresAt'>): string
  /**
   * Undefined for whatever this seal did not write, once it has expired, and while it has more than a lifetime left: it was written by a clock that was
   * ahead, or when the lifetime was longer, and would be good for longer than it may.
   */
  read(text: string | undefined): Value | undefined
}

/** Characters of a sealed text: a cookie may have four thousand. */
const longest = 4_000

/**
 * A seal with a key of its own for each purpose, so that a text of one can never be presented as one of another. HMAC-SHA-256.
 *
 * @param purpose also what else must not have changed in between for a text to be believed
 * @param shape whose `expiresAt` is in milliseconds
 * @param lifetime milliseconds
 */
export function createSeal<Value extends { readonly expiresAt: number }>(
  key: Uint8Array,
  purpose: string,
  shape: ZodType<Value>,
  lifetime: number,
  clock: Clock,
): Seal<Value> {
  const own = createHmac('sha256', key).update(purpose).digest()
  const sign = (payload: string): Buffer => createHmac('sha256', own).update(payload).digest()
  return {
    write(value) {
      const payload = Buffer.from(JSON.stringify({ ...value, expiresAt: clock() + lifetime })).toString('base64url')
      return `${payload}.${sign(payload).toString('base64url')}`
    },
    read(text) {
      if (text === undefined || text.length > longest) return undefined
      const [payload = '', signature = '', ...more] = text.split('.')
      if (more.length > 0 || !isSameSecret(Buffer.from(signature, 'base64url'), sign(payload))) return undefined
      const { data } = shape.safeParse(JSON.parse(Buffer.from(payload, 'base64url').toString()))
      const left = data && data.expiresAt - clock()
      return left !== undefined && left > 0 && left <= lifetime + skew * 1_000 ? data : undefined
    },
  }
}
