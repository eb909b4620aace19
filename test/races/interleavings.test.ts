import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { findTask } from '../../src/ledger/records.ts'
import { type Declared, type House, startHouse } from '../support/house.ts'
import { endEverything, moves, play, type Step, step, survivors } from '../support/moves.ts'
import { openDatabase, stores } from '../support/stores.ts'

/** A thousand, in batches with a store each, because an audit costs more the more there is to audit. */
const batches = 10
const each = 100

/** What is played is chosen by this alone; how it meets in Postgres is up to the machine. `RACES_SEED` plays the same again. */
const seed = Number(process.env['RACES_SEED'] ?? Date.now() % 1_000_000_000)

/** Two to four moves at each of three brokers: with those of two tasks to begin with, enough that every move meets every other one. */
const interleaving = fc.tuple(...[0, 1, 2].map(() => fc.array(step, { minLength: 2, maxLength: 4 })))

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a thousand interleavings of three brokers on one Postgres', () => {
  console.log(`RACES_SEED=${seed}`)
  /** How often each move was made, and how often it was refused for which reason. */
  const outcomes: Record<string, Record<string, number>> = Object.fromEntries(moves.map((move) => [move, { made: 0 }]))

  test('keep every invariant, and nothing is alive once every task has ended', { timeout: 900_000 }, async () => {
    for (let batch = 0; batch < batches; batch++) {
      const store = await openDatabase()
      const house = await startHouse(store.settings)
      const brokers = [house.broker, await house.neighbour(), await house.neighbour()]
      expect(new Set(brokers.map(({ ledger }) => ledger)).size, 'none shares connections or queues').toBe(3)
      const tasks: Declared[] = []
      for (const [game, lines] of fc.sample(interleaving, { numRuns: each, seed: seed + batch }).entries()) {
        const declared = await Promise.all([house.declare(['crm', 'api']), house.declare(['api'])])
        await Promise.all(lines.map((steps, at) => inTurn(house, brokers[at]!, steps, declared, `game-${game}`)))
        tasks.push(...declared)
        // Room for those to come: an agent has a hundred places.
        await Promise.all(declared.map((task) => task.complete(0)))
        await house.lab.clear()
      }
      for (const broker of brokers) await broker.background.settled()
      await endEverything(house)

      const where = `RACES_SEED=${seed}, batch ${batch}`
      expect(await survivors(house), where).toEqual([])
      for (const { id } of tasks)
        expect(['completed', 'revoked', 'expired', 'failed'], where).toContain((await findTask(house.ledger, id))?.task.state)
      expect(await house.audit(), where).toEqual([])
      await house.stop()
      await store.dispose()
    }
    console.log('what came of each move:', outcomes)
    expect(moves.filter((move) => outcomes[move]!['made'] === 0)).toEqual([])
  })

  /** The moves of one broker, one after the other, beside those of the others. A refusal is an ordinary answer here; anything else is a fault. */
  async function inTurn(house: House, broker: House['broker'], steps: readonly Step[], tasks: Declared[], keys: string): Promise<void> {
    for (const one of steps) {
      const outcome = await play(house, broker, one, tasks, keys).then(
        () => 'made',
        (error: unknown) => {
          if (!(error instanceof BrokerError)) throw error
          expect(error.code, `RACES_SEED=${seed}: ${error.message}`).not.toBe('internal')
          return error.code
        },
      )
      const seen = outcomes[one.move]!
      seen[outcome] = (seen[outcome] ?? 0) + 1
    }
  }
})
