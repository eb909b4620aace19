import type { ClientRequest, IncomingMessage } from 'node:http'

/** A whole answer. */
export interface Answer {
  readonly status: number
  /** Lower case, without parameters; empty where the answer names none. */
  readonly mediaType: string
  /** The `Location` header, where there is one. */
  readonly location: string | undefined
  /** Milliseconds for which the backend does not want to be asked again, by the `Retry-After` header of a rate limit (429); 0 where it says nothing. */
  readonly pointlessFor: number
  readonly body: string
}

/** No answer. `sent` tells whether the backend may have heard the question: false only where no connection ever stood. */
export class NoAnswer extends Error {
  readonly fault: 'unavailable' | 'timed_out' | 'garbage'
  readonly sent: boolean

  constructor(fault: NoAnswer['fault'], sent: boolean, message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'NoAnswer'
    this.fault = fault
    this.sent = sent
  }
}

/** Milliseconds. What a backend asks for beyond this is not waited for: an end is not put off by more, whoever writes the header. */
const longestPause = 60_000

/** Bytes of an answer: room for the largest credential that a backend may give, and no more than a mint may cost. */
const largestAnswer = 65_536

/**
 * One question to a backend and its whole answer, or the reason why there is none. No redirects, no retries. node:http and not fetch, which has no
 * option for a client certificate.
 *
 * @param open opens the request, with its headers
 * @throws NoAnswer
 */
export function exchange(open: () => ClientRequest, body: string | undefined, signal: AbortSignal): Promise<Answer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new NoAnswer('timed_out', false, 'no answer in time'))
    let request: ClientRequest
    try {
      request = open()
    } catch (cause) {
      // A certificate file that holds no certificate: nothing was connected.
      return reject(new NoAnswer('unavailable', false, 'no connection', cause))
    }

    let sent = false
    const fail = (fault: NoAnswer['fault'], message: string, cause?: unknown): void => {
      reject(new NoAnswer(fault, sent, message, cause))
      request.destroy()
    }
    const giveUp = (): void => fail('timed_out', 'no answer in time')
    signal.addEventListener('abort', giveUp, { once: true })

    request.on('socket', (socket) => {
      if (request.reusedSocket) sent = true
      // A TLS connection stands once the backend's certificate was accepted; before that not a byte of the question leaves.
      else socket.once('encrypted' in socket ? 'secureConnect' : 'connect', () => (sent = true))
    })
    request.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code?.startsWith('HPE_')) return fail('garbage', 'the answer is not HTTP')
      return fail('unavailable', sent ? 'the connection was lost' : 'no connection', error)
    })
    request.on('close', () => signal.removeEventListener('abort', giveUp))
    request.on('response', (response) => read(response, resolve, fail))
    request.end(body)
  })
}

/** Reads an answer to its end, or fails once it is larger than any answer of the contract. */
function read(
  response: IncomingMessage,
  resolve: (answer: Answer) => void,
  fail: (fault: NoAnswer['fault'], message: string, cause?: unknown) => void,
) {
  const chunks: Buffer[] = []
  let size = 0
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > largestAnswer) return fail('garbage', 'the answer is too large')
    chunks.push(chunk)
  })
  response.on('error', (error) => fail('unavailable', 'the connection was lost', error))
  response.on('end', () => {
    const mediaType = (response.headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
    const { location, 'retry-after': pause } = response.headers
    const status = response.statusCode ?? 0
    // Of a rate limit alone. An outage is over when it is, whatever a proxy believed of it: what is due then is to be done within seconds.
    const pointlessFor = status === 429 ? pauseOf(pause) : 0
    resolve({ status, mediaType, location, pointlessFor, body: Buffer.concat(chunks).toString('utf8') })
  })
}

/** Seconds alone (RFC 9110, 10.2.3): of a date one would have to know the backend's clock. */
const pauseOf = (header: string | undefined): number =>
  header !== undefined && /^\d{1,9}$/.test(header) ? Math.min(longestPause, Number(header) * 1_000) : 0

/** Files that cannot be used are a backend that cannot be asked: nothing was sent. @throws NoAnswer */
export async function unlessUnreadable<T>(files: () => Promise<T>): Promise<T> {
  try {
    return await files()
  } catch (cause) {
    throw new NoAnswer('unavailable', false, 'its token or certificate files cannot be used', cause)
  }
}
