import { earlier, systemClock } from '../../base/time.ts'
import type { HeldLease } from '../../client/client.ts'
import type { PrivateFolder } from '../exec/credential-files.ts'
import type { Kept } from '../exec/keep.ts'
import { type ContainerCredentials, serveContainer } from './container.ts'
import { type AwsSession, sessionOf } from './session.ts'

/** An AWS session on its way to SDKs that know nothing of Mayfly. */
export interface Delivery {
  /** With these, an SDK finds the session by itself, and fetches it again when it ends. */
  readonly variables: {
    readonly AWS_CONTAINER_CREDENTIALS_FULL_URI: string
    /** A file, 0600: a token in the environment would be inherited by every process below, and shown by `env`. */
    readonly AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: string
  }
  /** Serves a fresh session in the place of the one before. */
  hold(fresh: HeldLease): void
  close(): Promise<void>
}

/**
 * Serves the session of a lease from here on, as its keeper holds it.
 *
 * @param port on 127.0.0.1; 0 takes any free one
 * @throws Error when the port cannot be had
 */
export async function deliver(session: AwsSession, kept: Pick<Kept, 'deadline' | 'ended'>, folder: PrivateFolder, port = 0): Promise<Delivery> {
  let held = session
  const container = await serveContainer(() => currentOf(held, kept), port)
  try {
    await folder.write('aws-container-token', container.token)
  } catch (error) {
    await container.close()
    throw error
  }
  return {
    variables: {
      AWS_CONTAINER_CREDENTIALS_FULL_URI: container.uri,
      AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: folder.pathOf('aws-container-token'),
    },
    hold(fresh) {
      held = sessionOf(fresh) ?? held
    },
    close: container.close,
  }
}

/** What an SDK is given; where there is nothing to give any more, why. */
function currentOf(session: AwsSession, { deadline, ended }: Pick<Kept, 'deadline' | 'ended'>): ContainerCredentials | string {
  if (ended !== undefined) return 'The task was ended'
  const expiration = lastMoment(session, deadline)
  if (systemClock() >= Date.parse(expiration)) return `The credentials ended at ${expiration}`
  const { access_key_id, secret_access_key, session_token } = session
  return { AccessKeyId: access_key_id, SecretAccessKey: secret_access_key, Token: session_token, Expiration: expiration }
}

/** The earlier of the session's end and the task's: an SDK keeps what it has until the end that it was told. */
export const lastMoment = ({ expiration }: AwsSession, deadline: string): string => earlier(expiration, deadline)
