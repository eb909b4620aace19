import type { RoleSession } from '../../base/role-sessions.ts'
import { type Minted, type Provider, ProviderError, type ProviderSurroundings, type Reservation } from '../provider.ts'
import { createChildren } from './children.ts'
import type { Session, Sts } from './client.ts'
import { compile } from './compile.ts'
import { mintedOf } from './credential.ts'
import type { AwsGrant } from './grant.ts'
import { createModes } from './mode.ts'
import { journaledSession, lifeOf, sourceIdentityOf, takeSession } from './session.ts'
import type { AwsSettings } from './settings.ts'
import { sessionTags } from './tags.ts'

/** What makes sessions, and `end`, after which it makes no child of a lease's session. */
export function mintingOf(
  name: string,
  settings: AwsSettings,
  { sessions, clock, noticed }: ProviderSurroundings,
  sts: Sts,
  arnOf: (role: string) => string,
): Required<Pick<Provider<AwsGrant>, 'mint' | 'refresh'>> & Pick<ReturnType<typeof createChildren>, 'end'> {
  const assume = (session: RoleSession, reservation: Reservation, policy: string, duration: number, signal: AbortSignal): Promise<Session> =>
    sts.assumeRole(
      {
        roleArn: arnOf(session.role),
        sessionName: session.name,
        sourceIdentity: sourceIdentityOf(reservation.agent),
        policy,
        duration,
        tagged: settings.session_tags ? sessionTags(reservation) : undefined,
      },
      signal,
    )
  const children = createChildren(name, settings, assume, sts.narrower)
  const modes = createModes(settings.mode, clock, (role, mode) => noticed?.(name, 'info', 'mode', { role, mode }))

  /** The session itself, for a role that has no children, or is to have none. */
  async function direct(session: RoleSession, reservation: Reservation<AwsGrant>, signal: AbortSignal): Promise<Minted> {
    const { duration, until } = lifeOf(name, reservation, settings.longest_session)
    const policy = compile(reservation.settings, reservation.parameters, until)
    return mintedOf(await assume(session, reservation, policy, duration, signal), until)
  }

  return {
    async mint(reservation, journal, signal) {
      const { roles } = reservation.settings
      if (roles.every((role) => modes.of(role) === 'direct')) lifeOf(name, reservation, settings.longest_session)
      const session = await takeSession(name, reservation, roles, sessions, journal)
      const mode = modes.of(session.role)
      if (mode === 'direct') return await direct(session, reservation, signal)
      const parent = await children.begin(session, reservation, signal)
      try {
        const child = await parent.child()
        if (child === 'unsupported' && settings.mode === 'children') throw withoutChildren(name)
        modes.tried(session.role, child === 'unsupported' ? 'direct' : 'children')
        // Assumed again under the same name: the parent may be narrowed, and is not for anybody else.
        return child === 'unsupported' ? await direct(session, reservation, signal) : child
      } catch (error) {
        // The parent has the lease's name and lives: a lease that is told that nothing was minted is on no kill list.
        throw error instanceof ProviderError ? error.as({ minted: 'maybe', endsBy: parent.until }) : error
      }
    },

    async refresh(reservation, signal) {
      const session = journaledSession(reservation.handles)
      if (!session || !reservation.settings.roles.includes(session.role)) {
        throw new ProviderError('refused', `${name} has no session of this lease whose role the grant still names`, 'no')
      }
      const mode = modes.of(session.role)
      const child = mode === 'direct' ? 'unsupported' : await children.of(session, reservation, signal)
      if (child !== 'unsupported') return child
      // Where the role has children this session alone is denied. Only a mint says anything about the role, for nobody denies a name that is new.
      if (mode === 'children') throw withoutChildren(name)
      children.mustLive(reservation.lease)
      return await direct(session, reservation, signal)
    },

    end: (lease) => children.end(lease),
  }
}

const withoutChildren = (name: string): ProviderError =>
  new ProviderError('refused', `${name} gives children of sessions, and STS has no GetScopedCredentials for this one`, 'no')
