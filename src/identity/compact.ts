import { z } from 'zod'
import { type Json, parseJson } from '../base/json.ts'
import { algorithms, type Algorithm } from './algorithm.ts'
import { isPrintable } from './claims.ts'
import { Refusal } from './fault.ts'

/** Characters of a token, which are bytes once its charset is checked. GitHub's and Azure's have about 1.5 to 2.5 KiB. */
const largest = 8_192

/**
 * Headers that a token may have. `x5t` is a mere name of a key and never looked at; Azure and GitHub write it. Whatever else there is could change what the token
 * means (`crit`, `b64`, `zip`) or bring its own key (`jwk`, `jku`, `x5c`, `x5u`): refused by absence from this list, not by being on another.
 */
const knownHeaders: ReadonlySet<string> = new Set(['alg', 'kid', 'typ', 'x5t', 'x5t#S256'])

const headerShape = z.looseObject({
  alg: z.string(),
  kid: z.string().min(1).max(512).refine(isPrintable).optional(),
  typ: z.string().max(64).optional(),
})

/** A token taken apart, of which nothing is proven yet. */
export interface Compact {
  readonly text: string
  /** `header.payload`, what the signature is over. */
  readonly signed: string
  readonly alg: Algorithm
  readonly kid: string | undefined
  readonly typ: string | undefined
  /** Names of all its headers. */
  readonly headers: readonly string[]
  /** The payload as text, to be parsed strictly once it is proven. */
  readonly payload: string
  /** What the payload says about its origin: good for looking up whose keys to ask, and for nothing else. */
  readonly claimed: { readonly iss: unknown; readonly sub: unknown }
}

/** Refuses what no token can be: nothing at all, and more than 8 KiB. @throws Refusal */
export function checkSize(text: string): void {
  if (text === '') throw new Refusal('missing')
  if (text.length > largest) throw new Refusal('too_large')
}

/**
 * Takes a compact JWS apart (RFC 7515 section 7.1). Stricter than jose, which reads over spaces and bits behind the end of a segment, so that many texts would
 * be one token.
 *
 * @throws Refusal
 */
export function readCompact(text: string): Compact {
  checkSize(text)
  const [header, payload, signature, ...more] = text.split('.')
  if (!header || !payload || signature === undefined || more.length > 0) throw new Refusal('malformed')
  const headerText = textOf(header)
  const payloadText = textOf(payload)
  if (!isCanonical(signature)) throw new Refusal('malformed')

  const parameters = objectOf(headerText, parseJson)
  const headers = Object.keys(parameters)
  if (!headers.every((name) => knownHeaders.has(name))) throw new Refusal('header_not_allowed')
  const { data } = headerShape.safeParse(parameters)
  if (!data) throw new Refusal('malformed')
  const alg = algorithms.find((one) => one === data.alg)
  if (!alg) throw new Refusal('algorithm_not_allowed')

  // Loosely: it only says whose keys to ask. The strict reading follows the signature.
  const { iss, sub } = objectOf(payloadText, (json) => JSON.parse(json) as Json)
  return { text, signed: `${header}.${payload}`, alg, kid: data.kid, typ: data.typ, headers, payload: payloadText, claimed: { iss, sub } }
}

const isCanonical = (segment: string): boolean =>
  /^[A-Za-z0-9_-]*$/.test(segment) && Buffer.from(segment, 'base64url').toString('base64url') === segment

/** With the byte order mark kept, so that JSON refuses it, and without a substitute for what is not UTF-8. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function textOf(segment: string): string {
  if (!isCanonical(segment)) throw new Refusal('malformed')
  try {
    return utf8.decode(Buffer.from(segment, 'base64url'))
  } catch {
    throw new Refusal('malformed')
  }
}

function objectOf(text: string, parse: (text: string) => Json): Readonly<Record<string, Json>> {
  let value: Json
  try {
    value = parse(text)
  } catch {
    throw new Refusal('malformed')
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw new Refusal('malformed')
  return value as Readonly<Record<string, Json>>
}
