import type { LeaseId } from '../../base/ids.ts'
import type { RoleSession } from '../../base/role-sessions.ts'
import { stopwatch } from '../../base/time.ts'
import { type Minted, ProviderError, type Reservation } from '../provider.ts'
import type { Narrow, Session } from './client.ts'
import { compile, compileParent } from './compile.ts'
import { mintedOf } from './credential.ts'
import type { AwsGrant } from './grant.ts'
import { durationOf, wholeSecond } from './session.ts'
import type { AwsSettings } from './settings.ts'

/** A session that this broker assumed for a lease and shows to nobody: it does nothing but make children. */
interface Parent extends RoleSession {
  readonly narrow: Narrow
  readonly policy: string
  /** When its policy ends it. */
  readonly until: Date
  /** Milliseconds that STS lets it live from now on, at least. */
  left(): number
}

/** A parent that was assumed for a lease that is being minted. What fails behind it may have left it: nobody has its secret, but it is there. */
export interface FirstParent {
  /** When its policy ends it, and whatever was made of it. */
  readonly until: Date
  /** Its first child. Otherwise as {@link Children.of}. */
  child(): Promise<Minted | 'unsupported'>
}

/** Short sessions for agents, each a child of one that stays here (STS API reference, GetScopedCredentials). */
export interface Children {
  /** Assumes the parent of a lease that is being minted. @throws ProviderError */
  begin(session: RoleSession, reservation: Reservation<AwsGrant>, signal: AbortSignal): Promise<FirstParent>
  /**
   * A fresh child for a living lease. Its parent is assumed under the lease's session name where this broker has none: after a restart, for a lease that another
   * broker minted, and when the one it has would end before the child.
   * @returns `unsupported` where STS makes no children of this role's sessions; the parent is forgotten then
   * @throws ProviderError
   */
  of(session: RoleSession, reservation: Reservation<AwsGrant>, signal: AbortSignal): Promise<Minted | 'unsupported'>
  /** Forgets the parent of a lease that is to end; what is under way for it, or asked for afterwards, comes to nothing. */
  end(lease: LeaseId): void
  /** @throws ProviderError where it was to end */
  mustLive(lease: LeaseId): void
}

/** Parents that are remembered, some 6 KB each. Beyond that the one that was used longest ago is assumed again when it is needed. */
const mostParents = 4_096
/** Ended leases that are remembered, for as long as a call that was under way may take. The ledger refuses a refresh of any other. */
const mostEnded = 16_384

/** Milliseconds by which a parent has to outlive its child, for what was asked takes its time to arrive. */
const spare = 15_000

/** @param assume the session, under a policy; `duration` in seconds */
export function createChildren(
  name: string,
  settings: Pick<AwsSettings, 'child_ttl' | 'longest_session' | 'timeout'>,
  assume: (session: RoleSession, reservation: Reservation, policy: string, duration: number, signal: AbortSignal) => Promise<Session>,
  narrower: (session: Session) => Narrow,
): Children {
  const parents = forgetful<Parent>(mostParents)
  const ended = forgetful<true>(mostEnded)

  /** @param made whether something was made for it by then @param endsBy when that has ended by itself */
  function mustLive(lease: LeaseId, made: 'no' | 'maybe' = 'no', endsBy?: Date): void {
    if (ended.get(lease)) throw new ProviderError('refused', `${name} was asked to end this session`, made, { endsBy })
  }

  async function assumeParent(session: RoleSession, reservation: Reservation<AwsGrant>, signal: AbortSignal): Promise<Parent> {
    const { settings: grant, parameters, issuedAt, expiresAt } = reservation
    const needed = Math.min(expiresAt.getTime() - issuedAt.getTime(), settings.longest_session)
    const until = wholeSecond(issuedAt.getTime() + needed)
    const policy = compileParent(grant, parameters, until)
    const duration = durationOf(needed)
    const elapsed = stopwatch()
    const narrow = narrower(await assume(session, reservation, policy, duration, signal))
    return { ...session, narrow, policy, until, left: () => duration * 1_000 - elapsed() }
  }

  /** What makes the next child of a lease. */
  function childFor(session: RoleSession, reservation: Reservation<AwsGrant>, signal: AbortSignal) {
    const { lease, settings: grant, parameters, issuedAt, expiresAt } = reservation
    const until = wholeSecond(Math.min(expiresAt.getTime(), issuedAt.getTime() + settings.child_ttl))
    const duration = Math.max(1, Math.ceil((until.getTime() - issuedAt.getTime()) / 1_000))
    const policy = compile(grant, parameters, until)

    /** @param made whether the parent was assumed for this */
    async function childOf(parent: Parent, made: 'no' | 'maybe'): Promise<Minted | 'unsupported' | 'ended'> {
      mustLive(lease, made)
      const child = await parent.narrow({ policy, duration, description: lease }, signal).catch((error: unknown) => {
        throw boundBy(error, until)
      })
      if (typeof child === 'string') {
        mustLive(lease, made)
        return child
      }
      mustLive(lease, 'maybe', until)
      // Once the child has ended so has its lease, and the ledger lets nobody ask for another.
      parents.set(lease, parent, duration * 1_000)
      return mintedOf(child, until)
    }

    return {
      /** A grant that was changed in the catalogue, or a task that was renewed, has another parent. */
      fits: (parent: Parent): boolean =>
        parent.role === session.role &&
        parent.name === session.name &&
        parent.until >= until &&
        parent.left() >= duration * 1_000 + spare &&
        parent.policy === compileParent(grant, parameters, parent.until),
      ofKept: (parent: Parent) => childOf(parent, 'no'),
      async ofFresh(parent: Parent): Promise<Minted | 'unsupported'> {
        const child = await childOf(parent, 'maybe')
        if (child !== 'ended') return child
        throw new ProviderError('unavailable', `${name} did not answer GetScopedCredentials: the session that it has just given is over`, 'no')
      },
    }
  }

  return {
    async begin(session, reservation, signal) {
      const next = childFor(session, reservation, signal)
      mustLive(reservation.lease)
      const parent = await assumeParent(session, reservation, signal)
      return { until: parent.until, child: () => next.ofFresh(parent) }
    },
    async of(session, reservation, signal) {
      const { lease } = reservation
      const next = childFor(session, reservation, signal)
      const kept = parents.get(lease)
      if (kept && next.fits(kept)) {
        const child = await next.ofKept(kept)
        if (typeof child !== 'string') return child
        // Whatever is wrong with a session that made children before, another one shows whether it is only that.
        parents.delete(lease)
      }
      mustLive(lease)
      return await next.ofFresh(await assumeParent(session, reservation, signal))
    },
    end(lease) {
      parents.delete(lease)
      ended.set(lease, true, settings.timeout * 2)
    },
    mustLive,
  }
}

/** A child that may have been made, its answer lost, ends with its own policy, which is long before its lease could. */
function boundBy(error: unknown, until: Date): unknown {
  if (!(error instanceof ProviderError) || error.minted === 'no') return error
  return error.as({ endsBy: until })
}

/** A map by lease that forgets: each entry after its time, and beyond `most` the one that was set longest ago. */
function forgetful<Value>(most: number) {
  const entries = new Map<LeaseId, { readonly value: Value; readonly timer: NodeJS.Timeout }>()
  function drop(lease: LeaseId): void {
    clearTimeout(entries.get(lease)?.timer)
    entries.delete(lease)
  }
  return {
    get: (lease: LeaseId): Value | undefined => entries.get(lease)?.value,
    delete: drop,
    /** @param life milliseconds */
    set(lease: LeaseId, value: Value, life: number): void {
      drop(lease)
      entries.set(lease, { value, timer: setTimeout(() => drop(lease), life).unref() })
      if (entries.size <= most) return
      for (const oldest of entries.keys()) return drop(oldest)
    },
  }
}
