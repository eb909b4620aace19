import { STSClient, type STSClientConfig } from '@aws-sdk/client-sts'
import { asksSts } from './request.ts'
import type { AwsSettings } from './settings.ts'

/** How often the SDK asks: throttling, lost connections and 5xx. A second AssumeRole under the same name leaves a session that nobody was given. */
const attempts = 3

/**
 * A client of the STS of the configured Region.
 *
 * @param own what it has of its own: `credentials` of whoever asks, the SDK's default chain where there are none; `maxAttempts` where it asks less often
 */
export function stsClient({ region, endpoint }: AwsSettings, own: STSClientConfig = {}): STSClient {
  return new STSClient({ region, ...(endpoint !== undefined && { endpoint }), maxAttempts: attempts, ...asksSts, ...own })
}
