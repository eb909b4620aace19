import { GetCallerIdentityCommand } from '@aws-sdk/client-sts'
import { type Finding, ProviderError } from '../../provider.ts'
import type { CredentialSource } from '../refreshed.ts'
import type { AwsSettings } from '../settings.ts'
import { stsClient } from '../sts-client.ts'

/** AWS's own time, milliseconds since 1970, to the second. @throws ProviderError */
export type ClockOfAws = () => Promise<number>

/** Seconds by which clocks may differ unseen, and by which AWS still takes a signature of STS (AWS General Reference, "Signature Version 4"). */
const [unseen, taken] = [60, 300]

/** As its answers are dated. The SDK corrects a clock that is wrong for its signatures, and says nothing of it; so this looks at the answer itself. */
export function clockOfAws(name: string, settings: AwsSettings, credentials: CredentialSource): ClockOfAws {
  const client = stsClient(settings, { credentials, maxAttempts: 1 })
  let dated = Number.NaN
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args)
      dated = Date.parse((result.response as { headers?: Record<string, string> }).headers?.['date'] ?? '')
      return result
    },
    // Nearest to the wire: an answer that refuses is dated as well.
    { step: 'deserialize', priority: 'low', name: 'dateOfAnswer' },
  )
  return async () => {
    await client.send(new GetCallerIdentityCommand({}), { abortSignal: AbortSignal.timeout(settings.timeout) }).catch(() => {})
    if (Number.isNaN(dated)) throw new ProviderError('unavailable', `${name} gave no answer that has a date`, 'no')
    return dated
  }
}

/** @param theirs, ours milliseconds since 1970 */
export function judgeClock(theirs: number, ours: number): Finding[] {
  const subject = 'clock'
  const apart = Math.round((theirs - ours) / 1_000)
  const seconds = Math.abs(apart)
  if (seconds <= unseen) return [{ level: 'ok', subject, message: `within ${unseen} s of AWS's` }]
  const where = `${seconds} s ${apart > 0 ? 'behind' : 'ahead of'} AWS's`
  if (seconds > taken)
    return [{ level: 'fault', subject, message: `${where}: AWS takes no signature that is ${taken} s off. Let it follow the same time (NTP)` }]
  const meaning = 'sessions end that much off from what leases say, and a token of the broker may not be taken'
  return [{ level: 'warning', subject, message: `${where}: ${meaning}. Let it follow the same time (NTP)` }]
}
