import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { describe } from '../base/errors.ts'
import { stopwatch } from '../base/time.ts'
import type { Log } from '../telemetry.ts'

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
 * Milliseconds. Node's own are 300 and 60 seconds: time in which one idle client can hold a connection for nothing. Requests are small, so
 * these are for their arrival only, not for the answer.
 */
const arrival = { requestTimeout: 15_000, headersTimeout: 10_000, keepAliveTimeout: 20_000, connectionsCheckingInterval: 2_000 } as const

/** As long as the longest answer of a call that ends something. */
const usualGrace = 45_000

type Fetch = Parameters<typeof getRequestListener>[0]

/** Serves the app until it is told to stop. @throws Error when the address cannot be had */
export async function listen(fetch: Fetch, options: ListenOptions, log: Log): Promise<Listening> {
  const listener = getRequestListener(fetch, { errorHandler: refuseUnreadable(log) })
  const answer = (...args: Parameters<typeof listener>) => void listener(...args)
  const server: Server = options.tls ? createTlsServer({ ...arrival, ...certificates(options.tls) }, answer) : createServer({ ...arrival }, answer)

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, options.host, () => {
      server.off('error', reject)
      resolve()
    })
  })
  server.on('error', (error) => log.error({ error: describe(error) }, 'the server failed'))

  const address = server.address() as AddressInfo
  const stop = () => drain(server, options.grace ?? usualGrace, log)
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return { address, url: `${options.tls ? 'https' : 'http'}://${host}:${address.port}`, stop, [Symbol.asyncDispose]: stop }
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

/** What cannot even be made a request, such as one with a broken Host header, never reaches the app: the same shape of answer, from here. */
function refuseUnreadable(log: Log) {
  return (error: unknown): Response => {
    const unreadable = error instanceof Error && error.name === 'RequestError'
    if (!unreadable) log.error({ error: describe(error) }, 'request failed outside of the app')
    const [status, code, title] = unreadable ? [400, 'invalid_request', 'The request is not valid'] : [500, 'internal', 'The broker failed']
    const body = { type: `urn:mayfly:problem:${code}`, title, status, detail: title, code, retry: 'no' }
    return new Response(JSON.stringify(body), {
      status: status as number,
      headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store' },
    })
  }
}

const stopping = new WeakMap<Server, Promise<void>>()

/** Once, however often it is asked for. */
function drain(server: Server, grace: number, log: Log): Promise<void> {
  const running = stopping.get(server) ?? closeAll(server, grace, log)
  stopping.set(server, running)
  return running
}

async function closeAll(server: Server, grace: number, log: Log): Promise<void> {
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
