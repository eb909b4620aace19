import { earlier } from '../../base/time.ts'
import type { HeldLease } from '../../client/client.ts'
import type { CredentialView } from '../../http/contract.ts'
import { UsageError } from '../failure.ts'

/** An AWS session as a lease carries it. */
export type AwsSession = Extract<CredentialView, { type: 'aws_session' }>

/** The session of a lease; undefined where its credential is of another type. */
export function sessionOf({ credential }: HeldLease): AwsSession | undefined {
  const view = credential.reveal()
  return view.type === 'aws_session' ? view : undefined
}

/** When the credential of a lease is of no more use: an AWS session may be far shorter than its lease. */
export const endOf = (lease: HeldLease): string => earlier(sessionOf(lease)?.expiration ?? lease.expires_at, lease.expires_at)

/** The session of a task that is for nothing else. @throws UsageError for anything but one lease whose credential is an AWS session */
export function onlySessionOf([lease, ...others]: readonly HeldLease[]): AwsSession {
  const session = lease && sessionOf(lease)
  if (session !== undefined && others.length === 0) return session
  throw new UsageError('one --grant whose credential is an AWS session is needed')
}
