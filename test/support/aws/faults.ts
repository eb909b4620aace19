import { Refusal } from './refusal.ts'
import type { ServiceName } from './sigv4.ts'

/** `resets` and `loses the answer` end the connection: before anything is done, and after it. */
export type AwsFault = 'throttles' | 'conflicts' | 'fails' | 'resets' | 'loses the answer'

const refusals: Readonly<Record<Exclude<AwsFault, 'resets' | 'loses the answer'>, () => Refusal>> = {
  throttles: () => new Refusal('Throttling', 'Rate exceeded', 400),
  conflicts: () =>
    new Refusal(
      'ConcurrentModification',
      'The request was rejected because multiple requests to change this object were submitted simultaneously.',
      409,
    ),
  fails: () => new Refusal('InternalFailure', 'The request processing has failed because of an unknown error, exception or failure.', 500),
}

/** What goes wrong at this AWS, and only when it is told to. */
export class Faults {
  /** Milliseconds until a policy that was written is heeded: a number, or one to be drawn for each write. */
  propagation: number | (() => number) = 0
  /** Actions that this AWS does not have. */
  readonly unsupported = new Set<string>()
  readonly #down = new Set<ServiceName>()
  readonly #ordered: { readonly action: string; readonly fault: AwsFault }[] = []

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
  /** Faults that were ordered and have not happened. */
  get pending(): number {
    return this.#ordered.length
  }

  get delay(): number {
    return typeof this.propagation === 'number' ? this.propagation : this.propagation()
  }
  /**
   * What was ordered for a request that arrives, used up with it: `resets` and `loses the answer` are for the caller to do.
   * @throws Refusal
   */
  meet(service: ServiceName, action: string): 'resets' | 'loses the answer' | undefined {
    if (this.#down.has(service)) throw new Refusal('ServiceUnavailable', 'The request has failed due to a temporary failure of the server.', 503)
    if (this.unsupported.has(action)) throw new Refusal('InvalidAction', `Could not find operation ${action}`)
    const at = this.#ordered.findIndex((ordered) => ordered.action === action)
    if (at < 0) return undefined
    const { fault } = this.#ordered.splice(at, 1)[0]!
    if (fault === 'resets' || fault === 'loses the answer') return fault
    throw refusals[fault]()
  }
}
