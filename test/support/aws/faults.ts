import { Refusal } from './refusal.ts'
import type { ServiceName } from './sigv4.ts'

/**
 * What happens to a connection: `resets` and `loses the answer` end it before anything is done and after it; `hangs` does nothing, and says nothing until
 * the client leaves or the peer stops; `keeps the answer` says nothing either, and has done it; `pads the answer` has done it too, and says so with a megabyte behind it.
 */
export type ConnectionFault = 'resets' | 'loses the answer' | 'hangs' | 'keeps the answer' | 'pads the answer'
export type AwsFault = 'throttles' | 'conflicts' | 'fails' | ConnectionFault

const throttled = () => new Refusal('Throttling', 'Rate exceeded', 400)

const refusals: Readonly<Record<Exclude<AwsFault, ConnectionFault>, () => Refusal>> = {
  throttles: throttled,
  conflicts: () =>
    new Refusal(
      'ConcurrentModification',
      'The request was rejected because multiple requests to change this object were submitted simultaneously.',
      409,
    ),
  fails: () => new Refusal('InternalFailure', 'The request processing has failed because of an unknown error, exception or failure.', 500),
}

const isOfConnection = (fault: AwsFault): fault is ConnectionFault => !(fault in refusals)

/** How often an action may be asked for: `burst` at once, then `perSecond` by the clock of this AWS. */
export interface Rate {
  readonly burst: number
  readonly perSecond: number
}

interface Bucket {
  readonly rate: Rate
  tokens: number
  /** Milliseconds. */
  at: number
}

/** What goes wrong at this AWS, and only when it is told to. */
export class Faults {
  /** Milliseconds until a policy that was written is heeded: a number, or one to be drawn for each write, as it differs from one to the next. */
  propagation: number | (() => number) = 0
  /** Milliseconds that this AWS is ahead of the machine's clock when it judges the age of a signature and dates its answers. Sessions end by the other clock. */
  skew = 0
  /** Actions that this AWS does not have. */
  readonly unsupported = new Set<string>()
  readonly #down = new Set<ServiceName>()
  readonly #ordered: { readonly action: string; readonly fault: AwsFault }[] = []
  readonly #buckets = new Map<string, Bucket>()
  readonly #now: () => number

  constructor(now: () => number) {
    this.#now = now
  }

  /** Orders what happens to the next requests of an action, such as `PutRolePolicy` or `AssumeRole`. */
  next(action: string, fault: AwsFault, times = 1): void {
    for (let time = 0; time < times; time += 1) this.#ordered.push({ action, fault })
  }
  /** A service answers 503 to everything until it is up again. */
  down(service: ServiceName): void {
    this.#down.add(service)
  }
  up(service: ServiceName): void {
    this.#down.delete(service)
  }
  /** Gives an action a token bucket of its own: an empty one refuses with `Throttling`. Undefined takes it away. */
  limit(action: string, rate: Rate | undefined): void {
    if (rate) this.#buckets.set(action, { rate, tokens: rate.burst, at: this.#now() })
    else this.#buckets.delete(action)
  }
  /** Faults that were ordered and have not happened. */
  get pending(): number {
    return this.#ordered.length
  }

  get delay(): number {
    return typeof this.propagation === 'number' ? this.propagation : this.propagation()
  }
  /**
   * What was ordered for a request that arrives, used up with it: what happens to a connection is for the caller to do.
   * @throws Refusal
   */
  meet(service: ServiceName, action: string): ConnectionFault | undefined {
    if (this.#down.has(service)) throw new Refusal('ServiceUnavailable', 'The request has failed due to a temporary failure of the server.', 503)
    if (this.unsupported.has(action)) throw new Refusal('InvalidAction', `Could not find operation ${action}`)
    if (!this.#take(action)) throw throttled()
    const at = this.#ordered.findIndex((ordered) => ordered.action === action)
    if (at < 0) return undefined
    const { fault } = this.#ordered.splice(at, 1)[0]!
    if (isOfConnection(fault)) return fault
    throw refusals[fault]()
  }
  #take(action: string): boolean {
    const bucket = this.#buckets.get(action)
    if (!bucket) return true
    const now = this.#now()
    bucket.tokens = Math.min(bucket.rate.burst, bucket.tokens + ((now - bucket.at) / 1000) * bucket.rate.perSecond)
    bucket.at = now
    if (bucket.tokens < 1) return false
    bucket.tokens -= 1
    return true
  }
}
