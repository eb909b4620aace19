import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { deadlinePasses } from '../support/deadline.ts'
import { type Fleet, type Held, startFleet } from '../support/fleet.ts'
import { stores } from '../support/stores.ts'

const many = 48

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('due work of three reapers', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3)
  })
  afterEach(async () => expect(await fleet.findings()).toEqual([]))
  afterAll(() => fleet.stop())

  const declareMany = (): Promise<Held[]> => Promise.all(Array.from({ length: many }, (_, at) => fleet.declare(fleet.brokers[at % 3]!, ['crm'])))

  /** How often the lab was asked to end each of these. */
  async function timesAsked(tasks: readonly Held[]): Promise<Map<string, number>> {
    const times = new Map<string, number>(tasks.map(({ leases }) => [leases[0]!.id, 0]))
    for (const { call, lease } of await fleet.lab.calls())
      if (call === 'delete' && lease !== null && times.has(lease)) times.set(lease, times.get(lease)! + 1)
    return times
  }

  /** Of how many brokers' logs says one that it ended this lease. */
  const endedBy = (lease: string): number =>
    fleet.brokers.filter((broker) =>
      broker
        .log()
        .split('\n')
        .some((line) => line.includes(lease) && line.includes('a lease has ended')),
    ).length

  const everythingEnded = async (): Promise<void> => {
    while ((await fleet.owner`select 1 from leases where due_at is not null limit 1`).length > 0);
  }

  /** What a broker did is in the store before its line about it is in the pipe: counting starts when each lease is told of. */
  const everyEndTold = async (tasks: readonly Held[]): Promise<void> => {
    while (tasks.some(({ leases }) => endedBy(leases[0]!.id) === 0)) await fleet.owner`select 1`
  }

  test('is claimed once: each lease that has passed its end is asked about by one of them', async () => {
    const tasks = await declareMany()
    // A third of them fills the places that one broker has: none is left to whoever comes first.
    await fleet.lab.next('delete', 'held', { times: many })

    await fleet.owner`update leases set expires_at = now(), due_at = now() where due_at is not null`
    await fleet.wake()
    const asked = async (): Promise<number> => [...(await timesAsked(tasks)).values()].reduce((sum, times) => sum + times, 0)
    await expect.poll(asked, { interval: 20 }).toBe(many)
    await fleet.lab.release()
    await everythingEnded()
    await everyEndTold(tasks)

    expect(new Set((await timesAsked(tasks)).values())).toEqual(new Set([1]))
    const shares = fleet.brokers.map((broker) => tasks.filter(({ leases }) => broker.log().includes(`"${leases[0]!.id}"`)).length)
    expect(shares, 'they share the work').toEqual([many / 3, many / 3, many / 3])
    for (const { leases } of tasks) expect(endedBy(leases[0]!.id)).toBe(1)
    await Promise.all(tasks.map((task, at) => fleet.complete(fleet.brokers[at % 3]!, task)))
  })

  test('is claimed once: a storm of deadlines ends each task and each lease a single time', async () => {
    const tasks = await declareMany()

    await fleet.owner.unsafe(deadlinePasses())
    await everythingEnded()
    await everyEndTold(tasks)

    expect(new Set((await timesAsked(tasks)).values())).toEqual(new Set([1]))
    for (const { id, leases } of tasks) {
      expect(endedBy(leases[0]!.id)).toBe(1)
      expect((await fleet.story(id)).filter((kind) => kind === 'task.closing' || kind === 'task.ended')).toEqual(['task.closing', 'task.ended'])
    }
  })

  test('that failed is claimed by one of them at a time, until it is done', async () => {
    const tasks = await declareMany()
    await fleet.lab.next('delete', 'fails', { times: 30, done: true })

    await Promise.all(tasks.map((task, at) => fleet.complete(fleet.brokers[at % 3]!, task, { prefer: 'wait=0' })))
    await fleet.wake()
    await everythingEnded()

    const times = [...(await timesAsked(tasks)).values()].reduce((sum, one) => sum + one)
    expect(times, 'each once, and once more for each that failed').toBe(many + 30)
    expect((await fleet.lab.alive()).length).toBe(0)
  })
})
