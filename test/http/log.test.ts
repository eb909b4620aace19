import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { sql } from 'drizzle-orm'
import { createFollowing, type FollowLimits, formats, forms, houseFollow } from '../../src/http/follow.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import type * as contract from '../../src/http/contract.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { rotateLog } from '../../src/ledger/rotation.ts'
import type { EntryFields } from '../../src/proof/leaf.ts'
import { leafOf } from '../../src/proof/leaf.ts'
import type { LogLine } from '../../src/proof/lines.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { parseVerifierKey } from '../../src/proof/note.ts'
import { checkProof } from '../../src/proof/entry-proof.ts'
import { openCheckpoint } from '../../src/proof/checkpoint.ts'
import { entriesOf } from '../../src/proof/tiles.ts'
import { growAll, writeEntries } from '../support/log.ts'
import { faultsOf } from '../support/ocsf.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { buildHouse, type House } from './house.ts'

const key = logKeyOf(new Uint8Array(32).fill(7))
const origin = 'broker.example.com'
const never = new AbortController().signal

let store: OpenedStore
let ledger: Ledger
let house: House

const write = (count: number): Promise<unknown> => writeEntries(ledger, count)

const grow = (): Promise<void> => growAll({ ledger, key, origin })

beforeAll(async () => {
  store = await openEmbedded()
  ledger = await connect(store.settings)
  house = buildHouse()
  Object.assign(house.parts.broker.ledger, { run: ledger.run.bind(ledger) })
})
afterAll(async () => {
  await ledger.close()
  await store.dispose()
})

/** The hashes of a tile as it travels. */
function hashesIn(tile: ArrayBuffer, width: number): Buffer[] {
  expect(tile.byteLength).toBe(32 * width)
  return Array.from({ length: width }, (_, at) => Buffer.from(tile, 32 * at, 32))
}

const get = (path: string, headers: Record<string, string> = {}) => house.ask(path, { token: 'reviewer', headers })

describe('the log over HTTP', () => {
  test('has no checkpoint before its first entry, and a key already', async () => {
    expect((await get('/checkpoint')).status).toBe(404)
    expect(parseVerifierKey((await (await get('/ledger/key')).text()).trim())?.name).toBe(origin)
  })

  test('is served as tiles and bundles that come to its checkpoint, each with what may be kept of it', async () => {
    await write(300)
    await grow()
    const checkpoint = await get('/checkpoint')
    expect(checkpoint.headers.get('cache-control')).toBe('private, no-cache')
    const trusted = parseVerifierKey((await (await get('/ledger/key')).text()).trim())!
    expect(openCheckpoint(await checkpoint.text(), [trusted])).toMatchObject({ ok: true, checkpoint: { origin, size: 300 } })

    const full = await get('/tile/0/000')
    expect(full.headers.get('cache-control')).toBe('private, max-age=31536000, immutable')
    expect(full.headers.get('content-type')).toBe('application/octet-stream')
    const hashes = hashesIn(await full.arrayBuffer(), 256)
    const bundle = entriesOf(Buffer.from(await (await get('/tile/entries/000')).arrayBuffer()), 256)!
    expect(bundle.map(leafHash)).toEqual(hashes)
    const partial = await get('/tile/0/001.p/44')
    expect(partial.headers.get('cache-control')).toBe('private, max-age=3600')
    expect(hashesIn(await partial.arrayBuffer(), 44)).toHaveLength(44)
    expect((await get('/tile/1/000.p/1')).status).toBe(200)
  })

  test.each(['/tile/0/002', '/tile/0/001', '/tile/0/001.p/45', '/tile/2/000', '/tile/entries/x001/000', '/tile/63/x999/x999/999'])(
    'has nothing at %s, which is beyond the tree',
    async (path) => {
      expect(await house.problem(path, { token: 'reviewer' })).toMatchObject({ status: 404, code: 'not_found' })
    },
  )

  test.each([
    '/tile/0/0',
    '/tile/64/000',
    '/tile/0/x000/001',
    '/tile/0/000.p/256',
    '/tile/0/000.p/0',
    '/tile/-1/000',
    '/tile/entries',
    '/tile/0/000%2f',
    '/tile/0/000%00',
  ])('refuses %s, which is no tile, by naming the path', async (path) => {
    expect(await house.problem(path, { token: 'reviewer' })).toMatchObject({ status: 400, code: 'invalid_request', errors: [{ pointer: 'path' }] })
  })

  test.each([
    '/checkpoint',
    '/ledger/key',
    '/tile/0/000',
    '/tile/nothing',
    '/ledger/log',
    '/ledger?follow=true',
    '/ledger/ent_01m8c6xhj3e0184qtkvyyd00kf/proof',
  ])('is closed to strangers and agents at %s', async (path) => {
    expect(await house.problem(path)).toMatchObject({ status: 401 })
    expect(await house.problem(path, { token: 'agent' })).toMatchObject({ status: 403 })
  })

  test('proves an entry by its id, and says of one without a place that it has none yet', async () => {
    const [line] = (await (await get('/ledger/log?limit=1&after=6')).text()).split('\n')
    const { number, entry, leaf_hash: leaf } = JSON.parse(line!) as { number: number; entry: EntryFields; leaf_hash: string }
    expect([number, leafHash(leafOf(entry)).toString('base64')]).toEqual([7, leaf])
    const proof = await (await get(`/ledger/${entry.id}/proof`)).text()
    expect(checkProof(proof, leafHash(leafOf(entry)), [(await key.signerFor(origin))!.key])).toMatchObject({
      ok: true,
      index: 7,
      leaf: leafOf(entry),
    })
    await write(1)
    const [newest] = await ledger.run<{ id: string }>(sql`select id from entries order by id desc limit 1`)
    expect(await house.problem(`/ledger/${newest!.id}/proof`, { token: 'reviewer' })).toMatchObject({
      status: 404,
      detail: expect.stringContaining('no place in the log yet') as unknown,
    })
    expect((await get('/ledger/ent_01m8c6xhj3e0184qtkvyyd00kf/proof')).status).toBe(404)
    expect((await get('/ledger/nothing/proof')).status).toBe(404)
    await grow()
  })

  test('shows an entry with all that its leaf is made of', async () => {
    const { items } = (await (await get('/ledger?limit=1')).json()) as { items: EntryFields[] }
    const last = (await (await get('/ledger/log?after=299')).text()).split('\n')[0]!
    expect(leafHash(leafOf(items[0]!)).toString('base64')).toBe((JSON.parse(last) as { leaf_hash: string }).leaf_hash)
  })

  test('that was closed keeps its address and its tiles, and the one that goes on from it has its own', { timeout: 150_000 }, async () => {
    const [before, tile] = [await (await get('/checkpoint')).text(), await (await get('/tile/0/000.p/7')).arrayBuffer()]
    const next = logKeyOf(new Uint8Array(32).fill(8))
    const other = await openEmbedded()
    const apart = await connect(other.settings)
    const { run } = house.parts.broker.ledger
    await using closing = {
      async [Symbol.asyncDispose]() {
        Object.assign(house.parts.broker.ledger, { run })
        await apart.close()
        await other.dispose()
      },
    }
    void closing
    Object.assign(house.parts.broker.ledger, { run: apart.run.bind(apart) })
    await writeEntries(apart, 300)
    await growAll({ ledger: apart, key, origin })
    const final = await (await get('/checkpoint')).text()
    const { opened } = await rotateLog({ ledger: apart, key, next })
    await writeEntries(apart, 300)
    await growAll({ ledger: apart, key: next, origin })

    expect(await (await get('/checkpoint')).text()).toBe(final)
    const newest = await (await get('/log/2/checkpoint')).text()
    expect(openCheckpoint(newest, [parseVerifierKey(opened.key!)!])).toMatchObject({ ok: true, checkpoint: { origin: `${origin}/log/2`, size: 301 } })
    const { items } = (await (await get('/ledger/logs')).json()) as contract.Logs
    expect(items).toMatchObject([
      { number: 1, origin, first: 0, size: 300, closed: true, checkpoint: final, key: (await key.signerFor(origin))!.key.text },
      { number: 2, origin: `${origin}/log/2`, first: 300, size: 301, closed: false, checkpoint: newest, key: opened.key },
    ])
    // This broker has the key of the closed one still, and tells the one that is right.
    expect(await (await get('/ledger/key')).text()).toBe(`${opened.key}\n`)
    expect((await get('/tile/0/001.p/44')).status).toBe(200)
    expect((await get('/tile/0/001')).status).toBe(404)
    const hashes = hashesIn(await (await get('/log/2/tile/0/000')).arrayBuffer(), 256)
    expect(entriesOf(Buffer.from(await (await get('/log/2/tile/entries/000')).arrayBuffer()), 256)!.map(leafHash)).toEqual(hashes)
    expect((await get('/log/2/tile/0/001.p/45')).status).toBe(200)
    for (const none of [
      '/log/1/checkpoint',
      '/log/3/checkpoint',
      '/log/02/checkpoint',
      '/log/x/checkpoint',
      '/log/1/tile/0/000',
      '/log/3/tile/0/000',
    ])
      expect((await get(none)).status, none).toBe(404)
    expect((await get('/log/2/tile/0/0')).status).toBe(400)
    for (const closedTo of ['/ledger/logs', '/log/2/checkpoint', '/log/2/tile/0/000'])
      expect(await house.problem(closedTo, { token: 'agent' })).toMatchObject({ status: 403 })

    const following = createFollowing(apart, never)
    const reader = following.open(299, forms['application/x-ndjson'], formats.ledger, 'ann').getReader()
    const lines = Buffer.from((await reader.read()).value!)
      .toString()
      .trim()
      .split('\n')
    expect(lines.slice(0, 3).map((line) => (JSON.parse(line) as LogLine).number)).toEqual([299, 300, 301])
    expect((JSON.parse(lines[1]!) as LogLine).entry?.kind).toBe('log.opened')
    await reader.cancel()
    Object.assign(house.parts.broker.ledger, { run })
    expect([await (await get('/checkpoint')).text(), await (await get('/tile/0/000.p/7')).arrayBuffer()]).toEqual([before, tile])
  })

  test.each([
    ['/ledger/log?after=-1', '?after'],
    ['/ledger/log?after=1e3', '?after'],
    ['/ledger/log?limit=501', '?limit'],
    ['/ledger/log?nothing=1', '?nothing'],
    ['/ledger?follow=yes', '?follow'],
    ['/ledger?follow=true&after=x', '?after'],
    ['/ledger?follow=true&agent=bot', '?agent'],
    ['/ledger?follow=true&format=cef', '?format'],
  ])('%s is refused for %s', async (path, pointer) => {
    expect(await house.problem(path, { token: 'reviewer' })).toMatchObject({ status: 400, errors: [expect.objectContaining({ pointer })] })
  })
})

describe('following the ledger', () => {
  const limits: FollowLimits = { most: 3, share: 2, look: 5, silence: 20, patience: 60, longest: 10_000 }
  const ndjson = forms['application/x-ndjson']
  const decoder = new TextDecoder()
  let reader: ReadableStreamDefaultReader<Uint8Array>
  beforeEach(() => (reader = undefined as never))

  const read = async (): Promise<string | undefined> => {
    const { value } = await reader.read()
    return value && decoder.decode(value)
  }
  /** The next that is no sign of life. */
  const news = async (): Promise<string> => {
    for (;;) {
      const text = await read()
      if (text === undefined || (text.trim() !== '' && !text.startsWith(':'))) return text ?? ''
    }
  }

  test('begins where it is told, and goes on with what comes', async () => {
    const following = createFollowing(ledger, never, limits)
    reader = following.open(299, ndjson, formats.ledger, 'ann').getReader()
    expect(
      (await news())
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { number: number }).number),
    ).toEqual([299, 300])
    // Longer than one that does not read is borne.
    for (let life = 0; life < 8; life++) expect(await read()).toBe('\n')
    expect(following.count()).toBe(1)
    const coming = news()
    await write(2)
    await grow()
    expect(
      (await coming)
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as { number: number }).number),
    ).toEqual([301, 302])
    await reader.cancel()
    expect(following.count()).toBe(0)
  })

  test('is resumed by the number of the last event', async () => {
    const answer = await get('/ledger?follow=true&after=3', { accept: 'text/event-stream', 'last-event-id': '301' })
    expect(answer.headers.get('content-type')).toBe('text/event-stream')
    reader = answer.body!.getReader()
    expect(await read()).toMatch(/^id: 302\ndata: \{"number":302,.*\}\n\n$/)
    await reader.cancel()
  })

  test('costs no place where only its headers are asked for', async () => {
    const head = () => house.ask('/ledger?follow=true', { method: 'HEAD', token: 'reviewer' })
    for (let time = 0; time <= houseFollow.most; time++) expect((await head()).status).toBe(200)
  })

  test('is resumed in OCSF too, with the same numbers', async () => {
    const answer = await get('/ledger?follow=true&after=301&format=ocsf', { accept: 'text/event-stream' })
    reader = answer.body!.getReader()
    const [, id, data] = /^id: (\d+)\ndata: (.*)\n\n$/.exec((await read())!) ?? []
    const event = JSON.parse(data!) as { metadata: { sequence: number; event_code: string } }
    expect([id, event.metadata]).toMatchObject(['302', { sequence: 302, event_code: 'policy.activated' }])
    expect(faultsOf(event)).toEqual([])
    await reader.cancel()
  })

  test('ends for a client that does not read, and leaves its place to others', async () => {
    const following = createFollowing(ledger, never, limits)
    const streams = [following.open(0, ndjson, formats.ledger, 'ann'), following.open(0, ndjson, formats.ledger, 'ann')]
    const readers = streams.map((stream) => stream.getReader())
    for (const each of readers) await each.read()
    await expect.poll(() => following.count()).toBe(0)
    await expect(readers[0]!.read()).rejects.toThrow('does not read')
    expect(following.open(0, ndjson, formats.ledger, 'ann')).toBeDefined()
  })

  test('is refused to somebody who has their share already, and by others it is not', async () => {
    const following = createFollowing(ledger, never, limits)
    const streams = [following.open(0, ndjson, formats.ledger, 'ann'), following.open(0, ndjson, formats.ledger, 'ann')]
    expect(() => following.open(0, ndjson, formats.ledger, 'ann')).toThrow('You have as many followers of the ledger as one caller may: 2')
    await following.open(0, ndjson, formats.ledger, 'bob').cancel()
    for (const stream of streams) await stream.cancel()
  })

  test('ends when the broker stops, and when it has lasted long enough', async () => {
    const stop = new AbortController()
    const following = createFollowing(ledger, stop.signal, { ...limits, look: 60_000, longest: 30 })
    reader = following.open(10_000, ndjson, formats.ledger, 'ann').getReader()
    expect(await read()).toBeUndefined()
    const other = createFollowing(ledger, stop.signal, { ...limits, look: 60_000, silence: 60_000 })
    reader = other.open(10_000, ndjson, formats.ledger, 'ann').getReader()
    const last = read()
    stop.abort()
    expect(await last).toBeUndefined()
    expect(() => other.open(0, ndjson, formats.ledger, 'ann')).toThrow('rate_limited')
  })
})
