/** Every reason for which a token is refused, in the order in which they are looked for. For log and metric: outside they are all one. */
export type TokenFault =
  /** There is no token. */
  | 'missing'
  /** More than 8 KiB. */
  | 'too_large'
  /** Not three segments of canonical base64url, not JSON, or a registered claim or header of another type than its own, or with control characters. */
  | 'malformed'
  /** A header outside of the closed list, such as `jwk`, `jku`, `x5c` or `crit`. */
  | 'header_not_allowed'
  /** `none`, HMAC, or an algorithm that this issuer, or this key, is not for. */
  | 'algorithm_not_allowed'
  /** `iss`, or the trust domain of a SPIFFE ID, is none of the configured ones. */
  | 'unknown_issuer'
  /** `typ` says that it is another kind of token. */
  | 'wrong_type'
  /** The issuer's keys could not be fetched, and none are left that may still be used. */
  | 'keys_unavailable'
  /** No `kid`, or none of this issuer's keys has it. */
  | 'unknown_key'
  | 'bad_signature'
  /** An object in the payload names a key twice, or nests so deep that nobody looked. */
  | 'duplicate_key'
  /** `aud` is not exactly this broker: absent, another, or one more besides. */
  | 'wrong_audience'
  | 'no_expiry'
  | 'expired'
  /** `nbf` is in the future. */
  | 'not_yet_valid'
  /** `iat` is absent although tokens of this profile always have it. */
  | 'no_issue_time'
  /** `iat` is in the future. */
  | 'issued_in_future'
  /** It lives longer than tokens of this issuer may. */
  | 'lives_too_long'
  /** A claim that the profile or the configuration demands is absent or different. */
  | 'profile_rule'
  /** A single-use token that was used before. */
  | 'replayed'

/** Thrown inside this room only: the verifier turns every one into the same BrokerError. */
export class Refusal extends Error {
  readonly fault: TokenFault

  constructor(fault: TokenFault) {
    super(fault)
    this.name = 'Refusal'
    this.fault = fault
  }
}
