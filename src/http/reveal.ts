import type { Lease } from '../ledger/records.ts'
import type { Credential } from '../providers/credential.ts'
import type { Caller } from '../tasks/task.ts'
import type { CredentialView, IssuedLease } from './contract.ts'
import { viewLease } from './views.ts'

/** A lease with its credential, for the one answer that carries it. */
export const revealLease = ({ lease, credential }: { lease: Lease; credential: Credential }, caller: Caller): IssuedLease => ({
  ...viewLease(lease, caller),
  credential: reveal(credential),
})

/**
 * The credential with its secrets opened. A second call for the same one throws: by then the first answer is the only copy, and there is
 * nothing to show again.
 */
export function reveal(credential: Credential): CredentialView {
  switch (credential.type) {
    case 'bearer_token':
      return { type: credential.type, token: credential.token.open() }
    case 'username_password':
      return { type: credential.type, username: credential.username, password: credential.password.open() }
    case 'aws_session':
      return {
        type: credential.type,
        access_key_id: credential.access_key_id,
        secret_access_key: credential.secret_access_key.open(),
        session_token: credential.session_token.open(),
        expiration: credential.expiration,
      }
    case 'fields':
      return { type: credential.type, fields: Object.fromEntries(Object.entries(credential.fields).map(([name, secret]) => [name, secret.open()])) }
  }
}
