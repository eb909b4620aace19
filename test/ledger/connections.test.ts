import { Socket } from 'node:net'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Connections, openConnections } from '../../src/ledger/connections.ts'
import { openPostgres } from '../../src/ledger/postgres.ts'
import { type OpenedStore, openDatabase, stores } from '../support/stores.ts'
import { type FaultyWire, faultyWire } from '../support/wire.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('connections to Postgres', () => {
  let store: OpenedStore
  let wire: FaultyWire
  let connections: Connections
  let owner: postgres.Sql
  /** The newest socket that was connected to the near end of the wire. */
  let socket: () => Socket

  beforeEach(async () => {
    store = await openDatabase()
    const { url } = store.settings as { url: string }
    wire = await faultyWire(url)
    owner = postgres(url, { max: 1, onnotice: () => {} })
    await owner`create table said (words text)`
    const connect = vi.spyOn(Socket.prototype, 'connect')
    const { port } = new URL(wire.url)
    socket = () => (connect.mock.contexts as Socket[]).findLast(({ remotePort }) => String(remotePort) === port)!
    const options = { max: 1, fetch_types: false, connect_timeout: 2, backoff: () => 0.05, onnotice: () => {} }
    connections = openConnections((onclose) => postgres(wire.url, { ...options, onclose }))
    await say('first')
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await connections.close()
    await owner.end()
    await wire.stop()
    await store.dispose()
  })

  const say = (words: string) => connections.query('insert into said (words) values ($1)', [words])
  const kept = async () => (await owner<{ words: string }[]>`select words from said`).map(({ words }) => words)

  /** Says something on a connection that has just been lost, before its socket is closed: as whoever collects statements for a turn of the event loop. */
  async function sayTooLate(...all: readonly string[]): Promise<readonly PromiseSettledResult<unknown>[]> {
    const said = new Promise<Promise<unknown>[]>((resolve) => {
      socket().prependListener('error', () => setImmediate(() => resolve(all.map(say))))
    })
    await wire.cut()
    await wire.mend()
    return await Promise.allSettled(await said)
  }

  // What is long is written at once, and what is short at the end of the turn.
  test.each([
    ['short', 1, 'late'],
    ['long', 1, 'late '.repeat(1_000)],
    ['several short', 3, 'late'],
    ['several long', 3, 'late '.repeat(1_000)],
  ])('a statement that came too late for its connection is not answered as done: it was %s', async (_, count, words) => {
    const late = Array.from({ length: count }, (__, index) => `${index} ${words}`)
    const answers = await sayTooLate(...late)
    const done = late.filter((___, index) => answers[index]!.status === 'fulfilled')
    expect((await kept()).toSorted()).toEqual([...done, 'first'].toSorted())
    expect(answers[0]).toMatchObject({ status: 'rejected', reason: { code: expect.stringMatching(/^(CONNECTION_|ECONN)/) as unknown } })
  })

  test.each([
    ['short', 'late'],
    ['long', 'late '.repeat(1_000)],
  ])('a connection that was lost with something unsent in it is not used again: it was %s', async (_, words) => {
    await sayTooLate(words, words)
    for (const later of ['second', 'third', 'fourth']) await say(later)
    expect((await kept()).filter((said) => said !== words)).toEqual(['first', 'second', 'third', 'fourth'])
    const rows = await Promise.all([1, 2, 3, 4].map((each) => connections.query('select $1::text as each', [String(each)])))
    expect(rows.flat().map((row) => row['each'])).toEqual(['1', '2', '3', '4'])
  })

  test('a connection that has grown old is replaced, between two statements', async () => {
    const backend = async () => (await connections.query('select pg_backend_pid()::text as pid', []))[0]!['pid']
    const young = await backend()
    expect(await backend()).toBe(young)
    const now = performance.now.bind(performance)
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 46 * 60_000)
    expect(await backend()).toBe(young)
    expect(await backend()).not.toBe(young)
  })

  test('a server that ends every connection, again and again and at work, is asked again each time', async () => {
    const door = await openPostgres(wire.url, 8)
    await door.onDue(() => {})
    let over = false
    let answered = 0
    const ask = async () => {
      while (!over) {
        const id = String(Math.random())
        await new Promise((resolve) => setImmediate(resolve))
        const rows = await door.query('select $1::text as id', [id]).catch(() => undefined)
        if (rows === undefined) continue
        expect(rows).toEqual([{ id }])
        answered++
      }
    }
    const asking = Array.from({ length: 16 }, ask)
    for (let time = 0; time < 25; time++) {
      const before = answered
      await owner`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
      await vi.waitUntil(() => answered > before + 50, { timeout: 30_000, interval: 5 })
    }
    over = true
    await Promise.all(asking)
    await door.close()
  })
})
