import type { Finding } from '../../provider.ts'
import { room } from '../policy.ts'
import type { Examined } from './examine.ts'
import { seen } from './iam.ts'

/** By IAM's names for them (IAM API reference, GetAccountSummary). */
const names = { boundary: 'PolicySizeQuota', inline: 'RolePolicySizeQuota' } as const

/** Whether the account has the room that kill lists are drawn for. */
export async function examineQuotas({ settings: { kill_list: list }, iam }: Examined): Promise<Finding[]> {
  const subject = 'quotas'
  if (!list || !iam) return []
  const found = await iam.quotas()
  if (!seen(found)) return [{ level: 'unchecked', subject, message: 'may not be looked at: let the revoker iam:GetAccountSummary' }]
  const most = found[names[list.carrier]]
  const wanted = list.capacity ?? room[list.carrier]
  if (most !== undefined && most < wanted)
    return [
      {
        level: 'fault',
        subject,
        message: `the account takes ${most} characters, and kill lists are drawn for ${wanted}: set kill_list.capacity to ${most}`,
      },
    ]
  const versions = found['VersionsPerPolicyQuota'] ?? 5
  if (list.carrier === 'boundary' && versions < 2)
    return [{ level: 'fault', subject, message: 'the account keeps one version of a policy, so none can be written: ask AWS for more' }]
  return [{ level: 'ok', subject, message: `the account takes ${most ?? 'as many'} characters, and kill lists are drawn for ${wanted}` }]
}
