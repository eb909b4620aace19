import { AssumeRoleCommand, AssumeRoleWithWebIdentityCommand, type Credentials } from '@aws-sdk/client-sts'
import type { Clock } from '../../base/time.ts'
import { openAssertions } from '../assertion.ts'
import { ProviderError, type ProviderSurroundings, type SignedTokens } from '../provider.ts'
import { arnOfRole } from './arn.ts'
import { fromChain } from './chain.ts'
import { type Begun, type CredentialSource, refreshed } from './refreshed.ts'
import { asking, type Observe } from './request.ts'
import type { AwsSettings } from './settings.ts'
import { stsClient } from './sts-client.ts'

/** Which of its two identities. */
export type Part = 'minter' | 'revoker'

/** Whom the broker is at AWS. Two, so that neither can do what the other does. */
export interface Identities extends Readonly<Record<Part, CredentialSource>> {
  /** Keys under which the broker names itself, where it does. */
  readonly tokens: SignedTokens | undefined
}

/** Seconds that a session of these roles lasts: what every role gives, and the most for one that another role assumed. */
const life = 3_600

/** Begins a session of a role. @throws ProviderError, and nothing else */
type Become = (part: Part, roleArn: string, abortSignal: AbortSignal) => Promise<Credentials | undefined>

/** @throws ConfigurationError where its own keys cannot be used */
export async function openIdentities(name: string, settings: AwsSettings, surroundings: ProviderSurroundings, observe: Observe): Promise<Identities> {
  const { identity, minter, revoker } = settings
  if (identity.method === 'default') {
    const chain = fromChain(name, settings, surroundings)
    const session = sessions(name, settings, surroundings.clock, byRole(name, settings, chain, observe))
    return { minter: session('minter', minter) ?? chain, revoker: session('revoker', revoker) ?? chain, tokens: undefined }
  }
  const assertions = await openAssertions(name, { audience: identity.audience, life: identity.lifetime / 1_000 }, surroundings)
  const sign = (part: Part): Promise<string> => assertions.sign(`mayfly:${name}:${part}`)
  const session = sessions(name, settings, surroundings.clock, byToken(name, settings, sign, observe))
  return { minter: session('minter', minter) ?? nobody(name), revoker: session('revoker', revoker) ?? nobody(name), tokens: assertions.tokens }
}

/** As whoever the default chain names. No SourceIdentity: whatever such a session assumes would have to keep it, and sessions of tasks have their own. */
function byRole(name: string, settings: AwsSettings, credentials: CredentialSource, observe: Observe): Become {
  const { external_id } = settings
  const client = stsClient(settings, { credentials })
  const ask = asking(name, observe)
  return async (part, RoleArn, abortSignal) => {
    const about = { RoleArn, RoleSessionName: `mayfly-${part}`, DurationSeconds: life, ...(external_id !== undefined && { ExternalId: external_id }) }
    return (await ask('AssumeRole', () => client.send(new AssumeRoleCommand(about), { abortSignal }))).Credentials
  }
}

/**
 * With a token of the broker's own, ES256, each for one call: its subject says which of the two identities asks. Nobody signs the call itself, so the
 * default chain is not asked (STS API reference, AssumeRoleWithWebIdentity, which also takes RS256).
 */
function byToken(name: string, settings: AwsSettings, sign: (part: Part) => Promise<string>, observe: Observe): Become {
  // Once: an attempt of the SDK's own would show the same token again.
  const client = stsClient(settings, { maxAttempts: 1 })
  const ask = asking(name, observe)
  return async (part, RoleArn, abortSignal) => {
    const WebIdentityToken = await sign(part)
    const about = { RoleArn, RoleSessionName: `mayfly-${part}`, DurationSeconds: life, WebIdentityToken }
    return (await ask('AssumeRoleWithWebIdentity', () => client.send(new AssumeRoleWithWebIdentityCommand(about), { abortSignal }))).Credentials
  }
}

/** A source of sessions of a role; none where there is no role. */
function sessions(name: string, settings: AwsSettings, clock: Clock, become: Become) {
  return (part: Part, role: string | undefined): CredentialSource | undefined => {
    if (role === undefined) return undefined
    const begin = async (signal: AbortSignal): Promise<Begun> => {
      const given = await become(part, arnOfRole(settings, role), signal).catch((error: Error) => {
        // Whatever the reason, it is the broker that is not let in, and not what it was asked for. That can be had once this is mended.
        throw new ProviderError('unavailable', `${name} cannot take its own role of the ${part}: ${error.message}`, 'no', { cause: error })
      })
      const { AccessKeyId: accessKeyId, SecretAccessKey: secretAccessKey, SessionToken: sessionToken } = given ?? {}
      if (accessKeyId && secretAccessKey && sessionToken) return { accessKeyId, secretAccessKey, sessionToken }
      throw new ProviderError('unavailable', `${name} was answered without credentials for the role of the ${part}`, 'no')
    }
    return refreshed({ begin, life: life * 1_000, timeout: settings.timeout }, clock)
  }
}

/** Where web identity is configured and no role to take with it. */
const nobody =
  (name: string): CredentialSource =>
  () =>
    Promise.reject(new ProviderError('unavailable', `${name} has no role of its own for this`, 'no'))
