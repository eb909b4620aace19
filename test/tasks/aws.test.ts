import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { viewLease } from '../../src/http/views.ts'
import { listLeases } from '../../src/ledger/lists.ts'
import type { Lease } from '../../src/ledger/records.ts'
import { type AwsSite, startAwsSite } from '../support/aws/site.ts'
import { type House, startHouse } from '../support/house.ts'

describe('a task with an AWS session', () => {
  let site: AwsSite
  let house: House

  beforeEach(async () => {
    site = await startAwsSite()
    for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
    house = await startHouse('embedded', {
      kind: 'aws-sts',
      name: 'aws',
      settings: { region: site.peer.region, account: site.peer.account, endpoint: site.peer.url, external_id: site.externalId },
      grants: {
        bucket: `role: ${site.role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }]`,
        database: `role: ${site.role}, allow: [{ actions: [rds-db:connect], resources: ["*"] }], outlives_revocation: [rds-db:connect]`,
      },
    })
  })
  afterEach(async () => {
    const findings = await house.audit()
    await house.stop()
    await site.peer.stop()
    vi.unstubAllEnvs()
    expect(findings).toEqual([])
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
    const said = (leases: readonly Lease[]) => leases.map((lease) => viewLease(lease).outlives_revocation)
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
