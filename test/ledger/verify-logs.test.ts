import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { type LogKey, logKeyOf } from '../../src/ledger/log-key.ts'
import { readLogLines } from '../../src/ledger/log-lines.ts'
import { latestCheckpoint, listLogs } from '../../src/ledger/checkpoints.ts'
import { rotateLog } from '../../src/ledger/rotation.ts'
import { signCheckpoint } from '../../src/proof/checkpoint.ts'
import { emptyTree, grow, headOf } from '../../src/proof/compact.ts'
import { type EntryFields, leafOf } from '../../src/proof/leaf.ts'
import { lineText, type LogLine, type LogStart, parseLine } from '../../src/proof/lines.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { createSigner, type Signer, type VerifierKey } from '../../src/proof/note.ts'
import { type Verdict, verifyLedger } from '../../src/proof/verify.ts'
import { growAll, writeEntries } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const origin = 'broker.example.com'
const seeds = [7, 8, 9].map((byte) => new Uint8Array(32).fill(byte)) as [Uint8Array, Uint8Array, Uint8Array]
const [oldKey, newKey, newest] = seeds.map(logKeyOf) as [LogKey, LogKey, LogKey]
const oldSigner = createSigner(origin, seeds[0])
const newSigner = createSigner(`${origin}/log/2`, seeds[1])
const newestSigner = createSigner(`${origin}/log/3`, seeds[2])
const everyKey = [oldSigner, newSigner, newestSigner].map(({ key }) => key)

/** What a reader has of a ledger. */
interface Read {
  readonly lines: readonly LogLine[]
  readonly checkpoint: string
  readonly logs: readonly LogStart[]
}

async function read(ledger: Ledger): Promise<Read> {
  const logs = await listLogs(ledger)
  return {
    lines: await readLogLines(ledger, 0, 500),
    checkpoint: logs.at(-1)!.note,
    logs: logs.map(({ origin: name, log }) => ({ origin: name, first: log.first })),
  }
}

function verify({ lines, ...head }: Read, keys: readonly VerifierKey[] = everyKey, since?: string): Verdict {
  const verification = verifyLedger({ ...head, keys, since })
  for (const line of lines) verification.line(line)
  return verification.finish()
}

const found = ({ faults }: Verdict): string[] => faults.map(({ number, message }) => `${number ?? '-'}: ${message}`)

const tables = ['entries', 'leaves', 'subtrees', 'checkpoints', 'logs']

/** The log 1 has 12 entries, the log 2 begins at 12 and has 9, the log 3 begins at 21 and has 4. */
describe.each(stores)('a ledger of several logs on $name', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger
  /** Kept when the log 1 had 7 entries, when it was closed, and when the log 2 had 5, and at the end. */
  let pinned: string
  let final: string
  let later: string
  let last: string
  const owner = (...statements: readonly string[]): Promise<void> => asOwner(ledger, store, statements)

  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
    const write = async (count: number, key: LogKey): Promise<string> => {
      await writeEntries(ledger, count)
      await growAll({ ledger, key, origin })
      return (await latestCheckpoint(ledger))!.note
    }
    pinned = await write(7, oldKey)
    final = await write(5, oldKey)
    await rotateLog({ ledger, key: oldKey, next: newKey })
    later = await write(4, newKey)
    await write(4, newKey)
    await rotateLog({ ledger, key: newKey, next: newest })
    last = await write(3, newest)
    await owner(...tables.map((table) => `create table kept_${table} as table ${table}`))
  })
  afterEach(() => owner(...tables.flatMap((table) => [`delete from ${table}`, `insert into ${table} table kept_${table}`])))
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  test('is proven as a whole with the keys of all, from whichever checkpoint was kept', async () => {
    const whole = await read(ledger)
    for (const since of [undefined, pinned, final, later, whole.checkpoint]) {
      const verdict = verify(whole, everyKey, since)
      expect(found(verdict)).toEqual([])
      expect(verdict.logs).toMatchObject([
        { origin, first: 0, read: 12, proven: 12 },
        { first: 12, read: 9, proven: 9 },
        { first: 21, read: 4, proven: 4 },
      ])
    }
  })

  test('is proven as far as the keys go that were given, and says where that ends', async () => {
    const whole = await read(ledger)
    const old = verify(whole, [oldSigner.key], pinned)
    expect(found(old)).toEqual([
      `12: the log by the name of ${origin}/log/2 begins here, for which no key was given: nothing of it is proven`,
      `21: the log by the name of ${origin}/log/3 begins here, for which no key was given: nothing of it is proven`,
    ])
    expect(old.logs.map(({ proven, hasKey }) => [proven, hasKey])).toEqual([
      [12, true],
      [0, false],
      [0, false],
    ])
    const young = verify(whole, [newestSigner.key])
    expect(young.logs.map(({ proven }) => proven)).toEqual([0, 0, 4])
    expect(young.found).toBe(2)
    const gap = verify(whole, [oldSigner.key, newestSigner.key])
    expect(found(gap)).toEqual([expect.stringContaining(`12: the log by the name of ${origin}/log/2 begins here`)])
  })

  test.each([
    [
      'an entry of a closed log was changed',
      `update entries set body = '{"at": 100}' where id = (select entry_id from leaves where index = 4)`,
      ['4: is not what the log has'],
    ],
    [
      'the opening of a log was changed',
      `update entries set body = body || '{"origin": "elsewhere"}' where id = (select entry_id from leaves where index = 12)`,
      ['12: is not what the log has'],
    ],
    [
      'the opening of a log is gone',
      'delete from entries where id = (select entry_id from leaves where index = 12)',
      ['12: was removed from the history', `12: is the first of ${origin}/log/2, and does not open it`],
    ],
    [
      'an opening and its place are gone',
      'delete from leaves where index = 12',
      ['12: entry 12 is missing', `12: the entry that opens ${origin}/log/2 is missing`],
    ],
    ['the end of a closed log is gone', 'delete from leaves where index in (10, 11)', ['10: entries 10 to 11 are missing']],
    [
      'the end of a closed log was cut off, and what follows moved up',
      'delete from checkpoints where size = 12; delete from leaves where index in (10, 11); update leaves set index = -index where index > 11; update leaves set index = -index - 2 where index < 0; update logs set first = first - 2 where number > 1; update checkpoints set size = size - 2, previous = previous - 2 where size > 12',
      [`10: goes on from 12 entries of ${origin}, of which 10 are here: its tail was cut`],
    ],
    [
      'two entries across the seam were swapped',
      'update leaves set index = -index where index in (11, 13); update leaves set index = 24 + index where index < 0',
      ['-: entries 7 to 11 do not come to the root'],
    ],
    [
      'a checkpoint of one log stands in the other',
      `update checkpoints set note = (select note from checkpoints where size = 7) where size = 17`,
      [`16: the checkpoint over the log up to here is one of ${origin}`],
    ],
    [
      'the last log was cut off',
      'delete from checkpoints where size > 21; delete from leaves where index >= 21; delete from logs where number = 3; delete from entries where id not in (select entry_id from leaves)',
      ['-: the pinned checkpoint is one of broker.example.com/log/3, and this ledger has no log by that name'],
    ],
    [
      'the last log was cut off, and its name left',
      'delete from leaves where index >= 21',
      ['21: the log ends before entry 21, but 25 were signed: its tail was cut'],
    ],
    [
      'a log begins elsewhere than it does',
      'update logs set first = 13 where number = 2',
      [`13: is the first of ${origin}/log/2, and does not open it`, '12: opens a log where none begins'],
    ],
    [
      'an entry says that it opens a log, where none begins',
      `insert into entries select 'ent_x', at, xid, 'log.opened', agent, task_id, lease_id, decision_id, body from entries where id = (select entry_id from leaves where index = 23); update leaves set entry_id = 'ent_x' where index = 23`,
      ['23: opens a log where none begins', '23: is not what the log has'],
    ],
  ])('is found out where %s', async (what, statements, words) => {
    await owner(...statements.split('; '))
    const verdict = verify(await read(ledger), everyKey, what === 'the last log was cut off' ? last : pinned)
    expect(verdict.found).toBeGreaterThan(0)
    for (const word of words) expect(found(verdict)).toContainEqual(expect.stringMatching(`^${word.replaceAll('.', '\\.')}`))
  })

  test('is found out where the new log was signed over another end of the old one: a fork at the seam', async () => {
    const whole = await read(ledger)
    // By whoever has both keys: another end of the log 1 is signed, and a log 2 that goes on from it.
    const forged = resign(whole, 8, oldSigner, 0)
    const { note } = forged
    const opening = whole.lines[12]!.entry!
    const body = opening.body as { closed: object }
    const entry = { ...opening, body: { ...body, closed: { ...body.closed, root: forged.root, checkpoint: note } } } as EntryFields
    const named = {
      ...whole,
      lines: whole.lines.with(12, { ...whole.lines[12]!, entry, leaf_hash: leafHash(leafOf(entry)).toString('base64') }),
      logs: whole.logs.slice(0, 2),
    }
    const short = resign({ ...named, lines: named.lines.slice(0, 13) }, undefined, newSigner, 12)
    const lines = short.lines.with(12, { ...short.lines[12]!, checkpoint: short.note })
    expect(found(verify({ ...named, lines, checkpoint: short.note }))).toEqual([
      `12: goes on from another end of ${origin} than is here: a fork at the seam`,
    ])
    // And with the end that it names: to whoever kept the true one.
    const ends = { ...named, lines: [...forged.lines.slice(0, 11), { ...forged.lines[11]!, checkpoint: note }, lines[12]!], checkpoint: short.note }
    expect(found(verify(ends))).toEqual([])
    expect(found(verify(ends, everyKey, final))).toEqual([expect.stringContaining('the log does not contain the pinned checkpoint: up to entry 11')])
  })

  test('is found out where its opening names what nobody has signed, or contradicts itself', async () => {
    const whole = await read(ledger)
    const closed = (whole.lines[12]!.entry!.body as { closed: { size: number; checkpoint: string } }).closed
    const judge = (change: object): string[] => {
      const entry = {
        ...whole.lines[12]!.entry!,
        body: { ...(whole.lines[12]!.entry!.body as object), closed: { ...closed, ...change } },
      } as EntryFields
      const lines = whole.lines.slice(0, 13).with(12, { number: 12, entry, leaf_hash: leafHash(leafOf(entry)).toString('base64') })
      const { note } = resign({ ...whole, lines }, undefined, newSigner, 12)
      return found(verify({ lines, checkpoint: note, logs: whole.logs.slice(0, 2) }))
    }
    expect(judge({})).toEqual([])
    expect(judge({ size: 11 })).toEqual(['12: contradicts itself: the final checkpoint is not what it says of it'])
    expect(judge({ checkpoint: closed.checkpoint.replace('\n12\n', '\n13\n') })[0]).toContain('has a signature that is not of this key')
    expect(judge({ checkpoint: signCheckpoint(newestSigner, { size: 12, root: Buffer.alloc(32) }) })).toEqual([
      '12: contradicts itself: the final checkpoint is not what it says of it',
    ])
    expect(judge({ origin: 'elsewhere' })).toEqual([`12: opens ${origin}/log/2 behind elsewhere, where ${origin}/log/2 begins behind ${origin}`])
    expect(judge({ root: 7 })).toEqual([`12: is the first of ${origin}/log/2, and does not open it`])
  })

  test('is found out in its export whatever is said of its logs that is not so', async () => {
    const whole = await read(ledger)
    const [one, two, three] = whole.logs as [LogStart, LogStart, LogStart]
    for (const logs of [
      [one],
      [one, two],
      [one, three],
      [one, { ...two, first: 13 }, three],
      [two, three],
      [one, { ...two, origin: three.origin }, { ...three, origin: two.origin }],
      [{ ...one, origin: two.origin }, three],
    ])
      expect(verify({ ...whole, logs }).found, JSON.stringify(logs)).toBeGreaterThan(0)
    expect(parseLine(lineText({ export: 'mayfly-ledger@v1', checkpoint: whole.checkpoint, logs: whole.logs }))).toMatchObject({ logs: whole.logs })
    for (const logs of [[], [two], [one, one], [one, { origin: 'x' }], 'x'])
      expect(parseLine(JSON.stringify({ export: 'mayfly-ledger@v1', checkpoint: '', logs }))).toBeUndefined()
  })

  test('says of a pinned checkpoint whose log it does not have that it does not', async () => {
    const strange = signCheckpoint(createSigner('elsewhere', new Uint8Array(32).fill(1)), { size: 1, root: Buffer.alloc(32) })
    const keys = [...everyKey, createSigner('elsewhere', new Uint8Array(32).fill(1)).key]
    expect(found(verify(await read(ledger), keys, strange))).toEqual([
      '-: the pinned checkpoint is one of elsewhere, and this ledger has no log by that name',
    ])
    const longer = signCheckpoint(oldSigner, { size: 13, root: Buffer.alloc(32) })
    expect(found(verify(await read(ledger), everyKey, longer))).toEqual([
      '-: the log was cut: it had 13 entries when its checkpoint was pinned, and has 12',
    ])
  })

  /** Signs the log that begins at `start` up to its end here, with one entry of it changed. */
  function resign({ lines, logs }: Read, change: number | undefined, signer: Signer, start: number) {
    const end = logs.find(({ first }) => first > start)?.first
    const changed = change === undefined ? lines : lines.map((line) => (line.number === change ? changedLine(line) : withoutNote(line, change)))
    const hashes = changed.slice(start, end).map(({ leaf_hash: hash }) => Buffer.from(hash, 'base64'))
    const head = headOf(grow(emptyTree, hashes, () => {}))
    return { lines: changed, root: head.root.toString('base64'), note: signCheckpoint(signer, head) }
  }
})

function changedLine(line: LogLine): LogLine {
  const { checkpoint: _, ...rest } = line
  const entry = { ...line.entry!, body: { at: 'changed' } }
  return { ...rest, entry, leaf_hash: leafHash(leafOf(entry)).toString('base64') }
}

/** Behind a change no older checkpoint holds. */
function withoutNote(line: LogLine, change: number): LogLine {
  const { checkpoint: _, ...rest } = line
  return line.number > change ? rest : line
}
