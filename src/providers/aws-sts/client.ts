import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { Secret } from '../../base/secret.ts'
import { ProviderError } from '../provider.ts'
import type { CredentialSource } from './refreshed.ts'
import { asking, attempt, type Told } from './request.ts'
import type { AwsSettings } from './settings.ts'

/** What AssumeRole is asked for (STS API reference, AssumeRole). */
export interface Assumption {
  readonly roleArn: string
  /** RoleSessionName: with the role's id it is `aws:userid`, by which a session can be denied. */
  readonly sessionName: string
  readonly sourceIdentity: string
  readonly policy: string
  /** Seconds. */
  readonly duration: number
}

/** A session as STS gave it. */
export interface Session {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret
  readonly expiration: Date
}

/** An identity at AWS. */
export interface Caller {
  readonly account: string
  readonly arn: string
}

/** Whether an identity is a session of a role: what it assumes is chained. */
export const isRoleSession = ({ arn }: Caller): boolean => /^arn:[a-z-]+:sts::\d+:assumed-role\//.test(arn)

/** STS of one Region, asked as the broker. Every call throws ProviderError and nothing else. */
export interface Sts {
  assumeRole(assumption: Assumption, signal: AbortSignal): Promise<Session>
  /** Whose the credentials are. */
  caller(signal: AbortSignal): Promise<Caller>
}

/** How often the SDK asks: throttling, lost connections and 5xx. A second AssumeRole under the same name leaves a session that nobody was given. */
export const attempts = 3

/** @param credentials of whoever asks; the SDK's default chain where there are none */
export function createSts(name: string, settings: AwsSettings, told: Told, credentials?: CredentialSource): Sts {
  const client = new STSClient({
    region: settings.region,
    ...(settings.endpoint !== undefined && { endpoint: settings.endpoint }),
    maxAttempts: attempts,
    requestHandler: attempt,
    ...(credentials && { credentials }),
  })

  const ask = asking(name, told)

  return {
    async assumeRole({ roleArn, sessionName, sourceIdentity, policy, duration }, abortSignal) {
      const command = new AssumeRoleCommand({
        RoleArn: roleArn,
        RoleSessionName: sessionName,
        SourceIdentity: sourceIdentity,
        Policy: policy,
        DurationSeconds: duration,
        ...(settings.external_id !== undefined && { ExternalId: settings.external_id }),
      })
      const { Credentials: given } = await ask('AssumeRole', () => client.send(command, { abortSignal }))
      if (!given?.AccessKeyId || !given.SecretAccessKey || !given.SessionToken || !given.Expiration) {
        throw new ProviderError('garbage', `${name} answered AssumeRole without credentials`, 'maybe')
      }
      return {
        accessKeyId: given.AccessKeyId,
        secretAccessKey: new Secret(given.SecretAccessKey),
        sessionToken: new Secret(given.SessionToken),
        expiration: given.Expiration,
      }
    },
    async caller(abortSignal) {
      const { Account, Arn } = await ask('GetCallerIdentity', () => client.send(new GetCallerIdentityCommand({}), { abortSignal }))
      return { account: Account ?? '', arn: Arn ?? '' }
    },
  }
}
