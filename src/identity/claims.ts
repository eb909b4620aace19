import { z } from 'zod'
import { type Json, parseJson } from '../base/json.ts'
import { Refusal, type TokenFault } from './fault.ts'

/** Seconds by which the clocks of issuer and broker may differ. WIT-SVID allows two minutes at most; machines with a time service differ by far less. */
export const skew = 30

/** Seconds since 1970, fractions allowed (RFC 7519 section 2); bounded so that it is always a date. */
const numericDate = z.number().min(0).max(1e11)

/** Control characters, which garble a terminal that shows who somebody is and of which the ledger cannot keep NUL, and halves of a surrogate pair, which it cannot keep either. */
const unprintable = /[\p{Cc}\p{Cs}]/u

/** Whether text of a token can be kept and shown as it is. What cannot is no name of anybody. */
export const isPrintable = (text: string): boolean => !unprintable.test(text)

const registered = z.looseObject({
  iss: z.string().max(2_048).optional(),
  sub: z.string().min(1).max(2_048).refine(isPrintable),
  aud: z.union([z.string(), z.array(z.string())]).optional(),
  exp: numericDate.optional(),
  nbf: numericDate.optional(),
  iat: numericDate.optional(),
  jti: z.string().min(1).max(1_024).refine(isPrintable).optional(),
})

/** The registered claims of RFC 7519 section 4.1, and all others as they came. */
export type Claims = z.output<typeof registered> & Readonly<Record<string, Json | undefined>>

/** Reads a payload whose signature was verified. @throws Refusal `duplicate_key`, `malformed` */
export function readClaims(payload: string): Claims {
  let value: Json
  try {
    value = parseJson(payload)
  } catch {
    // It is JSON, as the look at its origin has shown: what is left are the things that only the strict parser refuses.
    throw new Refusal('duplicate_key')
  }
  const { data } = registered.safeParse(value)
  if (!data) throw new Refusal('malformed')
  return data as Claims
}

/** Whether the token is for this broker and nobody else: with two audiences the other one could present it here (RFC 8725bis). */
export function isFor(audience: string, { aud }: Pick<Claims, 'aud'>): boolean {
  const [only, ...others] = [aud ?? []].flat()
  return only === audience && others.length === 0
}

export type Times = Pick<Claims, 'exp' | 'nbf' | 'iat'>

/** The times alone: a token may have thousands of other claims, which are not worth keeping with it. */
export const timesOf = ({ exp, nbf, iat }: Claims): Times => ({ exp, nbf, iat })

/**
 * What is wrong with the times of a token, the first fault found. RFC 7519 sections 4.1.4 to 4.1.6, RFC 8725bis.
 *
 * @param limits in seconds; `issueTime` where tokens of the profile always say when they were issued
 * @param now seconds since 1970
 */
export function timeFault(
  { exp, nbf, iat }: Times,
  limits: { readonly maxLifetime: number; readonly issueTime: boolean },
  now: number,
): TokenFault | undefined {
  if (exp === undefined) return 'no_expiry'
  if (exp <= now - skew) return 'expired'
  if (nbf !== undefined && nbf > now + skew) return 'not_yet_valid'
  if (iat === undefined && limits.issueTime) return 'no_issue_time'
  if (iat !== undefined && iat > now + skew) return 'issued_in_future'
  // From `iat` where there is one, since issuers date `nbf` back for the clocks of others (GitHub by ten minutes). Without either, what is left must fit by itself.
  if (exp - (iat ?? nbf ?? now) > limits.maxLifetime) return 'lives_too_long'
  return undefined
}
