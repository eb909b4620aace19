import type { ZodType } from 'zod'
import { ProblemDetails } from './contract.ts'

/** An answer with this shape. */
export const json = <Schema extends ZodType>(description: string, schema: Schema) => ({ description, content: { 'application/json': { schema } } })

/** A body with this shape, without which the call makes no sense. */
export const body = <Schema extends ZodType>(schema: Schema) => ({ body: { required: true, content: { 'application/json': { schema } } } }) as const

/** A body with this shape, or none. */
export const optionalBody = <Schema extends ZodType>(schema: Schema) => ({ body: { content: { 'application/json': { schema } } } }) as const

const problem = (description: string) => ({ description, content: { 'application/problem+json': { schema: ProblemDetails } } })

/** What any call behind a token may answer instead. */
export const problems = {
  400: problem('`invalid_request`: malformed, or a field is at fault; see `errors`'),
  401: problem('`invalid_token`: none, or one that was not accepted'),
  403: problem('`denied`, `agent_unknown` or `forbidden`'),
  404: problem('`not_found`: also for what is not yours'),
  408: problem('`request_timeout`'),
  413: problem('`too_large`'),
  415: problem('`unsupported_media_type`'),
  429: problem('`rate_limited`; come back after `retry-after` seconds'),
  431: problem('`headers_too_large`'),
  500: problem('`internal`'),
  503: problem('`store_unavailable` or `provider_unavailable`; come back after `retry-after` seconds'),
  504: problem('`timed_out`'),
} as const

/** What a call that changes something may answer as well. */
export const conflicts = { 409: problem('`conflict`, or `in_flight`; come back after `retry-after` seconds, where it has that') } as const

/** What a call that asks for something new may answer as well. */
export const refusals = {
  ...conflicts,
  422: problem('`unknown_kind`, `unknown_grant` or `idempotency_mismatch`'),
  502: problem('`provider_failed`'),
} as const
