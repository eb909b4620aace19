import type { Finding } from '../../provider.ts'
import { arnOfPolicy } from '../arn.ts'
import { type AwsSettings, bareName, listPolicyOf } from '../settings.ts'
import type { Examined } from './examine.ts'
import { seen } from './iam.ts'
import { judgeTrust } from './trust.ts'

/** A role of tasks as IAM has it: its path, its longest session, its boundary, and whom it trusts. */
export async function examineRole({ settings, iam, arnOf }: Examined, role: string): Promise<Finding[]> {
  const subject = `role ${role}`
  if (!iam) return [{ level: 'unchecked', subject, message: 'was not looked at in IAM, for there is neither kill_list nor revoker to look as' }]
  const found = await iam.role(bareName(role))
  if (found === 'absent') return [{ level: 'fault', subject, message: 'there is no such role: make it, as in deploy/aws/task-role-trust.json' }]
  if (!seen(found))
    return [
      {
        level: 'unchecked',
        subject,
        message: 'may not be looked at, or is not there: let the revoker iam:GetRole it, as in deploy/aws/revoker-policy.json',
      },
    ]
  const findings: Finding[] = []
  const fault = (message: string): void => void findings.push({ level: 'fault', subject, message })
  if (found.arn !== arnOf(role)) fault('has another path in IAM: write the role in the catalogue with the path that it has there')
  if (found.longest < settings.longest_session)
    findings.push({
      level: 'warning',
      subject,
      message: `gives sessions of ${found.longest / 1_000} s at most, and longest_session is ${settings.longest_session / 1_000} s: leases in between fail. Make them agree`,
    })
  findings.push(...judgeBoundary(subject, found.boundary, settings, role))
  const { external_id: externalId, minter } = settings
  findings.push(...judgeTrust(subject, found.trust, { externalId, minter: minter === undefined ? undefined : arnOf(minter) }))
  return findings.length > 0 ? findings : [{ level: 'ok', subject, message: 'trusts whom it should, and no one else; its boundary is in place' }]
}

function judgeBoundary(subject: string, found: string | undefined, settings: AwsSettings, role: string): Finding[] {
  const { kill_list: list } = settings
  if (!list) return []
  if (list.carrier === 'inline') {
    if (found !== undefined) return []
    const message = 'has no permissions boundary, so whoever writes its kill list can give it anything: set one, as deploy/aws/task-boundary.json'
    return [{ level: 'warning', subject, message }]
  }
  const policy = listPolicyOf(list, role)
  if (found === arnOfPolicy(settings, policy)) return []
  const what = found === undefined ? 'has no permissions boundary' : 'has another permissions boundary than the one of its kill list'
  const message = `${what}, so nothing that is written there is heeded, and no session dies: set the policy ${policy} as its boundary, or the carrier inline`
  return [{ level: 'fault', subject, message }]
}
