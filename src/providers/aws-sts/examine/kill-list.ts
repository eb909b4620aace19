import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import { arnOfPolicy } from '../arn.ts'
import { room } from '../policy.ts'
import { bareName, listPolicyOf } from '../settings.ts'
import type { Examined } from './examine.ts'
import { seen } from './iam.ts'

/** Characters below which a kill list holds so few sessions that it is soon full: about a hundred. */
const narrow = 2_048

/** What denies the sessions of a role: whether the revoker sees it. Whether it can write only a write can tell, and a check writes nothing. */
export async function examineKillList({ settings, iam }: Examined, role: string): Promise<Finding[]> {
  const { kill_list: list } = settings
  const subject = `kill list of ${role}`
  if (!list || !iam) {
    const message = 'there is none, so a session that is ended early goes on until its expires_at: configure kill_list'
    return [{ level: 'warning', subject, message }]
  }
  const unwritten: Finding = { level: 'unchecked', subject, message: 'whether the revoker can write it shows at the first end of a task' }
  const forbidden = (file: string): Finding[] => [
    { level: 'fault', subject, message: `may not be read by the revoker, so nothing can be denied: give it the policy of deploy/aws/${file}` },
  ]
  if (list.carrier === 'inline') {
    const found = await iam.inline(bareName(role))
    if (!seen(found)) return forbidden('revoker-policy-inline.json')
    const left = Math.min(
      list.capacity ?? room.inline,
      room.inline - sum([...found].flatMap(([name, size]) => (name === listPolicyOf(list, role) ? [] : [size]))),
    )
    if (left >= narrow) return [{ level: 'ok', subject, message: `can be read; the role's other policies leave it ${left} characters` }, unwritten]
    const message = `the role's other policies leave it ${left} characters, which is soon full: make them managed policies`
    return [{ level: 'warning', subject, message }, unwritten]
  }
  const found = await iam.policy(arnOfPolicy(settings, listPolicyOf(list, role)))
  if (found === 'absent')
    return [
      { level: 'fault', subject, message: 'there is no such policy: make it from deploy/aws/kill-list-boundary.json, and set it as the boundary' },
    ]
  if (!seen(found)) return forbidden('revoker-policy.json')
  const findings: Finding[] = []
  if (!allowsEverything.safeParse(found.document).success)
    findings.push({
      level: 'fault',
      subject,
      message: 'allows less than everything, so the role can do less than its own policies say: write deploy/aws/kill-list-boundary.json into it',
    })
  if (found.attachments > 0)
    findings.push({
      level: 'fault',
      subject,
      message: 'is attached to somebody as what they may do, which is everything: detach it. It is for a boundary alone',
    })
  if (findings.length > 0) return findings
  return [{ level: 'ok', subject, message: `can be read, and has ${found.versions} of 5 versions` }, unwritten]
}

const star = z.union([z.literal('*'), z.tuple([z.literal('*')])])
const allowed = z.looseObject({ Effect: z.literal('Allow'), Action: star, Resource: star, Condition: z.undefined().optional() })
/** One statement of it, at least. */
const allowsEverything = z.looseObject({
  Statement: z.union([allowed, z.array(z.unknown()).refine((all) => all.some((one) => allowed.safeParse(one).success))]),
})

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0)
