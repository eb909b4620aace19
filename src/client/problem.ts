import type { FieldFault } from '../base/errors.ts'
import type { ReceiptView } from '../http/contract.ts'

/** What the broker said no with (RFC 9457), as its `code` and `retry` mean it. */
export class MayflyProblem extends Error {
  readonly status: number
  /** Stable: `denied`, `invalid_token`, `unknown_grant`, … */
  readonly code: string
  /** `no`: the same request will not do. `same`: the same again. `later`: after a while. `new_token`: with a fresh workload token. */
  readonly retry: 'no' | 'same' | 'later' | 'new_token'
  readonly detail: string
  /** The id of the decision, if there was one: a reviewer finds the reason with it. */
  readonly decision: string | undefined
  /** Receipts of the ledger's entries about this refusal. */
  readonly receipts: readonly ReceiptView[]
  readonly errors: readonly FieldFault[]
  readonly requestId: string | undefined
  /** Seconds, from `retry-after`. */
  readonly retryAfter: number | undefined
  /** Of a declaration: the same again with this key heals what was lost, where the broker opened a task whose answer did not arrive. */
  readonly idempotencyKey: string | undefined

  constructor(problem: Omit<MayflyProblem, keyof Error>) {
    super(`${problem.code}: ${problem.detail}`)
    this.name = 'MayflyProblem'
    this.status = problem.status
    this.code = problem.code
    this.retry = problem.retry
    this.detail = problem.detail
    this.decision = problem.decision
    this.receipts = problem.receipts
    this.errors = problem.errors
    this.requestId = problem.requestId
    this.retryAfter = problem.retryAfter
    this.idempotencyKey = problem.idempotencyKey
  }
}

/**
 * Whether what was asked for may have been done all the same. An error of a proxy, or of a broker in the middle, says nothing about that, and the store may
 * have been lost behind the commit. Only of a provider that cannot be reached is nothing left: the broker ends whatever may have been made before it says so.
 */
export const mayBeDone = ({ status, code }: MayflyProblem): boolean => status >= 500 && code !== 'provider_unavailable'

interface Unanswered {
  readonly cause?: unknown
  readonly isRefused?: boolean
  readonly isLasting?: boolean
  readonly idempotencyKey?: string | undefined
}

/** No answer, or not a broker's. The request may have been carried out. */
export class BrokerUnreachable extends Error {
  readonly url: string
  /** Whether the next try would meet the same, such as a certificate that is not trusted. */
  readonly isLasting: boolean
  /** Whether nobody listens there: then nothing was asked. */
  readonly isRefused: boolean
  /** Of a declaration: the same again with this key heals what was lost, where the broker opened a task whose answer did not arrive. */
  readonly idempotencyKey: string | undefined

  constructor(url: string, why: string, { cause, isLasting = false, isRefused = false, idempotencyKey }: Unanswered = {}) {
    super(`no answer from ${url}: ${why}${idempotencyKey === undefined || isLasting ? '' : ` (Idempotency-Key ${idempotencyKey})`}`, { cause })
    this.name = 'BrokerUnreachable'
    this.url = url
    this.isLasting = isLasting
    this.isRefused = isRefused
    this.idempotencyKey = idempotencyKey
  }
}

/** Reads a refusal of any origin: a proxy in between has its own formats. */
export function problemOf(status: number, headers: Headers, body: unknown, idempotencyKey?: string): MayflyProblem {
  const fields = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>
  const text = (name: string): string | undefined => (typeof fields[name] === 'string' ? fields[name] : undefined)
  const retry = text('retry')
  const seconds = Number(headers.get('retry-after') ?? Number.NaN)
  return new MayflyProblem({
    status,
    code: text('code') ?? `http_${status}`,
    retry:
      retry === 'same' || retry === 'later' || retry === 'new_token'
        ? retry
        : retry === undefined && (status === 429 || status >= 502)
          ? 'later'
          : 'no',
    detail: text('detail') ?? text('title') ?? wordsFor(status),
    decision: text('decision'),
    receipts: receiptsIn(fields['receipts']),
    errors: Array.isArray(fields['errors']) ? fields['errors'].filter(isFault) : [],
    requestId: headers.get('x-request-id') ?? undefined,
    retryAfter: Number.isFinite(seconds) ? seconds : undefined,
    idempotencyKey,
  })
}

const wordsFor = (status: number): string =>
  status < 400 ? `the answer was ${status}: redirects are not followed, since the token would travel along` : `the answer was ${status}`

/** Those that can be held against the log. */
export const receiptsIn = (value: unknown): readonly ReceiptView[] => (Array.isArray(value) ? value.filter(isReceipt) : [])

function isReceipt(value: unknown): value is ReceiptView {
  const { entry, kind, leaf_hash: hash } = (value ?? {}) as Partial<Record<keyof ReceiptView, unknown>>
  return [entry, kind, hash].every((field) => typeof field === 'string')
}

function isFault(value: unknown): value is FieldFault {
  const { pointer, message } = (value ?? {}) as Partial<Record<keyof FieldFault, unknown>>
  return typeof pointer === 'string' && typeof message === 'string'
}
