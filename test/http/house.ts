import { Writable } from 'node:stream'
import type { OpenAPIHono } from '@hono/zod-openapi'
import { tokenRefused } from '../../src/base/errors.ts'
import type { Clock } from '../../src/base/time.ts'
import { createApp, createFrame, type Env, type Parts } from '../../src/http/app.ts'
import type { Actor } from '../../src/identity/actor.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import type { Agent } from '../../src/policy/entry.ts'
import type { Target } from '../../src/providers/target.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { queryOf } from '../support/query.ts'

/** A request that Hono's `app.request` takes. */
export interface Asked {
  readonly method?: string
  readonly token?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  /** Sent as it is, as JSON unless the headers say otherwise. */
  readonly text?: string | Uint8Array
}

/** The HTTP room with hand-made walls: tokens are names, and the ledger is whatever function a test gives. */
export interface House {
  readonly app: OpenAPIHono<Env>
  readonly parts: Parts
  /** Log lines, parsed. */
  readonly log: Record<string, unknown>[]
  ask(path: string, asked?: Asked): Promise<Response>
  problem(path: string, asked?: Asked): Promise<Record<string, unknown>>
}

export interface Built {
  readonly ledger?: (statement: string, parameters: readonly unknown[]) => Promise<readonly object[]>
  readonly clock?: Clock
  readonly targets?: ReadonlyMap<string, Target>
  readonly parts?: Partial<Parts>
  /** Only the walls, for a test that hangs its own route under them. */
  readonly frame?: boolean
}

export const audience = 'https://invoices.example.com'

/** Tokens that are accepted, each named like the one who holds it. */
export const holders = ['agent', 'operator', 'reviewer', 'server', 'stranger'] as const

export function buildHouse({ ledger, clock, targets, parts, frame }: Built = {}): House {
  const log: Record<string, unknown>[] = []
  const destination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      for (const line of chunk.toString().split('\n').filter(Boolean)) log.push(JSON.parse(line) as Record<string, unknown>)
      done()
    },
  })
  const telemetry = createTelemetry({ level: 'debug', destination })
  const broker = {
    ledger: ledgerOf(ledger ?? (async () => [])),
    targets: targets ?? new Map<string, Target>(),
    policy: () => ({ catalogue: { agentOf: (actor: Actor) => (actor.subject === 'agent' ? agent : undefined) } }),
    telemetry,
    clock: clock ?? (() => Date.parse('2026-11-24T09:30:00Z')),
    limits: { leasesPerTask: 16, stuckAfter: 60_000 },
    digestKey: new Uint8Array(32),
    background: {},
  } as unknown as Broker
  const whole: Parts = {
    broker,
    verifier: {
      verify: async (token) => {
        if (!(holders as readonly string[]).includes(token)) throw tokenRefused()
        return actorOf(token)
      },
      ready: () => [{ issuer: 'corp', ok: true, detail: '' }],
      close: () => {},
    },
    reaper: { lastLap: () => 20 },
    sequencer: { refusal: () => undefined, hasStrays: () => false },
    log: { key: logKeyOf(new Uint8Array(32).fill(7)), origin: 'broker.example.com' },
    stop: new AbortController().signal,
    publicUrl: 'https://broker.example.com',
    operators: [
      { issuer: 'corp', match: { sub: 'operator' }, roles: ['operator'] },
      { issuer: 'corp', match: { sub: 'reviewer' }, roles: ['reviewer'] },
    ],
    resourceServers: [{ issuer: 'corp', match: { sub: 'server' }, audience }],
    ...parts,
  }
  const app = frame ? createFrame(whole) : createApp(whole)
  const ask = async (path: string, asked: Asked = {}) => app.request(path, init(asked))
  return {
    app,
    parts: whole,
    log,
    ask,
    problem: async (path, asked) => {
      const answer = await ask(path, asked)
      if (answer.headers.get('content-type') !== 'application/problem+json') throw new Error(`${path} answered ${answer.status} without a problem`)
      return (await answer.json()) as Record<string, unknown>
    },
  }
}

function init({ method, token, headers, json, text }: Asked): RequestInit {
  const body = text ?? (json === undefined ? undefined : JSON.stringify(json))
  return {
    method: method ?? 'GET',
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body }),
  }
}

const actorOf = (subject: string): Actor => ({
  issuer: 'corp',
  profile: 'oidc',
  subject,
  trustDomain: undefined,
  attributes: { sub: subject },
  token: { digest: '0'.repeat(64), jti: undefined, kid: 'k', alg: 'ES256', expiresAt: 0 },
})

const agent: Agent = { name: 'invoice-bot', issuer: 'corp', match: {}, owner: 'finance@example.com', groups: [], tags: [], maxLiveLeases: 10 }

function ledgerOf(run: NonNullable<Built['ledger']>): Ledger {
  const close = async () => {}
  return {
    embedded: true,
    isNewer: false,
    run: async <Row extends object>(statement: Parameters<Ledger['run']>[0]) => {
      const { sql, params } = queryOf(statement)
      return (await run(sql, params)) as readonly Row[]
    },
    onDue: async () => {},
    failures: () => 0,
    hasRoom: async () => true,
    close,
    [Symbol.asyncDispose]: close,
  }
}
