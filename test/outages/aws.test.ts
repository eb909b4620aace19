import { CreatePolicyVersionCommand } from '@aws-sdk/client-iam'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { listLeases } from '../../src/ledger/lists.ts'
import { findTask } from '../../src/ledger/records.ts'
import { policyOf } from '../support/aws/site.ts'
import { type AwsHouse, startAwsHouse } from '../support/aws-house.ts'
import type { Declared } from '../support/house.ts'
import { type OpenedStore, openDatabase, stores } from '../support/stores.ts'

const minute = 60_000

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a task with an AWS session', { timeout: 180_000 }, () => {
  let store: OpenedStore
  let aws: AwsHouse

  beforeEach(async () => {
    store = await openDatabase()
    aws = await startAwsHouse(store.settings)
  })
  afterEach(async () => {
    for (const service of ['iam', 'sts'] as const) aws.site.peer.faults.up(service)
    const findings = await aws.findings()
    await aws.stop()
    await store.dispose()
    expect(findings).toEqual([])
  })

  /** @param ahead milliseconds by which sessions end sooner by AWS's clock */
  async function beginAnew(ahead: number): Promise<void> {
    await aws.stop()
    await store.dispose()
    store = await openDatabase()
    aws = await startAwsHouse(store.settings, {}, ahead)
  }

  const leaseOf = async ({ id }: Declared) => (await findTask(aws.house.ledger, id))!.leases[0]!
  /** What `mayfly_provider_up` and readiness say. */
  const isFailing = () => aws.house.broker.targets.get('aws')!.failing
  const declare = () => aws.house.declare(['bucket'], { duration: 20 * minute })

  /** Everything is tried again, until it is done. What bounds this is the time of the test. */
  async function untilDone(...tasks: readonly Declared[]): Promise<void> {
    for (const task of tasks) {
      while (['revoking', 'reserved'].includes((await leaseOf(task)).state)) await again()
    }
  }

  async function again(): Promise<void> {
    // The breaker goes by the broker's clock.
    aws.house.skew += 2_000
    await aws.house.ledger.run(sql`update leases set due_at = now() where state in ('revoking', 'reserved')`)
    await aws.house.reap()
  }

  test('that ends while IAM is down for an hour is revoking, with the reason, then stuck; its session ends by itself, and what still lives afterwards is denied', async () => {
    const { house, site, pass, reads } = aws
    const early = await declare()
    site.peer.faults.down('iam')
    await early.complete(0)
    const later: Declared[] = []
    for (let tenMinutes = 0; tenMinutes < 6; tenMinutes += 1) {
      await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking'`)
      await house.reap()
      const { state, error, evidence } = await leaseOf(early)
      // 20 minutes after it began, it is over by AWS's own clock.
      if (tenMinutes < 2)
        expect({ state, error, evidence }).toEqual({ state: 'revoking', error: expect.stringContaining('denied, and not written'), evidence: null })
      else expect({ state, evidence }).toMatchObject({ state: 'expired', evidence: { by: 'time' } })
      expect(reads(early), 'it works for as long as the ledger says so').toBe(state === 'revoking')
      if (tenMinutes === 1) expect((await listLeases(house.ledger, { stuck: true }, { limit: 10 })).items).toMatchObject([{ taskId: early.id }])
      for (const task of [early, ...later]) await pass(task, 10)
      // STS is up: tasks begin, and end, as ever.
      const task = await declare()
      expect(reads(task)).toBe(true)
      await task.complete(0)
      later.push(task)
    }
    expect(house.log()).toContain('a lease is stuck')
    expect(house.log()).toContain('kill_list_not_written')
    expect(aws.asked('CreatePolicyVersion')).toBeGreaterThan(0)
    expect(isFailing(), 'it is asked, and answers').toBe(false)

    site.peer.faults.up('iam')
    await untilDone(...later)
    const ends = await Promise.all(later.map(leaseOf))
    expect(
      ends.map(({ state }) => state),
      'those of the last twenty minutes are denied',
    ).toEqual(['expired', 'expired', 'expired', 'expired', 'revoked', 'revoked'])
    for (const task of [early, ...later]) expect(reads(task)).toBe(false)
  })

  test('is not opened while STS is down; one that ends is denied all the same, and revoked once STS shows it', async () => {
    const { house, site, reads } = aws
    const [task, sibling] = [await declare(), await declare()]
    site.peer.faults.down('sts')
    await expect(declare()).rejects.toMatchObject({ code: 'provider_unavailable', retryAfter: 2 })
    await house.declare(['api'])

    await task.complete(0)
    // So may what a mint has left whose answer was a 503.
    while (!(await leaseOf(task)).error?.includes('denied in generation')) await again()
    expect(await leaseOf(task)).toMatchObject({ state: 'revoking', evidence: null })
    expect([reads(task), reads(sibling)], 'denied already').toEqual([false, true])
    expect(isFailing(), 'a 503 is an answer').toBe(false)

    site.peer.faults.up('sts')
    await untilDone(task)
    expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    house.skew += 5_000
    expect(reads(await declare())).toBe(true)
  })

  test('is failed and nothing more where STS throttles; where IAM does, ends wait and share a document', async () => {
    const { house, site, reads } = aws
    const tasks = [await declare(), await declare(), await declare(), await declare()]
    site.peer.faults.limit('AssumeRole', { burst: 0, perSecond: 0 })
    const refused: unknown = await declare().catch((error: unknown) => error)
    expect(refused).toMatchObject({ code: 'provider_unavailable' })
    const { leases } = (await findTask(house.ledger, (refused as { task: Declared['id'] }).task))!
    expect(leases).toMatchObject([{ state: 'failed' }])
    for (let more = 0; more < 2; more += 1) {
      expect(isFailing(), 'three in a row are').toBe(false)
      await expect(declare()).rejects.toMatchObject({ code: 'provider_unavailable' })
    }
    expect(isFailing()).toBe(true)
    site.peer.faults.limit('AssumeRole', undefined)
    house.skew += 2_000
    tasks.push(await declare())
    expect(isFailing()).toBe(false)

    site.peer.faults.limit('CreatePolicyVersion', { burst: 0, perSecond: 0 })
    for (const task of tasks) await task.complete(0)
    for (const task of tasks) while (!(await leaseOf(task)).error?.includes('AWS throttles')) await again()
    for (const task of tasks) expect(await leaseOf(task)).toMatchObject({ state: 'revoking', evidence: null })
    const before = aws.asked('CreatePolicyVersion')
    site.peer.faults.limit('CreatePolicyVersion', undefined)
    await untilDone(...tasks)
    expect(tasks.map(reads)).toEqual(tasks.map(() => false))
    expect(aws.asked('CreatePolicyVersion') - before).toBeLessThanOrEqual(2)
    const generations = await house.ledger.run(sql`select distinct generation from role_sessions where confirmed_at is not null`)
    expect(generations).toHaveLength(1)
  })

  test.each([10, -10])('is opened and revoked where AWS takes the time for %s minutes later than the broker', async (ahead) => {
    aws.site.peer.faults.skew = ahead * minute
    const task = await declare()
    expect(aws.reads(task)).toBe(true)
    await task.complete(0)
    await untilDone(task)
    expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    expect(aws.reads(task)).toBe(false)
  })

  test.each([10, -10])('is denied at once where AWS ends sessions by a clock %s minutes ahead of the store', async (ahead) => {
    await beginAnew(ahead * minute)
    const [task, other] = [await declare(), await declare()]
    expect([aws.reads(task), aws.reads(other)]).toEqual([true, true])
    await task.complete(0)
    await untilDone(task)
    expect(await leaseOf(task)).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    expect([aws.reads(task), aws.reads(other)]).toEqual([false, true])
    // AWS ends it by its own clock: no later than so long after it was given, and sooner where that clock is past its policy's end before.
    for (const [minutes, alive] of [
      [Math.min(20, 20 - ahead) - 1, true],
      [2, false],
    ] as const) {
      await aws.pass(other, minutes)
      expect(aws.reads(other)).toBe(alive)
    }
  })

  test('stays denied for as long as AWS lets its session live, however far ahead the clock of the store is', async () => {
    await beginAnew(-10 * minute)
    const [task, other] = [await declare(), await declare()]
    await task.complete(0)
    await untilDone(task)
    // By AWS's stamp it is over for the store.
    await aws.pass(task, 13)
    await other.complete(0)
    await untilDone(other)
    expect(await Promise.all([task, other].map(leaseOf))).toMatchObject([{ state: 'revoked' }, { state: 'revoked' }])
    expect([aws.reads(task), aws.reads(other)]).toEqual([false, false])
  })

  test('that somebody takes off the list by hand is found when it is compared, denied again, and told of', async () => {
    const { house, site, boundary, tend, reads } = aws
    const [task, sibling] = [await declare(), await declare()]
    await task.complete(0)
    await untilDone(task)
    const PolicyDocument = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
    await site.owner.iam.send(new CreatePolicyVersionCommand({ PolicyArn: boundary, PolicyDocument, SetAsDefault: true }))
    expect(reads(task), 'by hand').toBe(true)

    // An hour later.
    await house.ledger.run(sql`
      update kill_lists set check_at = check_at - interval '1 hour', intended_at = intended_at - interval '1 hour', written_at = written_at - interval '1 hour'`)
    while (reads(task)) await tend().catch(() => {})
    expect(reads(sibling)).toBe(true)
    const alarm = house
      .log()
      .split('\n')
      .filter((line) => line.includes('"kill_list_drift"'))
    expect(alarm.map((line) => JSON.parse(line))).toMatchObject([{ level: 'error', provider: 'aws', role: site.role, generation: 1 }])
  })
})
