import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, request as plain, type RequestOptions } from 'node:http'
import { request as secure } from 'node:https'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { listen, type ListenOptions, type Listening } from '../../src/http/listen.ts'
import { buildHouse, type House } from './house.ts'

const open: Listening[] = []
afterEach(async () => {
  for (const server of open.splice(0)) await server.stop()
})

async function serve(house: House, options: Partial<ListenOptions> = {}): Promise<Listening> {
  const server = await listen(house.app.fetch, { host: '127.0.0.1', port: 0, grace: 50, ...options }, house.parts.broker.telemetry)
  open.push(server)
  return server
}

interface Heard {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: string
}

/** A request on a socket of its own, with as little help as possible. */
const send = (
  server: Listening,
  path: string,
  options: RequestOptions & { ca?: Buffer; cert?: Buffer; key?: Buffer; minVersion?: 'TLSv1'; maxVersion?: 'TLSv1.1'; ciphers?: string } = {},
  body?: Iterable<string>,
) =>
  new Promise<Heard>((resolve, reject) => {
    const make = server.url.startsWith('https') ? secure : plain
    const sent = make({ host: '127.0.0.1', port: server.address.port, path, agent: false, ...options }, (answer) => {
      let text = ''
      answer.on('data', (part: Buffer) => (text += part.toString()))
      answer.on('end', () => resolve({ status: answer.statusCode!, headers: answer.headers, body: text }))
      answer.on('error', reject)
    })
    sent.on('error', reject)
    for (const part of body ?? []) sent.write(part)
    sent.end()
  })

/** A connection of which every byte is heard. What was not read when it is closed resets it, which is a close like any other. */
function dial(server: Listening) {
  const socket = connect(server.address.port, '127.0.0.1').on('error', () => {})
  let heard = ''
  socket.on('data', (part: Buffer) => (heard += part.toString()))
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return { socket, closed, heard: () => heard }
}

/** Sends bytes as they are, and hears whatever comes until the server hangs up. */
async function shout(server: Listening, text: string): Promise<Heard> {
  const client = dial(server)
  client.socket.write(text)
  await client.closed
  const [head, body] = client.heard().split('\r\n\r\n') as [string, string]
  const [status, ...lines] = head.split('\r\n')
  const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 2)]))
  return { status: Number(status!.split(' ')[1]), headers, body }
}

describe('a server', () => {
  test('answers over a socket, on the port that it says', async () => {
    const server = await serve(buildHouse())
    expect(server.url).toBe(`http://127.0.0.1:${server.address.port}`)
    expect(await (await fetch(`${server.url}/healthz`)).json()).toEqual({ status: 'ok' })
  })

  test('says so when it cannot have its port', async () => {
    const house = buildHouse()
    const { address } = await serve(house)
    await expect(serve(house, { port: address.port })).rejects.toThrow('EADDRINUSE')
  })

  test('refuses a body that is too large, declared or sent in pieces', async () => {
    const server = await serve(buildHouse())
    const headers = { authorization: 'Bearer agent', 'content-type': 'application/json' }
    const text = JSON.stringify({ kind: 'x'.repeat(65_536) })
    const declared = await send(server, '/tasks', { method: 'POST', headers: { ...headers, 'content-length': Buffer.byteLength(text) } }, [text])
    const pieces = await send(
      server,
      '/tasks',
      { method: 'POST', headers },
      Array.from({ length: 70 }, () => 'x'.repeat(1_000)),
    )
    for (const answer of [declared, pieces])
      expect([answer.status, JSON.parse(answer.body)]).toEqual([413, expect.objectContaining({ code: 'too_large' })])
  })

  test('reads a small body in pieces', async () => {
    const server = await serve(buildHouse())
    const headers = { authorization: 'Bearer agent', 'content-type': 'application/json' }
    const answer = await send(server, '/tasks', { method: 'POST', headers }, ['{"no', 'thing":', '1}'])
    expect(JSON.parse(answer.body)).toMatchObject({
      status: 400,
      errors: expect.arrayContaining([{ pointer: '/nothing', message: 'is not a known key' }]) as object[],
    })
  })

  test('takes a body without bytes for none, whatever type it is said to have', async () => {
    const server = await serve(buildHouse())
    const headers = { authorization: 'Bearer agent', 'content-type': 'application/x-www-form-urlencoded', 'content-length': '0' }
    const answer = await send(server, `/tasks/${newId('task')}/complete`, { method: 'POST', headers })
    expect(JSON.parse(answer.body)).toMatchObject({ status: 404, code: 'not_found' })
  })

  test('answers what cannot be made a request with a problem, too', async () => {
    const server = await serve(buildHouse())
    const answer = await send(server, '/healthz', { headers: { host: 'a b@c' } })
    expect(answer.status).toBe(400)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(JSON.parse(answer.body)).toMatchObject({
      code: 'invalid_request',
      errors: [{ pointer: 'host' }],
      request_id: answer.headers['x-request-id'],
    })
  })

  test.each([
    [
      'has headers that are too large',
      `GET /healthz HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ${'SENT'.repeat(5_000)}\r\n\r\n`,
      431,
      'headers_too_large',
    ],
    ['is no HTTP', 'SENT\r\n\r\n', 400, 'invalid_request'],
    ['names no Host', 'GET /healthz?SENT HTTP/1.1\r\nconnection: close\r\n\r\n', 400, 'invalid_request'],
    ['stops in the middle of its headers', 'GET /healthz?SENT HTTP/1.1\r\nhost: a\r\n', 408, 'request_timeout'],
    [
      'stops in the middle of its body',
      'POST /tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer agent\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"SENT',
      408,
      'request_timeout',
    ],
  ])('answers what %s with a problem and an id, counts it, and logs nothing of it', async (_, text, status, code) => {
    const house = buildHouse()
    // Only what is meant to be late is waited for so shortly.
    const server = await serve(house, status === 408 ? { clients: { headers: 200, request: 300, look: 20 } } : {})
    const answer = await shout(server, text)
    expect(answer).toMatchObject({
      status,
      headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store', connection: 'close' },
    })
    const id = answer.headers['x-request-id']
    expect(JSON.parse(answer.body)).toMatchObject({ status, code, request_id: id })
    expect(house.log).toContainEqual(expect.objectContaining({ level: 'debug', request_id: id, status, code }))
    expect(JSON.stringify(house.log) + answer.body).not.toContain('SENT')
    const counted = await house.parts.broker.telemetry.metrics.requests.get()
    expect(counted.values.filter(({ metricName }) => metricName === 'mayfly_request_seconds_count')).toContainEqual(
      expect.objectContaining({ value: 1, labels: { method: 'other', route: 'none', status: String(status) } }),
    )
  })

  test('answers itself whatever a client expects of it', async () => {
    const server = await serve(buildHouse())
    const answer = await send(server, '/healthz', { headers: { expect: 'something' } })
    expect([answer.status, answer.headers['x-request-id']]).toEqual([200, expect.any(String)])
  })

  test('writes into no answer that has begun when what follows is no request', async () => {
    const house = buildHouse({ frame: true })
    house.app.get('/begun', (c) => c.body(new ReadableStream({ start: (stream) => stream.enqueue(Buffer.from('begun')) })))
    const server = await serve(house)
    const { socket, closed, heard } = dial(server)
    socket.write('GET /begun HTTP/1.1\r\nhost: a\r\n\r\n')
    await expect.poll(heard, { timeout: 20_000 }).toContain('begun')
    socket.write('SENT\r\n\r\n')
    await closed
    expect(heard().match(/HTTP\/1\.1 /g)).toHaveLength(1)
  })

  test('stops what a client asked for when the client hangs up, and goes on ending what it ended', async () => {
    const house = buildHouse({ frame: true })
    const begun = new Map<string, AbortSignal>()
    const letGo: (() => void)[] = []
    const hold = async (name: string, signal: AbortSignal) => {
      begun.set(name, signal)
      await new Promise<void>((resolve) => letGo.push(resolve))
      return new Response('ok')
    }
    house.app.post('/tasks', (c) => hold('open', c.var.signal)).post('/tasks/:id/complete', (c) => hold('complete', c.var.signal))
    const server = await serve(house)
    const start = async (name: string, path: string) => {
      const socket = connect(server.address.port, '127.0.0.1')
      socket.write(`POST ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n`)
      await expect.poll(() => begun.has(name)).toBe(true)
      return socket
    }
    const completing = await start('complete', `/tasks/${newId('task')}/complete`)
    const opening = await start('open', '/tasks')

    // In this order: once the server has seen the second client go, it has seen the first.
    completing.destroy()
    opening.destroy()
    await expect.poll(() => begun.get('open')!.aborted).toBe(true)
    expect(begun.get('complete')!.aborted).toBe(false)
    for (const go of letGo) go()
  })
})

describe('stopping', () => {
  /** A house with one call that stays until it is let go. */
  function slowHouse() {
    const house = buildHouse({ frame: true })
    const gate = { entered: 0, go: () => {} }
    house.app.get('/slow', async (c) => {
      gate.entered++
      await new Promise<void>((resolve) => (gate.go = resolve))
      return c.text('done')
    })
    house.app.get('/quick', (c) => c.text('done'))
    return { house, gate }
  }

  test('refuses what is new and lets finish what is under way', async () => {
    const { house, gate } = slowHouse()
    const server = await serve(house, { grace: 10_000 })
    const slow = send(server, '/slow')
    await expect.poll(() => gate.entered).toBe(1)

    const stopped = server.stop()
    await expect(send(server, '/quick')).rejects.toThrow('ECONNREFUSED')
    gate.go()
    expect((await slow).body).toBe('done')
    await stopped
  })

  test('does not wait for connections that are only kept open', async () => {
    const { house } = slowHouse()
    const server = await serve(house, { grace: 60_000 })
    const agent = new Agent({ keepAlive: true })
    await send(server, '/quick', { agent })
    await server.stop()
    agent.destroy()
  })

  test('does not wait for a connection that falls idle meanwhile', async () => {
    const { house, gate } = slowHouse()
    const server = await serve(house, { grace: 60_000 })
    const agent = new Agent({ keepAlive: true })
    const slow = send(server, '/slow', { agent })
    await expect.poll(() => gate.entered).toBe(1)
    const stopped = server.stop()
    gate.go()
    expect((await slow).headers['connection']).toBe('keep-alive')
    await stopped
    agent.destroy()
  })

  test('lets no client hold a connection by asking on and on', async () => {
    const { house, gate } = slowHouse()
    const server = await serve(house, { grace: 60_000 })
    const agent = new Agent({ keepAlive: true, maxSockets: 1 })
    const slow = send(server, '/slow', { agent })
    await expect.poll(() => gate.entered).toBe(1)
    const next = send(server, '/quick', { agent })
    const stopped = server.stop()
    gate.go()
    await slow
    expect((await next).headers['connection']).toBe('close')
    await stopped
    agent.destroy()
  })

  test('closes what is still under way when its grace is over, and says so', async () => {
    const { house, gate } = slowHouse()
    const server = await serve(house, { grace: 20 })
    const slow = send(server, '/slow')
    const cut = expect(slow).rejects.toThrow('socket hang up')
    await expect.poll(() => gate.entered).toBe(1)
    await server.stop()
    await cut
    expect(house.log).toContainEqual(expect.objectContaining({ msg: 'requests were still under way when the broker stopped' }))
    gate.go()
  })

  test('happens once, however often it is asked for', async () => {
    const server = await serve(buildHouse())
    expect(server.stop()).toBe(server.stop())
    await server[Symbol.asyncDispose]()
  })
})

const hasOpenssl = (() => {
  try {
    execFileSync('openssl', ['version'])
    return true
  } catch {
    return false
  }
})()

describe.runIf(hasOpenssl)('with certificates, the server', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-tls-'))
  const at = (name: string) => join(folder, name)
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc']
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test authority')
  for (const name of ['server', 'client']) {
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1')
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.pem',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-copy_extensions',
      'copy',
      '-days',
      '2',
      '-out',
      `${name}.pem`,
    )
  }
  openssl('req', '-x509', ...key, '-keyout', 'stranger.key', '-out', 'stranger.pem', '-days', '2', '-subj', '/CN=stranger')
  const files = Object.fromEntries(
    ['ca.pem', 'server.pem', 'server.key', 'client.pem', 'client.key', 'stranger.pem', 'stranger.key'].map((name) => [name, readFileSync(at(name))]),
  )
  rmSync(folder, { recursive: true })

  const tls = { cert: files['server.pem']!.toString(), key: files['server.key']!.toString() }
  const ca = files['ca.pem']!

  test('speaks TLS', async () => {
    const server = await serve(buildHouse(), { tls })
    expect(server.url).toMatch(/^https:/)
    expect((await send(server, '/healthz', { ca })).status).toBe(200)
  })

  test('does not speak TLS older than 1.2', async () => {
    const server = await serve(buildHouse(), { tls })
    // The server's own alert: with its default settings the client would refuse by itself.
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const
    await expect(send(server, '/healthz', { ca, ...old })).rejects.toThrow(/alert protocol version/)
  })

  test.each([
    ['never begins', 0],
    ['comes byte by byte', 20],
  ])('cuts off a client whose handshake %s', async (_, every) => {
    const server = await serve(buildHouse(), { tls, clients: { headers: 300 } })
    const socket = connect(server.address.port, '127.0.0.1')
    socket.on('error', () => {})
    // The head of the longest record that there is, and zeros.
    const head = [0x16, 0x03, 0x01, 0x40, 0x00, 0x01].values()
    const sending = every > 0 ? setInterval(() => socket.write(Uint8Array.of(head.next().value ?? 0)), every) : undefined
    try {
      await expect.poll(() => socket.closed, { timeout: 10_000 }).toBe(true)
    } finally {
      clearInterval(sending)
      socket.destroy()
    }
  })

  test('lets in only clients of its authority, where it has one', async () => {
    const server = await serve(buildHouse(), { tls: { ...tls, clientCa: ca.toString() } })
    const as = (name: string) => ({ ca, cert: files[`${name}.pem`]!, key: files[`${name}.key`]! })
    expect((await send(server, '/healthz', as('client'))).status).toBe(200)
    await expect(send(server, '/healthz', { ca })).rejects.toThrow()
    await expect(send(server, '/healthz', as('stranger'))).rejects.toThrow()
  })
})
