import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { describe } from '../base/errors.ts'
import { remembered } from '../base/remembered.ts'
import { inTime } from '../base/signal.ts'
import { counts } from '../ledger/lists.ts'
import type { Verifier } from '../identity/verify.ts'
import type { Broker } from '../tasks/task.ts'
import { json } from './answers.ts'
import type { Env } from './app.ts'
import { Liveness, Readiness } from './contract.ts'

/** The loop that ends what is due, as far as a probe looks at it. */
export interface Reaper {
  /** Milliseconds since it last came round. */
  lastLap(): number
}

/** The loop that signs the log, as far as a probe looks at it. */
export interface Sequencer {
  /** What stands in its way; undefined where nothing does. */
  refusal(): string | undefined
  hasStrays(): boolean
}

interface Observed {
  readonly broker: Broker
  readonly verifier: Pick<Verifier, 'ready'>
  readonly reaper: Reaper
  readonly sequencer: Sequencer
}

/** A reaper that has not come round for this long stands still: it laps every second or so, and each lap is bounded. Milliseconds. */
const longestLap = 60_000

/** How long a probe waits for the store, below the second that Kubernetes gives a probe by default. Milliseconds. */
const patience = 800

/** Seconds by which the clocks of store and broker may be apart: what workload tokens are forgiven. */
const mostApart = 30

/** Milliseconds for which what the store said is shown to those who probe later. */
const freshFor = 1_000

/** Probes that tell the truth. They say what fails by name and never why: the reasons are in the log. */
export function healthRoutes({ broker, verifier, reaper, sequencer }: Observed) {
  const lookAtStore = createLookout(broker)
  return new OpenAPIHono<Env>()
    .openapi(live, (c) => c.json({ status: 'ok' as const }, 200))
    .openapi(ready, async (c) => {
      const { found, writable } = await lookAtStore()
      const lap = reaper.lastLap()
      const laps = lap <= longestLap
      const answer: Readiness = {
        // Not the issuers, the providers and the log: a broker that cannot issue must still be reached by those who want to complete and revoke.
        status: writable && laps ? 'ready' : 'not_ready',
        store: condition(writable),
        reaper: { state: condition(laps), last_lap_seconds: Math.round(lap / 100) / 10 },
        log: { state: condition(sequencer.refusal() === undefined && !sequencer.hasStrays()) },
        issuers: verifier.ready().map(({ issuer, ok }) => ({ name: issuer, state: condition(ok) })),
        providers: [...broker.targets].map(([name, target]) => ({ name, state: condition(!target.failing) })),
        ...(found && { clock: clockOf(found.secondsApart) }),
        ...(found && { stuck_leases: found.stuck, oldest_unfinished_revocation_seconds: found.oldestUnfinishedRevocationSeconds }),
      }
      return answer.status === 'ready' ? c.json(answer, 200) : c.json(answer, 503)
    })
    .openapi(metrics, async (c) => {
      const { registry } = broker.telemetry.metrics
      setGauges(broker, await lookAtStore())
      return c.text(await registry.metrics(), 200, { 'content-type': registry.contentType })
    })
}

const condition = (ok: boolean): 'ok' | 'failing' => (ok ? 'ok' : 'failing')

const clockOf = (apart: number) => ({ state: condition(Math.abs(apart) <= mostApart), seconds_apart: apart })

type Found = Awaited<ReturnType<typeof look>>

/** What the store says of itself, and what is seen of it from outside. */
interface Look {
  readonly found: Found | undefined
  /** Whether what is to be written can be: it answers, takes writes, and its disk has room. */
  readonly writable: boolean
}

/**
 * Anybody may probe, so what lives is counted once a second at most, and of a store that does not answer the next probe asks nothing more. The question
 * stands in line with what ends: behind new work it would have its turn late where there is much of it, and a busy broker be taken for one that is not ready.
 */
function createLookout(broker: Broker): () => Promise<Look> {
  const { ledger, clock } = broker
  const counted = remembered(() => look(broker), freshFor, clock)
  const roomy = remembered(() => ledger.hasRoom(), 0, clock)
  return async () => {
    const [found, room] = await Promise.all([answerOf(broker, counted()), answerOf(broker, roomy())])
    return { found, writable: found?.writable === true && room === true }
  }
}

/** What lives, and how far the store's clock is ahead of this broker's: taken together, for both go on while an answer is remembered. */
async function look({ ledger, clock }: Broker) {
  const found = await counts(ledger)
  return { ...found, secondsApart: Math.round((found.now.getTime() - clock()) / 100) / 10 }
}

/** What the store answers; undefined when it does not say so in time. */
async function answerOf<Answer>(broker: Broker, question: Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await inTime(patience, question, () => undefined)
  } catch (error) {
    broker.telemetry.log.warn({ error: describe(error) }, 'the store did not answer a probe')
    return undefined
  }
}

/** Set at the scrape. What lives comes from the store: every broker of one ledger says the same, and a restart forgets nothing. */
function setGauges(broker: Broker, { found, writable }: Look): void {
  const { leases, tasks, stuckLeases, standingLeases, oldestUnfinishedRevocation, storeUp, clockApart, providerUp } = broker.telemetry.metrics
  storeUp.set(writable ? 1 : 0)
  clockApart.set(found?.secondsApart ?? Number.NaN)
  for (const [provider, target] of broker.targets) providerUp.set({ provider }, target.failing ? 0 : 1)
  leases.reset()
  tasks.reset()
  // Without an answer there is no number: the last one would be a lie that no alarm sees through.
  stuckLeases.set(found?.stuck ?? Number.NaN)
  standingLeases.set(found?.standing ?? Number.NaN)
  oldestUnfinishedRevocation.set(found?.oldestUnfinishedRevocationSeconds ?? Number.NaN)
  for (const [state, count] of Object.entries(found?.leases ?? {})) leases.set({ state }, count)
  for (const [state, count] of Object.entries(found?.tasks ?? {})) tasks.set({ state }, count)
}

const live = createRoute({
  method: 'get',
  path: '/healthz',
  summary: 'Whether the process answers',
  responses: { 200: json('It does', Liveness) },
})

const ready = createRoute({
  method: 'get',
  path: '/readyz',
  summary: 'Whether the broker can do its work, with what fails by name',
  responses: { 200: json('It can', Readiness), 503: json('It cannot', Readiness) },
})

const metrics = createRoute({
  method: 'get',
  path: '/metrics',
  summary: 'Measurements for Prometheus',
  responses: { 200: { description: 'Text exposition format', content: { 'text/plain': { schema: z.string() } } } },
})
