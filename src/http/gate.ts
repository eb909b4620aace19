import { BrokerError, tokenRefused } from '../base/errors.ts'
import { isId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Actor } from '../identity/actor.ts'
import { type Match, matches } from '../identity/match.ts'
import { type OperatorEntry, type Role, rolesOf } from '../identity/operators.ts'
import type { Verifier } from '../identity/verify.ts'
import { recordRefusal } from '../ledger/refusals.ts'
import { type Broker, calledIn, type Caller } from '../tasks/task.ts'
import { isTaskToken, taskOfToken } from '../tasks/token.ts'
import { createBuckets, type Rate } from './bucket.ts'
import { createPlaces, type Room } from './places.ts'

/** Whoever has these attributes may ask about tokens for this audience. */
export interface ResourceServerEntry {
  readonly issuer: string
  readonly match: Match
  readonly audience: string
}

/** Those for whom a call can be: by catalogue, by the token of a task, by role, by audience. */
export type Callers = 'agent' | 'task' | Role | 'resource_server'

/** How often one caller may ask for something new, and about tokens. Ending is never limited by a rate. */
export interface Rates {
  readonly issue: Rate
  readonly introspect: Rate
  /** Decisions that are asked again: each may have an archived policy set parsed, some milliseconds for each policy of the one thread that there is. */
  readonly replay: Rate
}

/** What a broker serves alone with room to spare: these stop loops, not work. */
export const houseRates: Rates = {
  issue: { burst: 200, perSecond: 50 },
  introspect: { burst: 2_000, perSecond: 1_000 },
  replay: { burst: 50, perSecond: 2 },
}

/** Refusals that are kept of the strangers of one issuer. */
const strangersRate: Rate = { burst: 100, perSecond: 1 }

/** What one caller must not fill alone: new work and introspections while their bodies arrive, ends until they are done. */
export type SharedRoom = 'work' | 'introspection' | 'ends'

const inWords: Record<SharedRoom, string> = {
  work: 'requests that have not arrived',
  introspection: 'questions about tokens that have not arrived',
  ends: 'ends under way',
}

/** Turns an `Authorization` header into a caller, and keeps a caller within its rate. */
export interface Gate {
  /** @throws BrokerError `invalid_token`, one and the same for whatever is wrong with it; `store_unavailable` */
  identify(authorization: string | undefined, signal: AbortSignal): Promise<Caller>
  /** @throws BrokerError `forbidden`, `agent_unknown` */
  admit(caller: Caller, callers: readonly Callers[]): void
  /**
   * Keeps in the ledger that somebody was refused. Within the rate of new work, so that nobody fills the ledger with it; strangers all together within
   * one for each issuer: where anybody may have an account, anybody may have as many subjects as they want.
   *
   * @param call as the OpenAPI document has it
   * @param id that the call names: of a task it is kept, of anything else not
   * @throws BrokerError `rate_limited`, `store_unavailable`
   */
  keepRefusal(caller: Caller, call: string, id: string | undefined): Promise<readonly Receipt[]>
  /** Lets a caller begin what has its place in this room, unless they have their share of it already. @returns called when it is over. @throws BrokerError `rate_limited` */
  begin(room: SharedRoom, caller: Caller): () => void
  /** @throws BrokerError `rate_limited` */
  limit(what: keyof Rates, caller: Caller): void
  /** Which audiences the caller may ask about. Operators: all. */
  audiencesOf(caller: Caller): readonly string[] | 'all'
}

export interface GateParts {
  readonly broker: Broker
  readonly verifier: Pick<Verifier, 'verify'>
  readonly operators: readonly OperatorEntry[]
  readonly resourceServers: readonly ResourceServerEntry[]
  readonly rates: Rates
  readonly rooms: Readonly<Record<SharedRoom, Room>>
}

export function createGate(parts: GateParts): Gate {
  const { clock } = parts.broker
  const buckets = {
    issue: createBuckets(parts.rates.issue, clock),
    introspect: createBuckets(parts.rates.introspect, clock),
    strangers: createBuckets(strangersRate, clock),
    replay: createBuckets(parts.rates.replay, clock),
  }
  const places = {
    work: createPlaces(inWords.work, parts.rooms.work),
    introspection: createPlaces(inWords.introspection, parts.rooms.introspection),
    ends: createPlaces(inWords.ends, parts.rooms.ends),
  }
  const serves = (actor: Actor) => parts.resourceServers.filter((entry) => matches(actor, entry.issuer, entry.match))
  const callerOf = (actor: Actor): Caller => {
    const agent = parts.broker.policy().catalogue.agentOf(actor)
    return { actor, agent, task: undefined, roles: rolesOf(parts.operators, actor) }
  }
  const isStranger = ({ actor, agent, roles }: Caller) => actor !== undefined && !agent && roles.size === 0 && serves(actor).length === 0

  function take(what: keyof typeof buckets, whose: string): void {
    const wait = buckets[what].take(whose)
    if (wait === 0) return
    parts.broker.telemetry.metrics.rateLimited.inc({ limit: what })
    throw new BrokerError(
      'rate_limited',
      `Too many requests ${what === 'strangers' ? 'of callers that nobody knows' : 'from one caller'}: come back in ${wait} s`,
      { retryAfter: wait },
    )
  }

  return {
    async identify(authorization, signal) {
      const token = bearer(authorization)
      // A task token must not cost a verification, and a workload token no look into the store.
      if (isTaskToken(token)) return holderOf(await taskOfToken(parts.broker, token))
      // Anybody may have tokens of some issuers, so those of strangers are not spent: that is a write for each. Who was a stranger then stays one for this call,
      // even where a reload has brought their entry meanwhile: an unspent token must open nothing.
      let caller: Caller | undefined
      const actor = await parts.verifier.verify(token, signal, (proven) => !isStranger((caller = callerOf(proven))))
      return caller ?? callerOf(actor)
    },

    admit(caller, callers) {
      if (caller.task !== undefined) {
        if (callers.includes('task')) return
        throw new BrokerError('forbidden', 'A task token does not speak for this call: it needs a workload token')
      }
      if (callers.includes('agent') && caller.agent) return
      if (callers.some((one) => (one === 'operator' || one === 'reviewer') && caller.roles.has(one))) return
      if (callers.includes('resource_server') && caller.actor && serves(caller.actor).length > 0) return
      if (callers.includes('agent') && isStranger(caller))
        throw new BrokerError('agent_unknown', 'No agent of the catalogue has this identity, or more than one has')
      throw new BrokerError('forbidden', `This call is for: ${callers.map((one) => one.replace('_', ' ')).join(', ')}`)
    },

    async keepRefusal(caller, call, id) {
      if (isStranger(caller)) take('strangers', caller.actor!.issuer)
      else take('issue', subjectOf(caller))
      const about = { agent: caller.agent?.name ?? caller.task?.agent, ...(id !== undefined && isId('task', id) && { task: id }) }
      return await recordRefusal(parts.broker.ledger, call, calledIn(caller), about)
    },

    begin(room, caller) {
      const leave = places[room].offer(sharerOf(caller))
      if (leave) return leave
      parts.broker.telemetry.metrics.rateLimited.inc({ limit: `in_flight_${room}` })
      throw new BrokerError('rate_limited', `You have as many ${inWords[room]} as one caller may: ${parts.rooms[room].share}`, { retryAfter: 1 })
    },

    limit: (what, caller) => take(what, subjectOf(caller)),

    audiencesOf(caller) {
      if (caller.roles.has('operator')) return 'all'
      return caller.actor ? serves(caller.actor).map((entry) => entry.audience) : []
    },
  }
}

/** What stands behind `Bearer`, whatever it is: the verifier says, and counts, what is wrong with it. Node bounds all headers together at 16 KiB. */
const bearer = (authorization: string | undefined): string => /^bearer +(.*)$/i.exec(authorization ?? '')?.[1] ?? ''

function holderOf(task: Caller['task']): Caller {
  if (task === undefined) throw tokenRefused()
  return { actor: undefined, agent: undefined, task, roles: new Set() }
}

/** Issuer and subject, which the issuer alone can choose, or the agent of a task; never a token or a task, of which one caller can have many. */
export const subjectOf = ({ actor, task }: Caller): string => (actor ? JSON.stringify([actor.issuer, actor.subject]) : (task?.agent ?? ''))

/** Whose share of some places a caller takes: an agent's, whichever of its tasks speaks, for each of those has a token of its own. */
export const sharerOf = (caller: Caller): string => caller.agent?.name ?? caller.task?.agent ?? subjectOf(caller)
