import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { getRequestListener } from '@hono/node-server'
import { describe } from '../base/errors.ts'
import { stopwatch } from '../base/time.ts'
import type { Log, Telemetry } from '../telemetry.ts'
import { refuseBroken, refuseUnreadable } from './unreadable.ts'

/** Where to listen, and with which certificates. */
export interface ListenOptions {
  readonly host: string
  /** 0 takes any free one. */
  readonly port: number
  readonly tls?: {
    /** PEM. */
    readonly cert: string
    readonly key: string
    /** PEM of the authorities whose client certificates are accepted; with it, nobody connects without one. */
    readonly clientCa?: string
  }
  /** How long requests under way have to finish when the broker stops. Milliseconds. */
  readonly grace?: number
  /** What the connections of clients may cost, where it is not what the house says. */
  readonly clients?: Partial<ClientLimits>
}

/** Times in milliseconds. */
export interface ClientLimits {
  /** Connections at once; the next ones are closed as soon as they are accepted. */
  readonly connections: number
  /** From the first byte of a request, or the connection, to the last byte of the headers, and of the request. With TLS the handshake has as long as the headers, before them. */
  readonly headers: number
  readonly request: number
  /** Between an answer and the next request. */
  readonly keepAlive: number
  /** With nothing sent or read on a connection. More than any request may take: its client waits in silence for the answer. */
  readonly silence: number
  /** How often headers and requests that are late are looked for. */
  readonly look: number
}

/** A server that listens. */
export interface Listening {
  readonly address: AddressInfo
  readonly url: string
  /** Refuses new requests, lets those under way finish, then closes what is left. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Node's own are 60 and 300 seconds for a request to arrive, and no limit for the rest: a client that sends one byte now and then, or never reads its
 * answer, would hold a connection for nothing. Requests are small, so these times are short.
 */
const usualClients: ClientLimits = { connections: 4_096, headers: 10_000, request: 15_000, keepAlive: 20_000, silence: 60_000, look: 2_000 }

/** Less than the 30 seconds after which Kubernetes kills. What was to be ended is in the ledger by then, whoever waits for the answer. */
export const usualGrace = 25_000

type Fetch = Parameters<typeof getRequestListener>[0]

/** Serves the app until it is told to stop. @throws Error when the address cannot be had */
export async function listen(fetch: Fetch, options: ListenOptions, telemetry: Telemetry): Promise<Listening> {
  const { log } = telemetry
  const listener = getRequestListener(fetch, { errorHandler: refuseUnreadable(telemetry) })
  const answers = new WeakMap<Duplex, ServerResponse>()
  let stopping: Promise<void> | undefined
  const answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    // A connection that is kept alive would bring one request after the other and hold the stop until the grace is over.
    if (stopping) outgoing.shouldKeepAlive = false
    answers.set(incoming.socket, outgoing)
    void listener(incoming, outgoing)
  }
  const server = open(options, answer)
  server.on(
    'clientError',
    refuseBroken(telemetry, (socket) => isUnderWay(answers.get(socket))),
  )
  // What else is expected (RFC 9110 section 10.1.1) is ignored, as it may be: Node would answer in the app's place.
  server.on('checkExpectation', answer)

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  server.on('error', (error) => log.error({ error: describe(error) }, 'the server failed'))

  const address = server.address() as AddressInfo
  const stop = (): Promise<void> => (stopping ??= drain(server, options.grace ?? usualGrace, log))
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return { address, url: `${options.tls ? 'https' : 'http'}://${host}:${address.port}`, stop, [Symbol.asyncDispose]: stop }
}

const isUnderWay = (answer: ServerResponse | undefined): boolean => answer !== undefined && answer.headersSent && !answer.writableFinished

function open({ tls, clients }: ListenOptions, answer: (incoming: IncomingMessage, outgoing: ServerResponse) => void): Server {
  const limits = { ...usualClients, ...clients }
  const arrival = {
    headersTimeout: limits.headers,
    requestTimeout: limits.request,
    keepAliveTimeout: limits.keepAlive,
    connectionsCheckingInterval: limits.look,
    // One without is refused all the same, by the listener, with a problem.
    requireHostHeader: false,
  }
  const server: Server = tls
    ? createTlsServer({ ...arrival, ...certificates(tls), handshakeTimeout: limits.headers }, answer)
    : createServer(arrival, answer)
  server.timeout = limits.silence
  server.maxConnections = limits.connections
  return server
}

/** TLS 1.2 and up: 1.3 alone would lock out agents behind older company proxies, and 1.2 here means its authenticated ciphers only. */
function certificates({ cert, key, clientCa }: NonNullable<ListenOptions['tls']>) {
  return {
    cert,
    key,
    minVersion: 'TLSv1.2',
    ciphers: 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:ECDHE+AESGCM:ECDHE+CHACHA20',
    ...(clientCa !== undefined && { ca: clientCa, requestCert: true, rejectUnauthorized: true }),
  } as const
}

async function drain(server: Server, grace: number, log: Log): Promise<void> {
  const elapsed = stopwatch()
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  // Connections that were busy a moment ago fall idle without anybody closing them, and would be waited for until their keep-alive ends.
  const sweep = setInterval(() => server.closeIdleConnections(), 100)
  const end = setTimeout(() => {
    log.warn({ after_ms: Math.round(elapsed()) }, 'requests were still under way when the broker stopped')
    server.closeAllConnections()
  }, grace)
  await closed
  clearInterval(sweep)
  clearTimeout(end)
}
