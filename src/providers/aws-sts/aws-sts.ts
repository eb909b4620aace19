import { type Provider, ProviderError, type ProviderKind, type ProviderSurroundings } from '../provider.ts'
import { checkAccount } from './account.ts'
import { arnOfRole } from './arn.ts'
import { type AwsGrant, awsGrant, awsGrantFaults } from './grant.ts'
import { listAlarms } from './kill-list/alarms.ts'
import type { Pause } from './kill-list/rounds.ts'
import type { Observe } from './request.ts'
import { type AwsSettings, awsSettings, bareName } from './settings.ts'

/**
 * Sessions of AWS STS, scoped to one task by a session policy that is compiled for it. The policy denies everything after the lease's end, so that
 * AWS itself ends a session sooner than the 900 s that each one lives at least. Before that end the kill list of its role does, where one is configured.
 */
export const awsKind: ProviderKind<AwsSettings, AwsGrant> = {
  kind: 'aws-sts',
  settings: awsSettings,
  grant: awsGrant,
  grantFaults: awsGrantFaults,
  // A kill list is the store's by provider and role, as it is spelt: of two each would write over the other, and let in again whom that one had shut out.
  // It denies whoever has the role, also those of a provider that has no list and would not hear of it.
  things: ({ kill_list: killList, partition, account }, { roles }) =>
    roles.map((role) => ({
      thing: `the role ${bareName(role)} of the account ${account} (${partition})`,
      name: role,
      alone: killList !== undefined,
    })),
  connect: (name, settings, surroundings) => connectAws(name, settings, surroundings),
}

/** @param pause how it waits between two looks and two writes; its own unless a test drives it */
export async function connectAws(
  name: string,
  settings: AwsSettings,
  surroundings: ProviderSurroundings,
  pause?: Pause,
): Promise<Provider<AwsGrant>> {
  // Only where it is configured: the SDK takes longer to load than all the rest of the broker's providers.
  const [{ createSts }, { openIdentities }, { denying }, { mintingOf }] = await Promise.all([
    import('./client.ts'),
    import('./identity.ts'),
    import('./deny.ts'),
    import('./mint.ts'),
  ])
  const observe: Observe = (action, outcome, seconds) => surroundings.asked?.(name, action, outcome, seconds)
  const identities = await openIdentities(name, settings, surroundings, observe)
  const sts = createSts(name, settings, observe, identities.minter)
  const arnOf = (role: string): string => arnOfRole(settings, role)
  const deny = await denying(name, settings, surroundings, { sts, arnOf, credentials: identities.revoker, observe, ...(pause && { pause }) })
  const { end, ...minting } = mintingOf(name, settings, surroundings, sts, arnOf)

  return {
    name,
    kind: 'aws-sts',
    local: false,
    revocation: () => (deny ? 'deny' : 'expiry'),
    outlives: (grant) => grant.outlives_revocation,
    limits: { timeout: settings.timeout, concurrency: settings.concurrency, ...(deny && { ends: endsAtOnce }) },
    ...minting,
    async revoke(lease, signal) {
      end(lease.lease)
      if (!deny) throw new ProviderError('refused', `${name} cannot end a session before its time`, 'maybe')
      return await deny.revoke(lease, signal)
    },
    // The name of a session is journaled before STS is asked, and a journal that finds the lease ended stops the mint.
    recover: async ({ handles }) => ({ minted: handles.length > 0 }),
    ...(deny && { pool: (grant: AwsGrant) => grant.roles, upkeep: (signal: AbortSignal) => deny.upkeep(signal) }),
    alarms: ['static_key', ...(deny ? listAlarms : [])],
    check: async (signal) => void (await checkAccount(name, settings, sts, signal)),
    ...(identities.tokens && { tokens: identities.tokens }),
    // Only where somebody checks: it has as much to load as the rest.
    examine: async (grants) => await (await import('./examine/account.ts')).examineAccount(name, settings, surroundings, identities, observe, grants),
  }
}

/** Most of them only wait for one and the same document. */
const endsAtOnce = 256
