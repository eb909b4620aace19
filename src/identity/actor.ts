/** How the tokens of an issuer are judged and read. One file a profile would be too many: they stand together in profiles.ts. */
export const profileNames = ['spiffe', 'kubernetes', 'github-actions', 'oidc'] as const

export type ProfileName = (typeof profileNames)[number]

/**
 * A verified identity: what is proven about the caller, and nothing that the caller merely says.
 *
 * Everything in it may be written to the ledger; the token itself may not.
 */
export interface Actor {
  /** The name of the issuer in the configuration, by which catalogue, operators and resource servers refer to it. */
  readonly issuer: string
  readonly profile: ProfileName
  readonly subject: string
  readonly trustDomain: string | undefined
  /**
   * Verified claims by name, flat (`kubernetes.io/namespace` style for nested ones), each a string or a list of strings. `sub` and, where the
   * token has one, `iss` are among them. What a catalogue entry matches on and what may become a tag for the policy.
   */
  readonly attributes: Readonly<Record<string, string | readonly string[]>>
  /**
   * Names of claims that the token has but that are no attributes, because they are neither a string nor a list of strings that can be kept
   * and shown. A policy that forbids by such a claim would not match, as if the claim were absent. Absent: none.
   */
  readonly unreadable?: readonly string[]
  readonly token: TokenFacts
}

/** What the ledger keeps of a token: enough to find it in the issuer's own log, useless for anybody who wants to present it. */
export interface TokenFacts {
  /** SHA-256 (hex) over `header.payload`: the signature is left out, since an ECDSA signature has a twin that verifies too. */
  readonly digest: string
  readonly jti: string | undefined
  readonly kid: string
  readonly alg: string
  /** Unix seconds. */
  readonly expiresAt: number
}
