import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { auditLog, everyEntryPlaced, verifiersOf } from '../support/log.ts'
import { stores } from '../support/stores.ts'
import { openScene, type Scene } from './scene.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a broker that is killed while it appends to the log', () => {
  let scene: Scene

  beforeAll(async () => {
    scene = await openScene()
  })
  afterAll(() => scene.stop())

  for (const { side, nth, words } of [
    { side: 'before', nth: 1, words: 'before the store hears of it' },
    { side: 'after', nth: 1, words: 'when the store has done it' },
    { side: 'before', nth: 3, words: 'in the middle of many, before the store hears of it' },
    { side: 'after', nth: 2, words: 'in the middle of many, when the store has done it' },
  ] as const) {
    test(`loses nothing and forks nothing: ${words}`, async () => {
      const { tripwire, owner, ledger } = scene
      await scene.declare()
      await everyEntryPlaced(ledger)
      const before = await owner<{ size: number }[]>`select max(size)::int as size from checkpoints`

      tripwire.arm(scene.strike, { side, what: 'append to the log', nth })
      await owner`insert into entries (kind, body) select 'policy.activated', '{"policy_digest": "none"}' from generate_series(1, 8000)`
      while (!tripwire.struck()) await owner`select 1`
      await scene.bury()

      const [after] = await owner<{ size: number; leaves: number }[]>`
        select (select max(size)::int from checkpoints) as size, (select count(*)::int from leaves) as leaves`
      expect(after!.leaves, 'what has its place is signed, and what is signed has its place').toBe(after!.size)
      expect(after!.size - before[0]!.size).toBe((side === 'after' ? nth : nth - 1) * 2_500)
      await scene.recover()
      await everyEntryPlaced(ledger)
      expect(await auditLog(ledger, await verifiersOf(ledger, scene.folder))).toEqual([])
      await scene.check()
    })
  }
})
