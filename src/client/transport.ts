import { isBearerToken } from '../base/bearer.ts'
import { readUpTo } from '../base/bytes.ts'
import { within } from '../base/signal.ts'
import { delay, stopwatch } from '../base/time.ts'
import type { Fetch } from './mutual-tls.ts'
import { BrokerUnreachable, mayBeDone, MayflyProblem, problemOf } from './problem.ts'

/** One call of the API. */
export interface Call {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly body?: object
  readonly form?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  /** By which the broker knows that a declaration is the same again. */
  readonly idempotencyKey?: string
  /** A task token in the place of the workload token. */
  readonly token?: string
  /** Whether the same call may be sent again when no answer came: then what was asked may have happened already. */
  readonly repeatable: boolean
  readonly signal?: AbortSignal | undefined
  /** Whether the answer may be the only copy of a credential. */
  readonly mints?: boolean
  /** Milliseconds for one try, beyond the usual: what a `Prefer: wait` adds, or what is started and not asked again. */
  readonly extraTime?: number
}

export interface TransportOptions {
  /** Without a trailing slash. */
  readonly url: string
  /** The workload token, asked for at each try, since it may be renewed meanwhile. */
  readonly token: () => Promise<string>
  /** With what is asked, at each try anew, since a client certificate may be renewed meanwhile too. */
  readonly fetch: () => Promise<Fetch>
  /** Milliseconds for one try. */
  readonly timeout: number
  /** Milliseconds for one try of what mints. */
  readonly mintTimeout: number
  /** Milliseconds after which no further try is begun; the longest try is not counted. */
  readonly patience: number
}

/** An answer's status and text. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** Bytes of an answer: a page of 500 ledger entries stays far below. */
const longestAnswer = 16 * 1024 * 1024

/**
 * Milliseconds, where nothing else is said. A try of what mints lasts longer than the 30 s for which a broker works at a request, by its default: else
 * credentials could be made for somebody who has stopped listening. So does one of what starts a revocation or a stop, at which a broker works for 45 s and
 * which is not asked again. What ends or looks is better asked again soon, perhaps of another broker.
 */
export const usual = { timeout: 15_000, mintTimeout: 35_000, startTimeout: 50_000, patience: 10_000 }

/** Milliseconds before the first retry, doubled with each, and the most. */
const backoff = { first: 100, most: 2_000 }

/**
 * Sends a call and gives back an answer below 300; tries again, with full jitter and within `patience`, what the broker says to try again and what
 * never reached it. A try that took all its time is followed by another one, since what it asked for may have happened: so patience does not count the longest.
 * @throws MayflyProblem, BrokerUnreachable, the signal's reason
 */
export async function send(options: TransportOptions, call: Call): Promise<Answer> {
  const elapsed = stopwatch()
  let longest = 0
  for (let attempt = 0; ; attempt++) {
    const begun = elapsed()
    try {
      return await sendOnce(options, call)
    } catch (error) {
      const pause = pauseAfter(error, call, attempt)
      const now = elapsed()
      longest = Math.max(longest, now - begun)
      if (pause === undefined || now - longest + pause > options.patience) throw error
      await delay(pause, call.signal)
    }
  }
}

function pauseAfter(error: unknown, call: Call, attempt: number): number | undefined {
  const jitter = Math.random() * Math.min(backoff.most, backoff.first * 2 ** Math.min(attempt, 10))
  if (error instanceof MayflyProblem) {
    if (error.retry !== 'same' && error.retry !== 'later') return undefined
    if (mayBeDone(error) && !call.repeatable) return undefined
    return Math.max(jitter, (error.retryAfter ?? 0) * 1_000)
  }
  return error instanceof BrokerUnreachable && !error.isLasting && call.repeatable ? jitter : undefined
}

async function sendOnce({ url, token, fetch: prepare, timeout, mintTimeout }: TransportOptions, call: Call): Promise<Answer> {
  // A file ends with a line end.
  const bearer = (call.token ?? (await token())).trim()
  // Here, because Node's fetch repeats in its complaint what it cannot send.
  if (!isBearerToken(bearer)) throw new TypeError('the token holds what no token holds, such as a line end, or nothing: it was not sent')
  const ask = await prepare()
  call.signal?.throwIfAborted()
  return await within((call.mints ? mintTimeout : timeout) + (call.extraTime ?? 0), call.signal, outOfTime, async (signal) => {
    try {
      const response = await ask(`${url}${call.path}`, { ...contentOf(call, bearer), method: call.method, signal })
      const text = await readText(response.body ?? [])
      // Not followed, since the token would travel along: told as a refusal, since asking again would not help.
      if (response.status >= 300) throw problemOf(response.status, response.headers, parsed(text), call.idempotencyKey)
      return { status: response.status, headers: response.headers, text }
    } catch (error) {
      if (error instanceof MayflyProblem) throw error
      call.signal?.throwIfAborted()
      throw unreachable(url, signal.aborted ? signal.reason : error, call.idempotencyKey)
    }
  })
}

const outOfTime = (): Error => new DOMException('no answer in time', 'TimeoutError')

function contentOf({ body, form, headers, idempotencyKey: key }: Call, bearer: string): { headers: Record<string, string>; body?: string } {
  const all = { ...headers, ...(key !== undefined && { 'idempotency-key': key }), authorization: `Bearer ${bearer}` }
  if (form) return { headers: { ...all, 'content-type': 'application/x-www-form-urlencoded' }, body: new URLSearchParams(form).toString() }
  return body ? { headers: { ...all, 'content-type': 'application/json' }, body: JSON.stringify(body) } : { headers: all }
}

async function readText(body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<string> {
  const bytes = await readUpTo(body, longestAnswer)
  if (!bytes) throw new Error('the answer is too large')
  return new TextDecoder().decode(bytes)
}

/** The body of a refusal; whatever is not JSON says nothing. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const untrusted = 'its certificate is of an authority that is not trusted here: name the PEM file of that authority in NODE_EXTRA_CA_CERTS'

/** What is the same at the next try, in words, by the codes that Node and OpenSSL have for it: somebody has to change something. */
const lasting: Readonly<Record<string, string>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: untrusted,
  UNABLE_TO_GET_ISSUER_CERT: untrusted,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: untrusted,
  SELF_SIGNED_CERT_IN_CHAIN: untrusted,
  DEPTH_ZERO_SELF_SIGNED_CERT: untrusted,
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another name',
  ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE: 'it refused the TLS handshake, as one does that asks for a client certificate and is shown none',
  ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED: 'it asks for a client certificate, and was shown none',
  ERR_SSL_TLSV1_ALERT_UNKNOWN_CA: 'it does not trust the client certificate that it was shown',
  ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE: 'it does not accept the client certificate that it was shown',
  ERR_SSL_WRONG_VERSION_NUMBER: 'what listens there does not speak TLS: is it http?',
}

const closed = 'the connection was closed'

/** What may be another way at the next try, in words. */
const passing: Readonly<Record<string, string | undefined>> = {
  ECONNREFUSED: 'the connection was refused',
  ECONNRESET: closed,
  EPIPE: closed,
  UND_ERR_SOCKET: closed,
}

/** TLS 1.3 lets a server only hang up then, as one does that goes away. */
const perhapsUncertified = 'A broker that asks for a client certificate does that to whoever shows none that it trusts'

/** Node's fetch says only "fetch failed"; what failed stands in its cause. */
function unreachable(url: string, error: unknown, idempotencyKey: string | undefined): BrokerUnreachable {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code = String((cause as { code?: unknown }).code)
  const unchanging = Object.hasOwn(lasting, code) ? lasting[code] : undefined
  if (unchanging !== undefined) return new BrokerUnreachable(url, unchanging, { cause: error, isLasting: true, idempotencyKey })
  // Some have none, such as what Node makes of a proxy's 407.
  const message = [cause, error].flatMap((one) => (one instanceof Error ? one.message : [])).find((text) => text !== '')
  const why = passing[code] ?? message ?? 'unknown'
  const words = url.startsWith('https:') && why === closed ? `${why}. ${perhapsUncertified}` : why
  return new BrokerUnreachable(url, words, { cause: error, isRefused: code === 'ECONNREFUSED', idempotencyKey })
}
