import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { TaskId } from '../../src/base/ids.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { closeTask } from '../../src/ledger/endings.ts'
import { claimDue, nextDue, putBack, releaseClaims, retryLater } from '../../src/ledger/queue.ts'
import { findTask, type Lease } from '../../src/ledger/records.ts'
import { journal } from '../../src/ledger/settlement.ts'
import type { Target } from '../../src/providers/target.ts'
import { lap, startReaper } from '../../src/reaper.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { type House, startHouse } from '../support/house.ts'
import { queryOf } from '../support/query.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('what is due, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await house.ledger.run(sql`update leases set due_at = now() where state in ('reserved', 'revoking')`)
    await house.reap()
    expect(await house.lab.alive()).toEqual([])
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  const leaseOf = async (id: TaskId): Promise<Lease> => (await findTask(house.ledger, id))!.leases[0]!
  /** A task whose lease is being revoked and is claimed, by somebody who does nothing. */
  async function claimed(duration = 60_000): Promise<Lease> {
    const task = await house.declare(['crm'], { duration })
    await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    return await leaseOf(task.id)
  }
  /** Moves the own end of a lease, and what is due with it, so many seconds into the past. */
  const outlive = async ({ id }: Lease, seconds: number): Promise<void> =>
    void (await house.ledger.run(sql`update leases set expires_at = now() - make_interval(secs => ${seconds}) where id = ${id}`))
  /** As it was before its mint was confirmed, and due in so many seconds. */
  const minting = async ({ id }: Lease, seconds: number): Promise<void> =>
    void (await house.ledger.run(
      sql`update leases set state = 'reserved', issued_at = null, due_at = now() + make_interval(secs => ${seconds}) where id = ${id}`,
    ))
  const due = async ({ id }: Lease): Promise<{ now: boolean; afterEnd: number }> => {
    const [row] = await house.ledger.run<{ now: boolean; afterEnd: number }>(
      sql`select due_at <= now() as now, extract(epoch from due_at - expires_at)::double precision as "afterEnd" from leases where id = ${id}`,
    )
    return row!
  }
  const without = (name: string): Broker => ({ ...house.broker, targets: new Map([...house.broker.targets].filter(([each]) => each !== name)) })

  test('what is closed at a broker that lacks its provider is due at once, for one that has it', async () => {
    const task = await house.declare(['crm'])

    await task.at(without('lab')).complete(0)
    await house.broker.background.settled()

    expect(await leaseOf(task.id)).toMatchObject({ state: 'revoking', attempts: 0 })
    expect(await nextDue(house.ledger, [{ name: 'lab', kind: 'http' }])).toBe(0)
    await house.reap()
    expect(await leaseOf(task.id)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
  })

  describe('is asked about by its provider and not ended by time, though an earlier try failed before its own end, where it was', () => {
    test.each([
      ['released, for the store had failed', (): Promise<void> => releaseClaims(house.ledger, [{ name: 'lab', kind: 'http' }])],
      ['put back, for there was no room', (lease: Lease): Promise<void> => putBack(house.ledger, lease)],
    ])('%s', async (_, release) => {
      const lease = await claimed()
      await house.ledger.run(sql`update leases set error = 'earlier' where id = ${lease.id}`)
      await outlive(lease, 40)

      await release(lease)
      await lap(house.broker)
      await house.broker.background.settled()

      expect(await leaseOf(lease.taskId)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    })

    test('put off beyond that end', async () => {
      const lease = await claimed()

      await retryLater(house.ledger, lease, 'not for two hours', 7_200_000)

      expect((await due(lease)).afterEnd).toBe(0)
    })
  })

  test('what is put off behind its own end waits for as long as was said', async () => {
    const lease = await claimed()
    await outlive(lease, 10)

    await retryLater(house.ledger, lease, 'not for an hour', 3_600_000)

    expect((await due(lease)).afterEnd).toBeGreaterThan(3_600)
  })

  test('what is put off while a handle arrives that nobody was asked about is due at once', async () => {
    const lease = await claimed()

    await journal(house.ledger, lease, { late: 'handle' })
    await retryLater(house.ledger, lease, 'not for an hour', 3_600_000)

    expect((await due(lease)).now).toBe(true)
  })

  test('a lease that was claimed when its own end had passed, and not marked as ending before the store failed, is due again', async () => {
    const task = await house.declare(['crm'])
    const lease = await leaseOf(task.id)
    await outlive(lease, 1)
    await house.ledger.run(sql`update leases set due_at = expires_at where id = ${lease.id}`)
    expect(await claimDue(house.ledger, [{ name: 'lab', kind: 'http', free: 1 }])).toHaveLength(1)
    expect((await due(lease)).now).toBe(false)

    await releaseClaims(house.ledger, [{ name: 'lab', kind: 'http' }])

    expect((await due(lease)).now).toBe(true)
    await task.complete()
  })

  describe('a lease that ends with its task', () => {
    const room = [{ name: 'lab', kind: 'http', free: 1 }]

    test('is not claimed by itself when both have passed, but closed with it', async () => {
      const task = await house.declare(['crm'])
      await house.backdate(task.id, '61 seconds')

      expect(await claimDue(house.ledger, room)).toEqual([])
      await house.reap()

      expect(await leaseOf(task.id)).toMatchObject({ state: 'revoked', cause: 'deadline', evidence: { by: 'provider' } })
    })

    test('is due when it ends, once its task goes on beyond that', async () => {
      const task = await house.declare(['crm'])
      await task.renew(600_000)
      await house.backdate(task.id, '61 seconds')

      await house.reap()

      expect(await leaseOf(task.id)).toMatchObject({ state: 'revoked', cause: 'lease_expired', evidence: { by: 'provider' } })
      expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
      await task.complete()
    })

    test('is not due after the store was away, before its task is closed', async () => {
      const task = await house.declare(['crm'])
      await house.backdate(task.id, '61 seconds')

      await releaseClaims(house.ledger, room)

      expect(await claimDue(house.ledger, room)).toEqual([])
    })
  })

  test('a lease that was claimed after its mint had taken too long, before the store failed, is due again; one that is being minted is not', async () => {
    const leases = [await leaseOf((await house.declare(['crm'])).id), await leaseOf((await house.declare(['crm'])).id)] as const
    await minting(leases[0], 0)
    expect(await claimDue(house.ledger, [{ name: 'lab', kind: 'http', free: 1 }])).toMatchObject([{ id: leases[0].id }])
    await minting(leases[1], 60)

    await releaseClaims(house.ledger, [{ name: 'lab', kind: 'http' }])

    expect([(await due(leases[0])).now, (await due(leases[1])).now]).toEqual([true, false])
  })

  test('a lease of an open task whose provider is in no configuration expires half a minute after its own end, and counts no more', async () => {
    const task = await house.declare(['crm'])
    const lease = await leaseOf(task.id)
    for (const [seconds, state] of [
      [20, 'active'],
      [40, 'expired'],
    ] as const) {
      await outlive(lease, seconds)
      await house.ledger.run(sql`update leases set due_at = expires_at where id = ${lease.id}`)
      await lap(without('lab'))
      expect(await leaseOf(task.id)).toMatchObject({ state, evidence: null })
    }
    expect((await findTask(house.ledger, task.id))!.task).toMatchObject({ state: 'open', liveLeases: 0 })

    await task.complete()
    // Nobody is left who would end it.
    await fetch(`${house.lab.url}/leases/${lease.id}`, { method: 'DELETE' })
  })

  const failing = (name: string): Broker => {
    const target: Target = { ...house.broker.targets.get(name)!, endsFailing: true, free: () => 0 }
    return { ...house.broker, targets: new Map([...house.broker.targets, [name, target]]) }
  }
  test.each([
    ['was not confirmed, and whose provider is in no configuration', 'reserved', without],
    ['was not confirmed, and whose provider fails to end anything', 'reserved', failing],
    ['is active, and whose provider fails to end anything', 'active', failing],
  ] as const)('a lease of an open task that %s, expires half a minute after its own end, and counts no more', async (_, state, at) => {
    const task = await house.declare(['crm'])
    const lease = await leaseOf(task.id)
    if (state === 'reserved') await minting(lease, 0)
    await house.ledger.run(sql`update leases set reserved_at = now() - interval '10 minutes' where id = ${lease.id}`)
    for (const [seconds, then] of [
      [20, state],
      [40, 'expired'],
    ] as const) {
      await outlive(lease, seconds)
      await house.ledger.run(sql`update leases set due_at = expires_at where id = ${lease.id}`)
      await lap(at('lab'))
      expect(await leaseOf(task.id)).toMatchObject({ state: then, evidence: null })
    }
    expect((await findTask(house.ledger, task.id))!.task).toMatchObject({ state: 'open', liveLeases: 0 })

    await task.complete()
    await fetch(`${house.lab.url}/leases/${lease.id}`, { method: 'DELETE' })
  })

  describe('a reaper that nothing wakes', () => {
    /** A pause of a second is never over, and the store tells of nothing: what goes on, was woken by what this broker did. */
    function unwoken(over: Partial<Ledger> = {}): Broker {
      const setTimer = globalThis.setTimeout
      vi.spyOn(globalThis, 'setTimeout').mockImplementation((run: () => void, ms?: number) => setTimer(ms === 1_000 ? () => {} : run, ms))
      return { ...house.broker, ledger: { ...house.ledger, onDue: async () => {}, ...over } }
    }
    const textOf = (asked: Parameters<Ledger['run']>): string => queryOf(asked[0]).sql

    test('takes a place that a request has left, though there was none when it looked', async () => {
      const lease = await claimed()
      await putBack(house.ledger, lease)
      let room = 0
      let looks = 0
      const run: Ledger['run'] = async (...asked) => {
        if (textOf(asked).includes('as first)')) looks++
        return await house.ledger.run(...asked)
      }
      const broker = unwoken({ run })
      let leave = (): void => {}
      const onPlaceLeft: Target['onPlaceLeft'] = (listener) => {
        leave = listener
        return () => {}
      }
      const crowded: Target = { ...house.broker.targets.get('lab')!, free: () => room, onPlaceLeft }
      await using _ = startReaper({ ...broker, targets: new Map([...broker.targets, ['lab', crowded]]) })
      // Each loop has looked when something is due next, and pauses.
      await expect.poll(() => looks, { timeout: 20_000 }).toBeGreaterThanOrEqual(2)

      room = 1
      leave()

      await expect.poll(async () => (await leaseOf(lease.taskId)).state, { timeout: 20_000 }).toBe('revoked')
    })

    test('does not ask about the same lease over and over, where what came of it cannot be written', async () => {
      const lease = await claimed()
      await putBack(house.ledger, lease)
      let failures = 0
      const run: Ledger['run'] = async (...asked) => {
        if (!textOf(asked).includes('asked as materialized')) return await house.ledger.run(...asked)
        failures++
        throw new BrokerError('store_unavailable', 'no room for entries')
      }
      let wake = (): void => {}
      const onDue = async (listener: () => void): Promise<void> => void (wake = listener)
      const broker = unwoken({ run, onDue, failures: () => failures })
      const started = performance.now()
      const now = vi.spyOn(performance, 'now').mockImplementation(() => started)
      const reaper = startReaper(broker)
      await expect.poll(() => failures, { timeout: 20_000 }).toBe(1)
      for (let look = 0; look < 20; look++) {
        wake()
        await house.ledger.run(sql`select`)
      }
      expect(failures).toBe(1)

      now.mockRestore()
      await reaper.stop()
    })

    test('does not wait for what was put off, once its provider says that what this failed at works again', async () => {
      const lease = await claimed()
      await retryLater(house.ledger, lease, 'not for a minute', 55_000)
      let recover = (): void => {}
      const onRecovery: Target['onRecovery'] = (listener) => {
        recover = listener
        return () => {}
      }
      const recovering: Target = { ...house.broker.targets.get('lab')!, onRecovery }
      await using _ = startReaper({ ...house.broker, targets: new Map([...house.broker.targets, ['lab', recovering]]) })

      recover()

      await expect.poll(async () => (await leaseOf(lease.taskId)).state, { timeout: 20_000 }).toBe('revoked')
    })

    test('does not wait for a clock of the store that was set back', async () => {
      const lease = await claimed()
      await retryLater(house.ledger, lease, 'not for a minute', 55_000)
      let back = 0
      let looks = 0
      const run: Ledger['run'] = async <Row extends object>(...asked: Parameters<Ledger['run']>): Promise<readonly Row[]> => {
        const rows = await house.ledger.run<Row>(...asked)
        if (!textOf(asked).includes('from now()) * 1000')) return rows
        looks++
        return rows.map((row) => ({ ...row, at: (row as { at: number }).at - back }))
      }
      await using _ = startReaper({ ...house.broker, ledger: { ...house.ledger, run } })
      await expect.poll(() => looks, { timeout: 20_000 }).toBeGreaterThanOrEqual(1)
      expect(await leaseOf(lease.taskId)).toMatchObject({ state: 'revoking' })

      back = 300_000

      await expect.poll(async () => (await leaseOf(lease.taskId)).state, { timeout: 20_000 }).toBe('revoked')
    })
  })
})
