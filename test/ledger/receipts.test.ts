import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { receiptsOfEnd } from '../../src/ledger/receipts.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('the receipts of the end of a task, read back, on $name', ({ open }) => {
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

  const task = newId('task')
  /** Writes what is told of the task in one commit, under ids that sort as they are given, whatever the order of writing. */
  const tell = (entries: readonly (readonly [id: string, kind: string])[]): Promise<unknown> =>
    ledger.run(sql`
      insert into entries (id, kind, agent, task_id, body)
      select id, kind, 'bot', ${task}, '{}' from json_to_recordset(${JSON.stringify(entries.map(([id, kind]) => ({ id, kind })))}::text::json) as told(id text, kind text)`)

  test('have what shares its commit with the beginning, whatever ids the store gave it, and nothing from before', async () => {
    const ids = Array.from({ length: 6 }, () => newId('ent')).toSorted()
    await tell([[ids[0]!, 'lease.revoked']])
    await tell([
      [ids[1]!, 'lease.revoking'],
      [ids[2]!, 'lease.revoked'],
      [ids[3]!, 'task.closing'],
    ])
    await tell([
      [ids[4]!, 'lease.revoked'],
      [ids[5]!, 'task.ended'],
    ])

    expect((await receiptsOfEnd(ledger, { task })).map(({ entry }) => entry)).toEqual(ids.slice(1))
  })
})
