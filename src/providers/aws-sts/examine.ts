import { newId } from '../../base/ids.ts'
import { type Finding, ProviderError, type TrialGrant } from '../provider.ts'
import type { Sts } from './client.ts'
import { compile } from './compile.ts'
import { type AwsGrant } from './grant.ts'
import { durationOf, newSessionName, sourceIdentityOf } from './session.ts'
import type { AwsSettings } from './settings.ts'
import { type SessionFacts, sessionTags } from './tags.ts'

/** @throws ProviderError where STS does not answer, or the broker's credentials are of another account than the one configured */
export async function checkAccount(name: string, { account }: AwsSettings, sts: Sts, signal: AbortSignal): Promise<void> {
  const caller = await sts.callerAccount(signal)
  if (caller !== account) throw new ProviderError('refused', `${name}: the broker's credentials are of another account than the one configured`, 'no')
}

/** Assumes each role of each grant as a lease would, with a session policy that is over already: what it tries can do nothing. */
export async function examine(
  name: string,
  settings: AwsSettings,
  sts: Sts,
  arnOf: (role: string) => string,
  grants: readonly TrialGrant[],
): Promise<readonly Finding[]> {
  const within = () => AbortSignal.timeout(settings.timeout)
  const account = await tried('account', `is ${settings.account}, as configured`, () => checkAccount(name, settings, sts, within()))
  if (account.level === 'fault') return [account]
  const roles = grants.flatMap((grant) => (grant.settings as AwsGrant).roles.map((role) => ({ grant, role })))
  const findings = await Promise.all(
    roles.map(async ({ grant, role }): Promise<Finding> => {
      const subject = `grant ${grant.name}, role ${role}`
      const { parameters, maxTtl } = grant
      if (parameters === undefined) return { level: 'unchecked', subject, message: 'has parameters without a value: give them with --param' }
      if (maxTtl > settings.longest_session) {
        return {
          level: 'fault',
          subject,
          message: 'max_ttl is longer than longest_session: raise that, and the maximum of the role, or lower max_ttl',
        }
      }
      return await tried(subject, wellOf(grant.settings as AwsGrant), () =>
        sts.assumeRole(
          {
            roleArn: arnOf(role),
            sessionName: newSessionName(),
            sourceIdentity: sourceIdentityOf('mayfly provider check'),
            policy: compile(grant.settings as AwsGrant, parameters, new Date(0)),
            duration: durationOf(maxTtl),
            tagged: settings.session_tags ? sessionTags(trialFacts(grant.name)) : undefined,
          },
          within(),
        ),
      )
    }),
  )
  return [account, ...findings]
}

const wellOf = ({ outlives_revocation: lifted }: AwsGrant): string =>
  `can be assumed with the session policy of this grant${lifted.length > 0 ? `; outlives it: ${lifted.join(', ')}` : ''}`

/** As long as those of a lease, for they take room in the session's token. */
const trialFacts = (grant: string): SessionFacts => {
  const who = 'mayfly provider check'
  return { lease: newId('lease'), task: newId('task'), agent: who, owner: who, kind: who, grant }
}

async function tried(subject: string, well: string, trial: () => Promise<unknown>): Promise<Finding> {
  try {
    await trial()
    return { level: 'ok', subject, message: well }
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return { level: 'fault', subject, message: error.message }
  }
}
