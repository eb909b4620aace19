import { type Minted, type Provider, ProviderError, type ProviderKind } from '../provider.ts'
import { arnOfRole } from './arn.ts'
import type { Session } from './client.ts'
import { compile } from './compile.ts'
import { checkAccount } from './account.ts'
import { type AwsGrant, awsGrant, awsGrantFaults } from './grant.ts'
import { handleOf, lifeOf, newSessionName, pickRole, sourceIdentityOf } from './session.ts'
import type { Told } from './request.ts'
import { type AwsSettings, awsSettings } from './settings.ts'

/**
 * Sessions of AWS STS, scoped to one task by a session policy that is compiled for it. The policy denies everything after the lease's end, so that
 * AWS itself ends a session sooner than the 900 s that each one lives at least. Before that end nothing takes it back: `revocation` is `expiry`.
 */
export const awsKind: ProviderKind<AwsSettings, AwsGrant> = {
  kind: 'aws-sts',
  settings: awsSettings,
  grant: awsGrant,
  grantFaults: awsGrantFaults,
  async connect(name, settings, surroundings) {
    // Only where it is configured: the SDK takes longer to load than all the rest of the broker's providers.
    const [{ createSts }, { openIdentities }] = await Promise.all([import('./client.ts'), import('./identity.ts')])
    const told: Told = (action, outcome, seconds) => surroundings.asked?.(name, action, outcome, seconds)
    const identities = await openIdentities(name, settings, surroundings, told)
    const sts = createSts(name, settings, told, identities.minter)
    const arnOf = (role: string): string => arnOfRole(settings, role)

    return {
      name,
      kind: 'aws-sts',
      revocation: () => 'expiry',
      local: false,
      limits: { timeout: settings.timeout, concurrency: settings.concurrency },

      async mint(reservation, journal, signal) {
        // Parsed by `awsGrant` when the catalogue was loaded.
        const grant = reservation.settings as AwsGrant
        const { duration, until } = lifeOf(name, reservation, settings.longest_session)
        const session = { role: pickRole(grant.roles), name: newSessionName() }
        await journal(handleOf(session))
        const given = await sts.assumeRole(
          {
            roleArn: arnOf(session.role),
            sessionName: session.name,
            sourceIdentity: sourceIdentityOf(reservation.agent),
            policy: compile(grant, reservation.parameters, until),
            duration,
          },
          signal,
        )
        return mintedOf(given, until)
      },

      async revoke() {
        throw new ProviderError('refused', `${name} cannot end a session before its time`, 'maybe')
      },

      // The name of a session is journaled before STS is asked, and a journal that finds the lease ended stops the mint.
      recover: async ({ handles }) => ({ minted: handles.length > 0 }),

      check: async (signal) => void (await checkAccount(name, settings, sts, signal)),
      ...(identities.tokens && { tokens: identities.tokens }),
      // Only where somebody checks: it brings the library of IAM.
      examine: async (grants) => await (await import('./examine/account.ts')).examineAccount(name, settings, surroundings, identities, told, grants),
    } satisfies Provider
  },
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
