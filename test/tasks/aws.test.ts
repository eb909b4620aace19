import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { BrokerError } from '../../src/base/errors.ts'
import { viewLease } from '../../src/http/views.ts'
import type { StoreSettings } from '../../src/ledger/connect.ts'
import { listLeases } from '../../src/ledger/lists.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import type { Inquiry } from '../../src/policy/inquiry.ts'
import type { IssuedLease } from '../../src/tasks/mint.ts'
import { agentOf, readObject } from '../support/aws-agent.ts'
import { type AwsSite, startAwsSite } from '../support/aws/site.ts'
import { type Declared, type House, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

let site: AwsSite
let house: House
let store: OpenedStore | undefined

async function settle(mode: 'children' | 'direct', store: StoreSettings | 'embedded'): Promise<void> {
  site = await startAwsSite()
  for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
  house = await startHouse(store, {
    kind: 'aws-sts',
    name: 'aws',
    settings: { region: site.peer.region, account: site.peer.account, endpoint: site.peer.url, external_id: site.externalId, mode },
    grants: {
      bucket: `role: ${site.role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }]`,
      database: `role: ${site.role}, allow: [{ actions: [rds-db:connect], resources: ["*"] }], outlives_revocation: [rds-db:connect]`,
    },
  })
}

async function leave(): Promise<void> {
  await house.stop()
  await store?.dispose()
  await site.peer.stop()
  vi.unstubAllEnvs()
}

async function check(): Promise<void> {
  expect(await house.audit()).toEqual([])
  // How the session tokens of the peer begin: of children, of parents and of sessions that nobody was given.
  expect(house.log()).not.toContain('IQoJb3JpZ2lu')
}

describe('a task with an AWS session', () => {
  beforeEach(() => settle('direct', 'embedded'))
  afterEach(async () => {
    try {
      await check()
    } finally {
      await leave()
    }
  })

  test('that is completed says that the session lapses until its end, then that it is expired, and never that it was revoked', async () => {
    const task = await house.declare(['bucket'])
    expect(task.leases).toMatchObject([{ state: 'active', revocation: 'expiry', handles: [{ kind: 'session', role: site.role }] }])
    const { ended, leases } = await task.complete(0)
    expect(ended).toBe(false)
    expect(leases).toMatchObject([{ state: 'lapsing', cause: 'completed' }])
    await house.backdate(task.id, '40 minutes')
    await house.reap()
    expect((await task.complete(0)).leases).toMatchObject([{ state: 'expired', cause: 'completed' }])
  })

  test('says in the lease and in the ledger what outlives the session, from its birth to after its end', async () => {
    const task = await house.declare(['bucket', 'database'])
    const said = (leases: readonly Lease[]) => leases.map((lease) => viewLease(lease, house.operator).outlives_revocation)
    expect(said(task.leases)).toEqual([undefined, ['rds-db:connect']])
    const entries = await house.ledger.run<{ said: object }>(
      sql`select body->'outlives_revocation' as said from entries where kind = 'lease.reserved' order by lease_id`,
    )
    expect(entries.map((entry) => entry.said)).toEqual([[], ['rds-db:connect']])
    expect(said((await task.complete(0)).leases)).toEqual([undefined, ['rds-db:connect']])
    await house.backdate(task.id, '40 minutes')
    await house.reap()
    expect(said((await task.complete(0)).leases)).toEqual([undefined, ['rds-db:connect']])
    const { items } = await listLeases(house.ledger, { task: task.id }, { limit: 10 })
    expect(said(items)).toEqual([['rds-db:connect'], undefined])
  })

  test('that no answer of STS reached is failed; the session that may live is in the ledger by its name, until its end', async () => {
    site.peer.faults.next('AssumeRole', 'loses the answer', 3)
    await expect(house.declare(['bucket'])).rejects.toMatchObject({ code: 'provider_unavailable' })
    const rows = await house.broker.ledger.run<{ state: string; handles: object[] }>(sql`select state, handles from leases`)
    expect(rows).toMatchObject([{ state: 'lapsing', handles: [{ kind: 'session', role: site.role }] }])
  })

  test('that STS refused leaves a lease that is failed, for nothing was minted', async () => {
    site.peer.faults.next('AssumeRole', 'throttles', 3)
    await expect(house.declare(['bucket'])).rejects.toMatchObject({ code: 'provider_unavailable' })
    const rows = await house.broker.ledger.run<{ state: string }>(sql`select state from leases`)
    expect(rows).toMatchObject([{ state: 'failed' }])
  })
})

describe.each(stores)('a task with children of an AWS session, on $name', ({ open }) => {
  const minute = 60_000

  beforeAll(async () => {
    store = await open()
    await settle('children', store.settings)
  })
  afterEach(check)
  afterAll(leave)

  const asked = (action: string): number => site.peer.calls.filter((call) => call.action === action).length
  const kept = async ({ id }: Lease): Promise<Lease> => (await findLease(house.ledger, id))!.lease
  const seconds = ({ expiresAt, issuedAt }: Lease): number => (expiresAt.getTime() - issuedAt!.getTime()) / 1_000
  const works = (issued: IssuedLease): Promise<number> => readObject(agentOf(site.peer, issued), 'acme/1')
  const storedTokens = async (): Promise<number> => {
    const rows = await house.ledger.run<{ found: number }>(sql`
      select (select count(*) from leases where leases::text like '%IQoJb3JpZ2lu%')::int + (select count(*) from entries where entries::text like '%IQoJb3JpZ2lu%')::int as found`)
    return rows[0]!.found
  }

  test('says that its lease ends with the child, and is given another, of the same session, with its end', async () => {
    const before = [asked('AssumeRole'), asked('GetScopedCredentials')]
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    const [lease] = task.leases
    expect(seconds(lease!)).toBeLessThanOrEqual(120)
    expect(seconds(lease!)).toBeGreaterThan(110)
    await house.backdate(task.id, '60 seconds')
    const former = (await kept(lease!)).expiresAt.getTime()
    const fresh = await task.refresh(lease!)
    expect(seconds(fresh.lease)).toBeLessThanOrEqual(120)
    expect(fresh.lease.expiresAt.getTime()).toBeGreaterThan(former + 50_000)
    expect(await kept(lease!)).toMatchObject({ expiresAt: fresh.lease.expiresAt, dueAt: fresh.lease.expiresAt, handles: lease!.handles })
    expect(await works(fresh)).toBe(200)
    expect([asked('AssumeRole') - before[0]!, asked('GetScopedCredentials') - before[1]!]).toEqual([1, 2])
    expect(await storedTokens()).toBe(0)
  })

  test('never gives a child beyond its deadline', async () => {
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    await house.ledger.run(sql`update tasks set deadline = now() + interval '150 seconds' where id = ${task.id}`)
    await house.ledger.run(sql`update leases set expires_at = least(expires_at, now() + interval '100 seconds') where task_id = ${task.id}`)
    await house.backdate(task.id, '60 seconds')
    const { lease } = await task.refresh(task.leases[0]!)
    expect(seconds(lease)).toBeLessThanOrEqual(90)
  })

  test.each([
    ['completed', (task: Declared) => task.complete(0)],
    ['revoked', (task: Declared) => task.revoke(0)],
    [
      'past its deadline',
      async (task: Declared) => {
        await house.backdate(task.id, '21 minutes')
        await house.reap()
      },
    ],
  ])('that is %s makes no further child, also where neither STS nor IAM answers', async (_, end) => {
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    for (const service of ['sts', 'iam'] as const) site.peer.faults.down(service)
    await end(task)
    for (const service of ['sts', 'iam'] as const) site.peer.faults.up(service)
    const before = asked('GetScopedCredentials')
    await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict' })
    await expect(task.at(await house.neighbour()).refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict' })
    expect(asked('GetScopedCredentials')).toBe(before)
    await house.backdate(task.id, '130 seconds')
    await house.reap()
    expect((await kept(task.leases[0]!)).state).toMatch(/expired|revoked/)
  })

  test('that ends while a child is being made gives it to nobody', async () => {
    for (let round = 0; round < 4; round++) {
      const task = await house.declare(['bucket'], { duration: 20 * minute })
      const made = asked('GetScopedCredentials')
      const refreshing = task.refresh(task.leases[0]!).then(
        () => 'given',
        ({ code, receipts }: BrokerError) => [code, ...receipts.map(({ kind }) => kind)],
      )
      await expect.poll(() => asked('GetScopedCredentials'), { interval: 1 }).toBe(made + 1)
      const { task: ended } = await task.complete(0)
      expect(ended.closingAt).not.toBeNull()
      // Told before the end was committed, or not at all.
      const outcome = await refreshing
      const story = await house.ledger.run<{ kind: string }>(sql`select kind from entries where task_id = ${task.id} order by id`)
      const told = story.map(({ kind }) => kind)
      if (outcome === 'given') expect(told.indexOf('lease.refreshed')).toBeLessThan(told.indexOf('task.closing'))
      else expect([outcome, told.includes('lease.refreshed')]).toEqual([['conflict', 'decision.made', 'lease.refreshing'], false])
    }
  })

  test('is not refreshed once its grant lifts what its lease does not say outlives it', async () => {
    const task = await house.declare(['bucket'])
    const policy = house.broker.policy()
    const { settings } = policy.catalogue.grants.get('database')!
    const lifted = (inquiry: Inquiry): Inquiry => ({
      ...inquiry,
      grants: inquiry.grants.map((asked) => ({ ...asked, grant: { ...asked.grant, settings } })),
    })
    house.use({ ...policy, catalogue: { ...policy.catalogue, resolve: (...asked) => lifted(policy.catalogue.resolve(...asked)) } })
    await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict' })
    house.use(policy)
    await task.refresh(task.leases[0]!)
  })

  test('is refreshed at another broker, which has no parent, under the same name, and by two at once', async () => {
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    const neighbour = await house.neighbour()
    const both = await Promise.all([task.refresh(task.leases[0]!), task.at(neighbour).refresh(task.leases[0]!)])
    const end = (await kept(task.leases[0]!)).expiresAt
    for (const fresh of both) {
      expect((fresh.credential as { expiration: string }).expiration <= end.toISOString()).toBe(true)
      expect(await works(fresh)).toBe(200)
    }
    const names = await house.ledger.run<{ handles: object[] }>(sql`select handles from leases where task_id = ${task.id}`)
    expect(names[0]!.handles).toHaveLength(1)
  })

  test('keeps the child that it has while STS is away, and the ledger names no end before that of what may exist', async () => {
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    const [lease] = task.leases
    await house.backdate(task.id, '60 seconds')
    const former = (await kept(lease!)).expiresAt.getTime()
    site.peer.faults.next('GetScopedCredentials', 'throttles', 3)
    await expect(task.refresh(lease!)).rejects.toMatchObject({ code: 'provider_unavailable' })
    expect((await kept(lease!)).expiresAt.getTime(), 'nothing was made for certain').toBe(former)
    site.peer.faults.next('GetScopedCredentials', 'loses the answer', 3)
    await expect(task.refresh(lease!)).rejects.toMatchObject({ code: 'provider_unavailable' })
    const after = await kept(lease!)
    expect(after.state).toBe('active')
    expect(after.expiresAt.getTime(), 'as long as the child that nobody got').toBeGreaterThan(former)
    expect(seconds(after)).toBeLessThanOrEqual(120)
    expect(await works(await task.refresh(lease!))).toBe(200)
    expect(await storedTokens()).toBe(0)
  })

  test('whose child ended unrefreshed has a lease that ended, and is given another of the same grant', async () => {
    const task = await house.declare(['bucket'], { duration: 20 * minute })
    await house.backdate(task.id, '125 seconds')
    await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict' })
    // Once it is marked, and once its end is written.
    for (let round = 0; round < 2; round++) await house.reap()
    expect(await kept(task.leases[0]!)).toMatchObject({ state: 'expired', cause: 'lease_expired' })
    expect(await task.add('bucket')).toMatchObject({ lease: { state: 'active' } })
  })
})
