import { IAMClient } from '@aws-sdk/client-iam'
import type { CredentialSource } from './refreshed.ts'
import { asksIam } from './request.ts'
import type { AwsSettings } from './settings.ts'

/** There is one IAM for a whole partition, and its requests are signed for the Region it lives in (AWS General Reference, "IAM endpoints"). */
const regionOfIam = { aws: 'us-east-1', 'aws-cn': 'cn-north-1', 'aws-us-gov': 'us-gov-west-1' } as const

/**
 * A client of the account's IAM. @param credentials of whoever asks; the SDK's default chain where there are none
 * @param maxAttempts how often the SDK asks; its own number where that is left to it
 */
export function iamClient(settings: AwsSettings, credentials?: CredentialSource, maxAttempts?: number): IAMClient {
  return new IAMClient({
    region: regionOfIam[settings.partition],
    ...(settings.iam_endpoint !== undefined && { endpoint: settings.iam_endpoint }),
    ...(credentials && { credentials }),
    ...(maxAttempts !== undefined && { maxAttempts }),
    ...asksIam,
  })
}
