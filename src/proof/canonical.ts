import { createHash } from 'node:crypto'
import serialize from 'canonicalize'

/** A digest as it is written everywhere: `sha256:` and 64 hexadecimal digits. */
export type Digest = `sha256:${string}`

/** The one text of a JSON value (RFC 8785): sorted keys, no white space, ECMAScript numbers. What is hashed, signed and compared. */
export function canonical(value: unknown): string {
  const text = serialize(value)
  if (text === undefined) throw new TypeError('only JSON values have a canonical form')
  return text
}

/** SHA-256 over the canonical form. */
export function digestOf(value: unknown): Digest {
  return digestOfText(canonical(value))
}

/** The same. Undefined where a value has no canonical form, and so no digest. */
export function digestIn(value: unknown): Digest | undefined {
  try {
    return digestOf(value)
  } catch {
    return undefined
  }
}

/** SHA-256 over text that is canonical already, or whose very bytes matter. */
export function digestOfText(text: string): Digest {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}
