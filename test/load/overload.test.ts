import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { startHouse } from '../support/house.ts'
import { type Lab, startLab } from '../support/lab.ts'
import type { RunningBroker, Site } from '../support/program.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { startTraffic } from '../support/traffic.ts'
import { type Answer, call, declaration, findingsOf, makeLoadedSite, type Opened, openedOf } from './given.ts'

/** Calls that are under way, and how many of them have been answered so far. */
function follow<Answered>(calls: readonly Promise<Answered>[]) {
  const seen = { answered: 0 }
  for (const each of calls)
    each.then(
      () => seen.answered++,
      () => {},
    )
  return { all: Promise.all(calls), seen }
}

const unlessTooLate = (error: unknown): void => {
  if (!(error instanceof BrokerError && error.code === 'store_unavailable')) throw error
}

const patient = { interval: 20 }

const many = <Item>(count: number, make: () => Item): Item[] => Array.from({ length: count }, make)
const count = (answers: readonly Answer[], status: number) => answers.filter((answer) => answer.status === status).length

describe.each(stores)('on $name, ten times more declarations than a broker lets in', ({ open: openStore }) => {
  const inFlight = 8
  let store: OpenedStore
  let lab: Lab
  let site: Site
  let broker: RunningBroker
  let bot: string
  let ops: string

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openStore(), startLab()])
    site = await makeLoadedSite(store.settings, lab.url, `in_flight: ${inFlight}`)
    broker = await site.start()
    ;[bot, ops] = [await site.token('agent:bot'), await site.token('operator:ops')]
  })
  afterAll(async () => {
    expect(await broker.stop()).toBe(0)
    expect(await lab.alive()).toEqual([])
    expect(await findingsOf(store.settings, lab, broker, [bot, ops])).toEqual([])
    await Promise.all([lab.stop(), site.remove()])
    await store.dispose()
  })

  const declare = (grant: 'api' | 'crm') => call(broker, bot, 'POST', '/tasks', declaration(grant))

  /** Declarations that stay inside, because the backend takes its time with them. */
  async function occupy() {
    await lab.next('put', 'held', { times: inFlight })
    const before = (await lab.calls()).filter(({ call: what }) => what === 'put').length
    const inside = follow(many(inFlight, () => declare('crm')))
    await expect.poll(async () => (await lab.calls()).filter(({ call: what }) => what === 'put').length, patient).toBe(before + inFlight)
    return inside
  }

  test('the surplus is refused while the others are still inside, and told when to come back', async () => {
    const inside = await occupy()

    const refused = await Promise.all(many(9 * inFlight, () => declare('crm')))

    expect(inside.seen.answered).toBe(0)
    for (const { status, headers, body } of refused)
      expect([status, body['code'], body['retry'], headers.get('retry-after')]).toEqual([429, 'rate_limited', 'later', '1'])
    await lab.release()
    for (const opened of (await inside.all).map(openedOf)) await call(broker, bot, 'POST', `/tasks/${opened.id}/complete`, {})
  })

  test('what is to be ended is ended meanwhile, and probes are answered', async () => {
    const [one, other, third] = (await Promise.all(many(3, () => declare('crm')))).map(openedOf) as [Opened, Opened, Opened]
    const inside = await occupy()

    const completed = await call(broker, one.token, 'POST', `/tasks/${one.id}/complete`, {})
    const revoked = await call(broker, ops, 'POST', `/tasks/${other.id}/revoke`, { reason: 'overload' })
    const lease = await call(broker, bot, 'POST', `/leases/${third.lease}/revoke`, {})
    for (const probe of ['/healthz', '/readyz', '/metrics']) expect((await fetch(broker.url + probe)).status, probe).toBe(200)

    expect(inside.seen.answered).toBe(0)
    for (const answer of [completed, revoked, lease]) expect(answer).toMatchObject({ status: 200, body: { ended: true } })
    await lab.release()
    for (const opened of [...(await inside.all).map(openedOf), third]) await call(broker, bot, 'POST', `/tasks/${opened.id}/complete`, {})
  })

  test('are over as soon as the backend answers: the next declaration is served', async () => {
    const inside = await occupy()
    expect((await declare('api')).status).toBe(429)

    await lab.release()
    const opened = (await inside.all).map(openedOf)

    for (const task of [...opened, openedOf(await declare('crm'))]) {
      expect(await call(broker, bot, 'POST', `/tasks/${task.id}/complete`, {})).toMatchObject({ status: 200, body: { ended: true } })
    }
  })
})

describe.each(stores)('on $name, a line of declarations in front of the store', ({ open: openStore }) => {
  test('is not what a complete waits for', async () => {
    const store = await openStore()
    const house = await startHouse(store.settings)
    const opened = await house.declare(['api'])

    // On a slow machine the last of them have no turn in time, are told so, and have begun nothing.
    const line = follow(many(1_000, () => house.declare([]).catch(unlessTooLate)))
    const completed = await opened.complete()

    expect(completed).toMatchObject({ ended: true, task: { state: 'completed' } })
    // A complete is four statements, and lets one of the declarations' go before each. In one line for all, each would stand behind all that are left.
    expect(line.seen.answered).toBeLessThan(500)
    await line.all
    expect(await house.audit()).toEqual([])
    await house.stop()
    await store.dispose()
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('2,560 callers at once, ten times as many as a broker lets in by itself', () => {
  test('are turned away but for those that it serves, ends are made meanwhile, and the next declaration is served', async () => {
    const store = await openDatabase()
    const lab = await startLab()
    const site = await makeLoadedSite(store.settings, lab.url)
    const broker = await site.start()
    const traffic = startTraffic()
    const bot = await site.token('agent:bot')
    const declare = (grant: 'api' | 'crm') => call(broker, bot, 'POST', '/tasks', declaration(grant))
    const opened = (await Promise.all(many(30, () => declare('crm')))).map(openedOf)

    let over = false
    const tokens = { bot, rival: bot, stranger: bot, ops: bot, reader: bot, api: bot }
    const flood = traffic.play({ url: broker.url, tokens, story: 'flood', inFlight: 2_560, seconds: 5 }).finally(() => (over = true))
    let ended = 0
    for (const task of opened) {
      expect(await call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {})).toMatchObject({ status: 200, body: { ended: true } })
      if (!over) ended++
    }

    const { answers, surprises } = await flood
    console.log(`${JSON.stringify(answers)}; ${ended} tasks were ended meanwhile`)
    expect(surprises).toEqual([])
    expect(answers['POST /tasks']!['429'], 'most of them').toBeGreaterThan(answers['POST /tasks']!['201'] ?? 0)
    expect(ended).toBeGreaterThan(0)
    expect((await declare('crm')).status).toBe(201)
    expect(await broker.stop()).toBe(0)
    expect(await findingsOf(store.settings, lab, broker, [bot])).toEqual([])
    await Promise.all([traffic.stop(), lab.stop(), site.remove()])
    await store.dispose()
  }, 120_000)
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('declarations that all wait for one lock in Postgres', () => {
  test('leave connections for what is to be ended, and are served as soon as the lock is gone', async () => {
    const store = await openDatabase()
    const lab = await startLab()
    const site = await makeLoadedSite(store.settings, lab.url, 'in_flight: 64')
    const broker = await site.start()
    const owner = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
    const [bot, rival, ops] = [await site.token('agent:bot'), await site.token('agent:rival'), await site.token('operator:ops')]
    const declare = (who: string, grant: 'api' | 'crm') => call(broker, who, 'POST', '/tasks', declaration(grant))
    const tasks = (await Promise.all([declare(bot, 'crm'), declare(bot, 'api'), declare(bot, 'api'), declare(rival, 'api')])).map(openedOf)
    const [one, other, third] = tasks as [Opened, Opened, Opened]

    const lock = await owner.reserve()
    await lock`begin`
    await lock`select from agents where name = 'rival' for update`
    const inside = follow(many(60, () => declare(rival, 'api')))
    const waiting = async () => {
      const [row] = await owner<{ count: number }[]>`
        select count(*)::int from pg_stat_activity where application_name = 'mayfly' and datname = current_database() and wait_event_type = 'Lock'`
      return row!.count
    }
    // Declarations share statements, two at a time.
    await expect.poll(waiting, patient).toBe(2)

    // At once, for the statements that wait are ended after ten seconds.
    const [completed, revoked, lease, ready] = await Promise.all([
      call(broker, one.token, 'POST', `/tasks/${one.id}/complete`, {}),
      call(broker, ops, 'POST', `/tasks/${other.id}/revoke`, { reason: 'overload' }),
      call(broker, bot, 'POST', `/leases/${third.lease}/revoke`, {}),
      fetch(`${broker.url}/readyz`),
    ])

    expect(inside.seen.answered).toBe(0)
    for (const answer of [completed, revoked, lease]) expect(answer).toMatchObject({ status: 200, body: { ended: true } })
    expect(ready.status).toBe(200)
    await lock`commit`
    lock.release()
    expect((await declare(rival, 'api')).status).toBe(201)
    // Whoever waited too long for a turn was told so, and nothing of theirs was begun; the statements that held the lock up had theirs.
    const answers = await inside.all
    expect(count(answers, 201) + count(answers, 503)).toBe(answers.length)
    expect(count(answers, 201)).toBeGreaterThan(0)
    const [stored] = await owner<{ count: number }[]>`select count(*)::int from tasks where agent = 'rival'`
    expect(stored!.count).toBe(count(answers, 201) + 2)

    expect(await broker.stop()).toBe(0)
    expect(await findingsOf(store.settings, lab, broker, [bot, rival, ops])).toEqual([])
    await owner.end()
    await Promise.all([lab.stop(), site.remove()])
    await store.dispose()
  })
})
