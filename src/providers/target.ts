import { setMaxListeners } from 'node:events'
import { bulkhead, BulkheadRejectedError, TaskCancelledError, type BulkheadPolicy } from 'cockatiel'
import { BrokerError } from '../base/errors.ts'
import type { Evidence, Handle } from '../base/evidence.ts'
import { createListeners } from '../base/listeners.ts'
import { whenFired } from '../base/signal.ts'
import type { SigningKey } from '../base/signing-key.ts'
import { stopwatch, type Clock } from '../base/time.ts'
import { type Breaker, createBreaker, type Heard } from './breaker.ts'
import { type CallLimits, type LeaseReference, type Minted, type Provider, ProviderError, type Reservation } from './provider.ts'

/** One configured provider as the rest of the house calls it: bounded in time and number, measured, and throwing one class of errors. */
export interface Target {
  readonly provider: Provider
  /** @throws ProviderError, `unavailable` at once while mints are known to hang; or the BrokerError that `journal` threw */
  mint(reservation: Reservation, journal: (handle: Handle) => Promise<void>, signal: AbortSignal): Promise<Minted>
  /** @throws ProviderError, `refused` where the provider has no fresh credentials */
  refresh(reservation: Reservation, signal: AbortSignal): Promise<Minted>
  /** @throws ProviderError, `unavailable` at once while the backend is known to be down */
  revoke(lease: LeaseReference, signal: AbortSignal): Promise<Evidence>
  /** @throws ProviderError, `unavailable` at once while the backend is known to be down */
  recover(lease: LeaseReference, signal: AbortSignal): Promise<{ readonly minted: boolean }>
  /** @throws ProviderError */
  check(signal: AbortSignal): Promise<void>
  /** What the provider has to do unasked; nothing where it has nothing. Not counted by the breaker: it says nothing of a lease. @throws ProviderError */
  upkeep(signal: AbortSignal): Promise<void>
  /** A key that the provider keeps, for the log. Not counted by the breaker either. Asking it throws ProviderError. */
  signingKey(settings: unknown): SigningKey
  /** How many more leases it makes sense to end now. One while the backend is being probed, none between two probes. */
  free(): number
  /** Calls back whenever something that was to be ended here leaves its place, until what it returns is called. Not after a recovery that found something minted: whoever recovered it wants the place next. */
  onPlaceLeft(listener: () => void): () => void
  /** Calls back when ends that were put off are due, because what they failed at works again; until what it returns is called. */
  onRecovery(listener: () => void): () => void
  /** Whether the last attempts to mint, or to end something, came to nothing. */
  readonly failing: boolean
  /** The same of those to end something alone. */
  readonly endsFailing: boolean
}

export type ProviderCall = 'mint' | 'refresh' | 'revoke' | 'recover' | 'check' | 'upkeep' | 'sign'

/** Told about every call: its outcome is `ok`, a ProviderFault, or `interrupted` where the broker itself could not go on. */
export type Observe = (call: ProviderCall, outcome: string, seconds: number) => void

const houseLimits: CallLimits = { timeout: 10_000, concurrency: 16 }
/** Mints that may wait, for each that may run: enough for a burst of declarations, few enough that all of them are served or refused in time. */
const waitingPerSlot = 4
/** Milliseconds that a provider has after its signal fired to say what it knows; then the caller is released without it. */
const grace = 250

/**
 * Puts one provider behind its limits. Minting and ending have a bulkhead and a breaker each, so that neither a storm nor the failing of one ever
 * starves the other. Nothing waits in line to be ended: the ledger is that queue.
 */
export function createTarget(provider: Provider, options: { readonly clock: Clock; readonly observe: Observe }): Target {
  const { timeout, concurrency, ends: endsAtOnce = concurrency } = provider.limits ?? houseLimits
  const minting = bulkhead(concurrency, concurrency * waitingPerSlot)
  const ending = bulkhead(endsAtOnce, 0)
  const checking = bulkhead(1, concurrency)
  const upkeeping = bulkhead(1, 0)
  const signing = bulkhead(1, concurrency)
  const mints = createBreaker(options.clock)
  const ends = createBreaker(options.clock)
  const places = createListeners()

  async function bounded<T>(call: ProviderCall, lane: BulkheadPolicy, caller: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const elapsed = stopwatch()
    let started = provider.local
    let outcome = 'ok'
    try {
      // What never leaves the broker cannot hang, and a bulkhead would only refuse bursts that the processor can serve.
      if (provider.local) return await run(caller)
      return await withinLimits(timeout, caller, (signal, abandoned) =>
        lane.execute(() => {
          started = true
          return Promise.race([run(signal), abandoned])
        }, signal),
      )
    } catch (error) {
      const fault = understood(error, provider.name, started)
      outcome = fault instanceof ProviderError ? fault.fault : 'interrupted'
      throw fault
    } finally {
      options.observe(call, outcome, elapsed() / 1_000)
    }
  }

  async function guarded<T>(breaker: Breaker, hears: typeof heardByMint, caller: AbortSignal, call: () => Promise<T>): Promise<T> {
    const pass = breaker.enter()
    if (!pass) throw new ProviderError('unavailable', `${provider.name} is not asked for a moment, because its last calls failed`, 'no')
    let heard: Heard = 'unknown'
    try {
      const answer = await call()
      heard = 'answered'
      return answer
    } catch (error) {
      // Our own bulkhead, our own store and a caller who left show nothing about a backend.
      heard = caller.aborted || !(error instanceof ProviderError) || error.fault === 'busy' ? 'unknown' : hears(error)
      throw error
    } finally {
      pass.leave(heard)
    }
  }

  const mint = <T>(call: 'mint' | 'refresh', caller: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> =>
    guarded(mints, heardByMint, caller, () => bounded(call, minting, caller, run))
  const end = <T>(call: 'revoke' | 'recover', caller: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> =>
    guarded(ends, heardByEnd, caller, () => bounded(call, ending, caller, run))

  return {
    provider,
    mint: (reservation, journal, signal) => mint('mint', signal, (inner) => provider.mint(reservation, journal, inner)),
    refresh: (reservation, signal) =>
      mint('refresh', signal, async (inner) => {
        if (!provider.refresh) throw new ProviderError('refused', `${provider.name} has no fresh credentials to give`, 'no')
        return provider.refresh(reservation, inner)
      }),
    revoke: (lease, signal) => end('revoke', signal, (inner) => provider.revoke(lease, inner)).finally(places.call),
    async recover(lease, signal) {
      let minted = false
      try {
        const recovered = await end('recover', signal, (inner) => provider.recover(lease, inner))
        minted = recovered.minted
        return recovered
      } finally {
        // What was minted is revoked next, and wants the place for that.
        if (!minted) places.call()
      }
    },
    check: (signal) => bounded('check', checking, signal, (inner) => provider.check(inner)),
    async upkeep(signal) {
      if (provider.upkeep) await bounded('upkeep', upkeeping, signal, (inner) => provider.upkeep!(inner))
    },
    signingKey(settings) {
      const key = provider.signingKey?.(settings)
      if (!key) throw new Error(`${provider.name} keeps no key to sign with`)
      const asked = <T>(caller: AbortSignal, run: (signal: AbortSignal) => Promise<T>): Promise<T> => bounded('sign', signing, caller, run)
      return {
        publicKey: (signal) => asked(signal, (inner) => key.publicKey(inner)),
        sign: (message, signal) => asked(signal, (inner) => key.sign(message, inner)),
      }
    },
    free: () => Math.min(ending.executionSlots, ends.room()),
    onPlaceLeft: places.add,
    onRecovery: (listener) => provider.onRecovery?.(listener) ?? (() => {}),
    get failing() {
      return mints.failing || ends.failing
    },
    get endsFailing() {
      return ends.failing
    },
  }
}

/**
 * Runs a call under a signal that fires after `timeout` milliseconds or when the caller gives up, and rejects soon after that even if the call
 * ignores it. Timers of our own: on Node 20 a timeout inside `AbortSignal.any` is collected before it fires (nodejs/node issue 57736; tried).
 */
async function withinLimits<T>(
  timeout: number,
  caller: AbortSignal,
  call: (signal: AbortSignal, abandoned: Promise<never>) => Promise<T>,
): Promise<T> {
  const stop = new AbortController()
  let release: NodeJS.Timeout | undefined
  const abandoned = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => {
      release = setTimeout(() => reject(outOfTime()), grace)
    })
  })
  // One signal may stand behind many calls, the reaper's for instance; Node takes eleven listeners for a leak.
  setMaxListeners(0, caller)
  const forget = whenFired(caller, () => stop.abort(caller.reason))
  const timer = setTimeout(() => stop.abort(outOfTime()), timeout)
  try {
    return await Promise.race([call(stop.signal, abandoned), abandoned])
  } finally {
    clearTimeout(timer)
    clearTimeout(release)
    forget()
  }
}

const outOfTime = () => new DOMException('no answer in time', 'TimeoutError')

/** Any error as the house knows it. What a provider did not foresee is not trusted to mean that nothing was minted, unless it was never asked. */
function understood(error: unknown, name: string, started: boolean): ProviderError | BrokerError {
  if (error instanceof ProviderError || error instanceof BrokerError) return error
  const minted = started ? 'maybe' : 'no'
  if (error instanceof BulkheadRejectedError) return new ProviderError('busy', `${name} has too many calls under way`, minted, { cause: error })
  if (error instanceof TaskCancelledError || isAbort(error))
    return new ProviderError('timed_out', `${name} gave no answer in time`, minted, { cause: error })
  return new ProviderError('garbage', `${name} failed in a way that is not foreseen`, minted, { cause: error })
}

const isAbort = (error: unknown): boolean => error instanceof DOMException && (error.name === 'TimeoutError' || error.name === 'AbortError')

/** A refusal shows that the backend lives, and so does its word about what stands behind it: one dead database must not close the way to the others. */
const heardByEnd = ({ fault }: ProviderError): Heard => (fault === 'refused' || fault === 'downstream' ? 'answered' : 'nothing')

/**
 * Only silence counts, which costs each mint its whole timeout, and a connection that cannot be had. A mint that fails at once costs nobody
 * anything, and one agent whose grant the backend chokes on must not close it to the others.
 */
const heardByMint = ({ fault, minted }: ProviderError): Heard =>
  fault === 'timed_out' || (fault === 'unavailable' && minted === 'no') ? 'nothing' : 'answered'
