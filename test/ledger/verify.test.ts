import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Ledger } from '../../src/ledger/connect.ts'
import { readLogLines } from '../../src/ledger/log-lines.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { policySetOf } from '../../src/ledger/policy-sets.ts'
import { signCheckpoint } from '../../src/proof/checkpoint.ts'
import { createSigner } from '../../src/proof/note.ts'
import { leafOf } from '../../src/proof/leaf.ts'
import { lineText, type LogLine, parseLine } from '../../src/proof/lines.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { type Verdict, verifyLedger } from '../../src/proof/verify.ts'
import { type House, startHouse } from '../support/house.ts'
import { growAll } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { serveHouse } from '../support/served.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const origin = 'broker.example.com'
const seed = new Uint8Array(32).fill(7)
const key = logKeyOf(seed)
const signer = createSigner(origin, seed)

/** Every line of the log, and the archive. */
async function linesOf(ledger: Ledger): Promise<LogLine[]> {
  const lines: LogLine[] = []
  for (;;) {
    const page = await readLogLines(ledger, lines.length === 0 ? 0 : lines.at(-1)!.number + 1, 100)
    lines.push(...page)
    if (page.length < 100) return lines
  }
}

async function verify(ledger: Ledger, since?: string, over: { note?: string; lines?: readonly LogLine[]; now?: number } = {}): Promise<Verdict> {
  const checkpoint = over.note ?? (await latestCheckpoint(ledger))!.note
  const verification = verifyLedger({ keys: [signer.key], checkpoint, since, now: over.now })
  const told = new Set<string>()
  for (const line of over.lines ?? (await linesOf(ledger))) {
    const digest = (line.entry?.body as { policy_digest?: string } | undefined)?.policy_digest
    if (digest !== undefined && !told.has(digest)) {
      told.add(digest)
      const document = await policySetOf(ledger, digest)
      if (document !== undefined) verification.policy(digest, document)
    }
    verification.line(line)
  }
  return verification.finish()
}

/** What was found, as a reader sees it: the number of the entry, and the words. */
const found = ({ faults }: Verdict): string[] => faults.map(({ number, message }) => `${number ?? '-'}: ${message}`)

/** A history with every kind of end in it. */
async function live(house: House): Promise<void> {
  const done = await house.declare(['api', 'crm', 'gone-by-itself'])
  await done.complete(0)
  const revoked = await house.declare(['crm', 'slow-api'])
  await revoked.refresh(revoked.leases[1]!)
  await revoked.renew(120_000)
  await revoked.add('api')
  await revoked.revoke()
  await expect(house.declare(['api'], { agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })
  await house.lab.next('put', 'refuses')
  await house.declare(['crm']).catch(() => {})
  await house.declare(['api', 'crm'])
  await house.reap()
}

const tables = ['entries', 'leaves', 'subtrees', 'checkpoints', 'decisions', 'policy_sets']

/** The entry at a place of the log, as the owner would name it. */
const at = (number: number): string => `id = (select entry_id from leaves where index = ${number})`

describe.each(stores)('a ledger on $name', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let house: House
  let pinned: string
  let size: number
  const owner = (...statements: readonly string[]): Promise<void> => asOwner(house.ledger, store, statements)

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
    await house.declare(['api', 'crm']).then((task) => task.complete())
    await growAll({ ledger: house.ledger, key, origin }, undefined, 3)
    pinned = (await latestCheckpoint(house.ledger))!.note
    await live(house)
    await growAll({ ledger: house.ledger, key, origin }, undefined, 7)
    size = (await latestCheckpoint(house.ledger))!.size
    await owner(...tables.map((table) => `create table kept_${table} as table ${table}`))
  })
  afterEach(() => owner(...tables.flatMap((table) => [`delete from ${table}`, `insert into ${table} table kept_${table}`])))
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  test('is found to be as it should be, with its checkpoints, decisions and lives', async () => {
    const verdict = await verify(house.ledger, pinned)
    expect(found(verdict)).toEqual([])
    expect(verdict).toMatchObject({ found: 0, entries: size, decisions: 9, lives: { tasks: 6, leases: 11, alive: 3, late: 0 } })
    expect(verdict.checkpoints).toBeGreaterThan(5)
  })

  test('is found to be altered where an entry was changed after it was answered, and before it had its place', async () => {
    const { id } = await house.declare(['api'])
    const opened = `task_id = '${id}' and kind = 'task.opened'`
    await owner(`update entries set body = replace(body::text, 'a test', 'a test!')::jsonb where ${opened}`)
    await growAll({ ledger: house.ledger, key, origin })
    expect(found(await verify(house.ledger, pinned))).toEqual([
      `${size}: is not what the log has as its leaf: it was changed, or stands in the place of another`,
    ])
  })

  test('is as it should be where an agent was refused to revoke the task of another, with its workload token or with the token of a task', async () => {
    const { call } = serveHouse(house)
    const [task, another] = [await house.declare(['api']), await house.declare([], { agent: 'rival' })]
    for (const as of ['agent:rival', another.token])
      expect(await call('POST', `/tasks/${task.id}/revoke`, as, { reason: 'not mine' })).toMatchObject({ status: 403, body: { code: 'forbidden' } })
    await task.complete()
    await growAll({ ledger: house.ledger, key, origin })
    const verdict = await verify(house.ledger, pinned)
    expect(found(verdict)).toEqual([])
    // Of each task its opening and its decision; of one a lease, and its end; and what was refused.
    expect(verdict.entries).toBe(size + 10)
  })

  // Each by whoever owns the database and not the key. The places are of the first task, which is under the pinned checkpoint, and of later ones.
  test.each([
    [
      'one letter of a body was changed',
      `update entries set body = replace(body::text, 'a test', 'a test!')::jsonb where ${at(1)}`,
      ['1: is not what the log has as its leaf: it was changed'],
    ],
    ['the time of an entry was changed', `update entries set at = at - interval '1 millisecond' where ${at(12)}`, ['12: is not what the log has']],
    ['an entry was given to another agent', `update entries set agent = 'rival' where ${at(12)}`, ['12: is not what the log has']],
    ['a row was removed', `delete from entries where ${at(14)}`, ['14: was removed from the history']],
    [
      'a row and its place were removed',
      `delete from entries where ${at(14)}; delete from leaves where index = 14`,
      ['14: entry 14 is missing from the log'],
    ],
    [
      'a row was removed, and those behind it moved up',
      `delete from entries where ${at(14)}; delete from leaves where index = 14; update leaves set index = -index where index > 14; update leaves set index = -index - 1 where index < 0`,
      ['-: entries 11 to \\d+ do not come to the root', '\\d+: the log ends before entry \\d+, but \\d+ were signed: its tail was cut'],
    ],
    [
      'two entries were swapped',
      'update leaves set index = -index where index in (15, 16); update leaves set index = 31 + index where index < 0',
      ['-: entries 11 to 17 do not come to the root', '16: stands behind ent_\\w+, which comes after it'],
    ],
    [
      'two entries were swapped, and their leaves left as they were',
      'create table swapped as select 31 - index as index, entry_id from leaves where index in (15, 16); update leaves set entry_id = entry_id || index where index in (15, 16); update leaves set entry_id = swapped.entry_id from swapped where swapped.index = leaves.index; drop table swapped',
      ['15: is not what the log has', '16: is not what the log has'],
    ],
    [
      'the tail was cut off',
      'delete from leaves where index >= 20; delete from entries where id not in (select entry_id from leaves)',
      ['20: the log ends before entry 20'],
    ],
    [
      'the log was cut behind an older checkpoint',
      'delete from checkpoints where size > 3; delete from leaves where index >= 3; delete from subtrees',
      ['-: the log was cut: it had \\d+ entries when its checkpoint was pinned, and has 3'],
    ],
    [
      'a leaf was changed and the history was not',
      'update leaves set hash = sha256(hash) where index = 13',
      ['-: entries 11 to 17 do not come to the root .*: the entries are what was signed', '13: is not what'],
    ],
    [
      'an entry was changed, and its leaf to fit',
      'written anew',
      ['-: entries 11 to 17 do not come to the root .*: what was signed there was something else'],
    ],
    [
      'a checkpoint is not signed by the key',
      `update checkpoints set note = replace(note, E'\\n11\\n', E'\\n12\\n') where size = 11`,
      ['10: the checkpoint over the log up to here has a signature that is not of this key'],
    ],
    [
      'the inputs of a decision were changed',
      `update decisions set answers = replace(answers::text, 'robots', 'rabbits')::jsonb where id = (select decision_id from entries where ${at(2)})`,
      ['2: is a decision that was not made on these inputs'],
    ],
    [
      'a decision was removed',
      `delete from decisions where id = (select decision_id from entries where ${at(2)})`,
      ['2: is a decision whose inputs and answers are missing'],
    ],
    [
      'an archived policy was changed',
      "update policy_sets set document = replace(document::text, 'robots-work', 'robots-rest')::jsonb",
      [
        '-: the archived policy set sha256:\\w+ is not the one that has this digest',
        '2: was determined by a policy that is not in its set: "robots-work"',
      ],
    ],
    [
      'a body was given a number that is none',
      `update entries set body = body || '{"n": 1e400}' where ${at(12)}; delete from decisions where id = (select decision_id from entries where ${at(2)})`,
      ['12: has no canonical form, and so can be no leaf', '2: is a decision whose inputs and answers are missing'],
    ],
    ['a body is none any more', `update entries set body = '7' where ${at(12)}`, ['12: is not what the log has as its leaf']],
    [
      'the inputs of a decision were given a number that is none',
      `update decisions set answers = '[1e400]' where id = (select decision_id from entries where ${at(2)})`,
      ['2: is a decision that was not made on these inputs'],
    ],
    [
      'an archived policy was given a number that is none',
      `update policy_sets set document = document || '{"n": 1e400}'`,
      ['-: the archived policy set sha256:\\w+ is not the one that has this digest'],
    ],
    ['the archive was emptied', 'delete from policy_sets', ['2: rests on a policy set that is not in the archive']],
  ])('is found out where %s', async (_, statements, words) => {
    if (statements === 'written anew') await rewrite(13)
    else await owner(...statements.split('; '))
    const verdict = await verify(house.ledger, pinned)
    expect(verdict.found).toBeGreaterThan(0)
    for (const word of words) expect(found(verdict)).toContainEqual(expect.stringMatching(`^${word}`))
  })

  test('is found out by a newer pinned checkpoint where an older one stands for the newest, which is all that without one nobody could know', async () => {
    const newest = (await latestCheckpoint(house.ledger))!.note
    await owner('delete from checkpoints where size > 11')
    expect(found(await verify(house.ledger, newest))).toEqual([
      `-: the log was cut: it had ${size} entries when its checkpoint was pinned, and has 11`,
    ])
    expect(found(await verify(house.ledger, pinned))).toEqual([])
  })

  test('is found out where the key has signed two of them', async () => {
    const fork = signCheckpoint(signer, { size: 11, root: Buffer.alloc(32, 1) })
    expect(found(await verify(house.ledger, fork))).toEqual([
      expect.stringContaining('-: the log does not contain the pinned checkpoint: up to entry 10 it is another one'),
    ])
  })

  test('is found out in its export whatever character of an entry, a leaf or a decision was changed, and whatever line was lost or moved', async () => {
    const lines = (await linesOf(house.ledger)).map(lineText)
    const judge = async (texts: readonly string[]): Promise<number> => {
      const parsed = texts.map(parseLine)
      // What is no line any more is refused where it is read.
      if (parsed.some((line) => line === undefined)) return 1
      return (await verify(house.ledger, pinned, { lines: parsed as LogLine[] })).found
    }
    expect(await judge(lines)).toBe(0)
    const text = lines[12]!
    for (let place = 0; place < text.length - 1; place += 3) {
      const changed = text.slice(0, place) + (text[place] === 'x' ? 'y' : 'x') + text.slice(place + 1)
      expect(await judge(lines.with(12, changed)), changed).toBeGreaterThan(0)
    }
    for (let place = 0; place < lines.length; place += 5) {
      expect(await judge(lines.toSpliced(place, 1)), `without ${place}`).toBeGreaterThan(0)
      if (place > 0) expect(await judge(lines.with(place, lines[place - 1]!).with(place - 1, lines[place]!)), `${place} moved`).toBeGreaterThan(0)
      expect(await judge(lines.toSpliced(place, 0, lines[place]!)), `${place} twice`).toBeGreaterThan(0)
    }
  })

  test.each([
    ['is signed by another key', (note: string) => note, createSigner(origin, new Uint8Array(32).fill(8)), 'is not signed by this key'],
    ['was given another size', (note: string) => note.replace(/\n\d+\n/, '\n50\n'), signer, 'has a signature that is not of this key'],
    ['is no checkpoint', () => 'nothing', signer, 'is not a checkpoint'],
  ])('is found out where its checkpoint %s', async (_, change, { key: trusted }, words) => {
    const head = (await latestCheckpoint(house.ledger))!
    const verdict = verifyLedger({ keys: [trusted], checkpoint: change(head.note) }).finish()
    expect(found(verdict)).toEqual([`-: the checkpoint ${words}${words.startsWith('has') ? ': it is forged, or was changed' : ''}`])
  })

  /** Changes an entry and makes its leaf anew, as somebody would who knows how the log is made. */
  async function rewrite(number: number): Promise<void> {
    await owner(`update entries set body = body || '{"by": "nobody"}' where ${at(number)}`)
    const [line] = await readLogLines(house.ledger, number, 1)
    await owner(`update leaves set hash = '\\x${leafHash(leafOf(line!.entry!)).toString('hex')}' where index = ${number}`)
  }
})
