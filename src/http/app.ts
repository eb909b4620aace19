import { OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { config } from 'zod'
import { BrokerError, requestRefused } from '../base/errors.ts'
import { faultOfShape } from '../base/shape-fault.ts'
import type { OperatorEntry } from '../identity/operators.ts'
import type { Verifier } from '../identity/verify.ts'
import type { Broker, Caller } from '../tasks/task.ts'
import { door, type DoorLimits, houseLimits } from './door.ts'
import { createFollowing } from './follow.ts'
import { createGate, type Gate, houseRates, type Rates, type ResourceServerEntry } from './gate.ts'
import { healthRoutes, type Reaper, type Sequencer } from './health.ts'
import { leaseRoutes } from './leases.ts'
import { ledgerRoutes } from './ledger.ts'
import { type LogName, logRoutes } from './log.ts'
import { createPlaces, type Places, type Room } from './places.ts'
import { answerProblem, asBrokerError, fieldFaults } from './problem.ts'
import { referenceRoutes } from './reference.ts'
import { revocationRoutes } from './revocations.ts'
import { taskRoutes } from './tasks.ts'
import { tokenRoutes } from './tokens.ts'

/** What every request carries through the routes. */
export interface Env {
  Variables: {
    requestId: string
    /** Fires when the request's time is up, or, unless it ends something, when its client has gone. */
    signal: AbortSignal
    gate: Gate
    /** In which ends are waited for. */
    waits: Places
    /** Set by `callableBy`, so present in every route that is not public. */
    caller: Caller
  }
}

/** What the HTTP room is made of. */
export interface Parts {
  readonly broker: Broker
  readonly verifier: Verifier
  readonly reaper: Reaper
  readonly log: LogName
  readonly sequencer: Sequencer
  /** Fires when the broker is told to stop: what streams ends then, and ends are not waited for much longer. */
  readonly stop: AbortSignal
  /** Issuer and audience, without a trailing slash. */
  readonly publicUrl: string
  readonly operators: readonly OperatorEntry[]
  readonly resourceServers: readonly ResourceServerEntry[]
  /** What the configuration says otherwise than the house does. */
  readonly rates?: Partial<Rates>
  readonly limits?: Partial<DoorLimits>
}

/** The whole API of one broker. Other rooms may hang their own routes under it. */
export function createApp(parts: Parts): OpenAPIHono<Env> {
  const app = createFrame(parts)
  app.route('/', taskRoutes(parts.broker))
  app.route('/', leaseRoutes(parts.broker))
  // Before the list of entries, whose path following shares.
  app.route('/', logRoutes(parts.broker, parts.log, createFollowing(parts.broker.ledger, parts.stop)))
  app.route('/', ledgerRoutes(parts.broker))
  app.route('/', revocationRoutes(parts.broker))
  app.route('/', tokenRoutes(parts.broker, parts.publicUrl))
  app.route('/', healthRoutes(parts))
  app.route('/', referenceRoutes(app, parts.publicUrl))
  return app
}

/** The walls without the rooms: limits, identity and problems, under which any route is safe to hang. */
export function createFrame(parts: Parts): OpenAPIHono<Env> {
  const { telemetry } = parts.broker
  // What the framework parses with (@hono/zod-openapi 1.6) takes no words of ours: zod is told once, for the whole program.
  config({ customError: faultOfShape })
  const limits = { ...houseLimits, ...parts.limits }
  const waits = createPlaces('ends that are waited for', limits.waits)
  const rooms = { work: halved(limits.inFlight), introspection: halved(limits.inFlight), ends: halved(limits.endsInFlight) }
  const gate = createGate({ ...parts, rates: { ...houseRates, ...parts.rates }, rooms })
  const app = new OpenAPIHono<Env>({
    defaultHook: (result) => {
      if (result.success) return
      if (result.target === 'param') throw notHere()
      throw requestRefused(fieldFaults(result.error, result.target))
    },
  })
  app.use(async (c, next) => {
    c.set('gate', gate)
    c.set('waits', waits)
    await next()
  })
  app.use(...door(telemetry, limits, parts.stop))
  app.onError((error, c) => answerProblem(c, asBrokerError(reasonOf(error, c), telemetry.log, c.var.requestId)))
  app.notFound((c) => answerProblem(c, refuseUnrouted(app, c)))
  return app
}

const halved = (most: number): Room => ({ most, share: Math.ceil(most / 2) })

const notHere = () => new BrokerError('not_found', 'There is nothing here for you')

/** What a call throws when its signal fires is an echo: the signal's own reason is what happened. */
export function reasonOf(error: Error, { var: { signal } }: { readonly var: { readonly signal?: AbortSignal } }): unknown {
  const isEcho = !(error instanceof BrokerError) && signal?.aborted
  if (!isEcho) return error
  // Nobody reads this answer; it only must not be logged as a failure of ours.
  return signal.reason instanceof BrokerError ? signal.reason : new BrokerError('timed_out', 'The client has gone')
}

/** An address with other methods says which (RFC 9110 section 15.5.6); any other is not here. */
function refuseUnrouted(app: OpenAPIHono<Env>, c: Context): BrokerError {
  const allowed = new Set(app.routes.filter((route) => route.method !== 'ALL' && leadsTo(route.path, c.req.path)).map((route) => route.method))
  if (allowed.size === 0) return notHere()
  if (allowed.has('GET')) allowed.add('HEAD')
  c.header('allow', [...allowed].toSorted().join(', '))
  return new BrokerError('method_not_allowed', `This address knows ${[...allowed].toSorted().join(', ')}`)
}

function leadsTo(pattern: string, path: string): boolean {
  const wanted = pattern.split('/')
  const steps = path.split('/')
  // The last one takes all that is left.
  if (wanted.at(-1)!.endsWith('{.+}')) steps.splice(wanted.length)
  return wanted.length === steps.length && wanted.every((step, at) => (step.startsWith(':') ? steps[at] !== '' : step === steps[at]))
}
