import type { Minted } from '../provider.ts'
import type { Session } from './client.ts'

/** What is handed out ends at `until`, for the policy of the session sees to that, or when the session does by itself. */
export function mintedOf({ accessKeyId, secretAccessKey, sessionToken, expiration }: Session, until: Date): Minted {
  const expiresAt = until < expiration ? until : expiration
  return {
    credential: {
      type: 'aws_session',
      access_key_id: accessKeyId,
      secret_access_key: secretAccessKey,
      session_token: sessionToken,
      expiration: expiresAt.toISOString(),
    },
    expiresAt,
  }
}
