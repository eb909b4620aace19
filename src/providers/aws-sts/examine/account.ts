import type { Finding, ProviderSurroundings, TrialGrant } from '../../provider.ts'
import { arnOfRole } from '../arn.ts'
import { createSts } from '../client.ts'
import type { AwsGrant } from '../grant.ts'
import type { Identities } from '../identity.ts'
import type { Observe } from '../request.ts'
import type { AwsSettings } from '../settings.ts'
import { clockOfAws } from './clock.ts'
import { examine } from './examine.ts'
import { viewIam } from './iam.ts'

/** Examines an account with the broker's own identities. */
export function examineAccount(
  name: string,
  settings: AwsSettings,
  { clock, publicUrl }: ProviderSurroundings,
  { minter, revoker }: Identities,
  observe: Observe,
  grants: readonly TrialGrant<AwsGrant>[],
): Promise<readonly Finding[]> {
  const asksIam = settings.kill_list !== undefined || settings.revoker !== undefined
  return examine(
    {
      name,
      settings,
      clock,
      publicUrl,
      minter: { ...createSts(name, settings, observe, minter), credentials: minter },
      revoker: createSts(name, settings, observe, revoker),
      awsClock: clockOfAws(name, settings, minter),
      iam: asksIam ? viewIam(name, settings, observe, revoker) : undefined,
      arnOf: (role) => arnOfRole(settings, role),
      within: () => AbortSignal.timeout(settings.timeout),
    },
    grants,
  )
}
