import { ProviderError } from '../provider.ts'
import { isRoleSession } from './arn.ts'
import type { Caller, Sts } from './client.ts'
import { longestChained } from './identity-settings.ts'
import type { AwsSettings } from './settings.ts'

/**
 * Whether the minter is who the settings count on.
 *
 * @returns who it is
 * @throws ProviderError where STS does not answer, or it is another
 */
export async function checkAccount(name: string, { account, longest_session: longest }: AwsSettings, sts: Sts, signal: AbortSignal): Promise<Caller> {
  const caller = await sts.caller(signal)
  if (caller.account !== account)
    throw new ProviderError('refused', `${name}: the broker's credentials are of another account than the one configured`, 'no')
  if (longest > longestChained && isRoleSession(caller))
    throw new ProviderError('refused', `${name}: the broker runs under a role itself, so longest_session can be "1h" at most`, 'no')
  return caller
}
