import { newId } from '../../base/ids.ts'
import { type Finding, ProviderError, type TrialGrant } from '../provider.ts'
import type { Sts } from './client.ts'
import { compile, compileParent, narrowing } from './compile.ts'
import type { AwsGrant } from './grant.ts'
import { policyText } from './policy.ts'
import { durationOf, newSessionName, sourceIdentityOf } from './session.ts'
import type { AwsSettings } from './settings.ts'
import { type SessionFacts, sessionTags } from './tags.ts'

/** @throws ProviderError where STS does not answer, or the broker's credentials are of another account than the one configured */
export async function checkAccount(name: string, { account }: AwsSettings, sts: Sts, signal: AbortSignal): Promise<void> {
  const caller = await sts.callerAccount(signal)
  if (caller !== account) throw new ProviderError('refused', `${name}: the broker's credentials are of another account than the one configured`, 'no')
}

/**
 * Assumes each role of each grant as a lease would, with a session policy that is over already, and sees whether each role has children: what it tries can
 * do nothing.
 */
export async function examine(
  name: string,
  settings: AwsSettings,
  sts: Sts,
  arnOf: (role: string) => string,
  grants: readonly TrialGrant[],
): Promise<readonly Finding[]> {
  const within = () => AbortSignal.timeout(settings.timeout)
  const { finding: account } = await tried('account', `is ${settings.account}, as configured`, () => checkAccount(name, settings, sts, within()))
  if (account.level === 'fault') return [account]
  const direct = settings.mode === 'direct'
  const modes = new Map<string, Finding>()
  if (!direct) {
    const named = new Set(grants.flatMap((grant) => (grant.settings as AwsGrant).roles))
    await Promise.all([...named].map(async (role) => modes.set(role, await modeOf(role))))
  }
  const roles = grants.flatMap((grant) => (grant.settings as AwsGrant).roles.map((role) => ({ grant, role })))
  const findings = await Promise.all(
    roles.map(async ({ grant, role }): Promise<Finding> => {
      const subject = `grant ${grant.name}, role ${role}`
      const { parameters, maxTtl } = grant
      if (parameters === undefined) return { level: 'unchecked', subject, message: 'has parameters without a value: give them with --param' }
      // A parent is assumed again and again; a session that is handed out is not.
      const handedOut = direct || modes.get(role)?.level === 'warning'
      if (maxTtl > settings.longest_session && handedOut) {
        return {
          level: 'fault',
          subject,
          message: 'max_ttl is longer than longest_session: raise that, and the maximum of the role, or lower max_ttl',
        }
      }
      const { finding } = await tried(subject, wellOf(grant.settings as AwsGrant), () =>
        sts.assumeRole(
          {
            roleArn: arnOf(role),
            sessionName: newSessionName(),
            sourceIdentity: sourceIdentityOf('mayfly provider check'),
            policy: (direct ? compile : compileParent)(grant.settings as AwsGrant, parameters, new Date(0)),
            duration: durationOf(Math.min(maxTtl, settings.longest_session)),
            tagged: settings.session_tags ? sessionTags(trialFacts(grant.name)) : undefined,
          },
          within(),
        ),
      )
      return finding
    }),
  )
  return [account, ...modes.values(), ...findings]

  async function modeOf(role: string): Promise<Finding> {
    const subject = `mode of role ${role}`
    const found = await tried(subject, 'is children: agents get short ones of a session that the broker keeps', async () => {
      const assumption = { roleArn: arnOf(role), sessionName: newSessionName(), sourceIdentity: sourceIdentityOf('mayfly provider check') }
      const parent = await sts.assumeRole({ ...assumption, policy: onlyNarrowing, duration: durationOf(0) }, within())
      return await sts.narrower(parent)({ policy: onlyNarrowing, duration: 1, description: 'mayfly provider check' }, within())
    })
    if (found.outcome !== 'unsupported') return found.finding
    const level = settings.mode === 'children' ? 'fault' : 'warning'
    return { level, subject, message: 'is direct: STS has no GetScopedCredentials for it, and agents get the session itself' }
  }
}

const wellOf = ({ outlives_revocation: lifted }: AwsGrant): string =>
  `can be assumed with the session policy of this grant${lifted.length > 0 ? `; outlives it: ${lifted.join(', ')}` : ''}`

/** As long as those of a lease, for they take room in the session's token. */
const trialFacts = (grant: string): SessionFacts => {
  const who = 'mayfly provider check'
  return { lease: newId('lease'), task: newId('task'), agent: who, owner: who, kind: who, grant }
}

/** What a trial that asks for a child may do. */
const onlyNarrowing = policyText([{ Effect: 'Allow', Action: narrowing, Resource: '*' }])

interface Trial {
  readonly finding: Finding
  /** What it came to, where it did not fail. */
  readonly outcome?: unknown
}

async function tried(subject: string, well: string, trial: () => Promise<unknown>): Promise<Trial> {
  try {
    return { outcome: await trial(), finding: { level: 'ok', subject, message: well } }
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return { finding: { level: 'fault', subject, message: error.message } }
  }
}
