import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { type LogKey, logKeyOf } from '../../src/ledger/log-key.ts'
import { latestCheckpoint, listLogs } from '../../src/ledger/checkpoints.ts'
import { proveEntry } from '../../src/ledger/proofs.ts'
import { rotateLog } from '../../src/ledger/rotation.ts'
import { type KnownHead, type SignedLog, stepLog } from '../../src/ledger/signing.ts'
import { auditLog, growAll, settled, writeEntries } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const origin = 'broker.example.com'
const seeds = [7, 8, 9].map((byte) => logKeyOf(new Uint8Array(32).fill(byte)))
const [first, second, third] = seeds as [LogKey, LogKey, LogKey]
const names = [origin, `${origin}/log/2`, `${origin}/log/3`]
/** The verifier keys of the first logs. */
const verifiers = (...keys: readonly LogKey[]) => Promise.all(keys.map(async (key, at) => (await key.signerFor(names[at]!))!.key))

type Run = Ledger['run']

/** A ledger that does something else where it would append. */
const whereItAppends = (ledger: Ledger, instead: (append: () => ReturnType<Run>) => ReturnType<Run>): Ledger =>
  ({
    ...ledger,
    async run(...given: Parameters<Run>) {
      const append = () => ledger.run(...given)
      return await (JSON.stringify(given[0].queryChunks).includes('insert into checkpoints') ? instead(append) : append())
    },
  }) as Ledger

// Long, for what another test of the same cluster holds back.
describe.each(stores)('the log on $name whose key is rotated', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger
  let log: SignedLog

  beforeEach(async () => {
    store = await open()
    ledger = await connect(store.settings)
    log = { ledger, key: first, origin }
  })
  afterEach(async () => {
    await ledger.close()
    await store.dispose()
  })

  async function write(count: number): Promise<void> {
    await writeEntries(ledger, count)
    await settled(ledger)
  }

  async function begun(count = 300): Promise<void> {
    await write(count)
    await growAll(log)
  }

  const rotate = (key: LogKey | 'lost' = first, next = second, on = ledger) => rotateLog({ ledger: on, key: key === 'lost' ? undefined : key, next })

  test('is closed at its last checkpoint, and goes on as another that names it', async () => {
    await begun()
    const final = (await latestCheckpoint(ledger))!
    await write(5)

    const { closed, opened } = await rotate()

    expect(closed).toMatchObject({ origin, size: 300, note: final.note, closed: true })
    expect(opened).toMatchObject({ origin: names[1], log: { number: 2, first: 300 }, size: 1 })
    await write(600)
    await growAll({ ledger, key: second, origin })
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
    const [oldKey, newKey] = await verifiers(first, second)
    expect((await listLogs(ledger)).map(({ closed: isClosed, size, key }) => [isClosed, size, key])).toEqual([
      [true, 300, oldKey!.text],
      [false, 606, newKey!.text],
    ])
    const [opening] = await ledger.run<{ id: string; xid: string; body: object }>(sql`
      select id, xid::text as xid, body from entries where kind = 'log.opened'`)
    expect(opening).toMatchObject({ xid: '0', body: { log: 2, origin: names[1], closed: { origin, size: 300, checkpoint: final.note } } })
    expect(await proveEntry(ledger, opening!.id)).toMatchObject({ index: 0 })
    const [old] = await ledger.run<{ id: string }>(sql`select entry_id as id from leaves where index = 17`)
    expect(await proveEntry(ledger, old!.id)).toMatchObject({ index: 17, note: final.note })
  })

  test('is left to those who have the new key: whoever has that of the closed log is told so, and signs neither', async () => {
    const memory: KnownHead = { head: undefined }
    await write(3)
    await growAll(log, memory)
    await rotate()
    await write(3)
    expect(await stepLog(log, memory)).toMatchObject({ outcome: 'refused', why: 'closed log', lag: { entries: 3 } })
    expect(await stepLog(log, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'closed log' })
    expect(await stepLog({ ...log, key: third }, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'another key' })
    expect(await listLogs(ledger)).toMatchObject([{ size: 3 }, { size: 1 }])
    await growAll({ ...log, key: second })
    expect(await listLogs(ledger)).toMatchObject([{ size: 3 }, { size: 4 }])
  })

  test('takes nothing from a broker that looked before it was closed and signs after', async () => {
    await begun(3)
    await write(3)
    const late = whereItAppends(ledger, async (append) => {
      await rotate()
      return await append()
    })
    expect((await stepLog({ ...log, ledger: late }, { head: undefined })).outcome).toBe('overtaken')
    await growAll({ ...log, key: second })
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
  })

  test('is closed behind what a broker adds while it is being closed', async () => {
    await begun(3)
    await write(3)
    let isFirst = true
    const late = whereItAppends(ledger, async (append) => {
      if (isFirst) await growAll(log)
      isFirst = false
      return await append()
    })
    expect((await rotate(first, second, late)).closed.size).toBe(6)
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
  })

  test('is one log after another when brokers of both keys write, sign and rotate at once', async () => {
    await begun(3)
    const both = (key: LogKey) => stepLog({ ...log, key }, { head: undefined }, 4)
    await Promise.all([both(first), write(9), both(second), rotate(), both(first), write(4), both(second), both(first)])
    await growAll({ ...log, key: second })
    expect((await latestCheckpoint(ledger))?.log.number).toBe(2)
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
  })

  test('is closed once by two who do so at once: with one key for the next by both, with two by one of them', async () => {
    await begun(3)
    const same = await Promise.all([rotate(), rotate()])
    expect(same.map(({ opened }) => opened.note)).toEqual([same[0].opened.note, same[0].opened.note])
    const apart = await Promise.allSettled([rotate(second, third), rotate(second, logKeyOf(new Uint8Array(32).fill(10)))])
    expect(apart.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    expect(apart.find((one) => one.status === 'rejected')?.reason).toMatchObject({
      code: 'conflict',
      cause: { message: expect.stringContaining('key') as unknown },
    })
    expect(await listLogs(ledger)).toMatchObject([{ size: 3 }, { size: 1 }, { size: 1 }])
  })

  test.each([
    ['before the store hears of it', async () => {}],
    ['when the store has done it', async (append: () => Promise<unknown>) => void (await append())],
  ])('is closed once where whoever does so dies %s, and does it again', async (_, reach) => {
    await begun(3)
    await write(2)
    const dying = whereItAppends(ledger, async (append) => {
      await reach(append)
      throw new BrokerError('store_unavailable', 'lost')
    })
    await expect(rotate(first, second, dying)).rejects.toThrow('lost')
    const [entries] = await ledger.run<{ count: number }>(sql`select count(*)::int as count from entries where kind = 'log.opened'`)
    expect(entries!.count).toBe((await listLogs(ledger)).length - 1)

    const { closed, opened } = await rotate()

    expect([closed.size, opened.log.number]).toEqual([3, 2])
    await growAll({ ...log, key: second })
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
  })

  test('can be left behind at once, and by whoever has lost its key', async () => {
    await begun(260)
    await rotate()
    await rotate('lost', third)
    await write(300)
    await growAll({ ...log, key: third })
    expect(await listLogs(ledger)).toMatchObject([{ size: 260 }, { size: 1 }, { size: 301 }])
    expect(await auditLog(ledger, await verifiers(first, second, third))).toEqual([])
  })

  test('gets its row, where it began before logs had any, with its next entry or when it is closed', async () => {
    await begun(3)
    const forget = () => asOwner(ledger, store, ['delete from logs'])
    await forget()
    expect(await listLogs(ledger)).toMatchObject([{ origin, key: undefined, size: 3 }])
    await expect(rotate('lost')).rejects.toMatchObject({ code: 'conflict' })
    await begun(3)
    expect(await listLogs(ledger)).toMatchObject([{ origin, key: (await verifiers(first))[0]!.text, size: 6 }])
    await forget()
    await rotate()
    expect(await auditLog(ledger, await verifiers(first, second))).toEqual([])
  })

  test('is remembered by a broker that has both keys, and not signed any further where its closed part was cut', async () => {
    const both: LogKey = { signerFor: (name) => (name === origin ? first : second).signerFor(name) }
    const [memory, other]: KnownHead[] = [{ head: undefined }, { head: undefined }]
    await write(200)
    await growAll({ ...log, key: both }, memory)
    other!.head = memory!.head
    await write(200)
    await growAll(log)
    await rotate()
    await write(1)
    await growAll({ ...log, key: both }, memory)
    expect(memory!.head).toMatchObject({ log: { number: 2 }, size: 2 })
    await asOwner(ledger, store, ['update leaves set hash = sha256(hash) where index = 300'])
    await write(1)
    expect(await stepLog({ ...log, key: both }, other!)).toMatchObject({ outcome: 'refused', why: 'rolled back' })
    await asOwner(ledger, store, [
      'delete from checkpoints where size > 400',
      'delete from logs where number = 2',
      'delete from leaves where index >= 400',
    ])
    expect(await stepLog({ ...log, key: both }, memory!)).toMatchObject({ outcome: 'refused', why: 'rolled back' })
  })

  test('is not closed before it has begun, nor by a stranger, nor where it is not as it was signed', async () => {
    const why = (words: string) => ({ code: 'conflict', cause: { message: expect.stringContaining(words) as unknown } })
    await expect(rotate()).rejects.toMatchObject(why('it has not begun'))
    await begun(3)
    await expect(rotate(third)).rejects.toMatchObject(why('the log can be closed without it: --lost'))
    await asOwner(ledger, store, ['update leaves set hash = sha256(hash) where index = 1'])
    await expect(rotate()).rejects.toMatchObject(why('does not come to the root'))
    expect(await listLogs(ledger)).toMatchObject([{ size: 3, closed: false }])
  })

  test('is not closed for a key that gives another signature than its own', async () => {
    await begun(3)
    const forged: LogKey = {
      async signerFor(name) {
        const [signer, stranger] = [(await second.signerFor(name))!, (await third.signerFor(name))!]
        return { key: signer.key, sign: (head) => stranger.sign(head) }
      },
    }
    await expect(rotate(first, forged)).rejects.toMatchObject({
      code: 'conflict',
      cause: { message: expect.stringContaining('is not one: nothing of it was kept') as unknown },
    })
    expect(await listLogs(ledger)).toMatchObject([{ size: 3, closed: false }])
    const [entries] = await ledger.run<{ count: number }>(sql`select count(*)::int as count from entries where kind = 'log.opened'`)
    expect(entries).toEqual({ count: 0 })
  })

  test('is told apart from an outage of the key that signed the closed one', async () => {
    await begun(3)
    await rotate()
    let isAway = false
    const remote: LogKey = {
      async signerFor(name) {
        if (isAway && name === origin) throw new BrokerError('provider_unavailable', 'away')
        return await first.signerFor(name)
      },
    }
    expect(await stepLog({ ...log, key: remote }, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'closed log' })
    isAway = true
    expect(await stepLog({ ...log, key: remote }, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'key away' })
  })

  test.each(['delete from logs', 'truncate logs', 'update logs set key = null'])('keeps the application from it: %s', async (statement) => {
    await expect(ledger.run(sql.raw(statement))).rejects.toMatchObject({ cause: { message: expect.stringMatching(/^42501/) as unknown } })
  })
})
