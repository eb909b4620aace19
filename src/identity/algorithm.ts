/**
 * Signature algorithms that a token can have: asymmetric ones (RFC 7518 section 3.1, RFC 9864). `none` and HMAC are not there, so no configuration can ask for them and a
 * public key can never be taken for a shared secret.
 */
export const algorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const

export type Algorithm = (typeof algorithms)[number]

export const isAlgorithm = (name: string): name is Algorithm => (algorithms as readonly string[]).includes(name)

export const isRsa = (algorithm: Algorithm): boolean => /^[RP]S/.test(algorithm)

/** RFC 9864 gave EdDSA over Ed25519 its own name; both stand for one algorithm, and the other curve is not supported. */
export const sameAlgorithm = (one: Algorithm, other: Algorithm): boolean => one === other || (isEdwards(one) && isEdwards(other))

const isEdwards = (algorithm: Algorithm): boolean => algorithm === 'EdDSA' || algorithm === 'Ed25519'
