import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Fleet, heldOf, startFleet } from '../support/fleet.ts'
import { stores } from '../support/stores.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a single-use workload token', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3, { replay: 'single-use' })
  })
  afterEach(async () => expect(await fleet.findings()).toEqual([]))
  afterAll(() => fleet.stop())

  test('is accepted exactly once, however many brokers it is shown to at once, and never again', async () => {
    for (let round = 0; round < 20; round++) {
      const token = await fleet.site.token('agent:bot')
      const show = (broker: number) => fleet.ask(fleet.brokers[broker]!, ['api'], {}, token)

      const answers = await Promise.all(Array.from({ length: 6 }, (_, at) => show(at % 3)))

      const [accepted, ...more] = answers.filter(({ status }) => status === 201)
      expect(more).toEqual([])
      const refused = answers.filter(({ status }) => status !== 201)
      expect(refused.map(({ status, body }) => [status, body.code])).toEqual(Array.from({ length: 5 }, () => [401, 'invalid_token']))
      expect((await show(round % 3)).status).toBe(401)
      expect((await fleet.complete(fleet.brokers[round % 3]!, heldOf(accepted!.body))).status).toBe(200)
    }
    const [row] = await fleet.owner`select count(*)::int as spent from spent_tokens`
    expect(row!['spent']).toBe(20)
  })

  test('stays spent for a broker that starts later', async () => {
    const token = await fleet.site.token('agent:bot')
    const task = heldOf((await fleet.ask(fleet.brokers[0]!, ['api'], {}, token)).body)
    await fleet.brokers[0]!.kill()
    fleet.brokers[0] = await fleet.site.start()

    expect(await fleet.ask(fleet.brokers[0], ['api'], {}, token)).toMatchObject({ status: 401, body: { code: 'invalid_token' } })
    expect((await fleet.complete(fleet.brokers[0], task)).status).toBe(200)
  })
})
