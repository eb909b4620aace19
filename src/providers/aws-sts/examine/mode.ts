import { GetScopedCredentialsCommand, STSClient } from '@aws-sdk/client-sts'
import { type Finding, ProviderError } from '../../provider.ts'
import { attempts, type Session } from '../client.ts'
import { policyText } from '../policy.ts'
import { asking, attempt, type Told } from '../request.ts'
import { durationOf, newSessionName } from '../session.ts'
import type { AwsSettings } from '../settings.ts'
import type { Examined } from './examine.ts'
import { checker } from './trial.ts'

/** Whether STS makes a narrower session of one, which it takes over. @throws ProviderError where it gives no answer */
export type Narrows = (session: Session, signal: AbortSignal) => Promise<boolean>

/** It may do this and nothing else. */
const policy = policyText([{ Effect: 'Allow', Action: 'sts:GetScopedCredentials', Resource: '*' }])

export function narrowing(name: string, { region, endpoint }: AwsSettings, told: Told): Narrows {
  const ask = asking(name, told)
  return async ({ accessKeyId, secretAccessKey, sessionToken }, abortSignal) => {
    const credentials = { accessKeyId, secretAccessKey: secretAccessKey.open(), sessionToken: sessionToken.open() }
    const client = new STSClient({ region, ...(endpoint !== undefined && { endpoint }), credentials, maxAttempts: attempts, requestHandler: attempt })
    try {
      await ask('GetScopedCredentials', () => client.send(new GetScopedCredentialsCommand({ DurationSeconds: 1 }), { abortSignal }))
      return true
    } catch (error) {
      if (error instanceof ProviderError && error.fault === 'refused') return false
      throw error
    }
  }
}

/** Whether agents get short children of a session, or the session itself. */
export async function examineMode({ minter, narrows, arnOf, within }: Examined, role: string): Promise<Finding[]> {
  const subject = `mode of ${role}`
  const about = { roleArn: arnOf(role), sessionName: newSessionName(), sourceIdentity: checker, policy, duration: durationOf(0) }
  const session = await minter.assumeRole(about, within()).catch((error: unknown) => {
    if (error instanceof ProviderError && error.fault === 'refused') return undefined
    throw error
  })
  if (!session) return [{ level: 'unchecked', subject, message: 'cannot be tried, for the role cannot be assumed' }]
  if (await narrows(session, within()))
    return [{ level: 'ok', subject, message: 'children: STS answers GetScopedCredentials, so that a session can be short' }]
  const message =
    'direct: STS does not answer GetScopedCredentials for it, so an agent holds the session itself, until it is denied or ends. Where the Region has it, let the role do it'
  return [{ level: 'warning', subject, message }]
}
