import { newId } from '../../../base/ids.ts'
import { orFault } from '../../examination.ts'
import type { Finding, TrialGrant } from '../../provider.ts'
import { compile, compileParent } from '../compile.ts'
import type { AwsGrant } from '../grant.ts'
import { durationOf, newSessionName, sourceIdentityOf } from '../session.ts'
import { type SessionFacts, sessionTags } from '../tags.ts'
import type { Examined } from './examine.ts'

/** By this agent the sessions of a check are known in CloudTrail. */
export const checker = sourceIdentityOf('mayfly provider check')

/**
 * Assumes a role as a lease of the grant would, with a session policy that is over already: what it tries can do nothing.
 *
 * @param direct whether agents of this role hold the session itself: a parent is assumed again and again, a session that is handed out is not
 */
export async function examineTrial(
  { settings, minter, arnOf, within }: Examined,
  grant: TrialGrant<AwsGrant>,
  role: string,
  direct: boolean,
): Promise<Finding[]> {
  const subject = `grant ${grant.name}, role ${role}`
  const { parameters, maxTtl } = grant
  if (parameters === undefined) return [{ level: 'unchecked', subject, message: 'has parameters without a value: give them with --param' }]
  if (direct && maxTtl > settings.longest_session) {
    const message = 'max_ttl is longer than longest_session: raise that, and the maximum of the role, or lower max_ttl'
    return [{ level: 'fault', subject, message }]
  }
  return await orFault(subject, async () => {
    // With `auto` each hour begins with a parent, whatever that comes to.
    const policy = (settings.mode === 'direct' ? compile : compileParent)(grant.settings, parameters, new Date(0))
    const duration = durationOf(Math.min(maxTtl, settings.longest_session))
    const tagged = settings.session_tags ? sessionTags(trialFacts(grant.name)) : undefined
    const about = { roleArn: arnOf(role), sessionName: newSessionName(), sourceIdentity: checker, policy, duration, tagged }
    await minter.assumeRole(about, within())
    return [{ level: 'ok', subject, message: wellOf(grant.settings) }]
  })
}

const wellOf = ({ outlives_revocation: lifted }: AwsGrant): string =>
  `can be assumed with the session policy of this grant${lifted.length > 0 ? `; outlives it: ${lifted.join(', ')}` : ''}`

/** As long as those of a lease, for they take room in the session's token. */
const trialFacts = (grant: string): SessionFacts => {
  const who = 'mayfly provider check'
  return { lease: newId('lease'), task: newId('task'), agent: who, owner: who, kind: who, grant }
}
