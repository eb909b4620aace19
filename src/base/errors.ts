import type { DecisionId, TaskId } from './ids.ts'
import type { Receipt } from './receipt.ts'

/** Every reason for which the broker says no. Adding one does not compile until the table in http/problem answers for it. */
export const errorCodes = [
  'invalid_request',
  'invalid_token',
  'denied',
  'agent_unknown',
  'forbidden',
  'not_found',
  'method_not_allowed',
  'conflict',
  'in_flight',
  'request_timeout',
  'too_large',
  'headers_too_large',
  'unsupported_media_type',
  'unknown_kind',
  'unknown_grant',
  'idempotency_mismatch',
  'rate_limited',
  'timed_out',
  'internal',
  'provider_failed',
  'provider_unavailable',
  'store_unavailable',
] as const

export type ErrorCode = (typeof errorCodes)[number]

/** One faulty field of a request. The message says what is wanted and never repeats the value, which may be a secret. */
export interface FieldFault {
  /** JSON pointer (RFC 6901) into the body, or `?name` for a query parameter. */
  readonly pointer: string
  readonly message: string
}

/** What may accompany an error: `cause` is for operators only, the rest is shown to whoever asked. */
export interface ErrorContext {
  readonly cause?: unknown
  readonly decision?: DecisionId | undefined
  readonly task?: TaskId | undefined
  /** Receipts of the entries about this refusal or failure. */
  readonly receipts?: readonly Receipt[]
  readonly errors?: readonly FieldFault[]
  /** Seconds after which the same request makes sense again. */
  readonly retryAfter?: number | undefined
}

/** The only error that crosses rooms: a stable code, a detail that is safe to show, and a cause that is not. */
export class BrokerError extends Error {
  readonly code: ErrorCode
  /** Safe to show to whoever asked. What only operators may see goes into `cause`. */
  readonly detail: string
  readonly decision: DecisionId | undefined
  readonly task: TaskId | undefined
  readonly receipts: readonly Receipt[]
  readonly errors: readonly FieldFault[]
  readonly retryAfter: number | undefined

  constructor(code: ErrorCode, detail: string, context: ErrorContext = {}) {
    super(`${code}: ${detail}`, { cause: context.cause })
    this.name = 'BrokerError'
    this.code = code
    this.detail = detail
    this.decision = context.decision
    this.task = context.task
    this.receipts = context.receipts ?? []
    this.errors = context.errors ?? []
    this.retryAfter = context.retryAfter
  }

  /** The same error with the receipts of the entries about it. */
  telling(receipts: readonly Receipt[]): BrokerError {
    const { code, detail, cause, decision, task, errors, retryAfter } = this
    return new BrokerError(code, detail, { cause, decision, task, receipts, errors, retryAfter })
  }
}

/** One and the same for every token that is refused, whatever the reason: the difference is for operators, in log and metric. */
export const tokenRefused = (): BrokerError => new BrokerError('invalid_token', 'The workload token was not accepted')

/** The faulty fields of a request, each with its place. */
export const requestRefused = (errors: readonly FieldFault[]): BrokerError =>
  new BrokerError('invalid_request', 'The request is not valid: see `errors`', { errors })

/** A refused start, with every fault and its place, so that one edit can fix them all. */
export class ConfigurationError extends Error {
  readonly faults: readonly string[]

  constructor(faults: readonly string[]) {
    super(faults.join('\n'))
    this.name = 'ConfigurationError'
    this.faults = faults
  }
}

/** The results of all of these. @throws ConfigurationError with the faults of all of them, each once; otherwise the first error, if any */
export async function withAllFaults<Parts extends readonly unknown[]>(parts: { [At in keyof Parts]: Promise<Parts[At]> }): Promise<Parts> {
  const settled = await Promise.allSettled(parts)
  const reasons: unknown[] = settled.flatMap((part) => (part.status === 'rejected' ? [part.reason] : []))
  if (reasons.length === 0) return await Promise.all(parts)
  const faults = new Set(reasons.flatMap((reason) => (reason instanceof ConfigurationError ? reason.faults : [])))
  throw faults.size > 0 ? new ConfigurationError([...faults]) : reasons[0]
}

/** The words of an unknown error for a log line: its message and, for a wrapped one, its cause's; never its other properties. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'not an Error'
  const cause = error.cause instanceof Error ? ` (${error.cause.message})` : ''
  return `${error.message}${cause}`
}

/** The result of `make`, or undefined if it throws a RangeError. Any other error is rethrown. */
export function ifInRange<Made>(make: () => Made): Made | undefined {
  try {
    return make()
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}
