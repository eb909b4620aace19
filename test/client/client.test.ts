import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer as createPlainServer } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { explain } from '../../src/cli/failure.ts'
import type { ReceiptView, Selector } from '../../src/http/contract.ts'
import { BrokerUnreachable, type Client, type ClientOptions, createClient, Credential, MayflyProblem } from '../../src/client/client.ts'
import { usual } from '../../src/client/transport.ts'
import { houseLimits } from '../../src/http/door.ts'
import {
  type FakeBroker,
  type Fault,
  garbage,
  hang,
  problem,
  receiptOf,
  redirect,
  resetAfter,
  resetBefore,
  startFakeBroker,
} from '../support/fake-broker.ts'
import { canMakeCertificates, createAuthority } from '../providers/certificates.ts'

let broker: FakeBroker
beforeEach(async () => {
  broker = await startFakeBroker()
})
afterEach(() => broker.close())

const clientOf = (options: Partial<ClientOptions> = {}): Client =>
  createClient({ url: broker.url, token: 'workload-token', patience: 60_000, ...options })
const declaration = { kind: 'sync', grants: [{ name: 'api' }] }
const refusal = async (call: Promise<unknown>): Promise<MayflyProblem> => {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(MayflyProblem)
  return error as MayflyProblem
}
const keysSeen = (): Set<unknown> => new Set(broker.heard.map(({ headers }) => headers['idempotency-key']))

describe('the receipts of answers', () => {
  test('are handed over one answer after the other, those of a refusal too, once each', async () => {
    const kept: ReceiptView[] = []
    const client = clientOf({ keep: (receipts) => kept.push(...receipts) })
    broker.fail('open', resetBefore)
    const task = await client.open(declaration)
    expect(kept).toEqual(task.receipts)
    await client.refreshLease(task.leases[0]!.id, task.token)
    const receipt = receiptOf('decision.made')
    broker.fail('renew', problem(403, 'denied', 'no', {}, { receipts: [receipt, { entry: 7 }] }))
    expect((await refusal(task.renew())).receipts).toEqual([receipt])
    expect(kept.map(({ kind }) => kind)).toEqual(['task.opened', 'lease.refreshed', 'decision.made'])
  })

  test('are missing from those of an older broker, which is no fault', async () => {
    const kept: ReceiptView[] = []
    const task = await clientOf({ keep: (receipts) => kept.push(...receipts) }).open(declaration)
    kept.length = 0
    expect((await task.complete()).ended).toBe(true)
    expect(kept).toEqual([])
  })
})

describe('opening a task', () => {
  test('speaks with the workload token, and from then on with the token of the task', async () => {
    const task = await clientOf().open(declaration)
    await task.show()
    await task.refresh(task.leases[0]!)
    await task.complete()

    expect(broker.heard.map(({ action, headers }) => [action, headers.authorization])).toEqual([
      ['open', 'Bearer workload-token'],
      ['show', `Bearer ${task.token}`],
      ['refresh', `Bearer ${task.token}`],
      ['complete', `Bearer ${task.token}`],
    ])
    expect(broker.heard[0]!.body).toEqual(declaration)
  })

  test('gets more with the workload token, where policies see more of the workload than its task token speaks for', async () => {
    const task = await clientOf().open(declaration)
    broker.fail('refresh', problem(403, 'forbidden', 'no'))
    await task.refresh(task.leases[0]!)
    broker.fail('refresh', problem(403, 'forbidden', 'no'), problem(403, 'forbidden', 'no'))
    await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'forbidden' })

    const asked = broker.heard.filter(({ action }) => action === 'refresh').map(({ headers }) => headers.authorization)
    expect(asked).toEqual([`Bearer ${task.token}`, 'Bearer workload-token', `Bearer ${task.token}`, 'Bearer workload-token'])
  })

  test('asks for the workload token again at each try, so that a rotated one is found', async () => {
    let count = 0
    broker.fail('open', resetBefore)
    await clientOf({ token: async () => `token-${++count}` }).open(declaration)
    expect(broker.heard.map(({ headers }) => headers.authorization)).toEqual(['Bearer token-1', 'Bearer token-2'])
  })

  test('is over at the end of the block that holds the task', async () => {
    {
      await using task = await clientOf().open(declaration)
      expect(task.leases).toHaveLength(1)
    }
    expect(broker.task.state).toBe('completed')
  })

  for (const [words, fault] of [
    ['the connection breaks before it was done', resetBefore],
    ['the connection breaks after it was done', resetAfter],
    ['the same request is still being answered', problem(409, 'in_flight', 'same')],
    ['the ledger cannot be written for a moment', problem(503, 'store_unavailable', 'later', { 'retry-after': '0' })],
    ['a proxy in between has no broker', (response) => response.writeHead(502).end('<html>Bad Gateway</html>')],
  ] as const satisfies [string, Parameters<FakeBroker['fail']>[1]][]) {
    test(`is tried again with the same Idempotency-Key when ${words}`, async () => {
      broker.fail('open', fault)
      const task = await clientOf().open(declaration)
      expect(broker.count('open')).toBe(2)
      expect(keysSeen().size).toBe(1)
      expect(keysSeen().has(undefined)).toBe(false)
      expect(task.id).toBe(broker.task.id)
    })
  }

  test('is tried again after a try that took all its time, though that was longer than there is patience', async () => {
    broker.fail('open', hang)
    const task = await clientOf({ timeout: 1_500, patience: 1_000 }).open(declaration)
    expect(broker.count('open')).toBe(2)
    expect(keysSeen().size).toBe(1)
    expect(task.id).toBe(broker.task.id)
  })

  test('ends where two tries took all their time, and the error has the key with which the same again heals what was lost', async () => {
    broker.fail('open', hang, hang)
    const error: unknown = await clientOf({ timeout: 1_500, patience: 1_000 })
      .open(declaration)
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(BrokerUnreachable)
    const { idempotencyKey, message } = error as BrokerUnreachable
    expect(broker.count('open')).toBe(2)
    expect([...keysSeen()]).toEqual([idempotencyKey])
    expect(message).toContain(`no answer in time (Idempotency-Key ${idempotencyKey})`)
    await clientOf().open(declaration, { key: idempotencyKey! })
    expect(keysSeen().size).toBe(1)
  })

  test.each([
    ['no answer', resetAfter],
    ['an answer that no broker gives', garbage],
    ['a refusal', problem(504, 'timed_out', 'same')],
  ])('that comes to %s throws an error with its key', async (_, fault) => {
    broker.fail('open', fault)
    const opening = clientOf({ patience: 0 }).open(declaration, { key: 'my-own' })
    await expect(opening).rejects.toMatchObject({ idempotencyKey: 'my-own' })
  })

  test('is waited for longer than a broker works at it by its default', () => {
    expect(usual.mintTimeout).toBeGreaterThan(houseLimits.time + houseLimits.grace)
  })

  test('is not given up before a broker gives up what it starts by its default, where it starts a revocation or a stop', () => {
    expect(usual.startTimeout).toBeGreaterThan(houseLimits.endsTime + houseLimits.grace)
  })

  test('waits for a broker that is away', async () => {
    await broker.close()
    const opening = clientOf().open(declaration)
    setTimeout(() => void broker.reopen(), 150)
    expect((await opening).id).toBe(broker.task.id)
  })

  test('waits as long as the broker says', async () => {
    broker.fail('open', problem(429, 'rate_limited', 'later', { 'retry-after': '1' }))
    const started = performance.now()
    await clientOf().open(declaration)
    expect(performance.now() - started).toBeGreaterThanOrEqual(990)
  })

  test('does not wait when the broker says longer than there is patience', async () => {
    broker.fail('open', problem(429, 'rate_limited', 'later', { 'retry-after': '30' }))
    expect(await refusal(clientOf({ patience: 2_000 }).open(declaration))).toMatchObject({ code: 'rate_limited', retryAfter: 30 })
    expect(broker.count('open')).toBe(1)
  })

  test('takes no answer of more than 16 MiB, in whatever characters those are', async () => {
    const padded = (bytes: number): Fault => {
      return (response) =>
        response.writeHead(200).end(JSON.stringify({ task: broker.task, leases: [], decisions: [], padding: '€'.repeat(bytes / 3) }))
    }
    const show = () => clientOf({ patience: 0 }).showTask(broker.task.id)
    broker.fail('show', padded(15 * 1024 * 1024), padded(18 * 1024 * 1024))
    expect(await show()).toHaveProperty('padding')
    await expect(show()).rejects.toThrow('the answer is too large')
  })

  test('stops when it is told to, even while it waits', async () => {
    await broker.close()
    const stop = new AbortController()
    const opening = clientOf().open(declaration, { signal: stop.signal })
    setTimeout(() => stop.abort(), 50)
    await expect(opening).rejects.toMatchObject({ name: 'AbortError' })
  })
})

describe('a call that gets no answer', () => {
  test('says that the connection was refused, and for whom, when patience ends', async () => {
    await broker.close()
    const call = clientOf({ patience: 50 }).open(declaration)
    await expect(call).rejects.toThrow(BrokerUnreachable)
    await expect(call).rejects.toThrow(`no answer from ${broker.url}: the connection was refused`)
  })

  test('is given up when its time has passed', async () => {
    broker.fail('open', hang)
    await expect(clientOf({ timeout: 50, patience: 0 }).open(declaration)).rejects.toThrow('no answer in time')
  })

  test('is not sent again where that could do it twice', async () => {
    const task = await clientOf().open(declaration)
    broker.fail('lease', resetAfter)
    await expect(task.add({ name: 'other' })).rejects.toThrow(BrokerUnreachable)
    broker.fail('lease', problem(500, 'internal', 'later'))
    expect((await refusal(task.add({ name: 'other' }))).code).toBe('internal')
    expect(broker.count('lease')).toBe(2)
  })

  test.each([
    ['the store of a broker may have been lost behind the commit', problem(503, 'store_unavailable', 'later', { 'retry-after': '0' })],
    ['a proxy may have passed it on', (response) => response.writeHead(503, { 'retry-after': '0' }).end('<html>Service Unavailable</html>')],
  ] satisfies [string, Fault][])('is not sent again on a 503 where that could do it twice, for %s', async (_, unavailable) => {
    const task = await clientOf().open(declaration)
    broker.fail('lease', unavailable)
    expect((await refusal(task.add({ name: 'other' }))).status).toBe(503)
    expect(broker.count('lease')).toBe(1)
    broker.fail('complete', unavailable)
    expect((await task.complete()).ended, 'what may be done twice is asked again').toBe(true)
  })

  test('is sent again where the broker said that nothing was done', async () => {
    const task = await clientOf().open(declaration)
    broker.fail('lease', problem(503, 'provider_unavailable', 'later', { 'retry-after': '0' }))
    expect((await task.add({ name: 'other' })).grant).toBe('other')
  })
})

describe.skipIf(!canMakeCertificates())('a broker behind TLS', () => {
  let folder: string
  let server: Server
  let tries = 0
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-client-'))
    const { cert, key } = await (await createAuthority(folder, 'house')).issue('broker', 'IP:127.0.0.1')
    server = createServer({ cert: await readFile(cert), key: await readFile(key) }, (_, response) => response.end()).listen(0, '127.0.0.1')
    server.on('connection', () => tries++)
    await once(server, 'listening')
  })
  afterAll(async () => {
    server.closeAllConnections()
    server.close()
    await rm(folder, { recursive: true })
  })

  test('whose authority is not known is not asked again, and the words say where to name it', async () => {
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    const error: unknown = await clientOf({ url })
      .open(declaration)
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({ isLasting: true, message: expect.stringContaining('NODE_EXTRA_CA_CERTS') as unknown })
    expect(explain(error)).toEqual({ status: 1, lines: [(error as Error).message] })
    expect(tries).toBe(1)
  })

  test('that is none is not asked again', async () => {
    const url = broker.url.replace('http:', 'https:')
    await expect(clientOf({ url }).open(declaration)).rejects.toThrow('does not speak TLS: is it http?')
  })
})

describe('a token', () => {
  test.each(['two\nlines', 'with spaces', 'größe', '“quoted”', ''])('that is none, %j, is not sent, and not repeated', async (token) => {
    const error: unknown = await clientOf({ token })
      .open(declaration)
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(TypeError)
    if (token !== '') expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(token)
    expect(broker.heard).toEqual([])
  })

  test('ends as the file that it was read from, with a line end, and is sent without it', async () => {
    await clientOf({ token: 'the-token\n' }).open(declaration)
    expect(broker.heard).toHaveLength(1)
  })
})

describe('a broker of another version', () => {
  let answer: object = {}
  let url = ''
  const other = createPlainServer((_, response) => response.end(JSON.stringify(answer)))
  beforeAll(async () => {
    await once(other.listen(0, '127.0.0.1'), 'listening')
    url = `http://127.0.0.1:${(other.address() as AddressInfo).port}`
  })
  afterAll(() => other.close())

  const selector: Selector = { agent: 'bot' }
  const task = { id: 'task_1', state: 'open', deadline: '2026-11-27T03:00:00Z' }
  const lease = { id: 'lease_1', grant: 'api', expires_at: '2026-11-27T03:00:00Z', credential: { type: 'of_tomorrow', light: 'on' } }
  test.each<[string, object, object, (client: Client) => Promise<unknown>]>([
    [
      'an opening',
      { task, task_token: 'mft_1', leases: [lease] },
      { id: 'task_1', token: 'mft_1', receipts: [] },
      (client) => client.open(declaration),
    ],
    ['a further lease', { lease }, { lease: { id: 'lease_1', credential: { type: 'of_tomorrow' } } }, (client) => client.refreshLease('lease_1')],
    ['a renewal', { task: { id: 'task_1', deadline: task.deadline } }, { task: { id: 'task_1' } }, (client) => client.renewTask('task_1', {})],
    ['a task', { task, leases: [] }, { task: { state: 'open' }, decisions: [] }, (client) => client.showTask('task_1')],
    ['a list that has no more', { items: [{}] }, { items: [{}], next: null }, (client) => client.listLeases()],
    [
      'a stop that has no end',
      { id: 'stop_1', selector },
      { id: 'stop_1' },
      (client) => client.stopIssuing({ selector, reason: 'why', duration: '1h' }),
    ],
    ['a dry run', { tasks: 1, leases: [], count: 1 }, { count: 1 }, (client) => client.planRevocation(selector)],
    ['a state of tomorrow', { id: 'lease_1', state: 'dreaming' }, { state: 'dreaming' }, (client) => client.showLease('lease_1')],
    [
      'receipts of another form',
      { id: 'lease_1', state: 'active', receipts: { root: 7 } },
      { receipts: [] },
      (client) => client.showLease('lease_1'),
    ],
  ])('is understood where it gives %s, with less than this one says and with more', async (_, given, understood, call) => {
    answer = given
    const client = clientOf({ url, patience: 0 })
    expect(await call(client)).toMatchObject(understood)
    answer = { ...given, of_tomorrow: true }
    expect(await call(client)).toMatchObject(understood)
  })
})

describe('an answer that no broker gives', () => {
  // Whatever listens at the address of a broker, such as a portal that is glad about everything.
  const glad = { url: '' }
  const portal = createPlainServer((_, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"ok":true}'))
  beforeAll(async () => {
    await once(portal.listen(0, '127.0.0.1'), 'listening')
    glad.url = `http://127.0.0.1:${(portal.address() as AddressInfo).port}`
  })
  afterAll(() => portal.close())

  const selector: Selector = { everything: true }
  test.each<[string, (client: Client) => Promise<unknown>]>([
    ['a task', (client) => client.showTask('task_1')],
    ['a completion', (client) => client.completeTask('task_1')],
    ['the revocation of a task', (client) => client.revokeTask('task_1', 'why')],
    ['the revocation of a lease', (client) => client.revokeLease('lease_1')],
    ['a lease', (client) => client.showLease('lease_1')],
    ['a list', (client) => client.listLeases()],
    ['the logs', (client) => client.listLogs()],
    ['an export', (client) => client.exportEntries('text/csv')],
    ['a decision', (client) => client.showDecision('dec_1')],
    ['a decision made again', (client) => client.replayDecision('dec_1')],
    ['a dry run', (client) => client.planRevocation(selector)],
    ['a revocation of many', (client) => client.startRevocation({ selector, reason: 'why', confirm: 1 })],
    ['how far it is', (client) => client.showRevocation('rev_1')],
    ['a stop', (client) => client.stopIssuing({ selector, reason: 'why', duration: '1h' })],
    ['the end of a stop', (client) => client.resumeIssuing('stop_1', 'why')],
    ['an introspection', (client) => client.introspect('token')],
  ])('is not taken for %s', async (_, call) => {
    await expect(call(clientOf({ ...glad, patience: 0 }))).rejects.toThrow('what answered is not a broker')
  })

  test('is refused in words that do not repeat it', async () => {
    broker.fail('open', garbage)
    const error: unknown = await clientOf()
      .open(declaration)
      .catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(BrokerUnreachable)
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('mft_not-to-be-seen')
  })

  test('is refused when it lacks what the client needs', async () => {
    broker.fail('open', (response) => response.writeHead(201).end(JSON.stringify({ task: { id: 'task_1' } })))
    await expect(clientOf().open(declaration)).rejects.toThrow('what answered is not a broker')
  })

  test('is not followed to another address, and not asked for again', async () => {
    const other = await startFakeBroker()
    try {
      broker.fail('open', redirect(`${other.url}/tasks`))
      expect(await refusal(clientOf().open(declaration))).toMatchObject({ status: 307, code: 'http_307', retry: 'no' })
      expect(broker.count('open')).toBe(1)
      expect(other.heard).toEqual([])
    } finally {
      await other.close()
    }
  })
})

describe('a refusal', () => {
  test('carries what the broker said', async () => {
    const errors = [{ pointer: '/grants/0', message: 'must be an object' }]
    broker.fail('open', problem(400, 'invalid_request', 'no', { 'x-request-id': 'req-7' }, { decision: 'dec_1', errors: [...errors, null, 7] }))
    expect(await refusal(clientOf().open(declaration))).toMatchObject({
      message: 'invalid_request: The fake says invalid_request',
      status: 400,
      code: 'invalid_request',
      retry: 'no',
      detail: 'The fake says invalid_request',
      decision: 'dec_1',
      errors,
      requestId: 'req-7',
      retryAfter: undefined,
    })
    expect(broker.count('open')).toBe(1)
  })

  test('of a proxy is a refusal too', async () => {
    broker.fail('open', (response) => response.writeHead(403).end('<html>Forbidden</html>'))
    const refused = await refusal(clientOf().open(declaration))
    expect(refused).toMatchObject({ status: 403, code: 'http_403', retry: 'no', errors: [] })
    expect(explain(refused)).toEqual({ status: 1, lines: ['http_403: the answer was 403', expect.stringContaining('No broker said so')] })
  })

  test('of a proxy that wants to know who one is has words too, though Node has none for it', async () => {
    broker.fail('open', (response) => response.writeHead(407).end())
    await expect(clientOf({ patience: 0 }).open(declaration)).rejects.toThrow(/^no answer from \S+: \S/)
  })
})

describe('the URL of a broker', () => {
  const made = (url: string, allowHttp?: boolean) => createClient({ url, token: 'x', ...(allowHttp !== undefined && { allowHttp }) })

  test('must not carry tokens in clear text over a network', () => {
    for (const url of ['http://broker.example.com', 'http://10.0.0.1:7420', 'http://127.0.0.1.example.com', 'http://localhost.example.com']) {
      expect(() => made(url), url).toThrow('its URL must be https, or http on loopback')
    }
    for (const url of ['https://broker.example.com', 'http://127.0.0.1:7420', 'http://127.8.8.8', 'http://[::1]:7420', 'http://localhost:7420']) {
      expect(made(url).url, url).toBe(url)
    }
    expect(made('http://broker.mesh', true).url).toBe('http://broker.mesh')
  })

  test('must be one, without a password in it', () => {
    expect(() => made('broker')).toThrow('not a URL')
    expect(() => made('ftp://127.0.0.1')).toThrow(TypeError)
    expect(() => made('https://me:secret@broker.example.com')).toThrow('must not hold a name or a password')
    for (const url of ['https://broker.example.com/?x=1', 'https://broker.example.com?', 'https://broker.example.com/#now'])
      expect(() => made(url), url).toThrow('must end with its path')
    expect(made('https://broker.example.com/mayfly//').url).toBe('https://broker.example.com/mayfly')
  })
})

describe('an open task', () => {
  test('does not print its token, which fetches credentials, and says it to whoever asks for it', async () => {
    const task = await clientOf().open(declaration)
    expect(task.token).toMatch(/^mft_/)
    for (const printed of [inspect(task), inspect({ a: [task] }, { depth: 9, showHidden: true }), JSON.stringify({ task }), inspect({ ...task })]) {
      expect(printed).toContain(task.id)
      expect(printed).not.toContain(task.token)
    }
  })
})

describe('a credential', () => {
  const shapes = [
    { type: 'bearer_token', token: 's3cret' },
    { type: 'username_password', username: 'u', password: 's3cret' },
    { type: 'fields', fields: { key: 's3cret' } },
  ] as const

  test.each(shapes)('of type $type does not print itself', (view) => {
    const credential = new Credential(view)
    for (const printed of [
      inspect({ a: { b: [credential] } }, { depth: 9, showHidden: true }),
      JSON.stringify({ credential }),
      String(credential),
      JSON.stringify(Object.assign({}, credential)),
      inspect(Object.assign({}, credential)),
    ]) {
      expect(printed).toContain(view.type)
      expect(printed).not.toContain('s3cret')
    }
    expect(credential.reveal()).toEqual(view)
    expect(credential.secret()).toBe('s3cret')
  })

  test('has no one secret where it has several', () => {
    expect(new Credential({ type: 'fields', fields: { a: '1', b: '2' } }).secret()).toBeUndefined()
    expect(new Credential({ type: 'fields', fields: {} }).secret()).toBeUndefined()
    const aws = { access_key_id: 'a', secret_access_key: 'b', session_token: 'c', expiration: '2026-11-24T00:00:00Z' }
    expect(new Credential({ type: 'aws_session', ...aws }).secret()).toBeUndefined()
  })
})
