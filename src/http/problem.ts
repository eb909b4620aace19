import type { Context } from 'hono'
import { HTTPException } from 'hono/http-exception'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { ZodError } from 'zod'
import { BrokerError, describe, requestRefused } from '../base/errors.ts'
import type { ErrorCode, FieldFault } from '../base/errors.ts'
import { pointerStep } from '../base/json-pointer.ts'
import { faultsOf, type Path } from '../base/shape-fault.ts'
import type { Log } from '../telemetry.ts'
import type { ProblemDetails } from './contract.ts'
import { viewReceipts } from './views.ts'

interface Wire {
  readonly status: ContentfulStatusCode
  readonly title: string
  readonly retry: ProblemDetails['retry']
}

/** What each reason looks like from outside. Total: a new code does not compile until it stands here. */
export const onTheWire: Record<ErrorCode, Wire> = {
  invalid_request: { status: 400, title: 'The request is not valid', retry: 'no' },
  invalid_token: { status: 401, title: 'The token was not accepted', retry: 'new_token' },
  denied: { status: 403, title: 'This is not permitted', retry: 'no' },
  agent_unknown: { status: 403, title: 'The catalogue has no agent with this identity', retry: 'no' },
  forbidden: { status: 403, title: 'This call is for others', retry: 'no' },
  not_found: { status: 404, title: 'There is nothing here for you', retry: 'no' },
  method_not_allowed: { status: 405, title: 'This address has no such method', retry: 'no' },
  conflict: { status: 409, title: 'The state does not allow this', retry: 'no' },
  in_flight: { status: 409, title: 'The same request is still being answered', retry: 'same' },
  request_timeout: { status: 408, title: 'The request took too long to arrive', retry: 'same' },
  too_large: { status: 413, title: 'The body is too large', retry: 'no' },
  headers_too_large: { status: 431, title: 'The headers are too large', retry: 'no' },
  unsupported_media_type: { status: 415, title: 'The body is of another type than this call reads', retry: 'no' },
  unknown_kind: { status: 422, title: 'The catalogue has no such kind of task', retry: 'no' },
  unknown_grant: { status: 422, title: 'The catalogue has no such grant for this kind', retry: 'no' },
  idempotency_mismatch: { status: 422, title: 'The Idempotency-Key stands for another request', retry: 'no' },
  rate_limited: { status: 429, title: 'Too many requests', retry: 'later' },
  internal: { status: 500, title: 'The broker failed', retry: 'later' },
  provider_failed: { status: 502, title: 'A provider refused or failed', retry: 'later' },
  provider_unavailable: { status: 503, title: 'A provider cannot be reached', retry: 'later' },
  store_unavailable: { status: 503, title: 'The ledger cannot be read or written', retry: 'later' },
  timed_out: { status: 504, title: 'The answer took too long', retry: 'same' },
}

/** RFC 6750 section 3. The same for every refusal, for the same reason. */
const challenge = 'Bearer realm="mayfly", error="invalid_token"'

/** Seconds to stay away after a refusal for want of room that names no time of its own. */
const stayAway = 1

/** What went wrong, as RFC 9457 wants it. */
export function problemOf(error: BrokerError, requestId: string): ProblemDetails {
  const { status, title, retry } = onTheWire[error.code]
  return {
    type: `urn:mayfly:problem:${error.code}`,
    title,
    status,
    detail: error.detail,
    code: error.code,
    retry,
    ...(error.decision && { decision: error.decision }),
    ...(error.task && { task: error.task }),
    ...(error.receipts.length > 0 && { receipts: viewReceipts(error.receipts) }),
    ...(error.errors.length > 0 && { errors: [...error.errors] }),
    request_id: requestId,
  }
}

/** The header of whoever knows when asking again may help. */
export function sayWhenToComeBack(c: Context, { code, retryAfter }: BrokerError): void {
  const { status } = onTheWire[code]
  const seconds = retryAfter ?? (status === 429 || status === 503 ? stayAway : undefined)
  if (seconds !== undefined) c.header('retry-after', String(seconds))
}

/** Answers with it, and with the headers that belong to its status. */
export function answerProblem(c: Context, error: BrokerError): Response {
  const { status } = onTheWire[error.code]
  if (status === 401) c.header('www-authenticate', challenge)
  sayWhenToComeBack(c, error)
  return c.body(JSON.stringify(problemOf(error, c.get('requestId'))), status, { 'content-type': 'application/problem+json' })
}

/** Any error as one of ours. What nobody foresaw is logged in words and shown as nothing but a request id. */
export function asBrokerError(error: unknown, log: Log, requestId: string): BrokerError {
  if (error instanceof BrokerError) {
    // What the house could not do is the operator's business; what it refused is the caller's.
    if (onTheWire[error.code].status >= 500) log.warn({ request_id: requestId, code: error.code, error: describe(error) }, 'request failed')
    return error
  }
  // The framework's own refusals: their messages may quote the request, so ours stand instead.
  if (error instanceof HTTPException && error.status === 400) return requestRefused([{ pointer: '', message: 'could not be read' }])
  if (error instanceof HTTPException && error.status === 415) return new BrokerError('unsupported_media_type', 'This call reads another type of body')
  log.error({ request_id: requestId, error: describe(error) }, 'request failed in a way that is not foreseen')
  return new BrokerError('internal', 'Something failed that should not have. The request id finds it in the log', { cause: error })
}

/** At most so many faults are listed: a thousand wrong grants say nothing that the first ones do not. */
const mostFaults = 32
const longestKey = 64

/** The faults of a body or query, each at its pointer, in the words of the house, none with the value that is at fault. */
export function fieldFaults(error: ZodError, target: string): FieldFault[] {
  const faults = error.issues.flatMap(faultsOf).map(({ path, message }) => ({ pointer: pointerTo(path, target), message }))
  return faults.slice(0, mostFaults)
}

/** RFC 6901 for a body, `?name` for a query parameter, the plain name for a header. */
function pointerTo(path: Path, target: string): string {
  if (target === 'query') return `?${stepsOf(path).join('.')}`
  if (target === 'header') return stepsOf(path).join('.')
  return pointerIn(path)
}

/** RFC 6901, into a body. Empty for the whole of it. */
export const pointerIn = (path: Path): string => stepsOf(path).map(pointerStep).join('')

const stepsOf = (path: Path): string[] => path.map((step) => String(step).slice(0, longestKey))
