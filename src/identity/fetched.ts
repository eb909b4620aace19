import { describe } from '../base/errors.ts'
import { ageOf, type Clock } from '../base/time.ts'
import { discover } from './discovery.ts'
import { Refusal } from './fault.ts'
import { fetchJson } from './fetch.ts'
import type { Rules } from './issuer.ts'
import { keyOf, type KeySource } from './keys.ts'
import { importKeys, type KeySet } from './keyset.ts'
import { withinSignal } from './wait.ts'

const second = 1_000
const minute = 60 * second

/** Milliseconds after which a set is fetched again, unless a SPIFFE bundle hints otherwise. Five minutes are its own default; ten are usual elsewhere. */
const refreshAfter = { spiffe: 5 * minute, others: 10 * minute } as const

/** A hint is honoured between these: less would be hammering, more would keep revoked keys. Milliseconds. */
const hintBounds = { least: 5 * second, most: 60 * minute } as const

/** Milliseconds for which a set that could not be fetched anew is still used: an outage of the issuer's must not be one of ours at once. */
const staleFor = 60 * minute

/** Milliseconds between two fetches because of a `kid` that is not there: anyone may invent one. */
const unknownEvery = 30 * second

/**
 * After a failure, milliseconds without another try; doubled by each further one, and up to half of it taken off at random. Without any keys nobody of
 * this issuer gets in, so that its return has to be seen within seconds; with old ones nobody waits for it.
 */
const pause = { first: 1 * second, longest: 60 * second, longestWithoutKeys: 2 * second } as const

/**
 * Tokens that wait for one issuer's keys at a time. Each holds one of the places of the door, and anybody can invent a token: without a limit, an issuer that
 * hangs would let strangers keep those from completing who need no issuer for it.
 */
const mostWaiting = 64

/** How a fetch ended, for the metrics. */
export type Fetched = 'changed' | 'unchanged' | 'failed'

/**
 * Keys that are fetched in the background: at the start, and whenever they grow old. Whatever tokens come, and however many, the issuer
 * gets one request at a time, one in 30 s for unknown keys, and fewer and fewer while it fails.
 */
export function fetchedKeys(rules: Rules, clock: Clock, fetched: (outcome: Fetched) => void): KeySource {
  const stop = new AbortController()
  let address = 'url' in rules.keys ? rules.keys.url : undefined
  let set: KeySet | undefined
  let refreshAt = 0
  let usableUntil = 0
  let retryAt = 0
  let askedAt = 0
  let failures = 0
  let fault = 'not fetched yet'
  let flight: Promise<void> | undefined
  let timer: NodeJS.Timeout | undefined
  let waiting = 0

  async function fetchSet(): Promise<KeySet> {
    // Found once and then pinned: a later change of the discovery document changes no keys.
    address ??= await discover(rules, stop.signal)
    const next = await importKeys(await fetchJson(address, rules.allowPrivate, stop.signal), rules)
    if ((next.sequence ?? -1) < (set?.sequence ?? -1)) throw new Error('the sequence of the bundle goes backwards')
    return next
  }

  /** Swaps the set in one assignment. The old one stays where the keys are the same, so that verified tokens stay verified. */
  function adopt(next: KeySet): void {
    const changed = set?.fingerprint !== next.fingerprint
    set = changed ? next : { ...next, keys: set?.keys ?? next.keys }
    const age = lifeOf(next, rules)
    // A tenth off at random: brokers that started together do not ask together for ever.
    refreshAt = clock() + age * (1 - Math.random() / 10)
    usableUntil = clock() + age + staleFor
    failures = 0
    retryAt = 0
    fetched(changed ? 'changed' : 'unchanged')
  }

  /**
   * Moves the times reckoned by the clock back with it. Otherwise, for as long as the clock had been ahead, the broker would believe keys
   * that an issuer has withdrawn, or refuse all tokens of an issuer that could not be reached meanwhile.
   */
  function followClock(): void {
    const setBack = Math.max(0, askedAt - clock())
    refreshAt -= setBack
    usableUntil -= setBack
    askedAt = clock()
  }

  async function attempt(): Promise<void> {
    followClock()
    try {
      adopt(await fetchSet())
    } catch (error) {
      if (stop.signal.aborted) return
      fault = describe(error)
      failures++
      const longest = Math.min(usable() ? pause.longest : pause.longestWithoutKeys, pause.first * 2 ** (failures - 1))
      retryAt = clock() + longest * (1 - Math.random() / 2)
      fetched('failed')
    }
  }

  /** One fetch at a time; later callers wait for it. Never rejects: the result shows in the set. */
  function refresh(): Promise<void> {
    flight ??= attempt().finally(() => {
      flight = undefined
      schedule()
    })
    return flight
  }

  const dueAt = (): number => Math.max(refreshAt, retryAt)
  const due = (): boolean => !stop.signal.aborted && (clock() >= dueAt() || clock() < askedAt)
  const usable = (): KeySet | undefined => (clock() < usableUntil ? set : undefined)

  /** So that the set is fresh when the next token comes, and the probe tells the truth when none does. */
  function schedule(): void {
    clearTimeout(timer)
    if (stop.signal.aborted) return
    timer = setTimeout(() => (due() ? void refresh() : schedule()), Math.max(second, dueAt() - clock())).unref()
  }

  /** Callers beyond `mostWaiting` go on with the current set. */
  async function waitFor(refreshing: Promise<void>, signal: AbortSignal): Promise<void> {
    if (waiting >= mostWaiting) return
    waiting++
    await withinSignal(refreshing, signal).finally(() => waiting--)
  }

  async function upToDate(signal: AbortSignal): Promise<KeySet | undefined> {
    if (due()) {
      const refreshing = refresh()
      // A set that is only just due is used meanwhile, and so is any set while the issuer fails. A set that is long overdue, for example
      // because the machine slept, is not used: keys may have been revoked.
      const justDue = failures > 0 || clock() < refreshAt + minute
      if (!usable() || !justDue) await waitFor(refreshing, signal)
    }
    return usable()
  }

  void refresh()
  return {
    current: () => (due() ? undefined : usable()),
    async find(kid, signal) {
      const found = await upToDate(signal)
      if (!found) throw new Refusal('keys_unavailable')
      // A missing `kid` may be a new one. A fetch that is under way is waited for, and none is begun too soon.
      const mayAsk = ageOf(askedAt, clock) >= unknownEvery && !stop.signal.aborted
      if (kid !== undefined && !found.keys.has(kid) && (flight ?? mayAsk)) await waitFor(refresh(), signal)
      return keyOf(usable() ?? found, kid)
    },
    state() {
      const found = usable()
      if (!found) return { ok: false, detail: `no keys: ${fault}` }
      const failing = failures > 0 ? `, and fetching fails: ${fault}` : ''
      return { ok: found.keys.size > 0, detail: `${found.keys.size} keys${failing}` }
    },
    close() {
      stop.abort()
      clearTimeout(timer)
    },
  }
}

function lifeOf(set: KeySet, { profile }: Rules): number {
  if (profile !== 'spiffe') return refreshAfter.others
  return Math.min(hintBounds.most, Math.max(hintBounds.least, set.refreshHint ?? refreshAfter.spiffe))
}
