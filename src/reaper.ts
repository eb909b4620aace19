import { describe } from './base/errors.ts'
import { inTurn } from './base/in-turn.ts'
import { stopwatch } from './base/time.ts'
import { closeOverdue, mostAtOnce } from './ledger/endings.ts'
import type { Ender } from './ledger/enders.ts'
import { claimDue, markStuck, nextDue, releaseClaims, type Room, sweep } from './ledger/queue.ts'
import { type Awaited, expireLeases } from './ledger/settlement.ts'
import { ProviderError } from './providers/provider.ts'
import type { Target } from './providers/target.ts'
import { endersOf, endLease, noteEnded } from './tasks/end.ts'
import { advanceRevocations } from './tasks/revoke.ts'
import type { Broker } from './tasks/task.ts'

/** The due loop: it ends what has passed its time and what a crash left behind. */
export interface Reaper {
  /** Milliseconds since it last finished a lap without an error: what readiness looks at. */
  lastLap(): number
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** Rows of each table that one clean-up takes: nothing waits for them. */
const swept = 500

/** Milliseconds between two looks at the store when nothing wakes the loop earlier. A task lasts a second at least, so none is seen late. */
const longestPause = 1_000

/** Milliseconds between two looks when what is due is held by somebody else. */
const shortestPause = 20

/**
 * Milliseconds from one round to the next where all that calls for one is room. In a storm there is room again every few milliseconds: what is due is
 * claimed each time, and what passes its deadline meanwhile is looked for ten times a second.
 */
const roundEvery = 100

/** Seconds that a provider's silence outweighs a credential's own end, where that is an end: its clock may be behind. */
const expiryGrace = 30

/** Milliseconds between two clean-ups of keys and spent tokens. */
const sweepEvery = 60_000

/** What a round calls back. */
interface Calls {
  /** Something that it began is through, so that there is room for more. */
  readonly done: () => void
  /** There may be more right behind, so that the next round should follow at once: said when it is known, for what comes after may fail. */
  readonly more: () => void
}

/**
 * One round by hand: closes what has passed its deadline and what operators revoke in bulk, expires what time has ended, claims what is due and begins to end it, flags what is stuck.
 * The loop takes the same steps, besides those for which it has to know of the rounds before.
 *
 * @returns whether there may be more right behind, so that the next round should follow at once
 * @throws Error with each step that failed and why, when all have had their turn
 */
export async function lap(broker: Broker): Promise<boolean> {
  let isMore = false
  await inTurn(stepsOf(broker, { done: () => {}, more: () => (isMore = true) }))
  return isMore
}

/** The steps of a round by what they are called in the log, in their order. */
const stepsOf = (broker: Broker, { done, more }: Calls): Readonly<Record<string, () => Promise<void>>> => ({
  'closing what is overdue': () => closePassed(broker, more),
  'revoking many': () => revokeSelected(broker, more),
  'expiring what time has ended': () => expire(broker, more),
  'claiming what is due': () => claim(broker, done),
  'flagging what is stuck': () => flagStuck(broker),
})

async function closePassed(broker: Broker, more: () => void): Promise<void> {
  const { tasks, ended } = await closeOverdue(broker.ledger, mostAtOnce)
  noteEnded(broker, ended)
  if (tasks.length === mostAtOnce) more()
}

async function revokeSelected(broker: Broker, more: () => void): Promise<void> {
  await advanceRevocations(broker, ({ ended }) => {
    noteEnded(broker, ended)
    more()
  })
}

async function expire(broker: Broker, more: () => void): Promise<void> {
  const expired = await expireLeases(broker.ledger, mostAtOnce, expiryGrace, awaited(broker))
  noteEnded(broker, expired)
  if (expired.length === mostAtOnce) more()
}

/** Claims what is due, as far as there is room for it, and begins to end it. What there was no room for is claimed when there is. */
async function claim(broker: Broker, done: () => void): Promise<void> {
  for (const lease of await claimDue(broker.ledger, roomsOf(broker)))
    void broker.background.run((signal) => endLease(broker, lease, signal)).then(done)
}

export function startReaper(broker: Broker): Reaper {
  const { ledger, telemetry } = broker
  let stopped = false
  let wakeUp: (() => void) | undefined
  let woken = false
  let hasRoom = false
  // Not the clock: one that jumps would call the loop late, or hide that it stands still.
  let sinceLap = stopwatch()
  /** Since a round was over, whatever became of it: one that fails must not have what there is room for wait behind the next. */
  let sinceRound = stopwatch()
  let sinceSweep: (() => number) | undefined
  let failures = 0
  const tend = createTending(broker)

  /** Milliseconds until the next one: 0 where there may be more right behind. */
  async function round(): Promise<number> {
    tend()
    const steps = { 'releasing claims': releaseLost, ...stepsOf(broker, { done: noteRoom, more: wake }), 'sweeping what is past': sweepNow }
    try {
      await inTurn(steps, () => stopped)
      sinceLap = stopwatch()
    } finally {
      sinceRound = stopwatch()
    }
    return woken ? 0 : await pauseUntilDue(broker)
  }

  /** What was claimed before the store failed, perhaps by nobody who knows of it. */
  async function releaseLost(): Promise<void> {
    const seen = ledger.failures()
    if (seen !== failures) await releaseClaims(ledger)
    failures = seen
  }

  /** Nothing waits for it: where there is more, a later round takes it. */
  async function sweepNow(): Promise<void> {
    if ((sinceSweep?.() ?? Infinity) > sweepEvery && (await sweep(ledger, swept)) < swept) sinceSweep = stopwatch()
  }

  /** The same as a round where nothing has called but room that there is again. */
  async function refill(): Promise<number> {
    await claim(broker, noteRoom)
    return Math.max(shortestPause, roundEvery - sinceRound())
  }

  async function loop(): Promise<void> {
    while (!stopped) {
      const onlyRoom = hasRoom && !woken && sinceRound() < roundEvery
      hasRoom = false
      woken = false
      const pause = await (onlyRoom ? refill() : round()).catch((error: unknown) => {
        telemetry.log.warn({ error: describe(error) }, 'the reaper could not look at the store; it looks again within a second')
        return longestPause
      })
      if (!stopped && pause > 0) await sleep(pause)
    }
  }

  function wake(): void {
    woken = true
    wakeUp?.()
  }

  function noteRoom(): void {
    hasRoom = true
    wakeUp?.()
  }

  /** A call that came during the lap counts: what it was about may have become due behind the lap's back. */
  async function sleep(pause: number): Promise<void> {
    if (!woken && !hasRoom) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause)
        wakeUp = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  const running = loop()
  // It only wakes earlier: a store that cannot listen costs a second, not a lease.
  ledger.onDue(wake).catch((error: unknown) => telemetry.log.warn({ error: describe(error) }, 'the store does not wake the reaper'))

  async function stop(): Promise<void> {
    stopped = true
    wake()
    await running
  }
  return {
    lastLap: () => sinceLap(),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** Milliseconds between two beginnings of what a provider does unasked. */
const tendEvery = 1_000

/** Begins what each provider has to do unasked, in the background, never twice at once. What fails is tried again; the provider itself tells of it. */
function createTending({ targets, background, telemetry }: Broker): () => void {
  const tended = [...targets.values()].filter(({ provider }) => provider.upkeep)
  const busy = new Set<Target>()
  let since: (() => number) | undefined
  return () => {
    if ((since?.() ?? Infinity) < tendEvery) return
    since = stopwatch()
    for (const target of tended) {
      if (busy.has(target)) continue
      busy.add(target)
      void background
        .run(async (signal) => {
          try {
            await target.upkeep(signal)
          } catch (error) {
            const why = error instanceof ProviderError ? error.message : describe(error)
            telemetry.log.debug({ provider: target.provider.name, error: why }, 'the upkeep of a provider is not done yet')
          }
        })
        .then(() => busy.delete(target))
    }
  }
}

const nameOf = ({ provider: { name, kind } }: Target): Ender => ({ name, kind })

function awaited(broker: Broker): Awaited {
  const all = endersOf(broker)
  return {
    answering: all.filter(({ endsFailing }) => !endsFailing).map(nameOf),
    confirming: all.flatMap((target) => (target.provider.mustConfirm === undefined ? [] : [{ ...nameOf(target), key: target.provider.mustConfirm }])),
  }
}

const roomsOf = (broker: Broker): Room[] => endersOf(broker).map((target) => ({ ...nameOf(target), free: target.free() }))

async function pauseUntilDue(broker: Broker): Promise<number> {
  // A target without room wakes the loop when it has some again; asking about it would only find the same leases due.
  const targets = [...broker.targets.values()].filter((target) => target.provider.local || target.free() > 0)
  const wait = await nextDue(
    broker.ledger,
    targets.map((target) => ({ ...nameOf(target), local: target.provider.local })),
  )
  return Math.min(longestPause, Math.max(shortestPause, wait ?? longestPause))
}

async function flagStuck(broker: Broker): Promise<void> {
  for (const lease of await markStuck(broker.ledger, broker.limits.stuckAfter / 1_000, mostAtOnce, endersOf(broker).map(nameOf))) {
    const { id, taskId, provider, attempts, error } = lease
    broker.telemetry.log.error(
      { lease: id, task: taskId, provider, attempts, reason: error },
      'a lease is stuck: it may still work, and is still being revoked',
    )
  }
}
