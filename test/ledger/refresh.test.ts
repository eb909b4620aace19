import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import type { NewDecision } from '../../src/ledger/entries.ts'
import { stopwatch } from '../../src/base/time.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { concludeRefresh, extendLease, type Extension } from '../../src/ledger/extend.ts'
import { claimDue } from '../../src/ledger/queue.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import { decideOn } from '../../src/tasks/decision.ts'
import { endLease } from '../../src/tasks/end.ts'
import { type Declared, type House, never, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const minute = 60_000

describe.each(stores)('a refresh of what was made outside the broker, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  let task: Declared
  let lease: Lease

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  beforeEach(async () => {
    task = await house.declare(['crm'], { duration: 20 * minute })
    // As if what it minted lived for two minutes only.
    await house.ledger.run(
      sql`update leases set expires_at = now() + interval '2 minutes', due_at = now() + interval '2 minutes' where id = ${task.leases[0]!.id}`,
    )
    lease = await now()
  })
  afterEach(async () => expect(await house.audit()).toEqual([]))
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  const now = async (): Promise<Lease> => (await findLease(house.ledger, task.leases[0]!.id))!.lease
  const until = async (): Promise<number> => (await now()).expiresAt.getTime()
  const story = async (): Promise<readonly { kind: string; body: { error?: string; expires_at?: string } }[]> =>
    await house.ledger.run(sql`select kind, body from entries where lease_id = ${lease.id} and kind like '%refresh%' order by id`)

  function decision(): NewDecision {
    const { actor, agent } = house.caller('bot')
    const declared = { kind: 'work', duration: 10 * minute, grants: [{ name: 'crm', parameters: {} }] }
    return { ...decideOn(house.broker, house.broker.policy().catalogue.resolve(agent!, actor!, 'issue', declared)), id: newId('dec') }
  }
  async function announce(ttl = 10 * minute): Promise<Extension> {
    const extension = await extendLease(house.ledger, lease, decision(), ttl)
    if (!extension || 'stop' in extension) throw new Error('the lease has ended')
    return extension
  }
  const fresh = (at: number) => ({ to: 'refreshed', expiresAt: new Date(at), digests: { token: `digest-${at}` } }) as const
  const failed = (endsBy?: Date) => ({ to: 'not_refreshed', until: endsBy, error: 'it did not answer' }) as const
  const conclude = async (extension: Extension, outcome: Parameters<typeof concludeRefresh>[2]) =>
    (await concludeRefresh(house.ledger, extension, outcome))?.lease

  test('moves the end to what is permitted first, and then to the end of what was made', async () => {
    const extension = await announce()
    expect(extension.former).toEqual(lease.expiresAt)
    expect(await now()).toMatchObject({ expiresAt: extension.until, dueAt: extension.until })
    const end = lease.expiresAt.getTime() + minute
    expect(await conclude(extension, fresh(end))).toMatchObject({ expiresAt: new Date(end), dueAt: new Date(end), state: 'active' })
    expect(await story()).toMatchObject([
      { kind: 'lease.refreshing', body: { expires_at: extension.until.toISOString() } },
      { kind: 'lease.refreshed', body: { expires_at: new Date(end).toISOString() } },
    ])
    const [kept] = await house.ledger.run<{ digests: object[] }>(sql`select digests from leases where id = ${lease.id}`)
    expect(kept!.digests.at(-1)).toEqual({ token: `digest-${end}` })
  })

  test('never moves it before the end of what was handed out already', async () => {
    await conclude(await announce(), fresh(lease.expiresAt.getTime() - minute))
    expect(await until()).toBe(lease.expiresAt.getTime())
    expect((await announce(minute)).lease.expiresAt).toEqual(lease.expiresAt)
  })

  test('tells for how long it has been announced, the way to the store and back included', async () => {
    const since = stopwatch()
    const run: Ledger['run'] = async (...statement) => {
      const answer = await house.ledger.run<never>(...statement)
      while (since() < 200) await house.ledger.run(sql`select 1`)
      return answer
    }
    const extension = await extendLease({ ...house.ledger, run }, lease, decision(), minute)
    if (!extension || 'stop' in extension) throw new Error('the lease has ended')
    expect(extension.elapsed()).toBeGreaterThan(100)
  })

  test('never passes the deadline, nor what was permitted', async () => {
    const extension = await announce(60 * minute)
    expect(extension.until).toEqual(task.opened.task.deadline)
    await conclude(extension, fresh(extension.until.getTime() + minute))
    expect(await until()).toBe(extension.until.getTime())
  })

  test('that came to nothing for certain puts the end back', async () => {
    const extension = await announce()
    await conclude(extension, failed(extension.former))
    expect(await now()).toMatchObject({ expiresAt: lease.expiresAt, dueAt: lease.expiresAt })
    expect(await story()).toMatchObject([{ kind: 'lease.refreshing' }, { kind: 'lease.not_refreshed', body: { error: 'it did not answer' } }])
  })

  test('whose answer was lost leaves the end where what may have been made ends at the latest', async () => {
    const first = await announce()
    const bound = new Date(lease.expiresAt.getTime() + minute)
    await conclude(first, failed(bound))
    expect(await until()).toBe(bound.getTime())
    const second = await announce()
    await conclude(second, failed(undefined))
    expect(await until()).toBe(second.until.getTime())
  })

  test('at two brokers at once never ends before either of what they made, whichever is told first', async () => {
    for (const laterFirst of [true, false]) {
      const [one, other] = [await announce(8 * minute), await announce(4 * minute)]
      const ends = [one.until.getTime(), other.until.getTime()] as const
      const telling = [() => conclude(one, fresh(ends[0])), () => conclude(other, fresh(ends[1]))]
      let told = 0
      for (const tell of laterFirst ? telling.toReversed() : telling) {
        expect(await tell(), `told ${++told}`).toBeDefined()
        expect(await until()).toBeGreaterThanOrEqual(ends[0])
      }
    }
  })

  test('that fails beside another does not take back what the other was permitted', async () => {
    const [one, other] = [await announce(), await announce()]
    await conclude(other, failed(other.former))
    expect(await until()).toBeGreaterThanOrEqual(one.until.getTime())
    await conclude(one, fresh(one.until.getTime()))
    expect(await until()).toBeGreaterThanOrEqual(one.until.getTime())
  })

  test.each([
    ['completed', () => task.complete(0)],
    ['revoked', () => task.revoke(0)],
    ['ended by itself', () => task.revokeLease(lease, 0)],
    [
      'over',
      async () => {
        await house.backdate(task.id, '21 minutes')
        await house.reap()
      },
    ],
  ])('that is told after its task or lease was %s moves nothing, and gives nothing', async (_, end) => {
    const extension = await announce()
    await end()
    const before = await until()
    expect(await conclude(extension, fresh(extension.former.getTime()))).toBeUndefined()
    expect(await conclude(extension, failed(extension.former))).toBeUndefined()
    expect(await until()).toBe(before)
    expect(await extendLease(house.ledger, lease, decision(), minute)).toBeUndefined()
    expect((await story()).map(({ kind }) => kind)).toEqual(['lease.refreshing'])
  })

  test('is not begun where the lease has passed its end, though nobody came to see it', async () => {
    await house.backdate(task.id, '3 minutes')
    expect(await extendLease(house.ledger, lease, decision(), minute)).toBeUndefined()
  })

  test('that is announced after its lease was claimed as over keeps it alive, and due at its new end', async () => {
    await house.ledger.run(sql`update leases set due_at = now() where id = ${lease.id}`)
    const claimed = (await claimDue(house.ledger, [{ name: 'lab', kind: 'http', free: 100 }])).find(({ id }) => id === lease.id)
    const extension = await announce()
    expect(await endLease(house.broker, claimed!, never)).toBeUndefined()
    expect(await now()).toMatchObject({ state: 'active', cause: null, expiresAt: extension.until, dueAt: extension.until })
    expect(await house.lab.works(task.secrets[0]!)).toBe(true)
  })

  test('raced against the end of its task is either told before it, or gives nothing', async () => {
    for (let round = 0; round < 12; round++) {
      const raced = await house.declare(['crm'], { duration: 20 * minute })
      const extension = await extendLease(house.ledger, raced.leases[0]!, decision(), minute)
      if (!extension || 'stop' in extension) throw new Error('the lease has ended')
      const completing = raced.complete(5)
      // A lead of some round trips, or none.
      for (let lead = round; lead > 0; lead--) await house.ledger.run(sql`select 1`)
      const given = (await conclude(extension, fresh(extension.until.getTime()))) !== undefined
      await completing
      expect(await conclude(extension, fresh(extension.until.getTime()))).toBeUndefined()
      const kinds = await house.ledger.run<{ kind: string }>(sql`select kind from entries where lease_id = ${raced.leases[0]!.id} order by id`)
      const told = kinds.map(({ kind }) => kind)
      expect(told.indexOf('lease.refreshed') >= 0).toBe(given)
      if (given) expect(told.indexOf('lease.refreshed')).toBeLessThan(told.indexOf('lease.revoking'))
    }
  })

  test('keeps the digests of the newest credentials, and no more', async () => {
    for (let round = 0; round < 40; round++) await conclude(await announce(), fresh(lease.expiresAt.getTime() + round))
    const [kept] = await house.ledger.run<{ digests: object[] }>(sql`select digests from leases where id = ${lease.id}`)
    expect(kept!.digests).toHaveLength(32)
    expect(kept!.digests.at(-1)).toEqual({ token: `digest-${lease.expiresAt.getTime() + 39}` })
  })
})
