import { randomUUID } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import { BrokerError, requestRefused } from '../base/errors.ts'
import type { Telemetry } from '../telemetry.ts'
import { asBrokerError, problemOf } from './problem.ts'

/*
 * What never becomes a request that the app could answer: the same shape of answer from here, with an id, counted and logged. Never a word of what was sent,
 * in which a token may stand.
 */

/** The problem for what is no request, by the error's code at Node. Undefined: nothing that was sent, as a handshake that failed, or a client that has gone. */
function problemWith({ code = '' }: NodeJS.ErrnoException): BrokerError | undefined {
  switch (code) {
    case 'HPE_HEADER_OVERFLOW':
      return new BrokerError('headers_too_large', 'The headers may have 16 KiB, and a token 8 KiB of them')
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return new BrokerError('too_large', 'The parts of the body say more of themselves than is read')
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return new BrokerError('request_timeout', 'The request did not arrive in time')
    default:
      return code.startsWith('HPE_') ? requestRefused([{ pointer: '', message: 'is not well-formed HTTP/1.1' }]) : undefined
  }
}

/** What Node could not read. It is destroyed once it is told why, if it can be told: an answer that has begun is not written into. */
export function refuseBroken(telemetry: Telemetry, isAnswered: (socket: Duplex) => boolean) {
  return (error: NodeJS.ErrnoException, socket: Duplex): void => {
    const refusal = problemWith(error)
    if (!refusal || !socket.writable || isAnswered(socket)) return void socket.destroy()
    const { status, headers, body } = refused(telemetry, refusal, randomUUID())
    const fields = Object.entries({ ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' })
    const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...fields.map(([name, value]) => `${name}: ${value}`)]
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy())
  }
}

/** What the listener could not hand to the app, such as a request with a broken Host header, or none. */
export function refuseUnreadable(telemetry: Telemetry) {
  return (error: unknown): Response => {
    const requestId = randomUUID()
    const unreadable = error instanceof Error && error.name === 'RequestError'
    const refusal = unreadable ? requestRefused([addressless]) : asBrokerError(error, telemetry.log, requestId)
    const { status, headers, body } = refused(telemetry, refusal, requestId)
    return new Response(body, { status, headers })
  }
}

const addressless = { pointer: 'host', message: 'must make an address, with the target of the request' }

function refused({ log, metrics }: Telemetry, refusal: BrokerError, requestId: string) {
  const problem = problemOf(refusal, requestId)
  // It took no time that could be told: there was no request from which to count.
  metrics.requests.observe({ method: 'other', route: 'none', status: String(problem.status) }, 0)
  log.debug({ request_id: requestId, status: problem.status, code: problem.code }, 'what was sent is no request')
  const headers = { 'content-type': 'application/problem+json', 'cache-control': 'no-store', 'x-request-id': requestId }
  return { status: problem.status, headers, body: JSON.stringify(problem) }
}
