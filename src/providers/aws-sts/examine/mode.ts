import { type Finding, ProviderError } from '../../provider.ts'
import { narrowing } from '../compile.ts'
import { policyText } from '../policy.ts'
import { durationOf, newSessionName } from '../session.ts'
import type { Examined } from './examine.ts'
import { checker } from './trial.ts'

/** It may do this and nothing else. */
const policy = policyText([{ Effect: 'Allow', Action: narrowing, Resource: '*' }])

/** Whether agents get short children of a session, or the session itself. */
export async function examineMode({ settings, minter, arnOf, within }: Examined, role: string): Promise<Finding[]> {
  const subject = `mode of ${role}`
  if (settings.mode === 'direct') return [{ level: 'ok', subject, message: 'direct, as configured: an agent holds the session itself' }]
  const about = { roleArn: arnOf(role), sessionName: newSessionName(), sourceIdentity: checker, policy, duration: durationOf(0) }
  const session = await minter.assumeRole(about, within()).catch((error: unknown) => {
    if (error instanceof ProviderError && error.fault === 'refused') return undefined
    throw error
  })
  if (!session) return [{ level: 'unchecked', subject, message: 'cannot be tried, for the role cannot be assumed' }]
  const child = await minter.narrower(session)({ policy, duration: 1, description: 'mayfly provider check' }, within())
  if (child !== 'unsupported') return [{ level: 'ok', subject, message: 'children: agents get short ones of a session that the broker keeps' }]
  const message =
    'direct: STS does not answer GetScopedCredentials for it, so an agent holds the session itself, until it is denied or ends. Where the Region has it, let the role do it'
  return [{ level: settings.mode === 'children' ? 'fault' : 'warning', subject, message }]
}
