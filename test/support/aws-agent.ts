import { GetObjectCommand } from '@aws-sdk/client-s3'
import type { Minted } from '../../src/providers/provider.ts'
import { type AwsClients, clientsOf } from './aws/clients.ts'
import type { AwsPeer } from './aws/peer.ts'

/** Whoever was handed a session, with AWS's own clients. Opens its secrets. */
export function agentOf(peer: AwsPeer, { credential }: Pick<Minted, 'credential'>): AwsClients {
  if (credential.type !== 'aws_session') throw new Error('not a session')
  return clientsOf(peer, {
    AccessKeyId: credential.access_key_id,
    SecretAccessKey: credential.secret_access_key.open(),
    SessionToken: credential.session_token.open(),
    Expiration: new Date(credential.expiration),
  })
}

/** The status that a call was answered with; 0 for none. */
export const statusOf = (call: Promise<{ $metadata: { httpStatusCode?: number } }>): Promise<number> =>
  call.then(
    ({ $metadata }) => $metadata.httpStatusCode ?? 0,
    (error: { $metadata?: { httpStatusCode?: number } }) => error.$metadata?.httpStatusCode ?? 0,
  )

/** Reads an object of the site's bucket. @returns the status */
export const readObject = (clients: AwsClients, Key: string): Promise<number> =>
  statusOf(clients.s3.send(new GetObjectCommand({ Bucket: 'invoices', Key })))
