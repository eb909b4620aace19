import { Writable } from 'node:stream'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { readLogLines } from '../../src/ledger/log-lines.ts'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { beginning, type Reached, seekStrays } from '../../src/ledger/look.ts'
import { proveEntry } from '../../src/ledger/proofs.ts'
import { startSequencer } from '../../src/ledger/sequencer.ts'
import { type KnownHead, type SignedLog, stepLog } from '../../src/ledger/signing.ts'
import { verifyLedger } from '../../src/proof/verify.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { growAll } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const origin = 'broker.example.com'
const key = logKeyOf(new Uint8Array(32).fill(7))
const { key: verifier } = (await key.signerFor(origin))!

// Long, for what another test of the same cluster holds back.
describe.each(stores)('an entry that was written where the log had been already, on $name', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger
  let log: SignedLog
  let memory: KnownHead

  beforeEach(async () => {
    store = await open()
    ledger = await connect(store.settings)
    log = { ledger, key, origin }
    memory = { head: undefined }
    for (let commit = 0; commit < 3; commit++) await write()
  })
  afterEach(async () => {
    await ledger.close()
    await store.dispose()
  })

  /** Two entries of one commit, with their places. */
  async function write(): Promise<void> {
    await ledger.run(sql`insert into entries (kind, body) select 'policy.activated', '{}' from generate_series(1, 2)`)
    await growAll(log, memory)
  }

  /** Writes an entry into the transaction of the entry at a place. @returns its id */
  async function stray(place: number, id = 'entry_id()'): Promise<string> {
    await asOwner(ledger, store, [
      `insert into entries (id, xid, kind, agent, body) select ${id}, xid, 'policy.activated', 'stray', '{}' from entries where id = (select entry_id from leaves where index = ${place})`,
    ])
    const [row] = await ledger.run<{ id: string }>(sql`select id from entries where agent = 'stray' order by id desc limit 1`)
    return row!.id
  }

  async function faults(): Promise<readonly string[]> {
    const verification = verifyLedger({ keys: [verifier], checkpoint: (await latestCheckpoint(ledger))!.note })
    for (const line of await readLogLines(ledger, 0, 100)) verification.line(line)
    return verification.finish().faults.map(({ number, id, message }) => `${number} ${id} ${message}`)
  }
  const isStray = (number: number, id: string): string =>
    `${number} ${id} is in the history right before this entry and has no place in the log: it was written there afterwards`

  test('never gets a place, and its proof says so, and verify', async () => {
    expect(await faults()).toEqual([])
    const id = await stray(1)
    expect(await proveEntry(ledger, id)).toBe('stray')
    expect(await faults()).toEqual([isStray(2, id)])
    await write()
    expect(await proveEntry(ledger, id)).toBe('stray')
    expect(await faults()).toEqual([isStray(2, id)])
  })

  test.each([
    ['before all others', 0, 0],
    ['between two of one commit', 3, 3],
  ])('with an older id is found %s', async (_, place, number) => {
    const [entry] = await ledger.run<{ id: string }>(sql`select entry_id as id from leaves where index = ${place}`)
    const id = await stray(place, `'${entry!.id.slice(0, -1)}!'`)
    expect(id < entry!.id).toBe(true)
    expect(await seekStrays(ledger, beginning, 10)).toEqual({ strays: [id], reached: undefined })
    expect(await proveEntry(ledger, id)).toBe('stray')
    expect(await faults()).toEqual([isStray(number, id)])
  })

  test('is seen by the next look of a broker', async () => {
    const ids = [await stray(1), await stray(3)].toSorted()
    expect((await stepLog(log, memory)).lag).toMatchObject({ entries: 0, strays: ids })
    await ledger.run(sql`insert into entries (kind, body) values ('policy.activated', '{}')`)
    expect((await stepLog(log, { head: undefined })).lag.strays).toEqual(ids)
  })

  test('is an alarm that stays when the log goes on', async () => {
    const lines: string[] = []
    const destination = new Writable({ write: (chunk: Buffer, _, done) => (lines.push(chunk.toString()), done()) })
    const telemetry = createTelemetry({ level: 'info', destination })
    const id = await stray(1)
    await using sequencer = startSequencer(log, telemetry)
    while (lines.length === 0) await new Promise((resolve) => setImmediate(resolve))
    for (let commit = 0; commit < 3; commit++) await write()
    expect((await stepLog(log, memory)).lag.strays).toEqual([])
    expect(sequencer.hasStrays()).toBe(true)
    expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([{ level: 'error', entries: [id], count: 1 }])
    expect(await telemetry.metrics.registry.metrics()).toMatch(/^mayfly_log_strays 1$/m)
  })

  test('is met by whoever goes through the history, step by step to where the log is', async () => {
    const ids = [await stray(1), await stray(3)]
    await ledger.run(sql`insert into entries (kind, body) values ('policy.activated', '{}')`)
    const steps: (readonly string[])[] = []
    for (let at: Reached | undefined = beginning; at;) {
      const { strays, reached } = await seekStrays(ledger, at, 3)
      steps.push(strays)
      at = reached
    }
    // The places 0 and 1 with the first stray, 2 and 3 with the second, then 4 and 5.
    expect(steps).toEqual([[ids[0]], [ids[1]], []])
  })

  test('is met by a broker that starts long after, also while more waits than it counts', async () => {
    const id = await stray(1)
    for (let commit = 0; commit < 3; commit++) await write()
    await ledger.run(sql`insert into entries (kind, body) select 'policy.activated', '{}' from generate_series(1, 10000)`)
    const away = new BrokerError('provider_unavailable', 'The key does not answer')
    const held = { ...log, key: { signerFor: () => Promise.reject(away) } }
    expect((await stepLog(held, memory)).lag).toMatchObject({ entries: 10_000, strays: [] })
    const telemetry = createTelemetry({ level: 'silent' })
    await using sequencer = startSequencer(held, telemetry)
    while (!sequencer.hasStrays()) await new Promise((resolve) => setImmediate(resolve))
    expect(await seekStrays(ledger, beginning, 100)).toMatchObject({ strays: [id] })
    expect(await telemetry.metrics.registry.metrics()).toMatch(/^mayfly_log_strays 1$/m)
  })

  test('is told from one that waits', async () => {
    await ledger.run(sql`insert into entries (kind, body) values ('policy.activated', '{}')`)
    const [entry] = await ledger.run<{ id: string }>(sql`select id from entries order by id desc limit 1`)
    expect(await proveEntry(ledger, entry!.id)).toBe('waiting')
    expect((await stepLog(log, memory)).lag.strays).toEqual([])
    expect((await seekStrays(ledger, beginning, 100)).strays).toEqual([])
  })
})
