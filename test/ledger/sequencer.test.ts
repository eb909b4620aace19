import { Writable } from 'node:stream'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { proveConsistency, proveEntry, readTile } from '../../src/ledger/proofs.ts'
import { restAfter, startSequencer } from '../../src/ledger/sequencer.ts'
import { type KnownHead, type SignedLog, stepLog } from '../../src/ledger/signing.ts'
import { verifyConsistency } from '../../src/proof/merkle.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { auditLog, growAll, settled } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { queryOf } from '../support/query.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'

const origin = 'broker.example.com'
const key = logKeyOf(new Uint8Array(32).fill(7))
const { key: verifier } = (await key.signerFor(origin))!

/** Entries of one commit. */
const insert = (ledger: Ledger, count: number): Promise<unknown> =>
  ledger.run(sql`insert into entries (kind, agent, body) select 'policy.activated', null, json_build_object('at', at, 'none', null)
    from generate_series(1, ${count}::int) as at`)

/** Inserts, and waits until that is settled. */
async function write(ledger: Ledger, count: number): Promise<void> {
  await insert(ledger, count)
  await settled(ledger)
}

/** A ledger whose appends go wrong: they do not happen, or happen and their answer is lost. */
function failing(ledger: Ledger, fault: 'does not happen' | 'happens, and its answer is lost'): Ledger {
  return {
    ...ledger,
    async run(...given: Parameters<Ledger['run']>) {
      const appends = JSON.stringify(given[0].queryChunks).includes('insert into checkpoints')
      if (!appends) return await ledger.run(...given)
      if (fault !== 'does not happen') await ledger.run(...given)
      throw new BrokerError('store_unavailable', 'lost')
    },
  } as Ledger
}

/** A ledger that does not append before all the others have looked, too. */
function together(ledger: Ledger, count: number): Ledger[] {
  let waiting: (() => void)[] = []
  const meet = (): Promise<void> =>
    new Promise((resolve) => {
      waiting.push(resolve)
      if (waiting.length < count) return
      for (const go of waiting) go()
      waiting = []
    })
  return Array.from({ length: count }, () => ({
    ...ledger,
    async run(...given: Parameters<Ledger['run']>) {
      if (JSON.stringify(given[0].queryChunks).includes('insert into checkpoints')) await meet()
      return await ledger.run(...given)
    },
  })) as Ledger[]
}

// Long, for what another test of the same cluster holds back.
describe.each(stores)('the log on $name', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger
  let log: SignedLog

  beforeEach(async () => {
    store = await open()
    ledger = await connect(store.settings)
    log = { ledger, key, origin }
  })
  afterEach(async () => {
    await ledger.close()
    await store.dispose()
  })

  const tamper = (...statements: readonly string[]): Promise<void> => asOwner(ledger, store, statements)

  test('gives every entry one place, without a gap, and serves what proves it', async () => {
    const memory: KnownHead = { head: undefined }
    expect(await stepLog(log, memory)).toMatchObject({ outcome: 'nothing new', lag: { entries: 0, seconds: 0 } })
    expect(await latestCheckpoint(ledger)).toBeUndefined()
    for (const [count, batch] of [
      [1, 500],
      [2, 500],
      [300, 50],
      [255, 256],
      [4, 1],
      [900, 500],
    ] as const) {
      await write(ledger, count)
      await growAll(log, memory, batch)
    }
    expect(memory.head?.size).toBe(1_462)
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test.each(['leaves', 'subtrees', 'checkpoints'])('keeps the application from changing %s', async (table) => {
    for (const statement of [`delete from ${table}`, `truncate ${table}`, `update ${table} set ${table === 'checkpoints' ? 'size' : 'index'} = 0`]) {
      await expect(ledger.run(sql.raw(statement))).rejects.toMatchObject({ cause: { message: expect.stringMatching(/^42501/) as unknown } })
    }
  })

  test('does not fork when two append at once, whatever each of them has seen', async () => {
    await write(ledger, 20)
    const [one, other] = together(ledger, 2).map((apart) => ({ ...log, ledger: apart }))
    const steps = await Promise.all([stepLog(one!, { head: undefined }, 5), stepLog(other!, { head: undefined }, 12)])
    expect(steps.map(({ outcome }) => outcome).toSorted()).toEqual(['appended', 'overtaken'])
    expect(await auditLog(ledger, verifier)).toEqual([])
    await growAll(log)
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test('is one log when several brokers keep it while others write', async () => {
    const memories: KnownHead[] = [{ head: undefined }, { head: undefined }, { head: undefined }]
    for (let round = 0; round < 8; round++) {
      await Promise.all([
        ...memories.map((memory, at) => stepLog(log, memory, 3 + at * 10)),
        ...Array.from({ length: 6 }, (_, at) => write(ledger, at)),
      ])
    }
    await growAll(log, memories[0])
    for (const memory of memories) expect((await stepLog(log, memory)).outcome).toBe('nothing new')
    expect((await latestCheckpoint(ledger))?.size).toBe(8 * 15)
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test.each(['does not happen', 'happens, and its answer is lost'] as const)('goes on where it was after a write that %s', async (fault) => {
    const memory: KnownHead = { head: undefined }
    for (let round = 0; round < 3; round++) {
      await write(ledger, 10)
      await expect(stepLog({ ...log, ledger: failing(ledger, fault) }, memory, 6)).rejects.toThrow('lost')
    }
    await growAll(log, memory, 6)
    expect(memory.head?.size).toBe(30)
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test('says how much waits and for how long', async () => {
    await write(ledger, 30)
    await tamper("update entries set at = at - interval '1 hour'")
    const { lag } = await stepLog(log, { head: undefined }, 10)
    expect(lag.entries).toBe(30)
    expect(lag.seconds).toBeGreaterThan(3_599)
    expect(lag.seconds).toBeLessThan(3_700)
    expect((await stepLog(log, { head: undefined }, 10)).lag.entries).toBe(20)
  })

  test('has an entry that is too large for a bundle, with the digest of its body', async () => {
    await ledger.run(sql`insert into entries (kind, body) select 'policy.activated', to_json(repeat('x', 70000))`)
    await write(ledger, 3)
    await growAll(log)
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test('keeps its name when the broker gets another', async () => {
    await write(ledger, 3)
    await growAll(log)
    await write(ledger, 3)
    await growAll({ ...log, origin: 'elsewhere.example.com' })
    expect(await auditLog(ledger, verifier)).toEqual([])
  })

  test('is left to those who have its key', async () => {
    await write(ledger, 3)
    await growAll(log)
    await write(ledger, 3)
    const stranger = { ...log, key: logKeyOf(new Uint8Array(32).fill(8)) }
    expect(await stepLog(stranger, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'another key', lag: { entries: 3 } })
    expect((await latestCheckpoint(ledger))?.size).toBe(3)
  })

  const last = 'size = (select max(size) from checkpoints)'
  test.each([
    ['a leaf was changed', 'update leaves set hash = sha256(hash) where index = 259', 'altered tree'],
    ['a leaf is missing', 'delete from leaves where index = 257', 'altered tree'],
    ['a subtree was changed', 'update subtrees set hash = sha256(hash)', 'altered tree'],
    ['a subtree is missing', 'delete from subtrees', 'altered tree'],
    [
      'two leaves were swapped',
      'update leaves set index = -index where index in (257, 258); update leaves set index = 515 + index where index < 0',
      'altered tree',
    ],
    ['a place is taken that was not given', "insert into leaves values (260, 'ent_x', sha256('x'))", 'altered tree'],
    ['the last entry is gone', 'delete from entries where id = (select entry_id from leaves where index = 259)', 'lost entry'],
    ['the root of the checkpoint was changed', `update checkpoints set root = sha256(root) where ${last}`, 'forged checkpoint'],
    [
      'the size in the note was changed',
      `update checkpoints set note = replace(note, E'\\n260\\n', E'\\n261\\n') where ${last}`,
      'forged checkpoint',
    ],
    ['the note is not one', `update checkpoints set note = 'nothing' where ${last}`, 'forged checkpoint'],
    ['the note names another log', `update checkpoints set note = replace(note, 'broker', 'bricker') where ${last}`, 'another key'],
    [
      'an older note stands for it',
      `update checkpoints set note = (select note from checkpoints where size = 200) where ${last}`,
      'forged checkpoint',
    ],
    ['the tail was cut off', `delete from checkpoints where ${last}; delete from leaves where index >= 200; delete from subtrees`, 'rolled back'],
    ['all of it was cut off', 'delete from checkpoints; delete from leaves; delete from subtrees', 'rolled back'],
    [
      "the transactions of a dump's restore are behind",
      "update entries set xid = '99999999999' where id = (select entry_id from leaves where index = 259)",
      'older transactions',
    ],
  ])('is not signed any further where %s', async (_, statements, why) => {
    const memory: KnownHead = { head: undefined }
    await write(ledger, 200)
    await growAll(log, memory)
    await write(ledger, 60)
    await growAll(log, memory)
    await write(ledger, 5)
    await tamper(...statements.split('; '))
    const before = await latestCheckpoint(ledger)

    expect(await stepLog(log, memory)).toMatchObject({ outcome: 'refused', why })

    expect(await latestCheckpoint(ledger)).toEqual(before)
  })

  test('is not signed any further where another log has taken its place, signed with the same key', async () => {
    const memory: KnownHead = { head: undefined }
    await write(ledger, 10)
    await growAll(log, memory)
    await tamper('delete from checkpoints', 'delete from leaves', 'delete from entries')
    await write(ledger, 20)
    await growAll(log)
    expect(await stepLog(log, memory)).toMatchObject({ outcome: 'refused', why: 'rolled back' })
    // A broker that remembers nothing has nothing to hold against it: that takes an anchor outside.
    expect((await stepLog(log, { head: undefined })).outcome).toBe('nothing new')
  })

  test('proves that it goes on from any of its sizes, and serves tiles of the sizes that were signed', async () => {
    await write(ledger, 300)
    await growAll(log, { head: undefined }, 100)
    const heads = new Map<number, { size: number; root: Buffer }>()
    for (const { size, root } of await ledger.run<{ size: number; root: string }>(
      sql`select size::int as size, encode(root, 'hex') as root from checkpoints`,
    ))
      heads.set(size, { size, root: Buffer.from(root, 'hex') })
    for (const [from, to] of [
      [100, 200],
      [100, 300],
      [200, 300],
      [300, 300],
    ] as const) {
      const path = await proveConsistency(ledger, 1, from, to)
      expect(path && verifyConsistency(heads.get(from)!, heads.get(to)!, path)).toBe(true)
    }
    for (const [from, to] of [
      [0, 300],
      [301, 301],
      [200, 100],
      [100, 301],
    ] as const)
      expect(await proveConsistency(ledger, 1, from, to)).toBeUndefined()
    const [whole, part] = [
      await readTile(ledger, 1, { level: 0, index: 0, width: 256 }),
      await readTile(ledger, 1, { level: 0, index: 0, width: 100 }),
    ]
    expect(whole?.subarray(0, 3_200)).toEqual(part)
    expect(await readTile(ledger, 1, { level: 1, index: 0, width: 1 })).toHaveLength(32)
    for (const tile of [
      { level: 0, index: 1, width: 45 },
      { level: 0, index: 2, width: 1 },
      { level: 1, index: 0, width: 2 },
      { level: 2, index: 0, width: 1 },
      { level: 63, index: 2 ** 52, width: 1 },
      { level: 'entries', index: 1, width: 256 },
    ] as const)
      expect(await readTile(ledger, 1, tile)).toBeUndefined()
  })

  test('says of an entry that it waits, and of none that there is none', async () => {
    await archivePolicySet(ledger, 'sha256:waits', {})
    const [entry] = await ledger.run<{ id: string }>(sql`select id from entries`)
    expect(await proveEntry(ledger, entry!.id)).toBe('waiting')
    expect(await proveEntry(ledger, 'ent_none')).toBeUndefined()
    await growAll(log)
    expect(await proveEntry(ledger, entry!.id)).toMatchObject({ index: 0, path: [] })
  })

  test('that is not as it was signed is an alarm', async () => {
    const lines: string[] = []
    const destination = new Writable({ write: (chunk: Buffer, _, done) => (lines.push(chunk.toString()), done()) })
    const telemetry = createTelemetry({ level: 'info', destination })
    await write(ledger, 3)
    await growAll(log)
    await tamper('update leaves set hash = sha256(hash)')
    await write(ledger, 3)
    for (let start = 0; start < 2; start++) {
      await using sequencer = startSequencer(log, telemetry)
      while (lines.length === start) await new Promise((resolve) => setImmediate(resolve))
      void sequencer
    }
    expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject(
      [1, 2].map(() => ({
        level: 'error',
        reason: 'altered tree',
        msg: expect.stringContaining('does not come to the root that was signed') as unknown,
      })),
    )
    expect(await telemetry.metrics.registry.metrics()).toMatch(/^mayfly_log_refused 1$/m)
  })

  test('is not signed behind an entry that can be no leaf, and says so', async () => {
    await write(ledger, 3)
    await growAll(log)
    await tamper(`insert into entries (kind, body) values ('task.opened', '{"n": 1e400}')`)
    await settled(ledger)
    expect(await stepLog(log, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'unreadable entry', lag: { entries: 1 } })
  })

  test('is kept by a loop until that is stopped, and its figures are in the metrics', async () => {
    const telemetry = createTelemetry({ level: 'silent' })
    await write(ledger, 1_200)
    const sequencer = startSequencer(log, telemetry)
    while ((await latestCheckpoint(ledger))?.size !== 1_200) await new Promise((resolve) => setImmediate(resolve))
    await sequencer.stop()
    await write(ledger, 1)
    expect((await latestCheckpoint(ledger))?.size).toBe(1_200)
    const text = await telemetry.metrics.registry.metrics()
    expect(text).toMatch(/^mayfly_log_size 1200$/m)
    expect(text).toMatch(/^mayfly_log_refused 0$/m)
    expect(text).toMatch(/^mayfly_log_lag_entries \d+$/m)
  })
})

test.each([
  ['it is up with the history: a second, whatever the last step took', { more: false, behind: 0 }, 3, 40, 1_000],
  ['a backlog becomes shorter: as long as the step took', { more: true, behind: 7.5 }, 8, 300, 300],
  ['steps take longer than that: a second at most', { more: true, behind: 7.5 }, 8, 4_000, 1_000],
  ['a backlog grows all the same: not at all', { more: true, behind: 8.5 }, 8, 300, 0],
])('the sequencer rests when %s', (_, standing, before, took, rest) => {
  expect(restAfter(standing, before, took)).toBe(rest)
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('the log while a transaction is open', () => {
  test('is not forked by a broker whose append waits for that of another, and finds it done', async () => {
    const store = await openDatabase()
    const ledger = await connect(store.settings)
    const client = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
    await write(ledger, 20)
    await client.unsafe('begin')
    /** Appends inside the open transaction. */
    const slow = {
      ...ledger,
      async run(...given: Parameters<Ledger['run']>) {
        if (!JSON.stringify(given[0].queryChunks).includes('insert into checkpoints')) return await ledger.run(...given)
        const { sql: text, params } = queryOf(given[0])
        return await client.unsafe(text, params as string[])
      },
    } as Ledger
    expect((await stepLog({ ledger: slow, key, origin }, { head: undefined }, 5)).outcome).toBe('appended')

    const other = stepLog({ ledger, key, origin }, { head: undefined }, 12)
    const waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    while ((await client.unsafe(waits)).length === 0);
    await client.unsafe('commit')

    expect((await other).outcome).toBe('overtaken')
    expect((await latestCheckpoint(ledger))?.size).toBe(5)
    await growAll({ ledger, key, origin })
    expect(await auditLog(ledger, verifier)).toEqual([])
    await client.end()
    await ledger.close()
    await store.dispose()
  })

  test.each(['had written', 'had not written anything, and writes'])('waits for what it %s, and leaves nothing out', async (before) => {
    const store = await openDatabase()
    const ledger = await connect(store.settings)
    const log: SignedLog = { ledger, key, origin }
    const client = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
    const memory: KnownHead = { head: undefined }
    await write(ledger, 3)
    await growAll(log, memory)

    await client.unsafe('begin')
    await client.unsafe('select pg_current_xact_id()')
    const late = () => client.unsafe("insert into entries (kind, body) values ('policy.activated', '{\"late\": true}')")
    if (before === 'had written') await late()
    await insert(ledger, 4)
    const held = await stepLog(log, memory)
    expect(held).toMatchObject({ outcome: 'nothing new', lag: { entries: 4, strays: [] } })
    if (before !== 'had written') await late()
    await client.unsafe('commit')
    const [entry] = await ledger.run<{ id: string }>(sql`select id from entries where body ? 'late'`)
    expect(await proveEntry(ledger, entry!.id)).toBe('waiting')

    await growAll(log, memory)
    expect(memory.head?.size).toBe(8)
    expect(await auditLog(ledger, verifier)).toEqual([])
    const [place] = await ledger.run<{ index: number }>(sql`
      select index::int as index from leaves join entries on entries.id = leaves.entry_id where entries.body ? 'late'`)
    expect(place?.index).toBe(3)
    await client.end()
    await ledger.close()
    await store.dispose()
  })
})
