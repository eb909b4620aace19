import { AssumeRoleCommand, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { Secret } from '../../base/secret.ts'
import { stopwatch } from '../../base/time.ts'
import { ProviderError } from '../provider.ts'
import { faultOf, type StsAction } from './answers.ts'
import type { AwsSettings } from './settings.ts'
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
  readonly tagged: SessionTags | undefined
}

/** A session as STS gave it. */
export interface Session {
  readonly accessKeyId: string
  readonly secretAccessKey: Secret
  readonly sessionToken: Secret
  readonly expiration: Date
}

/** STS of one Region, asked as the broker. Every call throws ProviderError and nothing else. */
export interface Sts {
  assumeRole(assumption: Assumption, signal: AbortSignal): Promise<Session>
  /** The account that the broker's own credentials belong to. */
  callerAccount(signal: AbortSignal): Promise<string>
}

/** Told of every request: `outcome` is `ok` or a ProviderFault. */
export type Told = (action: StsAction, outcome: string, seconds: number) => void

/** Milliseconds for one attempt. The SDK has no limit of its own, and only warns past `requestTimeout` unless it is told to throw. */
const attempt = { connectionTimeout: 1_000, requestTimeout: 3_000, throwOnRequestTimeout: true } as const

/** How often the SDK asks: throttling, lost connections and 5xx. A second AssumeRole under the same name leaves a session that nobody was given. */
const attempts = 3

export function createSts(name: string, settings: AwsSettings, told: Told): Sts {
  const client = new STSClient({
    region: settings.region,
    ...(settings.endpoint !== undefined && { endpoint: settings.endpoint }),
    maxAttempts: attempts,
    requestHandler: attempt,
  })

  async function ask<Answer>(action: StsAction, call: () => Promise<Answer>): Promise<Answer> {
    const elapsed = stopwatch()
    let outcome = 'ok'
    try {
      return await call()
    } catch (error) {
      const fault = faultOf(name, action, error)
      outcome = fault.fault
      throw fault
    } finally {
      told(action, outcome, elapsed() / 1_000)
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
    async callerAccount(abortSignal) {
      const { Account } = await ask('GetCallerIdentity', () => client.send(new GetCallerIdentityCommand({}), { abortSignal }))
      return Account ?? ''
    },
  }
}
