import { section } from '../../examination.ts'
import { type Finding, ProviderError } from '../../provider.ts'
import { narrowing } from '../compile.ts'
import type { Mode } from '../mode.ts'
import { policyText } from '../policy.ts'
import { durationOf, newSessionName } from '../session.ts'
import type { AwsSettings } from '../settings.ts'
import type { Examined } from './examine.ts'
import { checker } from './trial.ts'

/** It may do this and nothing else. */
const policy = policyText([{ Effect: 'Allow', Action: narrowing, Resource: '*' }])

/** The mode that leases of a role are in; undefined where that could not be tried. */
export interface ModeFound {
  readonly mode: Mode | undefined
  readonly findings: readonly Finding[]
}

/** Whether agents get short children of a session, or the session itself. */
export async function examineMode(aws: Examined, role: string): Promise<ModeFound> {
  const subject = `mode of ${role}`
  const { mode: configured } = aws.settings
  if (configured === 'direct') {
    return { mode: 'direct', findings: [{ level: 'ok', subject, message: 'direct, as configured: an agent holds the session itself' }] }
  }
  const tried = tryMode(aws, role)
  const findings = await section(subject, async () => [{ subject, ...judged(await tried, configured) }])
  return { mode: configured === 'auto' ? await tried.catch(() => undefined) : configured, findings }
}

/** Asks for a child of a session of the role. Undefined: the role cannot be assumed. @throws ProviderError */
async function tryMode({ minter, arnOf, within }: Examined, role: string): Promise<Mode | undefined> {
  const about = { roleArn: arnOf(role), sessionName: newSessionName(), sourceIdentity: checker, policy, duration: durationOf(0) }
  const session = await minter.assumeRole(about, within()).catch((error: unknown) => {
    if (error instanceof ProviderError && error.fault === 'refused') return undefined
    throw error
  })
  if (!session) return undefined
  const child = await minter.narrower(session)({ policy, duration: 1, description: 'mayfly provider check' }, within())
  return child === 'unsupported' ? 'direct' : 'children'
}

function judged(mode: Mode | undefined, configured: AwsSettings['mode']): Pick<Finding, 'level' | 'message'> {
  if (mode === undefined) return { level: 'unchecked', message: 'cannot be tried, for the role cannot be assumed' }
  if (mode === 'children') return { level: 'ok', message: 'children: agents get short ones of a session that the broker keeps' }
  const message =
    'direct: STS does not answer GetScopedCredentials for it, so an agent holds the session itself, until it is denied or ends. Where the Region has it, let the role do it'
  return { level: configured === 'children' ? 'fault' : 'warning', message }
}
