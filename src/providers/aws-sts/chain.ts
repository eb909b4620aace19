import { STSClient } from '@aws-sdk/client-sts'
import { inTime } from '../../base/signal.ts'
import { ProviderError, type ProviderSurroundings } from '../provider.ts'
import type { AwsCredentials, CredentialSource } from './refreshed.ts'
import type { AwsSettings } from './settings.ts'

/**
 * What the SDK's default chain finds, which keeps it and asks anew before its end. A key without an end is for development, and said aloud: nobody takes
 * it back, and whoever copied it is the broker until somebody does.
 */
export function fromChain(name: string, { region, timeout }: AwsSettings, { noticed, production }: ProviderSurroundings): CredentialSource {
  // Asks nothing: it is only where the SDK has its chain.
  const { config } = new STSClient({ region })
  let told = false
  return async () => {
    // The chain takes no signal, and may look where nobody answers.
    const found = await inTime(timeout, config.credentials(), noCredentials).catch((cause: unknown) => {
      throw new ProviderError('unavailable', `${name}: the default chain has no AWS credentials for the broker`, 'no', { cause })
    })
    if (!isStatic(found)) return found
    if (!told) noticed?.(name, production ? 'error' : 'warn', 'static_key', { action: production ? 'refused' : 'used' })
    told = true
    if (!production) return found
    throw new ProviderError('unavailable', `${name}: the broker's own AWS credentials are a key without an end, which is for development`, 'no')
  }
}

/** A key of a user or of root, which lives until somebody deletes it. */
export const isStatic = ({ sessionToken }: AwsCredentials): boolean => sessionToken === undefined

function noCredentials(): never {
  throw new DOMException('no credentials in time', 'TimeoutError')
}
