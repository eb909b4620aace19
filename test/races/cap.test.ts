import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { AddedLease } from '../../src/http/contract.ts'
import { type Answer, type Fleet, heldOf, startFleet } from '../support/fleet.ts'
import { stores } from '../support/stores.ts'

const [perAgent, perTask] = [7, 5]

const catalogue = `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots], max_live_leases: ${perAgent} }
  rival: { issuer: local, match: { sub: "agent:rival" }, owner: rival@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [api, crm] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  crm: { provider: lab, max_ttl: 20m, parameters: { customer: { pattern: "[a-z]{1,8}" } } }
`

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a limit on live leases, in a burst at three brokers', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3, { catalogue, limits: `leases_per_task: ${perTask}` })
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(() => fleet.stop())

  const live = async (agent: string): Promise<number> =>
    (await fleet.owner`select count(*)::int as live from leases where agent = ${agent} and due_at is not null`)[0]!['live'] as number

  /** Who was served; everybody else was told that there are too many. */
  function servedOf<Body>(answers: readonly Answer<Body>[]): Answer<Body>[] {
    for (const { status, body } of answers) if (status !== 201) expect({ status, code: body.code }).toEqual({ status: 429, code: 'rate_limited' })
    return answers.filter(({ status }) => status === 201)
  }

  test('of an agent is filled to the last place and never passed, and every place that is given back can be had again', async () => {
    for (let round = 0; round < 6; round++) {
      const grant = round % 2 === 0 ? 'api' : 'crm'
      const answers = await Promise.all(Array.from({ length: 24 }, (_, at) => fleet.ask(fleet.brokers[at % 3]!, [grant])))
      const served = servedOf(answers)
      expect(served.length).toBe(perAgent)
      expect(await live('bot')).toBe(perAgent)
      await Promise.all(served.map(({ body }, at) => fleet.complete(fleet.brokers[at % 3]!, heldOf(body))))
      await fleet.settled()
      expect(await live('bot')).toBe(0)
    }
  })

  test('of an agent holds while places are given back at the same moment', async () => {
    let most = 0
    let served = 0
    async function worker(which: number): Promise<void> {
      for (let round = 0; round < 20; round++) {
        const answer = await fleet.ask(fleet.brokers[(which + round) % 3]!, ['crm', 'api'].slice(round % 2))
        most = Math.max(most, await live('bot'))
        for (const { body } of servedOf([answer])) {
          served++
          await fleet.complete(fleet.brokers[(which + round + 1) % 3]!, heldOf(body))
        }
      }
    }
    await Promise.all(Array.from({ length: 12 }, (_, which) => worker(which)))
    expect(most).toBeLessThanOrEqual(perAgent)
    expect(served).toBeGreaterThan(perAgent)
    expect(await live('bot')).toBe(0)
  })

  test('of a task is filled to the last place and never passed', async () => {
    const rival = await fleet.site.token('agent:rival')
    for (let round = 0; round < 6; round++) {
      const task = heldOf((await fleet.ask(fleet.brokers[round % 3]!, ['api'], {}, rival)).body)
      const grant = round % 2 === 0 ? { name: 'api' } : { name: 'crm', parameters: { customer: 'acme' } }
      const add = (at: number) => fleet.call<AddedLease>(fleet.brokers[at % 3]!, task.token, 'POST', `/tasks/${task.id}/leases`, grant)

      expect(servedOf(await Promise.all(Array.from({ length: 18 }, (_, at) => add(at)))).length).toBe(perTask - 1)

      expect(await live('rival')).toBe(perTask)
      expect((await fleet.complete(fleet.brokers[0]!, task)).status).toBe(200)
      await fleet.settled()
    }
  })
})
