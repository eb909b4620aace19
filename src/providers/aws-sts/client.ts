import {
  AssumeRoleCommand,
  type Credentials,
  DecodeAuthorizationMessageCommand,
  GetCallerIdentityCommand,
  GetScopedCredentialsCommand,
} from '@aws-sdk/client-sts'
import { Secret } from '../../base/secret.ts'
import { ProviderError } from '../provider.ts'
import { type AwsAction, isExplicitDeny, nameOf, noChildFor } from './answers.ts'
import type { CredentialSource } from './refreshed.ts'
import { asking, makingSession, type Observe } from './request.ts'
import type { AwsSettings } from './settings.ts'
import { stsClient } from './sts-client.ts'
import type { SessionTags } from './tags.ts'

/** What AssumeRole is asked for (STS API reference, AssumeRole). */
export interface Assumption {
  readonly roleArn: string
  /** RoleSessionName: with the role's id it is `aws:userid`, by which a session can be denied. */
  readonly sessionName: string
  readonly sourceIdentity: string
  readonly policy: string
  /** Seconds. */
  readonly duration: number
  readonly tagged?: SessionTags | undefined
}

/** A session as STS gave it. */
export interface Session {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret
  readonly expiration: Date
}

/** What GetScopedCredentials is asked for (STS API reference, GetScopedCredentials). */
export interface Narrowing {
  readonly policy: string
  /** Seconds, from 1 to what is left of the session that asks. */
  readonly duration: number
  /** ScopedSessionDescription: AWS writes it into CloudTrail. */
  readonly description: string
}

/** Asks for a narrower session, signed by the one that this was made of; where there is none for it, why. @throws ProviderError */
export type Narrow = (narrowing: Narrowing, signal: AbortSignal) => Promise<Session | 'unsupported' | 'ended'>

/** An identity at AWS. */
export interface Caller {
  readonly account: string
  readonly arn: string
}

/** STS of one Region, asked as the broker. Every call throws ProviderError and nothing else. */
export interface Sts {
  assumeRole(assumption: Assumption, signal: AbortSignal): Promise<Session>
  /** Takes a session over, to ask for narrower ones: its secrets are then held where nothing can print them, and reached by nothing but a signature. */
  narrower(session: Session): Narrow
  /** Whose the credentials are. */
  caller(signal: AbortSignal): Promise<Caller>
  /** Opens a session, once, to ask what AWS lets it do. It may do nothing else, and need not be allowed to: see {@link Probed}. */
  probeOf(session: Session): Probe
}

/**
 * What a session is told when it asks STS to decode a message that is none: `allowed` where the message is what is wrong, `refused` where it may not
 * ask, `denied` where AWS adds that a policy of its role denies it.
 */
export type Probed = 'allowed' | 'refused' | 'denied'

/** Asks for the verdict on one session. @throws ProviderError where there was none */
export type Probe = (signal: AbortSignal) => Promise<Probed>

/** @param credentials of whoever asks; the SDK's default chain where there are none */
export function createSts(name: string, settings: AwsSettings, observe: Observe, credentials?: CredentialSource): Sts {
  const client = stsClient(settings, credentials && { credentials })

  const ask = asking(name, observe)
  const by = (action: AwsAction) => ({ name, ask, action })

  function sessionOf(action: AwsAction, given: Credentials | undefined): Session {
    if (!given?.AccessKeyId || !given.SecretAccessKey || !given.SessionToken || !given.Expiration) {
      throw new ProviderError('garbage', `${name} answered ${action} without credentials`, 'maybe')
    }
    return {
      accessKeyId: given.AccessKeyId,
      secretAccessKey: new Secret(given.SecretAccessKey),
      sessionToken: new Secret(given.SessionToken),
      expiration: given.Expiration,
    }
  }

  return {
    async assumeRole({ roleArn, sessionName, sourceIdentity, policy, duration, tagged }, abortSignal) {
      const command = new AssumeRoleCommand({
        RoleArn: roleArn,
        RoleSessionName: sessionName,
        SourceIdentity: sourceIdentity,
        Policy: policy,
        DurationSeconds: duration,
        ...(tagged && { Tags: [...tagged.tags], TransitiveTagKeys: [...tagged.transitive] }),
        ...(settings.external_id !== undefined && { ExternalId: settings.external_id }),
      })
      const { Credentials: given } = await makingSession(by('AssumeRole'), command, (attempted) => client.send(attempted, { abortSignal }))
      return sessionOf('AssumeRole', given)
    },
    narrower({ accessKeyId, secretAccessKey, sessionToken }) {
      const credentials = { accessKeyId, secretAccessKey: secretAccessKey.open(), sessionToken: sessionToken.open() }
      return async ({ policy, duration, description }, abortSignal) => {
        // One a call, for a client has the credentials of one session; all of them share the connections, and what is known of AWS's clock.
        const { requestHandler, systemClockOffset } = client.config
        const asSession = stsClient(settings, { credentials, requestHandler, systemClockOffset })
        const command = new GetScopedCredentialsCommand({ Policy: policy, DurationSeconds: duration, ScopedSessionDescription: description })
        try {
          const { Credentials: given } = await makingSession(by('GetScopedCredentials'), command, (attempted) =>
            asSession.send(attempted, { abortSignal }),
          )
          return sessionOf('GetScopedCredentials', given)
        } catch (error) {
          if (!(error instanceof ProviderError)) throw error
          const none = noChildFor(error)
          // That there is none now says nothing of one whose answer was lost before.
          if (none === undefined || error.minted === 'maybe') throw error
          return none
        }
      }
    },
    async caller(abortSignal) {
      const { Account, Arn } = await ask('GetCallerIdentity', () => client.send(new GetCallerIdentityCommand({}), { abortSignal }))
      return { account: Account ?? '', arn: Arn ?? '' }
    },
    probeOf({ accessKeyId, secretAccessKey, sessionToken }) {
      const credentials = { accessKeyId, secretAccessKey: secretAccessKey.open(), sessionToken: sessionToken.open() }
      // Its connections are the other client's, for one is made for each generation of a kill list; and so is what is known of AWS's clock, which one that
      // asks once and is then dropped would never learn.
      const { requestHandler, systemClockOffset } = client.config
      const own = stsClient(settings, { credentials, maxAttempts: 1, requestHandler, systemClockOffset })
      const command = new DecodeAuthorizationMessageCommand({ EncodedMessage: 'none' })
      return async (abortSignal) => {
        try {
          await ask('DecodeAuthorizationMessage', () => own.send(command, { abortSignal }))
        } catch (error) {
          if (isExplicitDeny(error)) return 'denied'
          if (nameOf(error) === 'AccessDenied') return 'refused'
          if (nameOf(error) !== 'InvalidAuthorizationMessage') throw error
        }
        return 'allowed'
      }
    },
  }
}
