import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import type { Context, MiddlewareHandler } from 'hono'
import { requestId } from 'hono/request-id'
import { matchedRoutes } from 'hono/route'
import { secureHeaders } from 'hono/secure-headers'
import { BrokerError } from '../base/errors.ts'
import { whenFired } from '../base/signal.ts'
import { stopwatch } from '../base/time.ts'
import type { Telemetry } from '../telemetry.ts'
import type { Env } from './app.ts'
import type { Room } from './places.ts'

/** What one broker lets in at a time, and for how long. Counts of requests, and milliseconds. */
export interface DoorLimits {
  /** What asks for something, and what only looks. Questions about tokens have room of their own, as much: what relies on tokens works on in an overload. */
  readonly inFlight: number
  /**
   * Completing and revoking a lease have room of their own, and so has what operators alone do, revoking and stopping: an overload of new work never keeps
   * old work from being ended, nor do the ends of agents keep an operator from ending theirs. As many of each.
   */
  readonly endsInFlight: number
  readonly probesInFlight: number
  /** Ends that are waited for after they were begun: so few that they leave room for others to be begun, whatever hangs. */
  readonly waits: Room
  readonly time: number
  /** Longer than the longest `Prefer: wait`, 30 s. */
  readonly endsTime: number
  /** After the broker was told to stop, how long an end is waited for. Less than listen.ts gives requests that are under way by then. */
  readonly endsWhenStopping: number
  /** After its time is up, how long a call has to say itself what became of it. */
  readonly grace: number
}

export const houseLimits: DoorLimits = {
  inFlight: 256,
  endsInFlight: 512,
  probesInFlight: 32,
  waits: { most: 256, share: 128 },
  time: 30_000,
  endsTime: 45_000,
  endsWhenStopping: 20_000,
  grace: 1_000,
}

type Lane = 'work' | 'introspection' | 'ends' | 'operators' | 'probes'

/** By address alone, because it decides before anything is read. */
function laneOf(c: Context): Lane {
  if (c.req.method === 'POST') {
    if (/\/(complete|leases\/[^/]+\/revoke)$/.test(c.req.path)) return 'ends'
    if (/\/(revoke|revocations|stops)$/.test(c.req.path)) return 'operators'
    if (c.req.path === '/introspect') return 'introspection'
  }
  return /^\/(healthz|readyz|metrics)$/.test(c.req.path) ? 'probes' : 'work'
}

/**
 * Everything that happens to a request before anybody looks at what it asks. In this order: what comes first also sees what the later ones refuse.
 *
 * @param stop fires when the broker is told to stop
 */
export const door = (telemetry: Telemetry, limits: DoorLimits, stop: AbortSignal): MiddlewareHandler<Env>[] => [
  requestId({ limitLength: 64, generator: () => randomUUID() }),
  headers,
  neverStored,
  bodyless,
  record(telemetry),
  timeLimit(limits, stop),
  crowdLimit(telemetry, limits),
]

/** For JSON nothing at all may be loaded; pages bring a policy of their own, which is kept. */
const headers = secureHeaders({
  contentSecurityPolicy: { defaultSrc: ["'none'"], frameAncestors: ["'none'"] },
  xFrameOptions: 'DENY',
  overwrite: false,
})

/** No answer is stored anywhere unless its route says otherwise: most carry credentials, or facts about them. */
const neverStored: MiddlewareHandler = async (c, next) => {
  await next()
  if (!c.res.headers.has('cache-control')) c.res.headers.set('cache-control', 'no-store')
}

/** Hono answers HEAD as it does GET, and drops the body unread: a stream would not hear of it, and keep its place for as long as it lasts. */
const bodyless: MiddlewareHandler = async (c, next) => {
  await next()
  if (c.req.method === 'HEAD') await c.res.body?.cancel()
}

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** One line and one measurement a request. By the route's pattern: paths are endless, and somebody will paste a token into one. */
function record({ log, metrics }: Telemetry): MiddlewareHandler<Env> {
  return async (c, next) => {
    const elapsed = stopwatch()
    await next()
    const ms = elapsed()
    // Middleware and the pages' own answer to unknown addresses match by a star.
    const route = matchedRoutes(c).findLast(({ path }) => !path.endsWith('*'))?.path ?? 'none'
    const method = methods.has(c.req.method) ? c.req.method : 'other'
    metrics.requests.observe({ method, route, status: String(c.res.status) }, ms / 1_000)
    const caller = c.get('caller') as Env['Variables']['caller'] | undefined
    const line = {
      request_id: c.var.requestId,
      method,
      route,
      status: c.res.status,
      ms: Math.round(ms * 10) / 10,
      ...(caller?.actor && { issuer: caller.actor.issuer, subject: caller.actor.subject }),
      ...(caller?.agent && { agent: caller.agent.name }),
      ...(caller?.task && { agent: caller.task.agent, task: caller.task.id }),
    }
    if (laneOf(c) === 'probes') log.debug(line, 'request')
    else log.info(line, 'request')
  }
}

/**
 * Hands a signal to the call that fires when its time is up, or when whoever asked has gone; and answers in its place if it does not listen.
 * Hono's own `timeout` only does the second: the work would go on unseen. Ending is not stopped by a client that hangs up; a broker that stops says what it
 * has come to, and goes on.
 */
function timeLimit(limits: DoorLimits, stopping: AbortSignal): MiddlewareHandler<Env> {
  const lastCall = new AbortController()
  whenFired(stopping, () => void setTimeout(() => lastCall.abort(), limits.endsWhenStopping).unref())
  setMaxListeners(0, lastCall.signal)

  return async (c, next) => {
    const isEnd = ['ends', 'operators'].includes(laneOf(c))
    const stop = new AbortController()
    let release: NodeJS.Timeout | undefined
    const expire = (): void => stop.abort(late())
    const timer = setTimeout(expire, isEnd ? limits.endsTime : limits.time)
    const abandoned = new Promise<never>((_, reject) => {
      stop.signal.addEventListener('abort', () => {
        release = setTimeout(() => reject(late()), limits.grace)
      })
    })
    const forget = isEnd ? whenFired(lastCall.signal, expire) : () => {}
    if (!isEnd) c.req.raw.signal.addEventListener('abort', () => stop.abort(new DOMException('the client has gone', 'AbortError')), { once: true })
    c.set('signal', stop.signal)
    try {
      await Promise.race([next(), abandoned])
    } finally {
      clearTimeout(timer)
      clearTimeout(release)
      forget()
    }
  }
}

const late = () => new BrokerError('timed_out', 'The broker ran out of time. What was asked may have happened: look before asking again')

/** Counts what is really under way, calls that outlived their answer included, and sends the rest away at once instead of making all wait. */
function crowdLimit({ metrics }: Telemetry, limits: DoorLimits): MiddlewareHandler<Env> {
  const most: Record<Lane, number> = {
    work: limits.inFlight,
    introspection: limits.inFlight,
    ends: limits.endsInFlight,
    operators: limits.endsInFlight,
    probes: limits.probesInFlight,
  }
  const inside: Record<Lane, number> = { work: 0, introspection: 0, ends: 0, operators: 0, probes: 0 }
  return async (c, next) => {
    const lane = laneOf(c)
    if (inside[lane] >= most[lane]) {
      metrics.rateLimited.inc({ limit: `in_flight_${lane}` })
      throw new BrokerError('rate_limited', 'The broker has as much to do as it can', { retryAfter: 1 })
    }
    inside[lane]++
    try {
      await next()
    } finally {
      inside[lane]--
    }
  }
}
