import { describe } from './base/errors.ts'
import { inTurn } from './base/in-turn.ts'
import { type Loop, startLoop } from './base/loop.ts'
import { stopwatch } from './base/time.ts'
import { closeOutlived, closeOverdue, mostAtOnce } from './ledger/endings.ts'
import type { Ledger } from './ledger/connect.ts'
import { type Ender, isEndedAt } from './ledger/enders.ts'
import { claimDue, markStuck, nextClosing, nextDue, releaseClaims, type Room, storeTime, sweep } from './ledger/queue.ts'
import { type EndersHere, expireLeases } from './ledger/settlement.ts'
import { ProviderError } from './providers/provider.ts'
import type { Target } from './providers/target.ts'
import { endersOf, endLease, noteEnded } from './tasks/end.ts'
import { advanceRevocations } from './tasks/revoke.ts'
import type { Broker } from './tasks/task.ts'

/** The due loops: they end what has passed its time and what a crash left behind. */
export interface Reaper {
  /** Milliseconds since the last round without an error, of the loop in which that is longer ago: what readiness looks at. */
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

/** Seconds that a provider's silence outweighs a credential's own end, where that is an end: its clock may be behind. */
const expiryGrace = 30

/** Milliseconds between two looks of the asking loop for what time has ended. */
const expireEvery = 100

/** Milliseconds between two looks for what has outlived its end and is asked of nobody here: it has waited for longer than that already. */
const endUnaskedEvery = 1_000

/** Milliseconds between two looks for what nobody works on any more: without a pause, each end that cannot be written would be asked about again at once. */
const releaseEvery = 1_000

/** Milliseconds between two clean-ups of keys and spent tokens. */
const sweepEvery = 60_000

/** What closing calls back, as soon as it is known, for what comes after may fail. */
interface Calls {
  /** There may be more to close right behind. */
  readonly more: () => void
  /** Something was closed whose provider has to be asked. */
  readonly due: () => void
}

/**
 * One round by hand: closes what has passed its deadline and what operators revoke in bulk, expires what time has ended, flags what is stuck, claims what is due
 * and begins to end it.
 *
 * @returns whether there may be more right behind, so that the next round should follow at once
 * @throws Error with each step that failed and why, when all have had their turn
 */
export async function lap(broker: Broker): Promise<boolean> {
  let isMore = false
  const closing = closingSteps(broker, { more: () => (isMore = true), due: () => {} }, () => closeUnasked(broker))
  await inTurn({ ...closing, 'claiming what is due': async () => void (await claim(broker, () => {})) })
  return isMore
}

/** The steps of closing by what they are called in the log, in their order. @param endUnasked marks as ending what is to expire next */
function closingSteps(broker: Broker, calls: Calls, endUnasked: () => Promise<void>): Readonly<Record<string, () => Promise<void>>> {
  let isStorm = false
  return {
    'closing what is overdue': async () => void (isStorm = await closePassed(broker, calls)),
    'revoking many': () => revokeSelected(broker, calls),
    'expiring what time has ended': async () => {
      // It would read over all that is overdue in each round.
      if (isStorm) return
      await endUnasked()
      await expire(broker, calls)
    },
    'flagging what is stuck': () => flagStuck(broker),
  }
}

/** @returns whether there may be more of them */
async function closePassed(broker: Broker, { more, due }: Calls): Promise<boolean> {
  const { tasks, ended, revoking } = await closeOverdue(broker.ledger, mostAtOnce)
  noteEnded(broker, ended)
  if (revoking.length > 0) due()
  const isMore = tasks.length === mostAtOnce
  if (isMore) more()
  return isMore
}

async function revokeSelected(broker: Broker, { more, due }: Calls): Promise<void> {
  await advanceRevocations(broker, ({ ended, revoking }) => {
    noteEnded(broker, ended)
    if (revoking.length > 0) due()
    more()
  })
}

/**
 * Marks as ending what has outlived its own end in an open task and is asked of no provider, for it is in no configuration or does not answer: it expires as
 * what an ended task left does, unless its provider has to confirm that, and gives its place back with that.
 */
const closeUnasked = (broker: Broker): Promise<void> => closeOutlived(broker.ledger, mostAtOnce, expiryGrace, endersHere(broker).answering)

async function expire(broker: Broker, { more }: Pick<Calls, 'more'>): Promise<void> {
  const expired = await expireLeases(broker.ledger, mostAtOnce, expiryGrace, endersHere(broker))
  noteEnded(broker, expired)
  if (expired.length === mostAtOnce) more()
}

/**
 * Claims what is due, as far as there is room for it, and begins to end it.
 *
 * @param again is called for each lease that could not be ended: it is due again, sooner than anybody reckons with
 * @returns where more may be due than there was room for
 */
async function claim(broker: Broker, again: () => void): Promise<readonly Ender[]> {
  const rooms = roomsOf(broker)
  const claimed = await claimDue(broker.ledger, rooms)
  for (const lease of claimed) void broker.background.run((signal) => endLease(broker, lease, signal)).then((ended) => ended ?? again())
  return rooms.filter((room) => claimed.filter((lease) => isEndedAt(lease, room)).length >= room.free)
}

/**
 * Two loops: one closes what has to end, the other asks the providers of what was closed. In a storm each has work without a pause, and a place at a
 * provider that is free again is not kept empty until the next tasks are closed.
 */
export function startReaper(broker: Broker): Reaper {
  const { ledger, telemetry } = broker
  const tend = createTending(broker)
  const releases = createReleasing(broker, () => asking.wake())
  const sweepNow = createSweeping(ledger)
  const endUnasked = atMostEvery(endUnaskedEvery, () => closeUnasked(broker))
  // Before a claim, for what is claimed is not due: what its provider cannot end and time has ended would be asked about once more each time, and never be
  // expired. Not before each one: in a storm there is room for another every few milliseconds.
  const expireFirst = atMostEvery(expireEvery, () => expire(broker, { more: () => asking.wake() }))
  const claims = createClaiming(broker, () => asking.wake())
  const failed = (error: string): void => telemetry.log.warn({ error }, 'the reaper could not look at the store; it looks again within a second')

  const closing: Loop = startLoop(
    async (isOver) => {
      await tend()
      const steps = closingSteps(broker, { more: () => closing.wake(), due: () => asking.wake() }, endUnasked)
      await inTurn({ ...steps, 'sweeping what is past': sweepNow }, isOver)
    },
    () => pauseUntilClosing(broker),
    longestPause,
    failed,
  )
  const asking: Loop = startLoop(
    async (isOver) => {
      await inTurn({ 'releasing claims': releases.next, 'expiring what time has ended': expireFirst, 'claiming what is due': claims.next }, isOver)
    },
    claims.untilDue,
    longestPause,
    failed,
  )
  const loops = [closing, asking]
  // It only wakes earlier: a store that cannot listen costs a second, not a lease.
  ledger
    .onDue(() => loops.forEach((loop) => loop.wake()))
    .catch((error: unknown) => telemetry.log.warn({ error: describe(error) }, 'the store does not wake the reaper'))

  async function stop(): Promise<void> {
    claims.stop()
    releases.stop()
    await Promise.all(loops.map((loop) => loop.stop()))
  }
  return { lastLap: () => Math.max(...loops.map((loop) => loop.lastRound())), stop, [Symbol.asyncDispose]: stop }
}

/** The claims of a loop, one after the other. */
interface Claiming {
  next(): Promise<void>
  /** Milliseconds until something is due where there is room for it. */
  untilDue(): Promise<number>
  stop(): void
}

/** @param wake is called when a claim may find more: there is room again where there was too little, or what was claimed is due again */
function createClaiming(broker: Broker, wake: () => void): Claiming {
  const enders = endersOf(broker)
  /** Where more may be due than there was room for: there a place is taken again as soon as it is left, whoever had it. */
  let full: readonly Ender[] = []
  const isFull = ({ provider: { name } }: Target): boolean => full.some((ender) => ender.name === name)
  const forgets = enders.map((target) => target.onPlaceLeft(() => isFull(target) && wake()))
  return {
    async next() {
      // Until the store has answered: a place that is left meanwhile is not among those that were counted.
      full = enders.map(nameOf)
      full = await claim(broker, wake)
    },
    untilDue: async () => pauseFor(await nextDue(broker.ledger, enders.filter((target) => !isFull(target)).map(nameOf))),
    stop: () => forgets.forEach((forget) => forget()),
  }
}

/** What a stopwatch would say that was started long ago: the first time nothing is too soon. */
const beforeTheFirst = (): number => Infinity

/** Does it, and for so many milliseconds from when it was begun nothing more, however often it is asked for. */
function atMostEvery(every: number, work: () => Promise<void>): () => Promise<void> {
  let since = beforeTheFirst
  return async () => {
    if (since() < every) return
    since = stopwatch()
    await work()
  }
}

/** The releases of a loop, one after the other. */
interface Releasing {
  next(): Promise<void>
  stop(): void
}

/**
 * Makes due what is claimed or put off where that may be for nothing: the store has failed, so that perhaps nobody works on it; its clock was set back, so that
 * it would wait for as much longer; or what ends failed at works again.
 *
 * @param wake is called for the last of these
 */
function createReleasing(broker: Broker, wake: () => void): Releasing {
  const { ledger } = broker
  let failures = 0
  let latest = 0
  let recovered = false
  const recover = (): void => {
    recovered = true
    wake()
  }
  const forgets = endersOf(broker).map((target) => target.onRecovery(recover))
  return {
    next: atMostEvery(releaseEvery, async () => {
      const seen = ledger.failures()
      const now = await storeTime(ledger)
      if (recovered || seen !== failures || now < latest) {
        recovered = false
        await releaseClaims(ledger, endersOf(broker).map(nameOf), now < latest)
      }
      failures = seen
      latest = now
    }),
    stop: () => forgets.forEach((forget) => forget()),
  }
}

/** Nothing waits for it: where there is more, a later round takes it. */
function createSweeping(ledger: Ledger): () => Promise<void> {
  let since = beforeTheFirst
  return async () => {
    if (since() > sweepEvery && (await sweep(ledger, swept)) < swept) since = stopwatch()
  }
}

/** Milliseconds between two beginnings of what a provider does unasked. */
const tendEvery = 1_000

/** Begins what each provider has to do unasked, in the background, never twice at once. What fails is tried again; the provider itself tells of it. */
function createTending({ targets, background, telemetry }: Broker): () => Promise<void> {
  const tended = [...targets.values()].filter(({ provider }) => provider.upkeep)
  const busy = new Set<Target>()
  return atMostEvery(tendEvery, async () => {
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
  })
}

const nameOf = ({ provider: { name, kind } }: Target): Ender => ({ name, kind })

function endersHere(broker: Broker): EndersHere {
  const all = endersOf(broker)
  return {
    answering: all.filter(({ endsFailing }) => !endsFailing).map(nameOf),
    confirming: all.flatMap((target) => (target.provider.mustConfirm === undefined ? [] : [{ ...nameOf(target), key: target.provider.mustConfirm }])),
  }
}

const roomsOf = (broker: Broker): Room[] => endersOf(broker).map((target) => ({ ...nameOf(target), free: target.free() }))

/** Milliseconds until the next deadline, or end of what is local. */
const pauseUntilClosing = async ({ ledger, targets }: Broker): Promise<number> =>
  pauseFor(await nextClosing(ledger, [...targets.values()].filter(({ provider }) => provider.local).map(nameOf)))

const pauseFor = (wait: number | undefined): number => Math.min(longestPause, Math.max(shortestPause, wait ?? longestPause))

async function flagStuck(broker: Broker): Promise<void> {
  for (const lease of await markStuck(broker.ledger, broker.limits.stuckAfter / 1_000, mostAtOnce, endersOf(broker).map(nameOf))) {
    const { id, taskId, provider, attempts, error } = lease
    broker.telemetry.log.error(
      { lease: id, task: taskId, provider, attempts, reason: error },
      'a lease is stuck: it may still work, and is still being revoked',
    )
  }
}
