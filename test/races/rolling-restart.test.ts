import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { AddedLease, ClosedTask, OpenedTask, RenewedTask } from '../../src/http/contract.ts'
import { type Answer, type Fleet, heldOf, startFleet } from '../support/fleet.ts'
import type { RunningBroker } from '../support/program.ts'
import { stores } from '../support/stores.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('three brokers that are restarted one after the other', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3)
  })
  afterAll(() => fleet.stop())

  let retries = 0

  /** Asks one broker after the other, the same question with the same key where it has one, until one answers. How often it had to is counted. */
  async function persist<Body>(first: number, ask: (broker: RunningBroker) => Promise<Answer<Body>>): Promise<Answer<Body> & { tries: number }> {
    for (let turn = first; ; turn++) {
      const answer = await ask(fleet.brokers[turn % 3]!).catch(() => undefined)
      if (answer && answer.status < 300) return { ...answer, tries: turn - first + 1 }
      // No connection, a store or backend that is not there at the moment, or the first request is still under way: what a client retries.
      if (answer)
        expect({ status: answer.status, ...answer.body }).toMatchObject({ code: expect.stringMatching(/^in_flight$|_unavailable$/) as unknown })
      retries++
    }
  }

  test('serve every request that is retried with the same key, lose no credential, and stop with status 0', async () => {
    let over = false
    let lives = 0
    async function live(worker: number): Promise<void> {
      for (let round = 0; !over; round++) {
        const headers = { 'idempotency-key': `life-${worker}-${round}` }
        const at = worker + round
        const task = heldOf((await persist<OpenedTask>(at, (broker) => fleet.ask(broker, ['api', 'crm'], headers))).body)
        expect(await fleet.lab.works(task.secrets['crm']!), 'what was handed out works').toBe(true)
        const fresh = await persist<AddedLease>(at + 1, (broker) =>
          fleet.call(broker, task.token, 'POST', `/leases/${task.leases[0]!.id}/refresh`, {}),
        )
        expect(fresh.status).toBe(200)
        const renewed = await persist<RenewedTask>(at + 2, (broker) =>
          fleet.call(broker, fleet.tokens.bot, 'POST', `/tasks/${task.id}/renew`, { duration: '20m' }),
        )
        const { opened_at: opened, deadline } = renewed.body.task
        expect(Date.parse(deadline) - Date.parse(opened), 'it was declared for 10 minutes').toBeGreaterThanOrEqual(20 * 60_000)
        const further = await persist<AddedLease>(at + 3, (broker) =>
          fleet.call(broker, task.token, 'POST', `/tasks/${task.id}/leases`, { name: 'crm', parameters: { customer: 'acme' } }),
        )
        const { token: added } = further.body.lease.credential as { token: string }
        expect(await fleet.lab.works(added), 'what was handed out works').toBe(true)
        let closed: Answer<ClosedTask>
        do closed = await persist(at + 2, (broker) => fleet.complete(broker, task))
        while (!closed.body.ended)
        expect(closed.body.task.state).toBe('completed')
        for (const secret of [task.secrets['crm']!, added]) expect(await fleet.lab.works(secret), 'what was completed is dead').toBe(false)
        // A further lease has no key: each try may have left one, also where its answer was lost.
        expect(closed.body.leases.length).toBeGreaterThanOrEqual(3)
        expect(closed.body.leases.length).toBeLessThanOrEqual(2 + further.tries)
        lives++
      }
    }
    const living = Array.from({ length: 6 }, (_, worker) => live(worker))

    for (const [place, leaving] of [...fleet.brokers].entries()) {
      const before = lives
      const next = await fleet.site.start()
      // Its clients hear of the new one only when the old one is gone, and run into it until then.
      expect(await leaving.stop()).toBe(0)
      const met = retries
      while (retries === met) await Promise.race([fetch(`${next.url}/healthz`), ...living])
      fleet.brokers[place] = next
      while (lives < before + 6) await Promise.race([fetch(`${next.url}/healthz`), ...living])
    }
    over = true
    await Promise.all(living)

    console.log(`${lives} lives of a task over 3 restarts; ${retries} requests were retried`)
    expect(retries, 'each broker that left was missed').toBeGreaterThanOrEqual(3)
    await fleet.settled()
    expect(await fleet.lab.alive()).toEqual([])
    const [row] = await fleet.owner`select count(*)::int as tasks, count(*) filter (where state = 'completed')::int as completed from tasks`
    expect([row!['tasks'], row!['completed']], 'each life is one task').toEqual([lives, lives])
    expect(await fleet.findings()).toEqual([])
  })
})
