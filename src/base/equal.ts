import { createHash, timingSafeEqual } from 'node:crypto'

/** Whether two secrets are the same, compared in constant time whatever their lengths are: whoever guesses learns nothing from how long the answer takes. */
export function isSameSecret(one: string | Uint8Array, other: string | Uint8Array): boolean {
  const [first, second] = [one, other].map((secret) => createHash('sha256').update(secret).digest())
  return timingSafeEqual(first!, second!)
}
