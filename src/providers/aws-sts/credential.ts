import type { Minted } from '../provider.ts'
import type { Session } from './client.ts'

/**
 * What is handed out ends at `until`, which its policy sees to. Whoever uses it is told AWS's stamp where that is sooner, and the ledger is not: the stamp is
 * of AWS's clock, and by one that is behind a session would be over in the ledger, and forgotten by its kill list, while AWS lets it live.
 */
export function mintedOf({ accessKeyId, secretAccessKey, sessionToken, expiration }: Session, until: Date): Minted {
  const usable = until < expiration ? until : expiration
  return {
    credential: {
      type: 'aws_session',
      access_key_id: accessKeyId,
      secret_access_key: secretAccessKey,
      session_token: sessionToken,
      expiration: usable.toISOString(),
    },
    expiresAt: until,
  }
}
