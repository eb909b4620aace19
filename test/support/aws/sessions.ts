import { randomBytes } from 'node:crypto'
import { deflateRawSync } from 'node:zlib'
import { type Account, identifier, type Role, secretKey } from './account.ts'
import type { Policy } from './policy.ts'
import { Refusal } from './refusal.ts'
import type { Xml } from './xml.ts'

/** What an assumed role's temporary credentials stand for. */
export interface Session {
  readonly keyId: string
  readonly secret: string
  readonly token: string
  readonly role: Role
  readonly name: string
  /** Whose child it is, by GetScopedCredentials. */
  readonly parent: Session | undefined
  /** Milliseconds since the epoch. */
  readonly issuedAt: number
  readonly expiresAt: number
  /** By key, which is compared without regard to case. */
  readonly tags: ReadonlyMap<string, string>
  readonly transitive: readonly string[]
  readonly sourceIdentity: string | undefined
  /** Each is a union of policies; all of them must allow. */
  readonly layers: readonly (readonly Policy[])[]
  /** How often it has been narrowed by GetScopedCredentials. */
  readonly narrowed: number
  /** Percent of the room that policies and tags may take in a token. */
  readonly packed: number
}

export const arnOf = (account: Account, session: Session) => `arn:aws:sts::${account.id}:assumed-role/${session.role.name}/${session.name}`
export const userIdOf = (session: Session) => `${session.role.id}:${session.name}`

/** @param leastSize characters that the token must have */
export function startSession(account: Account, about: Omit<Session, 'keyId' | 'secret' | 'token'>, leastSize = 0): Session {
  const size = Math.max(leastSize, 320 + about.packed * 20)
  const token = `IQoJb3JpZ2lu${randomBytes(Math.ceil((size * 3) / 4)).toString('base64url')}`
  const session = { ...about, keyId: identifier('ASIA'), secret: secretKey(), token }
  account.sessions.set(session.keyId, session)
  return session
}

export function credentialsOf(session: Session): Xml {
  const { keyId: AccessKeyId, secret: SecretAccessKey, token: SessionToken } = session
  return { AccessKeyId, SecretAccessKey, SessionToken, Expiration: new Date(session.expiresAt) }
}

export const sizeOf = (session: Session): Record<string, Xml> => ({
  PackedPolicySize: session.packed,
  SessionTokenUtilization: session.packed,
  SessionTokenSize: session.token.length,
})

const room = 2048

/**
 * How much of a token's room policies and tags take, in percent. AWS does not say how it packs them: here each text is compressed by itself, so that
 * whatever has 2,048 characters of policy fits, and many long tags do not.
 * @throws PackedPolicyTooLarge
 */
export function packedSize(texts: readonly string[]): number {
  const bytes = texts.reduce((sum, text) => sum + Math.min(deflateRawSync(text).length, Buffer.byteLength(text)), 0)
  const percent = Math.ceil((bytes / room) * 100)
  if (percent > 100) throw new Refusal('PackedPolicyTooLarge', `Packed size of session policies and tags consumes ${percent}% of the allotted space.`)
  return percent
}
