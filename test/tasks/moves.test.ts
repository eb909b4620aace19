import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { findTask } from '../../src/ledger/records.ts'
import { type Declared, type House, startHouse } from '../support/house.ts'
import { endEverything, play, step, survivors } from '../support/moves.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

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

  test('keeps every invariant, and nothing is alive once every task has ended', async () => {
    let games = 0
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(step, fc.boolean()), { minLength: 4, maxLength: 14 }), async (steps) => {
        const tasks: Declared[] = []
        const keys = `game-${games++}`
        let together: Promise<void>[] = []
        for (const [each, along] of steps) {
          // A refusal is an ordinary answer here; anything else is a fault.
          together.push(play(house, house.broker, each, tasks, keys).catch((error: unknown) => expect(error).toBeInstanceOf(BrokerError)))
          if (along) continue
          await Promise.all(together)
          together = []
        }
        await Promise.all(together)
        await endEverything(house)
        expect(await survivors(house)).toEqual([])
        for (const { id } of tasks) expect(['completed', 'revoked', 'expired', 'failed']).toContain((await findTask(house.ledger, id))?.task.state)
        expect(await house.audit()).toEqual([])
      }),
      { numRuns: 25, endOnFailure: true },
    )
  }, 120_000)
})
