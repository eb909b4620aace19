import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { closeSelected } from '../../src/ledger/endings.ts'
import { listEntries, listLeases, listRevocations, listStops } from '../../src/ledger/lists.ts'
import { startRevocation } from '../../src/ledger/revocations.ts'
import type { Selector } from '../../src/ledger/selector.ts'
import { lap } from '../../src/reaper.ts'
import { revokeTask } from '../../src/tasks/close.ts'
import { advanceRevocations, phraseOf, planRevocation, resumeIssuing, revokeMany, showRevocation, stopIssuing } from '../../src/tasks/revoke.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { type Declared, type House, never, startHouse } from '../support/house.ts'
import { settled } from '../support/log.ts'
import { queryOf } from '../support/query.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const page = { limit: 100 }

describe.each(stores)('on $name', ({ open }) => {
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })

  afterEach(async () => {
    expect(await house.audit()).toEqual([])
    await end({})
    await outlast()
  })

  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  /** As the operator, confirmed by its phrase. */
  const revoke = (selector: Selector, more: { confirm?: string | number; stopFor?: number | undefined } = {}) =>
    revokeMany(house.broker, house.operator, { selector, reason: 'a test says so', confirm: phraseOf(selector), stopFor: undefined, ...more })

  /** What was ended in the background is seen by the next lap. */
  async function reapTwice(on: Broker = house.broker): Promise<void> {
    await house.reap(on)
    await house.reap(on)
  }

  /**
   * The same until what failed has been tried again: on a busy machine the answer of a backend that is well comes too late now and then. A revocation is
   * begun only when whatever was under way when it was started has ended, in any database of the cluster.
   */
  async function reap(on: Broker = house.broker): Promise<void> {
    await settled(house.ledger)
    const failed = () => house.ledger.run(sql`update leases set due_at = now() where state = 'revoking' and error is not null returning id`)
    await house.reap(on)
    for (let round = 0; round < 20 && (await failed()).length > 0; round++) await house.reap(on)
    await house.reap(on)
  }

  async function end(selector: Selector): Promise<void> {
    await revoke(selector)
    await reap()
  }

  /** Until what only time ends has come to its end. */
  async function outlast(): Promise<void> {
    const lapsing = await house.ledger.run<{ task: string }>(sql`select distinct task_id as task from leases where state = 'lapsing'`)
    for (const { task } of lapsing) await house.backdate(task, '20 minutes')
    await reap()
  }

  const stop = (selector: Selector, lasts = 60_000) => stopIssuing(house.broker, house.operator, { selector, reason: 'it attacks', lasts })
  const isOpen = async (task: Declared) => (await house.ledger.run(sql`select from tasks where id = ${task.id} and state = 'open'`)).length === 1
  const living = async () =>
    (await house.ledger.run<{ id: string }>(sql`select id from leases where ended_at is null and state in ('reserved', 'active') order by id`)).map(
      ({ id }) => id,
    )
  const entries = async (kind: string) => (await listEntries(house.ledger, { kind }, page)).items

  describe('a revocation of many', () => {
    test.each<[string, Selector, readonly boolean[]]>([
      ['an agent', { agent: 'bot' }, [false, true]],
      ['an owner', { owner: 'rival@example.com' }, [true, false]],
      ['an issuer', { issuer: 'local' }, [false, false]],
      ['an issuer that vouched for nobody', { issuer: 'other' }, [true, true]],
      ['a kind', { kind: 'work' }, [false, false]],
      ['an agent of another owner', { agent: 'bot', owner: 'rival@example.com' }, [true, true]],
      ['everything', {}, [false, false]],
    ])('ends the tasks of %s, and no others', async (_, selector, left) => {
      const tasks = [await house.declare(['api', 'crm'], { agent: 'bot' }), await house.declare(['crm'], { agent: 'rival' })]
      const plan = await planRevocation(house.broker, selector)
      expect(plan.count).toBe(left.filter((stays) => !stays).length)

      const { revocation } = await revoke(selector)
      await reap()

      expect([await isOpen(tasks[0]!), await isOpen(tasks[1]!)]).toEqual(left)
      const shown = await showRevocation(house.broker, revocation.id)
      expect(shown.revocation.endedAt).not.toBeNull()
      expect(shown.tasks).toEqual(plan.count === 0 ? {} : { revoked: plan.count })
    })

    test.each<[string, Selector, readonly string[]]>([
      ['a grant', { grant: 'crm' }, ['api', 'gone-by-itself']],
      ['a provider', { provider: 'tokens' }, ['crm', 'gone-by-itself']],
      ['a provider of which only time ends credentials', { provider: 'lapsing' }, ['api', 'crm']],
      ["another agent's grant", { grant: 'crm', agent: 'rival' }, ['api', 'crm', 'gone-by-itself']],
    ])('of %s ends leases, and their tasks go on', async (_, selector, left) => {
      const task = await house.declare(['api', 'crm', 'gone-by-itself'])
      const plan = await planRevocation(house.broker, selector)
      expect(plan).toMatchObject({ count: 3 - left.length, reach: { tasks: left.length === 3 ? 0 : 1 } })

      await revoke(selector)
      await reap()

      const alive = await living()
      expect(task.leases.filter(({ id }) => alive.includes(id)).map(({ grant }) => grant)).toEqual(left)
      expect(await isOpen(task)).toBe(true)
    })

    test('says first what it would end, by provider and how that can be ended, and changes nothing', async () => {
      await house.declare(['api', 'crm', 'gone-by-itself'])
      await house.declare(['crm'], { agent: 'rival' })
      const before = await entries('revocation.started')
      expect(await planRevocation(house.broker, {})).toEqual({
        reach: {
          tasks: 2,
          leases: [
            { provider: 'lab', revocation: 'provider', count: 2 },
            { provider: 'lapsing', revocation: 'expiry', count: 1 },
            { provider: 'tokens', revocation: 'provider', count: 1 },
          ],
          endingAlready: 0,
        },
        count: 2,
        confirm: 'revoke everything',
        unknown: [],
      })
      expect(await living()).toHaveLength(4)
      expect(await entries('revocation.started')).toEqual(before)
    })

    test('needs its phrase, or a count that is not exceeded; else nothing happens', async () => {
      const tasks = [await house.declare(['api']), await house.declare(['api'])]
      const before = await entries('revocation.started')
      await expect(revoke({ agent: 'bot' }, { confirm: 'revoke everything' })).rejects.toMatchObject({
        code: 'invalid_request',
        errors: [{ pointer: '/confirm' }],
      })
      await expect(revoke({ agent: 'bot' }, { confirm: 1, stopFor: 60_000 })).rejects.toMatchObject({ code: 'conflict' })
      await reap()
      expect([await isOpen(tasks[0]!), await isOpen(tasks[1]!)]).toEqual([true, true])
      await expect(revoke({ grant: 'api' }, { confirm: 1, stopFor: 60_000 })).rejects.toMatchObject({ code: 'conflict' })
      expect((await listStops(house.ledger, true, page)).items).toEqual([])
      expect(await entries('revocation.started')).toEqual(before)
      await revoke({ agent: 'bot' }, { confirm: 2 })
      await reap()
      expect(await living()).toEqual([])
    })

    test('ends no more than its count, whatever is declared while it is asked for', async () => {
      await house.declare(['api'])
      let between: Declared | undefined
      const run: Ledger['run'] = async (...asked) => {
        const rows = await house.ledger.run(...asked)
        between ??= await house.declare(['api'])
        return rows as never
      }
      const broker: Broker = { ...house.broker, ledger: { ...house.ledger, run } }
      const { revocation } = await revokeMany(broker, house.operator, { selector: {}, reason: 'a test', confirm: 1, stopFor: undefined })
      await reap()
      expect((await showRevocation(house.broker, revocation.id)).tasks).toEqual({ revoked: 1 })
      expect(await isOpen(between!)).toBe(true)
    })

    test('stands in the ledger with who, why, what and how many, and each end of it too', async () => {
      const task = await house.declare(['api', 'crm'])
      const { revocation } = await revoke({ agent: 'bot' })
      await reap()
      const by = `operator:local/${house.operator.actor!.subject}`
      expect((await entries('revocation.started'))[0]!.body).toEqual({
        revocation: revocation.id,
        selector: { agent: 'bot' },
        reason: 'a test says so',
        by,
        tasks: 1,
        leases: [
          { provider: 'lab', revocation: 'provider', count: 1 },
          { provider: 'tokens', revocation: 'provider', count: 1 },
        ],
      })
      expect((await entries('revocation.ended'))[0]!.body).toEqual({ revocation: revocation.id, tasks: 1, leases: 2 })
      expect((await listEntries(house.ledger, { task: task.id, kind: 'task.closing' }, page)).items[0]!.body).toMatchObject({
        by,
        reason: 'a test says so',
      })
      expect((await listLeases(house.ledger, { task: task.id }, page)).items.map(({ revokedIn }) => revokedIn)).toEqual([
        revocation.id,
        revocation.id,
      ])
    })

    test.each<[string, Selector, object]>([
      ['tasks', {}, { closing: 1 }],
      ['leases', { grant: 'crm' }, {}],
    ])('of %s is not ended before the last of it is dead, and says what is in the way', async (_, selector, tasks) => {
      await house.declare(['crm'], { duration: 20 * 60_000 })
      await house.lab.down()
      const { revocation } = await revoke(selector)
      await reapTwice()
      const shown = await showRevocation(house.broker, revocation.id)
      expect(shown).toMatchObject({ revocation: { endedAt: null }, tasks, leases: { revoking: 1 } })
      expect((await listRevocations(house.ledger, false, page)).items.map(({ id }) => id)).toContain(revocation.id)
      await house.lab.up()
      do {
        house.skew += 10_000
        await reap()
      } while ((await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking' returning id`)).length > 0)
      await reap()
      const ended = await showRevocation(house.broker, revocation.id)
      expect(ended).toMatchObject({ leases: { revoked: 1 }, revocation: { endedAt: expect.any(Date) as unknown } })
    })

    test.each<[string, Selector, (task: Declared) => Promise<unknown>]>([
      ['a completed task', { agent: 'bot' }, (task) => task.complete(0)],
      ['a completed task, by their provider', { provider: 'lapsing' }, (task) => task.complete(0)],
      ['another revocation', {}, async () => await end({ agent: 'bot' })],
    ])('counts the leases of %s that are ending already, and is not ended before they are dead', async (_, selector, begin) => {
      const task = await house.declare(['gone-by-itself'])
      await begin(task)

      expect(await planRevocation(house.broker, selector)).toMatchObject({ count: 0, reach: { tasks: 0, leases: [], endingAlready: 1 } })
      expect((await planRevocation(house.broker, { agent: 'rival' })).reach.endingAlready).toBe(0)
      const { revocation, reach } = await revoke(selector)
      expect(reach.endingAlready).toBe(1)
      await reap()
      expect(await showRevocation(house.broker, revocation.id)).toMatchObject({ endingAlready: 1, leases: {}, revocation: { endedAt: null } })
      expect((await listRevocations(house.ledger, false, page)).items.map(({ id }) => id)).toContain(revocation.id)

      await outlast()
      expect(await showRevocation(house.broker, revocation.id)).toMatchObject({
        endingAlready: 0,
        revocation: { endedAt: expect.any(Date) as unknown },
      })
    })

    test.each<[string, Selector, number | undefined]>([
      ['tasks', { agent: 'bot' }, undefined],
      ['leases', { grant: 'api' }, undefined],
      ['tasks, with a stop,', { agent: 'bot' }, 60_000],
      ['leases, with a stop,', { grant: 'api' }, 60_000],
    ])('of %s ends also what began by a clock of the store that was set back since', async (_, selector, stopFor) => {
      const task = await house.declare(['api'])
      await house.backdate(task.id, '-10 minutes')
      expect((await planRevocation(house.broker, selector)).count).toBe(1)

      const { revocation, reach, stop: put } = await revoke(selector, { stopFor })
      await reap()
      if (put) await resumeIssuing(house.broker, house.operator, put, 'the test is over')

      expect(reach.tasks).toBe(1)
      expect(await living()).toEqual([])
      expect((await showRevocation(house.broker, revocation.id)).revocation.endedAt).not.toBeNull()
    })

    test('that a completion comes before waits for what that ends', async () => {
      const task = await house.declare(['gone-by-itself'])
      const { revocation } = await revoke({ agent: 'bot' })
      await task.complete(0)
      await reap()
      expect(await showRevocation(house.broker, revocation.id)).toMatchObject({ endingAlready: 1, tasks: {}, revocation: { endedAt: null } })
      const later = await house.declare(['gone-by-itself'])
      await later.complete(0)
      expect((await showRevocation(house.broker, revocation.id)).endingAlready).toBe(1)
    })

    test('is begun at once however many others only wait for the last of theirs to die, and each of those is ended when it has', async () => {
      for (let each = 0; each < 120; each++) await house.declare(['gone-by-itself'], { agent: each % 2 === 0 ? 'bot' : 'rival' })
      const { revocation } = await revoke({})
      await reap()
      // As if each lease had been revoked by itself.
      const single = sql`replace(id, 'lease_', 'rev_')`
      await house.ledger.run(sql`
        insert into revocations (id, kind, reason, by, begun_at)
        select ${single}, 'none', 'x', 'operator:local/o', now() from leases where revoked_in = ${revocation.id}`)
      await house.ledger.run(sql`update leases set revoked_in = ${single} where revoked_in = ${revocation.id}`)
      const task = await house.declare(['api'])

      const { revocation: next } = await revoke({ grant: 'api' })
      await reap()

      expect(await living()).not.toContain(task.leases[0]!.id)
      expect((await showRevocation(house.broker, next.id)).revocation.endedAt).not.toBeNull()
      const waiting = () =>
        house.ledger.run<{ id: string; task: string }>(sql`
          select job.id, lease.task_id as task from revocations as job join leases as lease on lease.revoked_in = job.id
          where job.ended_at is null order by job.id`)
      const [youngest, ...others] = (await waiting()).toReversed()
      await house.backdate(youngest!.task, '2 minutes')
      await reap()
      expect(await waiting()).toEqual(others.toReversed())
      for (const { task: one } of others) await house.backdate(one, '2 minutes')
      await reap()
      expect(await waiting()).toEqual([])
    })

    test('of leases that only time ends goes on without a pause, however many there are', async () => {
      for (let each = 0; each < 35; each++) await house.declare(['gone-by-itself', 'lent'])
      await revoke({ provider: 'lapsing' })
      await house.reap()
      expect(await living()).toEqual([])
    })

    test('leaves alone what was declared after it was started', async () => {
      const before = await house.declare(['api'])
      await revoke({ agent: 'bot' })
      const after = await house.declare(['api'])
      await reap()
      expect([await isOpen(before), await isOpen(after)]).toEqual([false, true])
    })

    test('that a broker began and died in is gone on with by another', async () => {
      const tasks: Declared[] = []
      for (let each = 0; each < 5; each++) tasks.push(await house.declare(['crm', 'api']))
      const { revocation } = (await startRevocation(house.ledger, {
        id: newId('rev'),
        selector: {},
        reason: 'x',
        by: 'operator:local/o',
        most: undefined,
        stop: undefined,
      }))!
      // The first broker commits a step of two tasks, and is gone before it asks a provider about any of their leases.
      const begun = await closeSelected(house.ledger, revocation, 2)
      expect(begun.tasks).toHaveLength(2)
      expect(begun.revoking).toHaveLength(2)

      const other = await house.neighbour()
      await reap(other)
      expect(await living()).toEqual([])
      await reap(other)
      expect(await showRevocation(other, revocation.id)).toMatchObject({
        leases: { revoked: 10 },
        tasks: { revoked: 5 },
        revocation: { endedAt: expect.any(Date) as unknown },
      })
      for (const { secrets } of tasks) expect(await house.lab.works(secrets[0]!)).toBe(false)
    })

    test('that keeps failing keeps no younger one from being begun, and none from ending', async () => {
      const [bots, rivals] = [await house.declare(['crm']), await house.declare(['crm'], { agent: 'rival' })]
      const failing = (await revoke({ agent: 'bot' })).revocation.id
      const younger = (await revoke({ agent: 'rival' })).revocation.id
      const run: Ledger['run'] = async (...asked) => {
        const { params } = queryOf(asked[0])
        return params[0] === failing ? await Promise.reject(new Error('not this one')) : await house.ledger.run(...asked)
      }
      const broker: Broker = { ...house.broker, ledger: { ...house.ledger, run } }
      await settled(house.ledger)

      let said: unknown
      async function isOver(): Promise<boolean> {
        said = await lap(broker).catch((error: unknown) => error)
        await house.broker.background.settled()
        return (await showRevocation(house.broker, younger)).revocation.endedAt !== null
      }
      await expect.poll(isOver).toBe(true)

      expect(said).toMatchObject({ message: `revoking many: ${failing}: not this one` })
      expect([await isOpen(bots), await isOpen(rivals)]).toEqual([true, false])
    })

    test('two brokers at once end each lease once', async () => {
      for (let each = 0; each < 6; each++) await house.declare(['crm'])
      const { revocation } = await revoke({})
      const other = await house.neighbour()
      await Promise.all([advanceRevocations(house.broker), advanceRevocations(other), lap(house.broker), lap(other)])
      await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking'`)
      await reap()
      await reap(other)
      await reap()
      expect((await showRevocation(other, revocation.id)).leases).toEqual({ revoked: 6 })
    })
  })

  describe('a stop', () => {
    afterEach(async () => {
      for (const { id } of (await listStops(house.ledger, true, page)).items)
        await resumeIssuing(house.broker, house.operator, id, 'the test is over')
    })

    test.each<[string, Selector, string]>([
      ['its agent', { agent: 'bot' }, 'rival'],
      ['its owner', { owner: 'owner@example.com' }, 'rival'],
    ])('of %s refuses a declaration, tells it of the stop and not of the reason, and keeps that', async (_, selector, free) => {
      const put = await stop(selector)
      const error = await house.declare(['api']).catch((thrown: unknown) => thrown)
      expect(error).toMatchObject({ code: 'denied', detail: expect.stringContaining(put.id) as unknown, decision: expect.any(String) as unknown })
      expect(JSON.stringify(error)).not.toContain('it attacks')
      expect((await entries('task.denied'))[0]).toMatchObject({ agent: 'bot', body: { cause: 'stopped', stop: put.id } })
      await expect(house.declare(['api'], { agent: free })).resolves.toBeDefined()
    })

    test.each<[string, Selector]>([
      ['an issuer', { issuer: 'local' }],
      ['a kind', { kind: 'work' }],
      ['everything', {}],
    ])('of %s refuses a task without grants too', async (_, selector) => {
      await stop(selector)
      await expect(house.declare([])).rejects.toMatchObject({ code: 'denied' })
    })

    test.each<[string, Selector]>([
      ['a grant', { grant: 'crm' }],
      ['a provider', { provider: 'lab' }],
    ])('of %s refuses the whole of a declaration that names it, and a further lease, and lets others be', async (_, selector) => {
      const task = await house.declare(['api'])
      await stop(selector)
      await expect(house.declare(['api', 'crm'])).rejects.toMatchObject({ code: 'denied' })
      await expect(task.add('crm')).rejects.toMatchObject({ code: 'denied' })
      expect((await entries('request.denied'))[0]).toMatchObject({ taskId: task.id, body: { cause: 'stopped', action: 'issue' } })
      await expect(task.add('slow-api')).resolves.toBeDefined()
    })

    test('refuses to refresh and to renew, and leaves what lives alive', async () => {
      const task = await house.declare(['api'])
      const ends = () =>
        house.ledger.run(
          sql`select task.deadline::text, lease.expires_at::text from tasks as task join leases as lease on lease.task_id = task.id where task.id = ${task.id}`,
        )
      const before = await ends()
      await stop({ provider: 'tokens' })
      await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'denied' })
      await expect(task.renew(20 * 60_000)).rejects.toMatchObject({ code: 'denied' })
      expect(await ends()).toEqual(before)
      expect(await isOpen(task)).toBe(true)
      expect((await entries('request.denied')).slice(0, 2).map(({ body }) => (body as { action: string }).action)).toEqual(['renew', 'issue'])
    })

    test('is over when it is lifted, with a reason that is kept, and the same key then opens a task', async () => {
      const put = await stop({ agent: 'bot' })
      await expect(house.declare(['api'], { key: 'stopped' })).rejects.toMatchObject({ code: 'denied' })
      await resumeIssuing(house.broker, house.operator, put.id, 'a false alarm')
      await expect(house.declare(['api'], { key: 'stopped' })).resolves.toBeDefined()
      expect((await entries('stop.lifted'))[0]!.body).toMatchObject({ stop: put.id, reason: 'a false alarm' })
      await expect(resumeIssuing(house.broker, house.operator, put.id, 'again')).rejects.toMatchObject({ code: 'not_found' })
    })

    test("is over at its time, by the store's clock", async () => {
      const { id } = await stop({ agent: 'bot' })
      house.skew += 3_600_000
      await expect(house.declare(['api'])).rejects.toMatchObject({ code: 'denied' })
      house.skew -= 3_600_000
      await house.ledger.run(sql`update stops set until = now() where id = ${id}`)
      await expect(house.declare(['api'])).resolves.toBeDefined()
    })

    test('comes with a revocation in one commit', async () => {
      const task = await house.declare(['api'])
      const { stop: id } = await revoke({ agent: 'bot' }, { stopFor: 60_000 })
      await expect(house.declare(['api'])).rejects.toMatchObject({ code: 'denied', detail: expect.stringContaining(id!) as unknown })
      await reap()
      expect(await isOpen(task)).toBe(false)
    })

    test('and a revocation are for operators only', async () => {
      const others = [house.caller('bot'), { ...house.operator, roles: new Set(['reviewer'] as const) }]
      for (const caller of others) {
        await expect(stopIssuing(house.broker, caller, { selector: {}, reason: 'x', lasts: 1 })).rejects.toMatchObject({ code: 'forbidden' })
        await expect(
          revokeMany(house.broker, caller, { selector: {}, reason: 'x', confirm: 'revoke everything', stopFor: 1_000 }),
        ).rejects.toMatchObject({ code: 'forbidden' })
        await expect(revokeTask(house.broker, caller, newId('task'), 'x', 0, never)).rejects.toMatchObject({ code: 'forbidden' })
      }
    })
  })
})
