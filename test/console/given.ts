import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { sql } from 'drizzle-orm'
import { createApp } from '../../src/http/app.ts'
import type { Rates } from '../../src/http/gate.ts'
import { listen } from '../../src/http/listen.ts'
import { createConsole } from '../../src/console/console.ts'
import { writeLink } from '../../src/console/link.ts'
import type { StreamLimits } from '../../src/http/streams.ts'
import type { Issuer } from '../../src/identity/issuer.ts'
import { createVerifier } from '../../src/identity/verify.ts'
import type { OperatorEntry } from '../../src/identity/operators.ts'
import type { TaskId } from '../../src/base/ids.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import type { Sequencer } from '../../src/ledger/sequencer.ts'
import { findTask } from '../../src/ledger/records.ts'
import { spendToken } from '../../src/ledger/tokens.ts'
import { freePort } from '../support/port.ts'
import { type House, startHouse } from '../support/house.ts'
import type { OpenedStore } from '../support/stores.ts'
import { type PeopleIssuer, startPeopleIssuer } from './issuer.ts'

/** The console of a house, on a port of its own, with a real issuer behind it. */
export interface ConsoleHouse {
  /** Its address, without a trailing slash. */
  readonly url: string
  readonly people: PeopleIssuer
  /** The entry of that issuer. */
  readonly corp: Issuer
  /** A one-time link for a subject of the local issuer. */
  link(subject: string): string
  /** A browser without a window: it keeps cookies and follows nothing by itself. */
  visitor(): Visitor
  /** Somebody who has signed in by a link. */
  signedIn(as: 'ops' | 'reader'): Promise<Visitor>
  stop(): Promise<void>
}

export interface Visitor {
  /** @param path below the console, or a whole address */
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<Response>
  /** Sends a form as a page of the console would, with the token of its session unless told otherwise. */
  post(path: string, fields: Readonly<Record<string, string>>, headers?: Readonly<Record<string, string>>): Promise<Response>
  /** Begins to send a form: its headers, and nothing of what they say will come. */
  begin(path: string): BegunForm
  /** Follows where an answer leads until it is a page of the console, or the issuer's. */
  follow(answer: Response): Promise<Response>
  readonly cookies: Map<string, string>
}

export interface BegunForm {
  /** Rejects where the connection ends without one. */
  readonly answer: Promise<IncomingMessage>
  /** Closes the connection. */
  leave(): void
}

const key = new Uint8Array(32).fill(9)

export const operators: readonly OperatorEntry[] = [
  { issuer: 'corp', match: { groups: 'sec-ops' }, roles: ['operator', 'reviewer'] },
  { issuer: 'corp', match: { groups: 'audit' }, roles: ['reviewer'] },
  { issuer: 'local', match: { sub: 'operator:ops' }, roles: ['operator', 'reviewer'] },
  { issuer: 'local', match: { sub: 'operator:reader' }, roles: ['reviewer'] },
]

export interface ConsoleOptions {
  readonly operators?: readonly OperatorEntry[]
  /** Instead of an entry of its own issuer. */
  readonly corp?: Issuer
  /** Instead of the one that the issuer has registered. */
  readonly clientSecret?: string
  readonly live?: StreamLimits
  readonly rates?: Partial<Rates>
  readonly sequencer?: Pick<Sequencer, 'refusal'>
  /** Milliseconds. */
  readonly sessionLifetime?: number
}

export async function openConsole(house: House, options: ConsoleOptions = {}): Promise<ConsoleHouse> {
  const port = await freePort()
  const publicUrl = `http://127.0.0.1:${port}`
  const people = await startPeopleIssuer(`${publicUrl}/console/signed-in`)
  const { broker } = house
  const corp: Issuer = options.corp ?? { name: 'corp', profile: 'oidc', issuer: people.issuer, keys: { discovery: true } }
  const verifier = createVerifier([corp], {
    audience: people.clientId,
    clock: broker.clock,
    spend: (spent, until) => spendToken(house.ledger, spent, until),
    refused: (reason, issuer) => broker.telemetry.log.info({ reason, issuer }, 'a workload token was refused'),
  })
  const stop = new AbortController()
  const given = { broker, publicUrl, operators: options.operators ?? operators }
  const log = { key: logKeyOf(new Uint8Array(32)), origin: 'broker.test' }
  const sequencer = { refusal: () => undefined, hasStrays: () => false, ...options.sequencer }
  const app = createApp({
    ...given,
    verifier,
    reaper: { lastLap: () => 20 },
    sequencer,
    log,
    stop: stop.signal,
    resourceServers: [],
    ...(options.rates && { rates: options.rates }),
  })
  const settings = { ...people, clientSecret: options.clientSecret ?? people.clientSecret, scopes: ['groups'], allowHttp: true }
  app.route(
    '/console',
    createConsole({
      ...given,
      key,
      sessionLifetime: options.sessionLifetime ?? 3_600_000,
      entrances: {
        issuer: { entry: corp, settings, verifier },
        links: { issuer: 'local', spend: (spent, until) => spendToken(house.ledger, spent, until) },
      },
      sequencer,
      stop: stop.signal,
      ...(options.live && { live: options.live }),
    }),
  )
  const server = await listen(app.fetch, { host: '127.0.0.1', port, grace: 2_000 }, broker.telemetry)
  const link = (subject: string) => `${publicUrl}/console/enter?key=${writeLink(key, subject, broker.clock)}`

  const console: ConsoleHouse = {
    url: `${publicUrl}/console`,
    people,
    corp,
    link,
    visitor: () => createVisitor(`${publicUrl}/console`),
    async signedIn(as) {
      const visitor = console.visitor()
      await visitor.get(link(`operator:${as}`))
      return visitor
    },
    async stop() {
      stop.abort()
      await server.stop()
      verifier.close()
      await people.stop()
    },
  }
  return console
}

/** A house with a console, and an operator and a reviewer who have signed in. */
export interface FurnishedHouse {
  readonly store: OpenedStore
  readonly house: House
  readonly console: ConsoleHouse
  readonly operator: Visitor
  readonly reviewer: Visitor
  stop(): Promise<void>
}

export async function furnish(open: () => Promise<OpenedStore>, options: ConsoleOptions = {}): Promise<FurnishedHouse> {
  const store = await open()
  const house = await startHouse(store.settings)
  const console = await openConsole(house, options)
  const [operator, reviewer] = [await console.signedIn('ops'), await console.signedIn('reader')]
  return {
    store,
    house,
    console,
    operator,
    reviewer,
    async stop() {
      await console.stop()
      await house.stop()
      await store.dispose()
    },
  }
}

/** @param home of the console that it visits */
export function createVisitor(home: string): Visitor {
  const cookies = new Map<string, string>()
  const addressOf = (path: string): string => (path.startsWith('http') ? path : `${home}${path}`)
  const cookie = (): string => [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')

  async function send(
    address: string,
    { headers: given, ...init }: Omit<RequestInit, 'headers'> & { headers?: Readonly<Record<string, string>> },
  ): Promise<Response> {
    // Each request on a connection of its own, so that none outlives its server.
    const headers = { ...(cookies.size > 0 && { cookie: cookie() }), connection: 'close', ...given }
    const answer = await fetch(address, { redirect: 'manual', ...init, headers })
    for (const line of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (/max-age=0/i.test(line) || value === '') cookies.delete(name)
      else cookies.set(name, value)
    }
    return answer
  }

  const visitor: Visitor = {
    cookies,
    get: (path, headers = {}) => send(addressOf(path), { headers: { ...headers } }),
    async post(path, fields, headers = {}) {
      const form = fields['form_token'] === undefined ? { form_token: await formTokenOf(visitor), ...fields } : fields
      return await send(addressOf(path), { method: 'POST', headers: { ...ofForms, ...headers }, body: new URLSearchParams(form).toString() })
    },
    begin(path) {
      const sent = request(addressOf(path), { method: 'POST', agent: false, headers: { ...ofForms, cookie: cookie(), 'content-length': 100 } })
      const answer = once(sent, 'response').then(([first]) => first as IncomingMessage)
      // Also of one that nobody waits for, and of one that was answered before.
      answer.catch(() => {})
      sent.on('error', () => {}).flushHeaders()
      return { answer, leave: () => void sent.destroy() }
    },
    async follow(answer) {
      let last = answer
      for (let step = 0; step < 10 && last.status >= 300 && last.status < 400; step++)
        last = await send(new URL(last.headers.get('location')!, last.url).href, {})
      return last
    },
  }
  return visitor
}

const ofForms = { 'sec-fetch-site': 'same-origin', 'content-type': 'application/x-www-form-urlencoded' }

async function formTokenOf(visitor: Visitor): Promise<string> {
  const page = await (await visitor.get('')).text()
  return /name="form_token" value="([^"]+)"/.exec(page)?.[1] ?? ''
}

/** Goes round with the reaper, each retry at once and with breakers that have had their pause, until the task has ended. */
export async function untilDead(house: House, task: TaskId): Promise<void> {
  for (let round = 0; round < 50; round++) {
    if ((await findTask(house.ledger, task))?.task.endedAt) return void (house.skew = 0)
    house.skew += 10_000
    await house.ledger.run(sql`update leases set due_at = now() where task_id = ${task} and state = 'revoking'`)
    await house.reap()
  }
  throw new Error('the task does not end')
}

/** The words of a page, without its markup. */
export const textOf = (page: string): string =>
  page
    .replaceAll(/<(script|style)[\s\S]*?<\/\1>/g, ' ')
    .replaceAll(/<[^>]*>/g, ' ')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&amp;', '&')
    .replaceAll(/\s+/g, ' ')
