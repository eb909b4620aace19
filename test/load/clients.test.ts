import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import { connect as dial, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { listen, type Listening } from '../../src/http/listen.ts'
import { buildHouse } from '../http/house.ts'
import { type Lab, startLab } from '../support/lab.ts'
import type { RunningBroker, Site } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { call, declaration, findingsOf, makeLoadedSite, openedOf } from './given.ts'

/** A connection as a client holds it that does as little as it can. */
interface Client {
  readonly socket: Socket
  /** Resolves once the other side has closed it. */
  readonly closed: Promise<void>
  heard(): string
}

async function dialUp(port: number): Promise<Client> {
  const socket = dial(port, '127.0.0.1')
  let text = ''
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  // A connection that is cut says so in one way or another.
  socket.on('error', () => {})
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  await Promise.race([new Promise((resolve) => socket.once('connect', resolve)), closed])
  return { socket, closed, heard: () => text }
}

/** Sends a byte whenever the one before is on its way, and never comes to an end. */
function trickle({ socket }: Client, head: string): void {
  socket.write(head)
  const timer = setInterval(() => socket.write('x'), 20)
  socket.once('close', () => clearInterval(timer))
}

const patient = { interval: 20 }

const half =
  'POST /tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 5000\r\nauthorization: Bearer agent\r\n\r\n{'

describe('a server cuts off a client', () => {
  const clients = { headers: 200, request: 400, keepAlive: 300, silence: 500, look: 20 }
  const open: Listening[] = []
  afterAll(() => Promise.all(open.map((server) => server.stop())))

  async function serve(more: Partial<typeof clients & { connections: number }> = {}, house = buildHouse()): Promise<Listening> {
    const server = await listen(
      house.app.fetch,
      { host: '127.0.0.1', port: 0, grace: 50, clients: { ...clients, ...more } },
      house.parts.broker.telemetry,
    )
    open.push(server)
    return server
  }

  test('that sends its headers byte by byte', async () => {
    const client = await dialUp((await serve({ request: 60_000, silence: 60_000, keepAlive: 60_000 })).address.port)
    trickle(client, 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ')
    await client.closed
    expect(client.heard()).toMatch(/^HTTP\/1.1 408 /)
  })

  test('that sends its body byte by byte', async () => {
    const client = await dialUp((await serve({ headers: 300, silence: 60_000, keepAlive: 60_000 })).address.port)
    trickle(client, half)
    await client.closed
    expect(client.heard()).toMatch(/^HTTP\/1.1 408 /)
  })

  test('that connects and says nothing', async () => {
    const client = await dialUp((await serve({ request: 60_000, silence: 60_000, keepAlive: 60_000 })).address.port)
    await client.closed
  })

  test('that says nothing more after its answer', async () => {
    const client = await dialUp((await serve({ headers: 60_000, request: 60_000, silence: 60_000 })).address.port)
    client.socket.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await client.closed
    expect(client.heard()).toMatch(/^HTTP\/1.1 200 /)
  })

  test('that never reads its answer', async () => {
    const house = buildHouse({ frame: true })
    let cut: Promise<unknown> | undefined
    house.app.get('/large', (c) => {
      const { incoming } = c.env as { incoming: IncomingMessage }
      cut = once(incoming.socket, 'close')
      return c.text('x'.repeat(16_000_000))
    })
    const server = await serve({ request: 60_000, headers: 60_000, keepAlive: 60_000 }, house)
    const client = await dialUp(server.address.port)
    client.socket.pause()
    client.socket.write('GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n')
    await expect.poll(() => cut !== undefined, patient).toBe(true)
    await cut
    client.socket.destroy()
  })

  test('that is one too many, and lets it in when another has gone', async () => {
    const server = await serve({ connections: 2, headers: 60_000, request: 60_000, silence: 60_000, keepAlive: 60_000 })
    const [one] = await Promise.all([dialUp(server.address.port), dialUp(server.address.port)])
    await (
      await dialUp(server.address.port)
    ).closed

    one.socket.destroy()
    await one.closed
    await expect
      .poll(
        () =>
          fetch(`${server.url}/healthz`).then(
            ({ status }) => status,
            () => 0,
          ),
        patient,
      )
      .toBe(200)
  })
})

const descriptors = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length

describe('beside clients of the worst kind, the built program', () => {
  let store: OpenedStore
  let lab: Lab
  let site: Site
  let broker: RunningBroker
  let bot: string

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openEmbedded(), startLab()])
    site = await makeLoadedSite(store.settings, lab.url, 'connections: 1200')
    broker = await site.start()
    bot = await site.token('agent:bot')
  })
  afterAll(async () => {
    expect(await broker.stop()).toBe(0)
    expect(await lab.alive()).toEqual([])
    expect(await findingsOf(store.settings, lab, broker, [bot])).toEqual([])
    await Promise.all([lab.stop(), site.remove()])
    await store.dispose()
  })

  async function serves(): Promise<void> {
    const task = openedOf(await call(broker, bot, 'POST', '/tasks', declaration('crm')))
    expect(await call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {})).toMatchObject({ status: 200, body: { ended: true } })
  }

  test('serves the others, and has let go of all of them within a minute', async () => {
    await serves()
    const port = Number(new URL(broker.url).port)
    const idle = descriptors(broker.process.pid!)

    // Not all at once: those that a busy broker has no room to accept yet would be dialled again seconds later.
    const silent: Client[] = []
    while (silent.length < 1_000) silent.push(...(await Promise.all(Array.from({ length: 200 }, () => dialUp(port)))))
    const slow = await Promise.all(Array.from({ length: 50 }, () => dialUp(port)))
    for (const [at, client] of slow.entries()) trickle(client, at % 2 === 0 ? 'GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-slow: ' : half)
    await expect.poll(() => descriptors(broker.process.pid!), patient).toBeGreaterThan(idle + 900)
    await serves()

    // Gone in the middle of a request, and of waiting for an answer.
    for (const client of slow.slice(0, 10)) client.socket.destroy()
    for (const body of [half, half.replace('agent', bot).replace('5000', '1')]) {
      const client = await dialUp(port)
      client.socket.write(body)
      client.socket.destroy()
    }
    await serves()

    const dialled = performance.now()
    await Promise.all([...silent, ...slow].map(({ closed }) => closed))
    expect(performance.now() - dialled).toBeLessThan(45_000)
    // The connections of this test's own calls are kept alive.
    await expect.poll(() => descriptors(broker.process.pid!), patient).toBeLessThanOrEqual(idle + 4)
    await serves()
  })
})
