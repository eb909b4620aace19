import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { EntryId } from '../../src/base/ids.ts'
import type { Receipt } from '../../src/base/receipt.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { readEntry } from '../../src/ledger/entries.ts'
import { leavesOf, rememberLeaves } from '../../src/ledger/leaves.ts'
import { leafHashOf } from '../../src/proof/leaf.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { asOwner } from '../support/owner.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const answered = leafHash(Buffer.from('as it was answered'))
const receipt = (entry: string): Receipt => ({ entry: entry as EntryId, kind: 'task.opened', leafHash: answered.toString('base64') })

/** Receipts of entries that nobody asks for: as many as are remembered. */
const others = Array.from({ length: 10_000 }, (_, at) => receipt(`ent_other${at}`))

describe.each(stores)('the leaves of entries on $name', ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger
  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  /** Ids of new entries, in no order that their ids have. */
  async function write(count: number): Promise<readonly string[]> {
    const rows = await ledger.run<{ id: string }>(sql`
      insert into entries (kind, body) select 'policy.activated', json_build_object('at', at) from generate_series(1, ${count}::int) as at returning id`)
    return rows.map(({ id }) => id).toReversed()
  }
  const ofTheHistory = async (entry: string) => ({ entry, hash: leafHashOf((await readEntry(ledger, entry))!) })
  const asAnswered = async (entry: string) => ({ entry, hash: answered })

  test('are as they were answered where this broker has told them, the others as the history has them, in the order that was asked for', async () => {
    const entries = await write(1_100)
    const told = new Set(entries.filter((_, at) => at % 3 === 0))
    rememberLeaves(ledger, [...told].map(receipt))
    const expected = await Promise.all(entries.map((entry) => (told.has(entry) ? asAnswered(entry) : ofTheHistory(entry))))
    expect(await leavesOf(ledger, entries)).toEqual(expected)
  })

  test('are forgotten when they were asked for, and when others have come that are too many', async () => {
    const [once, pushed, kept] = (await write(3)) as [string, string, string]
    rememberLeaves(ledger, [receipt(once)])
    expect(await leavesOf(ledger, [once])).toEqual([await asAnswered(once)])
    expect(await leavesOf(ledger, [once])).toEqual([await ofTheHistory(once)])
    rememberLeaves(ledger, [receipt(pushed), receipt(kept)])
    rememberLeaves(ledger, others.slice(1))
    expect(await leavesOf(ledger, [pushed, kept])).toEqual([await ofTheHistory(pushed), await asAnswered(kept)])
  })

  test('are those of one broker, and made of the history when it has started again', async () => {
    const [entry] = (await write(1)) as [string]
    rememberLeaves({ ...ledger }, [receipt(entry)])
    expect(await leavesOf(ledger, [entry])).toEqual([await ofTheHistory(entry)])
  })

  test('are none where one of them has no canonical form, or is gone', async () => {
    const entries = await write(3)
    expect(await leavesOf(ledger, [...entries, 'ent_none'])).toBeUndefined()
    await asOwner(ledger, store, [`update entries set body = '{"n": 1e400}' where id = '${entries[1]}'`])
    expect(await leavesOf(ledger, entries)).toBeUndefined()
  })
})
