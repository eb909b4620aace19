import { Writable } from 'node:stream'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { tokenRefused } from '../../src/base/errors.ts'
import { createApp, type Env } from '../../src/http/app.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import type { House } from './house.ts'

/** A house that is spoken to over HTTP. Tokens are subjects here: how tokens are verified is the identity room's matter. */
export interface Served {
  readonly app: OpenAPIHono<Env>
  call<Body>(method: string, path: string, as: string, body?: unknown, headers?: Record<string, string>): Promise<Answer<Body>>
  /** Everything that was logged so far. */
  log(): string
}

export interface Answer<Body> {
  readonly status: number
  readonly headers: Headers
  readonly body: Body
  readonly text: string
}

/** With what the log of a served house is signed, and what it is called. */
export const log = { key: logKeyOf(new Uint8Array(32).fill(7)), origin: 'broker.test' }

/** A colon has no place in a token, and subjects have one. */
export const bearer = (as: string): string => `Bearer ${as.replace(':', '~')}`

export function serveHouse(house: House): Served {
  let logged = ''
  const destination = new Writable({ write: (chunk: Buffer, _, done) => ((logged += chunk.toString()), done()) })
  const app = createApp({
    broker: { ...house.broker, telemetry: createTelemetry({ level: 'debug', destination }) },
    verifier: {
      verify: async (token) => {
        const subject = token.replace('~', ':')
        if (!/^(agent|operator|reviewer|server):/.test(subject)) throw tokenRefused()
        const { actor } = house.caller('bot')
        return { ...actor!, subject, attributes: { sub: subject } }
      },
      ready: () => [],
      close: () => {},
    },
    reaper: { lastLap: () => 0 },
    sequencer: { refusal: () => undefined, hasStrays: () => false },
    log,
    stop: new AbortController().signal,
    publicUrl: 'http://broker.test',
    operators: [
      { issuer: 'local', match: { sub: 'operator:ops' }, roles: ['operator'] },
      { issuer: 'local', match: { sub: 'reviewer:eve' }, roles: ['reviewer'] },
    ],
    resourceServers: [
      { issuer: 'local', match: { sub: 'server:api' }, audience: 'https://api.example.com' },
      { issuer: 'local', match: { sub: 'server:other' }, audience: 'https://other.example.com' },
    ],
  })
  return {
    app,
    log: () => logged,
    async call<Body>(method: string, path: string, as: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer<Body>> {
      const answer = await app.request(path, {
        method,
        headers: { authorization: bearer(as), ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      const text = await answer.text()
      return { status: answer.status, headers: answer.headers, body: JSON.parse(text) as Body, text }
    },
  }
}
