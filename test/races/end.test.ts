import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { AddedLease, ClosedTask } from '../../src/http/contract.ts'
import { deadlinePasses } from '../support/deadline.ts'
import { type Answer, type Fleet, startFleet } from '../support/fleet.ts'
import { stores } from '../support/stores.ts'

/** Every order of three. */
const orders = (a: () => unknown, b: () => unknown, c: () => unknown) => [
  [a, b, c],
  [a, c, b],
  [b, a, c],
  [b, c, a],
  [c, a, b],
  [c, b, a],
]

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('the end of a task, raced for at three brokers', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3)
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(() => fleet.stop())

  /** Some round trips: more time where the machine is slower. */
  async function ahead(trips: number): Promise<void> {
    for (let trip = 0; trip < trips; trip++) await fleet.owner`select generate_series(1, 1000)`
  }

  test('has one cause, whoever comes first: completed, revoked or its deadline; every answer and the ledger name the same, once', async () => {
    const winners = new Map<string, number>()
    for (let round = 0; round < 36; round++) {
      const at = (turn: number) => fleet.brokers[(round + turn) % 3]!
      const task = await fleet.declare(at(0), ['api', 'crm'])
      const answering: Promise<Answer<ClosedTask>>[] = []
      const complete = () => answering.push(fleet.complete(at(1), task))
      const revoke = () => answering.push(fleet.call<ClosedTask>(at(2), fleet.tokens.ops, 'POST', `/tasks/${task.id}/revoke`, { reason: 'a race' }))
      const strike = () => fleet.owner.unsafe(deadlinePasses(`id = '${task.id}'`))
      // In every order, each ahead of the next by none or some round trips: whoever comes last alone never wins where the machine makes it the slowest.
      for (const act of orders(complete, revoke, strike)[round % 6]!) {
        await act()
        await ahead(2 * Math.floor(round / 6))
      }
      const answers = await Promise.all(answering)
      await fleet.settled()

      const [row] = await fleet.owner`select state, cause from tasks where id = ${task.id}`
      for (const { status, body } of answers) {
        expect([200, 202]).toContain(status)
        expect([body.task.state === 'closing' ? row!['state'] : body.task.state, body.task.cause]).toEqual([row!['state'], row!['cause']])
        expect(body.leases.map(({ cause }) => cause)).toEqual([row!['cause'], row!['cause']])
      }
      const cause = row!['cause'] as string
      winners.set(cause, (winners.get(cause) ?? 0) + 1)
      const story = await fleet.story(task.id)
      expect(story.toSorted()).toEqual(
        ['task.opened', 'decision.made', 'lease.issued', 'lease.reserved', 'lease.issued'] //
          .concat('task.closing', 'lease.revoked', 'lease.revoking', 'lease.revoked', 'task.ended')
          .toSorted(),
      )
      expect(story.at(-1)).toBe('task.ended')
      expect(await fleet.lab.works(task.secrets['crm']!)).toBe(false)
      expect(await fleet.activeAt(fleet.brokers, task.secrets['api']!)).toBe(0)
    }
    console.log('who came first:', Object.fromEntries(winners))
    expect([...winners.keys()].toSorted(), 'each of them wins now and then, or this was no race').toEqual(['completed', 'deadline', 'revoked'])
  })

  test('once answered, is known to every broker in its next answer, under load: not one stale', async () => {
    let stale = 0
    let asked = 0
    async function life(worker: number): Promise<void> {
      for (let round = 0; round < 25; round++) {
        const at = (turn: number) => fleet.brokers[(worker + round + turn) % 3]!
        const task = await fleet.declare(at(0), ['api'])
        expect(await fleet.activeAt(fleet.brokers, task.secrets['api']!)).toBe(3)
        expect((await fleet.complete(at(1), task)).status).toBe(200)
        stale += await fleet.activeAt(fleet.brokers, task.secrets['api']!)
        asked += fleet.brokers.length
      }
    }
    await Promise.all(Array.from({ length: 6 }, (_, worker) => life(worker)))
    console.log(`${asked} introspections right after the end was answered, ${stale} stale`)
    expect(stale).toBe(0)
  })

  test('leaves nothing of what a refresh or a further lease handed out at the same moment', async () => {
    let late = 0
    let stale = 0
    const outcomes: Record<string, number> = {}
    const asks = ['refresh api', 'add api', 'add crm'] as const
    for (let round = 0; round < 32; round++) {
      const at = (turn: number) => fleet.brokers[(round + turn) % 3]!
      const task = await fleet.declare(at(0), ['api', 'crm'])
      const refresh = (turn: number) => fleet.call<AddedLease>(at(turn), fleet.tokens.bot, 'POST', `/leases/${task.leases[0]!.id}/refresh`, {})
      const add = (turn: number, grant: object) => fleet.call<AddedLease>(at(turn), task.token, 'POST', `/tasks/${task.id}/leases`, grant)
      let over = false
      const handedOut: string[] = []
      /** What came after the end was answered is looked at the moment that it comes. */
      async function look(what: (typeof asks)[number], asked: Promise<Answer<AddedLease>>): Promise<void> {
        const { status, body } = await asked
        const outcome = `${what}: ${status}`
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
        // 502: its PUT came after the DELETE of the end, and was refused by the backend.
        expect([200, 201, 409, 502], JSON.stringify(body)).toContain(status)
        if (status > 201) return
        const { token } = body.lease.credential as { token: string }
        handedOut.push(token)
        if (!over || body.lease.grant === 'crm') return
        late++
        stale += await fleet.activeAt(fleet.brokers, token)
      }
      const askAll = () => [
        look('refresh api', refresh(0)),
        look('add api', add(1, { name: 'api' })),
        look('refresh api', refresh(2)),
        look('add crm', add(0, { name: 'crm', parameters: { customer: 'acme' } })),
      ]
      // In the first round all of them are answered before the end is asked for, in the second the end before them; in the others who comes first is open.
      const asked = round === 1 ? [] : askAll()
      if (round === 0) await Promise.all(asked)
      await ahead(2 * (round % 6))
      const closed = await fleet.complete(at(round), task, round % 2 === 0 ? { prefer: 'wait=0' } : {})
      over = true
      stale += (await Promise.all([task.secrets['api']!, ...handedOut].map((token) => fleet.activeAt(fleet.brokers, token)))).reduce((a, b) => a + b)
      expect([200, 202]).toContain(closed.status)
      await Promise.all(round === 1 ? askAll() : asked)

      for (const token of handedOut) stale += await fleet.activeAt(fleet.brokers, token)
      await fleet.settled()
      expect(await fleet.lab.alive()).toEqual([])
      for (const token of handedOut) expect(await fleet.lab.works(token)).toBe(false)
    }
    console.log(`${late} signed tokens came after the end was answered; ${stale} of all that was handed out were active then;`, outcomes)
    expect(stale).toBe(0)
    for (const what of asks) {
      expect(outcomes[`${what}: ${what.startsWith('add') ? 201 : 200}`] ?? 0, `${what} was handed out`).toBeGreaterThan(0)
      expect(outcomes[`${what}: 409`] ?? 0, `${what} was refused`).toBeGreaterThan(0)
    }
  })
})
