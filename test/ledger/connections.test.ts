import { Socket } from 'node:net'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Connections, openConnections } from '../../src/ledger/connections.ts'
import { dueChannel, openPostgres } from '../../src/ledger/postgres.ts'
import { socketsOf } from '../../src/ledger/sockets.ts'
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
    const options = { max: 1, fetch_types: false, connect_timeout: 2, onnotice: () => {} }
    connections = openConnections((hooks) => postgres(wire.url, { ...options, ...hooks, ...socketsOf(hooks.onclose) }))
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

  test('whoever listens hears what is announced, and is called when the connection was lost, for something may have been announced meanwhile', async () => {
    const door = await openPostgres(wire.url, 8)
    let heard = 0
    await door.onDue(() => heard++)
    expect(heard).toBe(1)
    await owner.notify(dueChannel, '')
    await owner.notify('another', '')
    await vi.waitUntil(() => heard === 2, { timeout: 20_000 })
    await wire.cut()
    await owner.notify(dueChannel, '')
    await wire.mend()
    await vi.waitUntil(() => heard === 3, { timeout: 20_000 })
    await owner.notify(dueChannel, '')
    await vi.waitUntil(() => heard === 4, { timeout: 20_000 })
    await door.close()
  })

  test('a server that accepts and hangs up is asked with pauses, fails what is asked soon, and is found again', async () => {
    const door = await openPostgres(wire.url, 8)
    let heard = 0
    await door.onDue(() => heard++)
    wire.hangUp()
    await vi.waitUntil(
      () =>
        door.query('select 1', []).then(
          () => false,
          () => true,
        ),
      { timeout: 20_000 },
    )
    const before = wire.accepted()
    const [rounds, each] = [4, 16]
    for (let round = 0; round < rounds; round++) {
      const answers = await Promise.allSettled(Array.from({ length: each }, () => door.query('select 1', [])))
      expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: each }, () => 'rejected'))
    }
    // One for each statement, and some by whoever listens.
    expect(wire.accepted() - before).toBeLessThan(rounds * each + 20)
    const since = heard
    await wire.mend()
    expect(await door.query('select 1 as one', [])).toEqual([{ one: 1 }])
    await vi.waitUntil(() => heard > since, { timeout: 20_000 })
    await door.close()
  }, 20_000)

  test('a server that accepts and hangs up fails a start at once', async () => {
    wire.hangUp()
    await expect(openPostgres(wire.url, 8)).rejects.toMatchObject({ code: 'store_unavailable' })
  })

  test('a connection that is lost while the schema is brought up to date fails the start, and the next one finds it whole', async () => {
    await owner.unsafe(
      'create schema mayfly_schema; create table mayfly_schema.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)',
    )
    const holder = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
    await holder.begin(async (sql) => {
      await sql`lock table mayfly_schema.__drizzle_migrations in share mode`
      const failed = expect(openPostgres(wire.url, 2)).rejects.toMatchObject({ code: 'store_unavailable' })
      const waiting = () => owner`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
      await vi.waitUntil(async () => (await waiting()).length > 0, { timeout: 10_000 })
      await wire.cut()
      await failed
    })
    await holder.end()
    await wire.mend()
    const door = await openPostgres(wire.url, 2)
    expect(await door.query('select count(*)::int as count from tasks', [])).toEqual([{ count: 0 }])
    await door.close()
  })
})
