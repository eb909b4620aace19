import { ProviderError, type Minted, type Provider, type ProviderKind, type ProviderSurroundings } from '../provider.ts'
import { checkAccount } from './account.ts'
import { arnOfRole } from './arn.ts'
import type { Session, Sts } from './client.ts'
import { compile } from './compile.ts'
import { denying } from './deny.ts'
import { type AwsGrant, awsGrant, awsGrantFaults } from './grant.ts'
import type { Pause } from './kill-list/turns.ts'
import type { Told } from './request.ts'
import { lifeOf, sourceIdentityOf, takeSession } from './session.ts'
import { type AwsSettings, awsSettings } from './settings.ts'
import { sessionTags } from './tags.ts'

/**
 * Sessions of AWS STS, scoped to one task by a session policy that is compiled for it. The policy denies everything after the lease's end, so that
 * AWS itself ends a session sooner than the 900 s that each one lives at least. Before that end a session is denied by the kill list of its role,
 * where one is configured, and `revocation` is `deny`; without one nothing takes it back, and `revocation` is `expiry`.
 */
export const awsKind: ProviderKind<AwsSettings, AwsGrant> = {
  kind: 'aws-sts',
  settings: awsSettings,
  grant: awsGrant,
  grantFaults: awsGrantFaults,
  connect: (name, settings, surroundings) => connectAws(name, settings, surroundings),
}

/** @param pause how it waits between two looks and two writes; its own unless a test drives it */
export async function connectAws(name: string, settings: AwsSettings, surroundings: ProviderSurroundings, pause?: Pause): Promise<Provider> {
  // Only where it is configured: the SDK takes longer to load than all the rest of the broker's providers.
  const [{ createSts }, { openIdentities }] = await Promise.all([import('./client.ts'), import('./identity.ts')])
  const told: Told = (action, outcome, seconds) => surroundings.asked?.(name, action, outcome, seconds)
  const identities = await openIdentities(name, settings, surroundings, told)
  const sts = createSts(name, settings, told, identities.minter)
  const arnOf = (role: string): string => arnOfRole(settings, role)
  const deny = await denying(name, settings, surroundings, { sts, arnOf, credentials: identities.revoker, ...(pause && { pause }) })

  return {
    ...sessionsOf(name, settings, surroundings, sts, arnOf),
    revocation: () => (deny ? 'deny' : 'expiry'),
    limits: { timeout: settings.timeout, concurrency: settings.concurrency, ...(deny && { ends: endsAtOnce }) },
    async revoke(lease, signal) {
      if (!deny) throw new ProviderError('refused', `${name} cannot end a session before its time`, 'maybe')
      return await deny.revoke(lease, signal)
    },
    ...(deny && { upkeep: (signal) => deny.upkeep(signal) }),
    ...(identities.tokens && { tokens: identities.tokens }),
    // Only where somebody checks: it has as much to load as the rest.
    examine: async (grants) => await (await import('./examine/account.ts')).examineAccount(name, settings, surroundings, identities, told, grants),
  }
}

/** Most of them only wait for one and the same document. */
const endsAtOnce = 256

type Minting = Omit<Provider, 'revocation' | 'limits' | 'revoke' | 'upkeep' | 'examine'>

function sessionsOf(name: string, settings: AwsSettings, { sessions }: ProviderSurroundings, sts: Sts, arnOf: (role: string) => string): Minting {
  return {
    name,
    kind: 'aws-sts',
    outlives: (grant) => (grant as AwsGrant).outlives_revocation,
    local: false,

    async mint(reservation, journal, signal) {
      // Parsed by `awsGrant` when the catalogue was loaded.
      const grant = reservation.settings as AwsGrant
      const { duration, until } = lifeOf(name, reservation, settings.longest_session)
      const session = await takeSession(name, reservation, grant.roles, sessions, journal)
      const given = await sts.assumeRole(
        {
          roleArn: arnOf(session.role),
          sessionName: session.name,
          sourceIdentity: sourceIdentityOf(reservation.agent),
          policy: compile(grant, reservation.parameters, until),
          duration,
          tagged: settings.session_tags ? sessionTags(reservation) : undefined,
        },
        signal,
      )
      return mintedOf(given, until)
    },

    // The name of a session is journaled before STS is asked, and a journal that finds the lease ended stops the mint.
    recover: async ({ handles }) => ({ minted: handles.length > 0 }),

    check: async (signal) => void (await checkAccount(name, settings, sts, signal)),
  }
}

/** What is handed out ends with the lease, which is sooner than the session does by itself. */
function mintedOf({ accessKeyId, secretAccessKey, sessionToken, expiration }: Session, until: Date): Minted {
  const expiresAt = until < expiration ? until : expiration
  return {
    credential: {
      type: 'aws_session',
      access_key_id: accessKeyId,
      secret_access_key: secretAccessKey,
      session_token: sessionToken,
      expiration: expiresAt.toISOString(),
    },
    expiresAt,
  }
}
