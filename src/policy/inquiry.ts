import { BrokerError, type ErrorCode, type FieldFault } from '../base/errors.ts'
import { pointerStep } from '../base/json-pointer.ts'
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

/**
 * Where a request says what is declared, as JSON pointers into its body. Undefined: it does not, what is declared is what the ledger has of an earlier
 * request, and no field of this one would mend it.
 */
export interface Pointers {
  readonly kind: string | undefined
  readonly duration: string | undefined
  /** @param index among the grants */
  grant(index: number): string | undefined
}

/** Of a whole declaration. */
export const inDeclaration: Pointers = { kind: '/kind', duration: '/duration', grant: (index) => `/grants/${index}` }

/** Of a request that says nothing of it. */
export const nowhere: Pointers = { kind: undefined, duration: undefined, grant: () => undefined }

/** One thing that does not fit, with its place in the request if it has one. */
type Fault = Omit<FieldFault, 'pointer'> & { readonly pointer: string | undefined }

/** The entries of a catalogue by their names. */
export interface Entries {
  readonly kinds: ReadonlyMap<string, Kind>
  readonly grants: ReadonlyMap<string, Grant>
}

/**
 * Looks up what was declared and holds it against the limits of the catalogue.
 *
 * @param pointers of what was declared, in the request that asks now
 * @throws BrokerError `unknown_kind`; `unknown_grant` (also for a grant that this kind may not ask for); `invalid_request` with every faulty field; `conflict`
 *   where the request has none of the faults: the catalogue was changed since that was asked for
 */
export function resolve(
  entries: Entries,
  agent: Agent,
  actor: Actor,
  action: Action,
  declared: Declared,
  pointers: Pointers = inDeclaration,
): Inquiry {
  const kind = entries.kinds.get(declared.kind)
  if (!kind) throw refusal('unknown_kind', 'the catalogue has no such kind of task', [{ pointer: pointers.kind, message: 'unknown' }])
  const named = declared.grants.map((asked) => ({ asked, grant: kind.grants.includes(asked.name) ? entries.grants.get(asked.name) : undefined }))
  const unknown = named.flatMap(({ grant }, index) =>
    grant ? [] : [{ pointer: under(pointers.grant(index), '/name'), message: 'unknown for this kind of task' }],
  )
  if (unknown.length > 0) throw refusal('unknown_grant', 'this kind of task has no such grant', unknown)

  const faults: Fault[] = []
  const duration = within(kind.maxDuration, declared.duration, pointers.duration, faults)
  const grants = named.flatMap(({ asked, grant }, index) => (grant ? [resolveGrant(grant, asked, pointers.grant(index), faults)] : []))
  // A renewal asks about the leases that exist, and a task may have come to two alike one after the other.
  if (action !== 'renew') refuseTwins(grants, pointers, faults)
  if (faults.some(isOfRequest)) throw refusal('invalid_request', 'the declaration does not fit the catalogue', faults)
  if (faults.length > 0) throw refusal('conflict', 'the catalogue has changed: it does not allow what was granted before', faults)
  return { action, actor, agent, kind, duration, grants }
}

const refusal = (code: ErrorCode, detail: string, faults: readonly Fault[]): BrokerError =>
  new BrokerError(code, detail, { errors: faults.filter(isOfRequest) })

const isOfRequest = (fault: Fault): fault is FieldFault => fault.pointer !== undefined

const under = (pointer: string | undefined, rest: string): string | undefined => (pointer === undefined ? undefined : `${pointer}${rest}`)

/** Milliseconds from now for which a credential is asked: no longer than its task. It is what policies see. */
export const lastingOf = ({ duration }: Inquiry, { ttl }: AskedGrant): number => Math.min(ttl, duration)

function resolveGrant(grant: Grant, asked: DeclaredGrant, pointer: string | undefined, faults: Fault[]): AskedGrant {
  const ttl = within(grant.maxTtl, asked.ttl, under(pointer, '/ttl'), faults)
  checkParameters(grant, asked.parameters, under(pointer, '/parameters'), faults)
  return { grant, parameters: { ...asked.parameters }, ttl }
}

/** The requested whole milliseconds, or the limit if none were requested. More than the limit, or no valid duration, is a fault. */
function within(limit: number, asked: number | undefined, pointer: string | undefined, faults: Fault[]): number {
  if (asked === undefined) return limit
  const whole = Math.floor(asked)
  // Written so that NaN is a fault too.
  if (!(whole > 0)) faults.push({ pointer, message: 'must be longer than nothing' })
  else if (whole > limit) faults.push({ pointer, message: `must be at most ${formatDuration(limit)}` })
  return whole
}

/** Every parameter of the grant is given, none besides, and each value matches as a whole. */
function checkParameters(grant: Grant, given: Readonly<Record<string, string>>, pointer: string | undefined, faults: Fault[]): void {
  for (const [name, pattern] of Object.entries(grant.parameters)) {
    const message = Object.hasOwn(given, name) ? valueFault(pattern, given[name]!) : 'is missing'
    if (message !== undefined) faults.push({ pointer: under(pointer, pointerStep(name)), message })
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(grant.parameters, name))
      faults.push({ pointer: under(pointer, pointerStep(name)), message: 'the grant has no such parameter' })
  }
}

/** The same grant with the same parameters twice is a mistake: the second credential would only be a second thing to lose. */
function refuseTwins(grants: readonly AskedGrant[], pointers: Pointers, faults: Fault[]): void {
  const seen = new Set<string>()
  grants.forEach(({ grant, parameters }, index) => {
    const key = JSON.stringify([grant.name, Object.entries(parameters).toSorted(([a], [b]) => (a < b ? -1 : 1))])
    if (seen.has(key)) faults.push({ pointer: pointers.grant(index), message: 'is asked for twice with the same parameters' })
    seen.add(key)
  })
}
