import type { AwsSite } from './aws/site.ts'

/** The entry of an AWS under `providers:`, as YAML. @param address where the broker finds it, if not where it is */
export const awsProvider = (
  { peer, externalId }: Pick<AwsSite, 'peer' | 'externalId'>,
  address = peer.url,
  mode: 'children' | 'direct' = 'direct',
): string =>
  `  - { name: aws, kind: aws-sts, region: ${peer.region}, account: "${peer.account}", endpoint: "${address}", iam_endpoint: "${address}", external_id: ${externalId}, mode: ${mode}, kill_list: {} }\n`

/** A catalogue for a site before an AWS: tokens of the broker's own, and sessions that read what belongs to one customer. */
export const awsCatalogue = ({ role }: Pick<AwsSite, 'role'>): string => `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [api, bucket] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  bucket: { provider: aws, role: ${role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }], max_ttl: 20m }
`
