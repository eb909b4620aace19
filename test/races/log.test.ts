import { expect, test } from 'vitest'
import { startFleet } from '../support/fleet.ts'
import { auditLog, everyEntryPlaced, verifierOf } from '../support/log.ts'
import { stores } from '../support/stores.ts'

test.runIf(stores.some(({ name }) => name === 'Postgres'))(
  'two brokers of one store keep one log, and one goes on when the other is killed',
  async () => {
    const fleet = await startFleet(2)
    const { ledger, owner, brokers } = fleet
    const declareMany = (living: readonly number[]) =>
      Promise.all(Array.from({ length: 12 }, (_, at) => fleet.declare(brokers[living[at % living.length]!]!, ['api'])))

    await declareMany([0, 1])
    await owner`insert into entries (kind, body) select 'policy.activated', '{}' from generate_series(1, 3000)`
    await brokers[1]!.kill()
    await declareMany([0])
    await everyEntryPlaced(ledger)

    expect(await auditLog(ledger, await verifierOf(ledger, fleet.site.folder))).toEqual([])
    expect(brokers[0]!.log()).not.toContain('is not signed any further')
    brokers[1] = await fleet.site.start()
    await declareMany([0, 1])
    await everyEntryPlaced(ledger)
    expect(await auditLog(ledger, await verifierOf(ledger, fleet.site.folder))).toEqual([])
    expect(await fleet.findings()).toEqual([])
    await fleet.stop()
  },
)
