import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Ledger } from '../../src/ledger/connect.ts'
import { listDenials, listEntries, listLeases, listTasks } from '../../src/ledger/lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { revokeTask } from '../../src/tasks/close.ts'
import { type Declared, type House, loadPolicy, never, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const page = { limit: 100 }
const ids = ({ items }: { readonly items: readonly { readonly id: string }[] }) => items.map(({ id }) => id).toSorted()
const leaseIds = (...tasks: readonly Declared[]) => tasks.flatMap(({ leases }) => leases.map(({ id }) => id)).toSorted()
const minutesAgo = (minutes: number) => new Date(Date.now() - minutes * 60_000)

/** Moves the end of a task and of its leases back too, which a house does not. */
const endEarlier = (ledger: Ledger, task: string, by: string) =>
  ledger.run(sql`
  with moved as (update tasks set ended_at = ended_at - ${by}::text::interval where id = ${task})
  update leases set ended_at = ended_at - ${by}::text::interval where task_id = ${task}`)

describe.each(stores)('what a reviewer asks, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  let folder: string

  /** Until the breaker of a provider that was down lets it be asked again. */
  async function untilAllIsDead(): Promise<void> {
    do {
      house.skew += 10_000
      await house.reap()
    } while ((await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking' returning id`)).length > 0)
  }

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-questions-'))
    store = await open()
    house = await startHouse(store.settings)
  })

  afterEach(async () => {
    // A lease whose times a test moved by hand has ended before its own end, which only a wrong clock can bring about.
    expect((await house.audit()).filter((finding) => !finding.startsWith('a lease expired before its time'))).toEqual([])
  })

  afterAll(async () => {
    await house.stop()
    await store.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  test('who held a grant between two times: whose life overlaps them, to the millisecond', async () => {
    const before = await house.declare(['slow-api'])
    await before.complete()
    // From 25 minutes ago until 15 minutes ago. Its id says that it is younger, as that of a broker whose clock is ahead.
    await house.backdate(before.id, '3 minutes')
    const task = await house.declare(['slow-api', 'crm'])
    const [lease] = task.leases
    const held = async (from: Date | undefined, to: Date | undefined) =>
      ids(await listLeases(house.ledger, { grant: 'slow-api', agent: 'bot', from, to }, page))
    const start = lease!.reservedAt

    expect(await held(start, undefined)).toEqual([lease!.id])
    expect(await held(new Date(start.getTime() + 1), undefined)).toEqual([lease!.id])
    expect(await held(undefined, start)).toEqual(leaseIds(before))
    expect(await held(undefined, new Date(start.getTime() + 1))).toEqual([lease!.id, ...leaseIds(before)].toSorted())
    expect(await held(minutesAgo(2), minutesAgo(1))).toEqual([...leaseIds(before)])
    await endEarlier(house.ledger, before.id, '1 minute')
    expect(await held(minutesAgo(2), minutesAgo(1.5))).toEqual([...leaseIds(before)])
    expect(await held(minutesAgo(0.9), minutesAgo(0.5))).toEqual([])
    expect(await held(minutesAgo(4), minutesAgo(3.5))).toEqual([])
    await task.complete()
    // One that lived for 40 minutes, which has an index of its own.
    const long = await house.declare(['slow-api'])
    await long.complete()
    await house.backdate(long.id, '40 minutes')
    expect(await held(minutesAgo(30), minutesAgo(20))).toEqual(leaseIds(long))
    expect(await held(minutesAgo(50), minutesAgo(45))).toEqual([])
    expect(ids(await listTasks(house.ledger, { agent: 'bot', from: minutesAgo(30), to: minutesAgo(20) }, page))).toEqual([long.id])
  })

  test('what was not minted was held by nobody', async () => {
    await house.lab.down()
    await expect(house.declare(['crm'], { agent: 'small' })).rejects.toMatchObject({ code: 'provider_unavailable' })
    await house.lab.up()
    await untilAllIsDead()
    const failed = await listLeases(house.ledger, { agent: 'small', state: 'failed' }, page)
    expect(failed.items.length + (await listLeases(house.ledger, { agent: 'small' }, page)).items.length).toBeGreaterThan(0)
    for (const { id } of failed.items) {
      expect(ids(await listLeases(house.ledger, { agent: 'small', from: minutesAgo(5) }, page))).not.toContain(id)
    }
  })

  test('everything that an agent or an owner had in a time, page by page and each once', async () => {
    const tasks = [
      await house.declare(['api', 'crm'], { agent: 'rival' }),
      await house.declare([], { agent: 'rival' }),
      await house.declare(['api'], { agent: 'rival' }),
    ]
    await tasks[0]!.complete()
    await house.backdate(tasks[0]!.id, '2 minutes')
    for (const who of [{ agent: 'rival' }, { owner: 'rival@example.com' }]) {
      const found: string[] = []
      let cursor: string | undefined
      do {
        const { items, next } = await listLeases(house.ledger, { ...who, from: minutesAgo(1) }, { limit: 1, cursor })
        found.push(...items.map(({ id }) => id))
        cursor = next ?? undefined
      } while (cursor !== undefined)
      expect(found.toSorted()).toEqual(leaseIds(...tasks))
      expect(ids(await listTasks(house.ledger, { ...who, from: minutesAgo(1) }, page))).toEqual(tasks.map(({ id }) => id).toSorted())
      expect(ids(await listTasks(house.ledger, { ...who, to: minutesAgo(1) }, page))).toEqual([tasks[0]!.id])
    }
    for (const task of tasks) await task.complete()
  })

  test('tasks that were never completed, those that are still closing too', async () => {
    const completed = await house.declare(['api'])
    const revoked = await house.declare(['api'])
    const expired = await house.declare(['gone-by-itself'])
    const open = await house.declare(['api'])
    await completed.complete()
    await revoked.revoke()
    await house.backdate(expired.id, '1 hour')
    await house.reap()
    await expect(house.declare(['api'], { agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })

    const found = ids(await listTasks(house.ledger, { completed: false, agent: 'bot' }, page))
    expect(found).toEqual(expect.arrayContaining([revoked.id, expired.id]))
    for (const { id } of [completed, open]) expect(found).not.toContain(id)
    expect((await listTasks(house.ledger, { completed: false, agent: 'stranger' }, page)).items).toEqual([])
    await open.complete()
  })

  test('denials by the policy that forbade something of them, and those of which something was permitted by none, whatever permitted the rest', async () => {
    const forbidden = `
      @id("no-crm") forbid(principal, action, resource == Grant::"crm");
      @id("strangers-api") permit(principal == Agent::"stranger", action == Action::"issue", resource == Grant::"api");
      @id("fails") permit(principal, action == Action::"issue", resource == Grant::"slow-api") when { context.ttl.toMilliseconds() * 9223372036854775807 > 0 };`
    const { policy } = house.broker
    const before = policy()
    const stricter = await loadPolicy(folder, { policies: forbidden })
    await archivePolicySet(house.ledger, stricter.set.digest, stricter.set.document)
    house.use(stricter)
    await expect(house.declare(['crm', 'api'])).rejects.toMatchObject({ code: 'denied' })
    await expect(house.declare(['api', 'lent'], { agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })
    await expect(house.declare(['slow-api'], { agent: 'rival' })).rejects.toMatchObject({ code: 'denied' })
    house.use(before)
    await expect(house.declare(['api'], { agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })

    const byPolicy = await listDenials(house.ledger, { policy: 'no-crm' }, page)
    expect(byPolicy.items.map(({ agent, outcome, policies }) => ({ agent, outcome, policies }))).toEqual([
      { agent: 'bot', outcome: 'deny', policies: ['no-crm', 'robots-work'] },
    ])
    const byDefault = await listDenials(house.ledger, { byDefault: true }, page)
    expect(new Set(byDefault.items.map(({ agent }) => agent))).toEqual(new Set(['stranger']))
    expect(byDefault.items.map(({ policies }) => policies)).toContainEqual(['strangers-api'])
    for (const policy of ['robots-work', 'strangers-api', 'fails']) expect((await listDenials(house.ledger, { policy }, page)).items).toEqual([])
    expect((await listDenials(house.ledger, { agent: 'bot', to: minutesAgo(1) }, page)).items).toEqual([])
  })

  test('leases that ended late, by how much and why', async () => {
    const task = await house.declare(['crm', 'api'], { duration: 20 * 60_000 })
    await house.lab.down()
    await task.complete(0)
    await house.broker.background.settled()
    await house.backdate(task.id, '90 seconds')
    await house.lab.up()
    await untilAllIsDead()

    const { items } = await listLeases(house.ledger, { endedLate: 60_000 }, page)
    const [late] = items.filter(({ taskId, grant }) => taskId === task.id && grant === 'crm')
    expect(late).toMatchObject({ state: 'revoked', cause: 'completed', error: expect.stringContaining('lab') as unknown })
    expect(late!.endedAt!.getTime() - late!.closingAt!.getTime()).toBeGreaterThan(85_000)
    expect(ids(await listLeases(house.ledger, { endedLate: 3_600_000 }, page))).toEqual([])
  })

  test('leases that are alive: whatever has not ended, in whichever state', async () => {
    const open = await house.declare(['api'])
    const ending = await house.declare(['crm', 'gone-by-itself', 'api'])
    const alive = async (agent = 'bot') => ids(await listLeases(house.ledger, { alive: true, agent }, page)).toSorted()
    await house.lab.down()
    await ending.complete(0)
    await house.broker.background.settled()
    expect(await alive()).toEqual([...leaseIds(open), ...leaseIds(ending).slice(0, 2)].toSorted())
    expect(await alive('rival')).toEqual([])
    await house.lab.up()
    await open.complete()
    await house.backdate(ending.id, '1 hour')
    await untilAllIsDead()
    expect(await alive()).toEqual([])
  })

  test('leases that outlived their task: none, but for what its provider keeps alive', async () => {
    const open = await house.declare(['crm', 'gone-by-itself'], { duration: 20 * 60_000 })
    const stubborn = await house.declare(['crm', 'gone-by-itself'], { duration: 20 * 60_000 })
    await house.lab.down()
    await stubborn.complete(0)
    await house.broker.background.settled()
    const outlived = async () => (await listLeases(house.ledger, { outlivedTask: 60_000 }, page)).items.map(({ id }) => id)
    expect(await outlived()).toEqual([])
    await house.backdate(stubborn.id, '2 minutes')
    expect(await outlived()).toEqual([stubborn.leases[0]!.id])
    await house.backdate(open.id, '1 hour')
    expect((await outlived()).toSorted()).toEqual([...leaseIds(open), stubborn.leases[0]!.id].toSorted())
    await house.lab.up()
    await untilAllIsDead()
    expect(await outlived()).toEqual([])
  })

  test('what an operator revoked, and the reason', async () => {
    const task = await house.declare(['api', 'crm'])
    const other = await house.declare(['api'])
    await revokeTask(house.broker, { ...house.operator, actor: { ...house.operator.actor!, subject: 'carol' } }, task.id, 'it leaked', 5, never)
    await other.revoke()

    const { items } = await listEntries(house.ledger, { by: 'operator:local/carol' }, page)
    expect(new Set(items.map(({ taskId }) => taskId))).toEqual(new Set([task.id]))
    expect(items.at(-1)).toMatchObject({ kind: 'task.closing', body: { reason: 'it leaked', by: 'operator:local/carol' } })
    expect((await listEntries(house.ledger, { by: 'operator:local/car' }, page)).items).toEqual([])
  })
})
