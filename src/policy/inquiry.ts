import { BrokerError, type FieldFault } from '../base/errors.ts'
import { formatDuration } from '../base/time.ts'
import type { Actor } from '../identity/actor.ts'
import type { Agent, AskedGrant, Grant, Kind } from './entry.ts'
import { valueFault } from './pattern.ts'

/** What may be asked of the policy: `issue` and `renew` about a grant, `declare` about a kind (a task without grants). */
export type Action = 'issue' | 'renew' | 'declare'

/** Everything a decision may rest on. Purpose and labels are missing on purpose: text written by an agent never decides. */
export interface Inquiry {
  readonly action: Action
  readonly actor: Actor
  readonly agent: Agent
  readonly kind: Kind
  /** Milliseconds that the task is to last from now. */
  readonly duration: number
  readonly grants: readonly AskedGrant[]
}

/** The part of a declaration that can decide, by names of the catalogue. Durations in milliseconds; absent: the most that is allowed. */
export interface Declared {
  readonly kind: string
  readonly duration?: number
  readonly grants: readonly DeclaredGrant[]
}

export interface DeclaredGrant {
  readonly name: string
  readonly parameters: Readonly<Record<string, string>>
  readonly ttl?: number
}

/** The entries of a catalogue by their names. */
export interface Entries {
  readonly kinds: ReadonlyMap<string, Kind>
  readonly grants: ReadonlyMap<string, Grant>
}

/**
 * Looks up what was declared and holds it against the limits of the catalogue.
 *
 * @throws BrokerError `unknown_kind`; `unknown_grant` (also for a grant that this kind may not ask for); `invalid_request` with every faulty field
 */
export function resolve(entries: Entries, agent: Agent, actor: Actor, action: Action, declared: Declared): Inquiry {
  const kind = entries.kinds.get(declared.kind)
  if (!kind) throw new BrokerError('unknown_kind', 'the catalogue has no such kind of task', { errors: [{ pointer: '/kind', message: 'unknown' }] })
  const named = declared.grants.map((asked) => ({ asked, grant: kind.grants.includes(asked.name) ? entries.grants.get(asked.name) : undefined }))
  refuseUnknown(named.map(({ grant }) => grant))

  const faults: FieldFault[] = []
  const duration = within(kind.maxDuration, declared.duration, '/duration', faults)
  const grants = named.flatMap(({ asked, grant }, index) => (grant ? [resolveGrant(grant, asked, `/grants/${index}`, faults)] : []))
  // A renewal asks about the leases that exist, and a task may have come to two alike one after the other.
  if (action !== 'renew') refuseTwins(grants, faults)
  if (faults.length > 0) throw new BrokerError('invalid_request', 'the declaration does not fit the catalogue', { errors: faults })
  return { action, actor, agent, kind, duration, grants }
}

/** Milliseconds from now for which a credential is asked: no longer than its task. It is what policies see. */
export const lastingOf = ({ duration }: Inquiry, { ttl }: AskedGrant): number => Math.min(ttl, duration)

function refuseUnknown(grants: readonly (Grant | undefined)[]): void {
  const errors = grants.flatMap((grant, index) => (grant ? [] : [{ pointer: `/grants/${index}/name`, message: 'unknown for this kind of task' }]))
  if (errors.length > 0) throw new BrokerError('unknown_grant', 'this kind of task has no such grant', { errors })
}

function resolveGrant(grant: Grant, asked: DeclaredGrant, pointer: string, faults: FieldFault[]): AskedGrant {
  const ttl = within(grant.maxTtl, asked.ttl, `${pointer}/ttl`, faults)
  checkParameters(grant, asked.parameters, `${pointer}/parameters`, faults)
  return { grant, parameters: { ...asked.parameters }, ttl }
}

/** What was asked in whole milliseconds, or the limit itself where nothing was; more, or nothing that is a duration, is a fault. */
function within(limit: number, asked: number | undefined, pointer: string, faults: FieldFault[]): number {
  if (asked === undefined) return limit
  const whole = Math.floor(asked)
  // Written so that NaN is a fault too.
  if (!(whole > 0)) faults.push({ pointer, message: 'must be longer than nothing' })
  else if (whole > limit) faults.push({ pointer, message: `must be at most ${formatDuration(limit)}` })
  return whole
}

/** Every parameter of the grant is given, none besides, and each value matches as a whole. */
function checkParameters(grant: Grant, given: Readonly<Record<string, string>>, pointer: string, faults: FieldFault[]): void {
  for (const [name, pattern] of Object.entries(grant.parameters)) {
    const message = Object.hasOwn(given, name) ? valueFault(pattern, given[name]!) : 'is missing'
    if (message !== undefined) faults.push({ pointer: `${pointer}/${escapePointer(name)}`, message })
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(grant.parameters, name))
      faults.push({ pointer: `${pointer}/${escapePointer(name)}`, message: 'the grant has no such parameter' })
  }
}

/** The same grant with the same parameters twice is a mistake: the second credential would only be a second thing to lose. */
function refuseTwins(grants: readonly AskedGrant[], faults: FieldFault[]): void {
  const seen = new Set<string>()
  grants.forEach(({ grant, parameters }, index) => {
    const key = JSON.stringify([grant.name, Object.entries(parameters).toSorted(([a], [b]) => (a < b ? -1 : 1))])
    if (seen.has(key)) faults.push({ pointer: `/grants/${index}`, message: 'is asked for twice with the same parameters' })
    seen.add(key)
  })
}

/** RFC 6901, section 3. */
const escapePointer = (name: string): string => name.replaceAll('~', '~0').replaceAll('/', '~1')
