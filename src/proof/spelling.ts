/**
 * The bytes of base64 in its one spelling (RFC 4648, section 4, padded); undefined for any other text. `Buffer.from` alone takes white space, the
 * other alphabet and loose bits at the end, so that two readers of one text could differ.
 */
export function fromBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}

/** A whole number from 0 to 2^53 - 1 in its one decimal spelling; undefined for any other text. */
export function fromDecimal(text: string): number | undefined {
  if (!/^(0|[1-9]\d{0,15})$/.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}
