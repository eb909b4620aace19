import type { Secret } from '../base/secret.ts'

/** A secret in the form in which its user needs it. The names on the wire are the same. */
export type Credential =
  | { readonly type: 'bearer_token'; readonly token: Secret }
  | { readonly type: 'username_password'; readonly username: string; readonly password: Secret }
  | {
      readonly type: 'aws_session'
      readonly access_key_id: string
      readonly secret_access_key: Secret
      readonly session_token: Secret
      readonly expiration: string
    }
  | { readonly type: 'fields'; readonly fields: Readonly<Record<string, Secret>> }

/** The secret parts, by the names they have on the wire. */
export function secretsOf(credential: Credential): Readonly<Record<string, Secret>> {
  switch (credential.type) {
    case 'bearer_token':
      return { token: credential.token }
    case 'username_password':
      return { password: credential.password }
    case 'aws_session':
      return { secret_access_key: credential.secret_access_key, session_token: credential.session_token }
    case 'fields':
      return credential.fields
  }
}

/** Keyed digests of the secret parts: what the ledger keeps, so that a leaked value can be recognised later. */
export function digestsOf(credential: Credential, key: Uint8Array): Record<string, string> {
  return Object.fromEntries(Object.entries(secretsOf(credential)).map(([name, secret]) => [name, secret.digest(key)]))
}
