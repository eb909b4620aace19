import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { listStops, listTasks } from '../../src/ledger/lists.ts'
import { phraseOf, resumeIssuing, revokeMany, showRevocation, stopIssuing } from '../../src/tasks/revoke.ts'
import { type House, startHouse } from '../support/house.ts'
import { settled } from '../support/log.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'

const rounds = 300

/** A moment of no fixed length: some turns of the event loop, in which others get on. */
async function aWhile(): Promise<void> {
  for (let turns = Math.floor(Math.random() * 12); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
}

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('two brokers that declare while an operator stops them', () => {
  let store: OpenedStore
  let houses: readonly [House, House]

  beforeAll(async () => {
    store = await openDatabase()
    houses = [await startHouse(store.settings), await startHouse(store.settings)]
  })

  afterAll(async () => {
    for (const house of houses) await house.stop()
    await store.dispose()
  })

  test(`announce nothing after the commit of the stop, in ${rounds} interleavings`, async () => {
    const [{ ledger, broker, operator }] = houses
    const seen = { announced: 0, refused: 0 }
    for (let round = 0; round < rounds; round++) {
      const declaring = houses.flatMap((house) =>
        [['api'], [], ['api']].map(async (grants) => {
          await aWhile()
          try {
            await house.declare(grants)
            seen.announced++
          } catch (error) {
            expect(error).toMatchObject({ code: 'denied' })
            seen.refused++
          }
        }),
      )
      await aWhile()
      const stop = await stopIssuing(broker, operator, { selector: round % 2 === 0 ? { agent: 'bot' } : {}, reason: 'a race', lasts: 60_000 })
      const opened = async () => (await listTasks(ledger, { state: 'open' }, { limit: 100 })).items.map(({ id }) => id).toSorted()
      const then = await opened()
      await Promise.all(declaring)
      expect(await opened()).toEqual(then)
      // Nor between the commit and that look: whatever is announced was given its transaction before the stop was.
      const after = await ledger.run(sql`
        select opened.task_id from entries as opened join entries as began on began.kind = 'stop.began' and began.body->>'stop' = ${stop.id}
        where opened.kind = 'task.opened' and opened.xid > began.xid`)
      expect(after).toEqual([])
      await resumeIssuing(broker, operator, stop.id, 'the race is over')
      await ledger.run(sql`update tasks set deadline = now() where state = 'open'`)
      await houses[0].reap()
    }
    // Both outcomes were seen, or the race was none.
    expect(seen.announced).toBeGreaterThan(rounds / 10)
    expect(seen.refused).toBeGreaterThan(rounds / 10)
  }, 900_000)

  test.each([
    ['tasks', { agent: 'bot' }, 'tasks'],
    ['leases', { grant: 'api' }, 'leases'],
  ] as const)(
    'let no %s escape both a revocation and the stop that comes with it, whatever they announce while it waits',
    async (_, selector, table) => {
      const [{ ledger, broker, operator, reap, declare }] = houses
      const holder = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
      onTestFinished(() => holder.end())
      const waiting = () => holder`select from pg_locks where relation = 'revocations'::regclass and not granted`

      await holder`begin`
      await holder`lock table revocations in access exclusive mode`
      const asked = { selector, reason: 'a race', confirm: phraseOf(selector), stopFor: 60_000 }
      const revoking = revokeMany(broker, operator, asked)
      await expect.poll(waiting).toHaveLength(1)
      const { id } = await declare(['api'])
      await holder`commit`

      const { revocation, stop } = await revoking
      await settled(ledger)
      await reap()
      expect((await showRevocation(broker, revocation.id))[table]).toEqual({ revoked: 1 })
      await resumeIssuing(broker, operator, stop!, 'the race is over')
      await ledger.run(sql`update tasks set deadline = now() where id = ${id} and state = 'open'`)
      await reap()
    },
  )

  test('two stops at once both stand', async () => {
    const put = await Promise.all(
      houses.map(({ broker, operator }, at) =>
        stopIssuing(broker, operator, { selector: { agent: `nobody-${at}` }, reason: 'at once', lasts: 60_000 }),
      ),
    )
    const { items } = await listStops(houses[0].ledger, true, { limit: 10 })
    expect(items.map(({ id }) => id).toSorted()).toEqual(put.map(({ id }) => id).toSorted())
  })
})
