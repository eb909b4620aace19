import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type Fleet, type Held, heldOf, startFleet, until } from '../support/fleet.ts'
import type { OpenedTask } from '../../src/http/contract.ts'
import { stores } from '../support/stores.ts'

const rounds = 12

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('an Idempotency-Key that is used at several brokers at once', () => {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await startFleet(3)
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(() => fleet.stop())

  /** Those of these answers whose credentials work, by the lab's and by every broker's word. */
  async function living(held: readonly Held[]): Promise<Held[]> {
    const found: Held[] = []
    for (const task of held) {
      const word = [await fleet.lab.works(task.secrets['crm']!), (await fleet.activeAt(fleet.brokers, task.secrets['api']!)) === fleet.brokers.length]
      expect(new Set(word).size, 'the credentials of one answer live and die together').toBe(1)
      if (word[0]) found.push(task)
    }
    return found
  }

  for (const [words, count] of [
    ['two', 2],
    ['three', 3],
  ] as const) {
    test(`leaves one task and one set of living credentials at ${words}, and whoever is told to come back is served`, async () => {
      for (let round = 0; round < rounds; round++) {
        const headers = { 'idempotency-key': `${words}-${round}` }
        const ask = (broker: number) => fleet.ask(fleet.brokers[broker]!, ['api', 'crm'], headers)
        const answers = await Promise.all(Array.from({ length: count * 2 }, (_, at) => ask(at % count)))

        const served: Answer<OpenedTask>[] = answers.filter(({ status }) => status === 201)
        const others = answers.filter(({ status }) => status !== 201)
        expect(served.length, 'somebody is served').toBeGreaterThan(0)
        for (const { status, body } of others) expect({ status, code: body.code }).toEqual({ status: 409, code: 'in_flight' })
        expect((await living(served.map(({ body }) => heldOf(body)))).length, 'each answer ended the one before it').toBe(1)

        // Told to come back, at any broker. Nobody is under way any more, so it is not told so again.
        for (const at of others.keys()) served.push(await ask((at + 1) % count))
        const held = served.map(({ status, body }) => (expect(status).toBe(201), heldOf(body)))
        expect(new Set(held.map(({ id }) => id)).size).toBe(1)
        const [last, ...more] = await living(held)
        expect(more).toEqual([])
        expect((await fleet.lab.alive()).length).toBe(1)

        expect(await fleet.complete(fleet.brokers[round % count]!, last!)).toMatchObject({ status: 200, body: { ended: true } })
        expect(await living(held)).toEqual([])
      }
    })
  }

  test('is free at every broker after its request failed at one, and stands for one task only', async () => {
    for (let round = 0; round < rounds; round++) {
      const headers = { 'idempotency-key': `failed-${round}` }
      await fleet.lab.next('put', 'fails', { done: round % 2 === 0 })
      const answers = await Promise.all(fleet.brokers.map((broker) => fleet.ask(broker, ['crm'], headers)))
      for (const { status, body } of answers) expect([201, 409, 503], JSON.stringify(body)).toContain(status)
      await fleet.lab.clear()

      const task = await fleet.declare(fleet.brokers[round % 3]!, ['crm'], headers)
      expect((await fleet.lab.alive()).map(({ task: of }) => of)).toEqual([task.id])
      expect((await fleet.complete(fleet.brokers[0]!, task)).body.ended).toBe(true)
    }
    const [row] = await fleet.owner`select count(*)::int as open from tasks where state = 'open'`
    expect(row!['open'], 'a task that failed is not left open').toBe(0)
  })

  test('lets a retry that waits for its places announce nothing behind the back of the one that takes the key after it', async () => {
    /** Retries that wait: to announce, or to take the key. The brokers' own background may wait for something else now and then. */
    async function waiting(): Promise<number> {
      const statements = await fleet.owner`
        select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
          and (query like '%found as (%select * from tasks%' or query like '%update idempotency_keys%')`
      return statements.length
    }
    const headers = { 'idempotency-key': 'behind' }
    const task = await fleet.declare(fleet.brokers[0]!, ['api'], headers)
    await fleet.call(fleet.brokers[0]!, task.token, 'POST', `/leases/${task.leases[0]!.id}/revoke`, {})
    // Every hold runs out the moment that it begins, as after a sleep of its patience.
    await fleet.owner.unsafe(`
      create function impatient() returns trigger language plpgsql as $$ begin new.busy_until := least(new.busy_until, now()); return new; end $$;
      create trigger impatient before update on idempotency_keys for each row execute function impatient()`)

    const answers: Promise<Answer<OpenedTask>>[] = []
    await fleet.owner.begin(async (transaction) => {
      await transaction`select 1 from agents where name = 'bot' for update`
      for (const broker of [0, 1]) {
        answers.push(fleet.ask(fleet.brokers[broker]!, ['api'], headers))
        await until(`${broker + 1} retries wait`, async () => (await waiting()) === broker + 1)
      }
    })
    const held = (await Promise.all(answers)).map(({ status, body }) => (expect(status).toBe(201), heldOf(body)))
    await fleet.owner.unsafe('drop trigger impatient on idempotency_keys')

    const active = await Promise.all(held.map(({ secrets }) => fleet.activeAt(fleet.brokers, secrets['api']!)))
    expect(active.toSorted((one, other) => one - other)).toEqual([0, 3])
    expect((await fleet.complete(fleet.brokers[2]!, held[active.indexOf(3)]!)).status).toBe(200)
  })
})
