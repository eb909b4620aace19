import { createHash, randomInt } from 'node:crypto'
import { BrokerError } from '../../base/errors.ts'
import type { Handle } from '../../base/evidence.ts'
import type { RoleSession, RoleSessions } from '../../base/role-sessions.ts'
import { ProviderError, type Reservation } from '../provider.ts'

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz'
/** Short, for a list of denied sessions holds twice as many of these as of UUIDs; 2.8 * 10^12 of them are enough for one role. */
const nameLength = 8

/** A name that no living session of the role has, as far as chance allows. It says nothing of agent, task or lease, and is no secret. */
export function newSessionName(): string {
  return Array.from({ length: nameLength }, () => alphabet[randomInt(alphabet.length)]).join('')
}

/** What is journaled of a session. */
const handleOf = ({ role, name }: RoleSession): Handle => ({ kind: 'session', role, session_name: name })

/**
 * The name of a session that may be asked for now: the ledger knows it. As a rule since the lease was announced; else it is taken now, from the store
 * where there is one that remembers sessions, or by chance.
 *
 * @throws ProviderError `downstream` where every role of the pool is full; BrokerError `conflict` where the lease has ended, or what `journal` throws
 */
export async function takeSession(
  provider: string,
  { lease, task, handles }: Reservation,
  roles: readonly string[],
  sessions: RoleSessions | undefined,
  journal: (handle: Handle) => Promise<void>,
): Promise<RoleSession> {
  const announced = journaledSession(handles)
  if (announced) return announced
  if (!sessions) {
    const session = { role: pickRole(roles), name: newSessionName() }
    await journal(handleOf(session))
    return session
  }
  const reserved = await sessions.reserve(provider, lease, roles)
  if (reserved.outcome === 'reserved') return reserved.session
  if (reserved.outcome === 'ended') throw new BrokerError('conflict', 'This lease has ended', { task })
  // Not `unavailable`: one full pool would close the provider's other roles to everybody.
  const full = roles.length === 1 ? `the role ${roles[0]} takes` : `none of the roles ${roles.join(', ')} takes`
  throw new ProviderError(
    'downstream',
    `${provider}: ${full}${roles.length === 1 ? ' no' : ' a'} further session until some of those that ended have expired, or its cutoff is past`,
    'no',
  )
}

/** The session that was journaled last. Undefined: none was, or not by this kind of provider. */
export function journaledSession(handles: readonly Handle[]): RoleSession | undefined {
  const last = handles.findLast(({ kind }) => kind === 'session')
  const [role, name] = [last?.['role'], last?.['session_name']]
  return typeof role === 'string' && typeof name === 'string' ? { role, name } : undefined
}

/** One of the roles, at random: sessions of one grant spread over its pool. */
const pickRole = (roles: readonly string[]): string => roles[randomInt(roles.length)]!

/**
 * SourceIdentity: it follows the session through every further role, and AWS writes it into CloudTrail. A digest, for names of agents may have
 * characters that STS refuses. SHA-256, its first 32 hex digits.
 */
export const sourceIdentityOf = (agent: string): string => createHash('sha256').update(agent).digest('hex').slice(0, 32)

/** Seconds that no session is shorter than (STS API reference, AssumeRole). */
const shortestSession = 900

/** DurationSeconds of a session that is needed for so long. @param ms milliseconds */
export const durationOf = (ms: number): number => Math.max(shortestSession, Math.ceil(ms / 1_000))

/** The last whole second up to a moment, for conditions of AWS know no finer ones. */
export const wholeSecond = (moment: number): Date => new Date(Math.floor(moment / 1_000) * 1_000)

/** How long a session has to live for a lease, and when what was handed out ends: the session policy sees to that, whatever the session's own end. */
export interface SessionLife {
  /** Seconds. */
  readonly duration: number
  /** A whole second. */
  readonly until: Date
}

/** @param longest milliseconds that the roles give. @throws ProviderError `refused` for a lease that needs more: a shorter session was not asked for */
export function lifeOf(provider: string, { issuedAt, expiresAt }: Reservation, longest: number): SessionLife {
  const needed = expiresAt.getTime() - issuedAt.getTime()
  if (needed > longest) {
    const seconds = Math.ceil(needed / 1_000)
    throw new ProviderError('refused', `${provider} gives sessions of at most ${longest / 1_000} s, and this lease needs ${seconds} s`, 'no')
  }
  return { duration: durationOf(needed), until: wholeSecond(expiresAt.getTime()) }
}
