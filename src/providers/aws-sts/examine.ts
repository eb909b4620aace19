import { type Finding, ProviderError, type TrialGrant } from '../provider.ts'
import { isRoleSession, type Sts } from './client.ts'
import { compile } from './compile.ts'
import { type AwsGrant } from './grant.ts'
import { longestChained } from './identity-settings.ts'
import { durationOf, newSessionName, sourceIdentityOf } from './session.ts'
import type { AwsSettings } from './settings.ts'

/** @throws ProviderError where STS does not answer, or the broker is not who the settings count on */
export async function checkAccount(name: string, { account, longest_session: longest }: AwsSettings, sts: Sts, signal: AbortSignal): Promise<void> {
  const caller = await sts.caller(signal)
  if (caller.account !== account)
    throw new ProviderError('refused', `${name}: the broker's credentials are of another account than the one configured`, 'no')
  if (longest > longestChained && isRoleSession(caller))
    throw new ProviderError('refused', `${name}: the broker runs under a role itself, so longest_session can be "1h" at most`, 'no')
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
      return await tried(subject, 'can be assumed with the session policy of this grant', () =>
        sts.assumeRole(
          {
            roleArn: arnOf(role),
            sessionName: newSessionName(),
            sourceIdentity: sourceIdentityOf('mayfly provider check'),
            policy: compile(grant.settings as AwsGrant, parameters, new Date(0)),
            duration: durationOf(maxTtl),
          },
          within(),
        ),
      )
    }),
  )
  return [account, ...findings]
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
