import { once } from 'node:events'
import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConfigurationError } from '../../src/base/errors.ts'
import { systemClock } from '../../src/base/time.ts'
import { mintRequest } from '../../src/providers/http/contract.ts'
import { httpKind } from '../../src/providers/http/http.ts'
import { createTarget } from '../../src/providers/target.ts'
import { reservationOf } from './reservation.ts'

const patient = new AbortController().signal
const journal = async () => {}
const minutes = (count: number) => new Date(Date.now() + count * 60_000).toISOString()

/** What the backend was asked, and what it answers: each test sets it. */
let asked: { method: string; url: string; headers: IncomingMessage['headers']; body: string }[]
let answer: (response: ServerResponse, method: string) => void
let server: Server
let url: string
let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-http-'))
  asked = []
  server = createServer((request, response) => {
    const { method = '', url = '', headers } = request
    void text(request).then((body) => {
      asked.push({ method, url, headers, body })
      answer(response, method)
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  server.close()
  server.closeAllConnections()
  await rm(folder, { recursive: true })
})

const connect = (settings: object = {}) =>
  httpKind.connect('crm', httpKind.settings.parse({ url, revocation: 'provider', ...settings }), { publicUrl: url, keys: folder, clock: systemClock })

const json = (status: number, body: unknown) => (response: ServerResponse) => {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(typeof body === 'string' ? body : JSON.stringify(body))
}
const token = (value: string) => ({ credential: { type: 'bearer_token', token: value }, expires_at: minutes(5) })

describe('what a backend is asked', () => {
  test('is the whole announcement, under the id of the lease', async () => {
    answer = json(201, token('s3cret'))
    const reservation = reservationOf(httpKind.grant.parse({ settings: { role: 'reader', regions: ['eu', 'us'], limit: 3 } }))
    await (await connect({ url: `${url}/mayfly/` })).mint(reservation, journal, patient)
    expect(asked[0]).toMatchObject({ method: 'PUT', url: `/mayfly/leases/${reservation.lease}` })
    expect(mintRequest.parse(JSON.parse(asked[0]?.body ?? ''))).toEqual({
      task: reservation.task,
      agent: 'invoice-bot',
      owner: 'finance-platform@example.com',
      kind: 'invoice-sync',
      subject: reservation.subject,
      grant: 'invoices-api',
      settings: { role: 'reader', regions: ['eu', 'us'], limit: 3 },
      parameters: { customer: 'acme' },
      expires_at: reservation.expiresAt.toISOString(),
    })
  })

  test('carries the token as its file holds it now', async () => {
    const token_file = join(folder, 'token')
    await writeFile(token_file, 'first\n')
    answer = (response) => response.writeHead(204).end()
    const crm = await connect({ token_file })
    await crm.check(patient)
    await writeFile(token_file, 'second, but not a token')
    await expect(crm.check(patient)).rejects.toMatchObject({ fault: 'unavailable', message: expect.not.stringContaining('second') })
    await writeFile(token_file, 'third')
    await crm.check(patient)
    expect(asked.map(({ headers }) => headers.authorization)).toEqual(['Bearer first', 'Bearer third'])
  })

  test('is nothing while the token file is away', async () => {
    const token_file = join(folder, 'token')
    await writeFile(token_file, 'first')
    const crm = await connect({ token_file })
    await unlink(token_file)
    await expect(crm.mint(reservationOf({ settings: {} }), journal, patient)).rejects.toMatchObject({ fault: 'unavailable', minted: 'no' })
    expect(asked).toEqual([])
  })
})

describe('what a backend answers', () => {
  const mint = async () => (await connect()).mint(reservationOf({ settings: {} }), journal, patient)

  test('is only a credential if it is exactly one', async () => {
    const good = token('s3cret')
    const bad = [
      { ...good, note: 'an unknown key' },
      { ...good, expires_at: 'tomorrow' },
      { ...good, expires_at: minutes(11) },
      { expires_at: good.expires_at },
      { ...good, credential: { type: 'bearer_token' } },
      { ...good, credential: { type: 'bearer_token', token: '' } },
      { ...good, credential: { type: 'carrier_pigeon', token: 's3cret' } },
      { ...good, credential: { type: 'fields', fields: {} } },
      { ...good, credential: { type: 'fields', fields: { 'a b': 's3cret' } } },
      `{"credential":{"type":"bearer_token","token":"s3cret","token":"other"},"expires_at":"${good.expires_at}"}`,
      '{"credential":"s3cret',
      '['.repeat(50) + ']'.repeat(50),
    ]
    for (const body of bad) {
      answer = json(201, body)
      const error: unknown = await mint().catch((error: unknown) => error)
      expect(error, JSON.stringify(body)).toMatchObject({ fault: 'garbage', minted: 'maybe' })
      expect(inspect(error, { depth: 10 })).not.toContain('s3cret')
    }
    answer = json(200, good)
    await expect(mint()).resolves.toMatchObject({ expiresAt: new Date(good.expires_at) })
  })

  test('leaves nothing only where a problem declares it, whatever its status', async () => {
    const problem = (status: number, body: object) => (response: ServerResponse) => {
      response.writeHead(status, { 'content-type': 'application/problem+json' }).end(JSON.stringify(body))
    }
    const declared = { title: 'no', status: 400, alive: false, 'an extension': 1 }
    for (const [respond, expected] of [
      [problem(400, declared), { fault: 'refused', minted: 'no' }],
      [problem(429, declared), { fault: 'downstream', minted: 'no' }],
      [problem(409, declared), { fault: 'downstream', minted: 'no' }],
      [problem(503, declared), { fault: 'unavailable', minted: 'no' }],
      [problem(403, { ...declared, alive: true }), { fault: 'refused', minted: 'maybe' }],
      [problem(403, { title: 'no' }), { fault: 'refused', minted: 'maybe' }],
      [json(403, declared), { fault: 'refused', minted: 'maybe' }],
      [json(409, {}), { fault: 'unavailable', minted: 'maybe' }],
      [json(204, ''), { fault: 'garbage', minted: 'maybe' }],
    ] as const) {
      answer = respond
      await expect(mint()).rejects.toMatchObject(expected)
    }
  })

  test.each([409, 429])('closes the way to nobody else where it refuses one lease with %i and declares that it leaves nothing', async (status) => {
    const target = createTarget(await connect(), { clock: systemClock, observe: () => {} })
    answer = (response) => response.writeHead(status, { 'content-type': 'application/problem+json' }).end('{"alive":false}')
    for (let time = 0; time < 3; time++)
      await expect(target.mint(reservationOf({ settings: {} }), journal, patient)).rejects.toMatchObject({ minted: 'no' })
    expect(target.failing).toBe(false)
    answer = json(201, token('s3cret'))
    await expect(target.mint(reservationOf({ settings: {} }), journal, patient)).resolves.toMatchObject({ credential: { type: 'bearer_token' } })
  })

  test('says for how long asking again is pointless where that is a rate limit, a minute at most', async () => {
    for (const [status, header, pointlessFor] of [
      [429, '7', 7_000],
      [429, '86400', 60_000],
      [429, 'soon', 0],
      [503, '7', 0],
    ] as const) {
      answer = (response) => response.writeHead(status, { 'retry-after': header }).end()
      await expect(mint()).rejects.toMatchObject({ fault: 'unavailable', pointlessFor })
    }
  })

  test('may have been lost on the very first connection, and then nobody knows', async () => {
    answer = (response) => response.socket?.resetAndDestroy()
    await expect(mint()).rejects.toMatchObject({ fault: 'unavailable', minted: 'maybe' })
  })

  test('may not be HTTP at all', async () => {
    answer = (response) => response.socket?.end('220 mail.example.com ESMTP\r\n')
    await expect(mint()).rejects.toMatchObject({ fault: 'garbage', minted: 'maybe' })
  })

  test('about another lease, or of one that lives on after its end, recovers nothing', async () => {
    const reservation = reservationOf({ settings: {} })
    const reference = { lease: reservation.lease, task: reservation.task, age: 0, handles: [] }
    const known = { lease: reservation.lease, state: 'ended', minted: true }
    for (const body of [{ ...known, lease: 'lease_other' }, { ...known, state: 'live' }, { ...known, minted: 'yes' }, {}]) {
      answer = (response, method) => (method === 'DELETE' ? void response.writeHead(204).end() : json(200, body)(response))
      await expect((await connect()).recover(reference, patient)).rejects.toMatchObject({ fault: 'garbage' })
    }
    answer = (response, method) => (method === 'DELETE' ? void response.writeHead(204).end() : json(200, known)(response))
    await expect((await connect()).recover(reference, patient)).resolves.toEqual({ minted: true })
  })
})

describe('what a backend declares about its revocation', () => {
  const { lease, task } = reservationOf({})
  const reference = { lease, task, age: 0, handles: [] }

  test('stands in the evidence where its credentials are denied and not ended', async () => {
    answer = (response) => response.writeHead(204).end()
    const crm = await connect({ revocation: 'deny' })
    expect(crm.revocation({ settings: {} })).toBe('deny')
    await expect(crm.revoke(reference, patient)).resolves.toMatchObject({ by: 'provider', statement: 'DELETE answered 204: denied at the backend' })
  })

  test('is no evidence where only time ends its credentials, but the lease is fenced off', async () => {
    answer = (response, method) =>
      method === 'DELETE' ? void response.writeHead(204).end() : json(200, { lease, state: 'live', minted: true })(response)
    const crm = await connect({ revocation: 'expiry' })
    await expect(crm.revoke(reference, patient)).rejects.toMatchObject({ fault: 'refused' })
    expect(asked).toMatchObject([{ method: 'DELETE' }])
    await expect(crm.recover(reference, patient)).resolves.toEqual({ minted: true })
  })
})

describe('the settings of kind http', () => {
  const faultsOf = (settings: object) =>
    httpKind.settings
      .safeParse({ url: 'https://crm.example.com', token_file: '/token', revocation: 'provider', ...settings })
      .error?.issues.map(({ path }) => path.join('.'))

  test.each([
    ['secrets in clear text over a network', { url: 'http://crm.example.com' }, 'url'],
    ['a name that only looks like loopback', { url: 'http://127.0.0.1.example.com' }, 'url'],
    ['another scheme', { url: 'ftp://crm.example.com' }, 'url'],
    ['a relative url', { url: 'crm' }, 'url'],
    ['a password in the url', { url: 'https://me:secret@crm.example.com' }, 'url'],
    ['a query', { url: 'https://crm.example.com?a=b' }, 'url'],
    ['no authentication', { token_file: undefined }, 'token_file'],
    ['a client certificate without TLS', { url: 'http://127.0.0.1:1', mtls: { cert: '/c', key: '/k' } }, 'mtls'],
    ['no word about revocation', { revocation: undefined }, 'revocation'],
    ['an endless timeout', { timeout: '2h' }, 'timeout'],
    ['no concurrency', { concurrency: 0 }, 'concurrency'],
  ])('refuse %s', (_, settings, key) => {
    expect(faultsOf(settings)).toEqual([key])
  })

  test.each([
    [{}],
    [{ url: 'http://127.0.0.1:8080', token_file: undefined }],
    [{ url: 'http://[::1]' }],
    [{ url: 'http://crm.mesh', allow_http: true }],
  ])('accept %j', (settings) => {
    expect(faultsOf(settings)).toBeUndefined()
  })

  test('are faults of the configuration where their files are missing, all at once', async () => {
    const mtls = { cert: join(folder, 'no.pem'), key: join(folder, 'no.key') }
    const error: unknown = await connect({ url: 'https://127.0.0.1:1', token_file: join(folder, 'no-token'), mtls }).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(ConfigurationError)
    expect((error as ConfigurationError).faults).toHaveLength(3)
  })
})
