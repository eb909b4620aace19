import fc from 'fast-check'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { findTask } from '../../src/ledger/records.ts'
import { type Declared, type House, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

/** What anybody may do at any time, in any order, several at once. */
const moves = ['declare', 'add', 'refresh', 'renew', 'complete', 'revoke', 'revoke a lease', 'time passes', 'reap', 'retry', 'backend fails'] as const
type Move = (typeof moves)[number]

describe.each(stores)('any order of moves on $name', ({ open }) => {
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  async function play(move: Move, tasks: Declared[], pick: number): Promise<void> {
    const task = tasks[pick % Math.max(1, tasks.length)]
    if (move === 'declare')
      return void tasks.push(await house.declare(pick % 2 === 0 ? ['crm', 'api'] : ['api'], { key: `move-${tasks.length}-${pick}` }))
    if (move === 'reap') return await house.reap()
    if (move === 'backend fails') return await house.lab.next(pick % 2 === 0 ? 'put' : 'delete', 'fails', { done: pick % 3 === 0 })
    if (!task) return
    const lease = task.leases[pick % Math.max(1, task.leases.length)]
    const acts: Record<Exclude<Move, 'declare' | 'reap' | 'backend fails'>, () => Promise<unknown>> = {
      add: () => task.add(pick % 2 === 0 ? 'crm' : 'api'),
      refresh: async () => lease && (await task.refresh(lease)),
      renew: () => task.renew(60_000 + pick),
      complete: () => task.complete(0),
      revoke: () => task.revoke(0),
      'revoke a lease': async () => lease && (await task.revokeLease(lease, 0)),
      'time passes': () => house.backdate(task.id, `${(pick % 5) * 20} seconds`),
      retry: () => house.declare(['api'], { key: `retry-${pick % 3}` }),
    }
    await acts[move]()
  }

  test('keeps every invariant, and nothing is alive once every task has ended', async () => {
    const step = fc.record({ move: fc.constantFrom(...moves), pick: fc.nat(11), along: fc.boolean() })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 14 }), async (steps) => {
        const tasks: Declared[] = []
        let together: Promise<void>[] = []
        for (const { move, pick, along } of steps) {
          // A refusal is an ordinary answer here; anything else is a fault.
          together.push(play(move, tasks, pick).catch((error: unknown) => expect(error).toBeInstanceOf(BrokerError)))
          if (along) continue
          await Promise.all(together)
          together = []
        }
        await Promise.all(together)
        await endEverything()
        expect(await house.lab.alive()).toEqual([])
        for (const { id } of tasks) expect(['completed', 'revoked', 'expired', 'failed']).toContain((await findTask(house.ledger, id))?.task.state)
        expect(await house.audit()).toEqual([])
      }),
      { numRuns: 25, endOnFailure: true },
    )
  }, 120_000)

  /** Every deadline passes, the backend is well again, and the reaper goes round. */
  async function endEverything(): Promise<void> {
    await house.lab.clear()
    await house.ledger.run(sql`
      with over as (update tasks set deadline = now() where state = 'open')
      update leases set expires_at = least(expires_at, now())`)
    for (let round = 0; round < 5; round++) {
      house.skew += 5_000
      await house.ledger.run(sql`update leases set due_at = now() where due_at is not null`)
      await house.reap()
    }
  }
})
