import { earlier } from '../../base/time.ts'
import type { HeldLease } from '../../client/client.ts'
import type { CredentialView } from '../../http/contract.ts'

/** An AWS session as a lease carries it. */
export type AwsSession = Extract<CredentialView, { type: 'aws_session' }>

/** The session of a lease; undefined where its credential is of another type. */
export function sessionOf({ credential }: HeldLease): AwsSession | undefined {
  const view = credential.reveal()
  return view.type === 'aws_session' ? view : undefined
}

/** When the credential of a lease is of no more use: an AWS session may be far shorter than its lease. */
export const endOf = (lease: HeldLease): string => earlier(sessionOf(lease)?.expiration ?? lease.expires_at, lease.expires_at)
