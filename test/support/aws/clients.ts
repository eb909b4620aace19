import { IAMClient } from '@aws-sdk/client-iam'
import { S3Client } from '@aws-sdk/client-s3'
import { type Credentials, STSClient } from '@aws-sdk/client-sts'
import type { RunningAws } from './peers.ts'

export interface AwsClients {
  readonly sts: STSClient
  readonly iam: IAMClient
  readonly s3: S3Client
}

/**
 * AWS's own clients, signing with these credentials. They try once, so that a test sees each answer.
 * @param skew milliseconds by which they think that the time is another
 */
export function clientsOf(peer: Pick<RunningAws, 'url' | 'region'>, credentials: Credentials | RunningAws['root'], skew = 0): AwsClients {
  const about = {
    region: peer.region,
    endpoint: peer.url,
    maxAttempts: 1,
    systemClockOffset: skew,
    credentials:
      'accessKeyId' in credentials
        ? credentials
        : {
            accessKeyId: credentials.AccessKeyId!,
            secretAccessKey: credentials.SecretAccessKey!,
            ...(credentials.SessionToken !== undefined && { sessionToken: credentials.SessionToken }),
          },
  }
  return { sts: new STSClient(about), iam: new IAMClient(about), s3: new S3Client({ ...about, forcePathStyle: true }) }
}
