import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type Ledger, overDoor } from '../../src/ledger/connect.ts'
import { closeTask } from '../../src/ledger/endings.ts'
import { findTask } from '../../src/ledger/records.ts'
import { expireLeases } from '../../src/ledger/settlement.ts'
import { lap } from '../../src/reaper.ts'
import { phraseOf, revokeMany } from '../../src/tasks/revoke.ts'
import { type House, startHouse } from '../support/house.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('while somebody else holds a row', () => {
  let store: OpenedStore
  let house: House
  /** Two sessions that hold rows, each in a transaction of its own. */
  let holders: readonly [postgres.Sql, postgres.Sql]

  beforeAll(async () => {
    store = await openDatabase()
    house = await startHouse(store.settings)
    const holder = () => postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
    holders = [holder(), holder()]
  })
  afterEach(async () => {
    for (const holder of holders) await holder`rollback`
    for (const { id } of await house.ledger.run<{ id: string }>(sql`select id from tasks where state in ('open', 'closing')`))
      await house.backdate(id, '2 hours')
    await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking'`)
    await house.reap()
    expect(await house.lab.alive()).toEqual([])
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    for (const holder of holders) await holder.end()
    await house.stop()
    await store.dispose()
  })

  /** Sessions of this database that wait for a lock. */
  const waiting = () =>
    house.ledger.run(sql`
      select distinct pid from pg_locks where not granted and pid in (
        select pid from pg_locks where database = (select oid from pg_database where datname = current_database()))`)
  /** Of one connection, whose statements wait for as long as it takes. */
  function patientLedger(): Ledger {
    const client = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
    onTestFinished(() => client.end())
    return overDoor({
      embedded: false,
      isNewer: false,
      connections: 1,
      query: (text, parameters) => client.unsafe(text, parameters as postgres.ParameterOrJSON<never>[]),
      onDue: async () => {},
      hasRoom: async () => true,
      close: () => client.end(),
    })
  }
  const untilWaiting = (count: number): Promise<void> => expect.poll(waiting, { timeout: 20_000 }).toHaveLength(count)
  const revoke = (selector: { agent?: string; grant?: string }) =>
    revokeMany(house.broker, house.operator, { selector, reason: 'a test says so', confirm: phraseOf(selector), stopFor: undefined })

  test.each([
    ['tasks', { agent: 'bot' }],
    ['leases', { grant: 'api' }],
  ])('a revocation of %s waits for its turn: requests that follow each other keep nothing from it', async (_, selector) => {
    const [one, other] = holders
    const task = await house.declare(['api'])
    await one`begin`
    await one`select from tasks where id = ${task.id} for update`

    await revoke(selector)
    await lap(house.broker)
    await untilWaiting(1)
    await other`begin`
    const next = other`select from tasks where id = ${task.id} for update`.execute()
    await untilWaiting(2)
    await one`commit`
    await next

    expect((await findTask(house.ledger, task.id))!.leases[0]).toMatchObject({ state: 'revoked' })
  })

  test('a lease that has ended is shown to whoever revokes it, who takes nothing from its task', async () => {
    const [one] = holders
    const task = await house.declare(['api', 'crm'])
    await task.revokeLease(task.leases[0]!)
    await one`begin`
    await one`select from tasks where id = ${task.id} for update`

    expect(await task.revokeLease(task.leases[0]!)).toMatchObject({ ended: true, lease: { state: 'revoked' } })
  })

  test('time ends no lease that was given a handle after it was found to be over', async () => {
    const [one] = holders
    const task = await house.declare(['crm'])
    const { id } = task.leases[0]!
    await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    await house.ledger.run(sql`
      update leases set error = 'earlier', expires_at = now() - interval '40 seconds', due_at = now() - interval '5 seconds' where id = ${id}`)
    await one`begin`
    await one`update leases set handles = handles || '[{"late": "handle"}]', due_at = now() where id = ${id}`

    const expiring = expireLeases(house.ledger, 64, 30, { answering: [{ name: 'lab', kind: 'http' }], confirming: [] })
    await untilWaiting(1)
    await one`commit`

    expect(await expiring).toEqual([])
    expect((await findTask(house.ledger, task.id))!.leases[0]).toMatchObject({ state: 'revoking' })
    await house.ledger.run(sql`update leases set error = null, expires_at = now() + interval '10 seconds' where id = ${id}`)
    await house.reap()
  })

  test('a declaration that waited when a revocation was started is ended by it, however long it waited', async () => {
    const [one, other] = holders
    await (await house.declare(['api'])).complete()
    const agent = (holder: postgres.Sql) => holder`select from agents where name = 'bot' for update`.execute()
    for (const holder of holders) await holder`begin`
    await agent(one)
    const next = agent(other)
    await untilWaiting(1)
    const declaring = house.declare(['api'], { broker: { ...house.broker, ledger: patientLedger() } })
    await untilWaiting(2)

    const { revocation } = await revoke({ agent: 'bot' })
    // No statement that was under way then has run out of time yet, however slow this machine is.
    await house.ledger.run(sql`update revocations set started_at = started_at + interval '1 hour' where id = ${revocation.id}`)
    await one`commit`
    await next
    // Only now does the one that holds the agent have a transaction id, and the declaration has none yet.
    for (let round = 0; round < 3; round++) await house.reap()
    await other`commit`
    const { id } = await declaring
    await house.reap()

    expect((await findTask(house.ledger, id))!.task).toMatchObject({ state: 'revoked', revokedIn: revocation.id })
  })
})
