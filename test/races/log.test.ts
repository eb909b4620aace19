import { expect, test } from 'vitest'
import { listLogs } from '../../src/ledger/checkpoints.ts'
import { startFleet, until } from '../support/fleet.ts'
import { auditLog, everyEntryPlaced, verifiersOf } from '../support/log.ts'
import { mayfly } from '../support/program.ts'
import { stores } from '../support/stores.ts'

test.runIf(stores.some(({ name }) => name === 'Postgres'))(
  'two brokers of one store keep one log, and one goes on when the other is killed',
  async () => {
    const fleet = await startFleet(2)
    const { ledger, owner, brokers } = fleet
    const declareMany = (living: readonly number[]) =>
      Promise.all(Array.from({ length: 12 }, (_, at) => fleet.declare(brokers[living[at % living.length]!]!, ['api'])))

    await declareMany([0, 1])
    await owner`insert into entries (kind, body) select 'policy.activated', '{"policy_digest": "none"}' from generate_series(1, 3000)`
    await brokers[1]!.kill()
    await declareMany([0])
    await everyEntryPlaced(ledger)

    expect(await auditLog(ledger, await verifiersOf(ledger, fleet.site.folder))).toEqual([])
    expect(brokers[0]!.log()).not.toContain('is not signed any further')
    brokers[1] = await fleet.site.start()
    await declareMany([0, 1])
    await everyEntryPlaced(ledger)
    expect(await auditLog(ledger, await verifiersOf(ledger, fleet.site.folder))).toEqual([])
    expect(await fleet.findings()).toEqual([])
    await fleet.stop()
  },
)

test.runIf(stores.some(({ name }) => name === 'Postgres'))(
  'two brokers whose key is rotated meanwhile sign nothing more, say why, and go on when they have the new one',
  { timeout: 240_000 },
  async () => {
    const fleet = await startFleet(2)
    const { ledger, owner, brokers, site } = fleet
    const declareAtBoth = () => Promise.all(brokers.map((broker) => fleet.declare(broker, ['api'])))
    await declareAtBoth()

    const rotated = await mayfly(['ledger', 'rotate-key', '--config', site.config()])
    expect(rotated, rotated.stderr).toMatchObject({ status: 0 })
    const [closed] = await listLogs(ledger)
    await declareAtBoth()
    await until('both say why', async () => {
      await owner`select 1`
      return brokers.every((broker) => broker.log().includes('was closed, and goes on under another key'))
    })
    expect(await listLogs(ledger)).toMatchObject([
      { closed: true, note: closed!.note },
      { closed: false, size: 1 },
    ])

    await Promise.all(brokers.map((broker) => broker.stop()))
    for (const at of brokers.keys()) brokers[at] = await site.start()
    await declareAtBoth()
    await everyEntryPlaced(ledger)
    expect(await auditLog(ledger, await verifiersOf(ledger, site.folder))).toEqual([])
    expect((await listLogs(ledger))[0]).toMatchObject({ note: closed!.note })
    expect(await fleet.findings()).toEqual([])
    await fleet.stop()
  },
)
