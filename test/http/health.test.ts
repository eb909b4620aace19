import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Target } from '../../src/providers/target.ts'
import { buildHouse } from './house.ts'

const found = async () => [
  {
    leases: { active: 3, revoking: 2 },
    tasks: { open: 1 },
    stuck: 2,
    standing: 1,
    oldest: 61.5,
    read_only: false,
    now: Date.parse('2026-11-24T09:30:12Z'),
  },
]
const targets = new Map([
  ['tokens', { failing: false, provider: {} } as Target],
  ['vault', { failing: true, provider: {} } as Target],
])

describe('a probe', () => {
  test('is answered as alive whatever else is broken', async () => {
    const house = buildHouse({
      ledger: async () => Promise.reject(new BrokerError('store_unavailable', 'gone')),
      parts: { reaper: { lastLap: () => 1e9 } },
    })
    const answer = await house.ask('/healthz')
    expect([answer.status, await answer.json()]).toEqual([200, { status: 'ok' }])
  })

  test('finds the broker ready, and sees which issuers and providers fail and what is stuck', async () => {
    const ready = () => [
      { issuer: 'corp', ok: true, detail: '' },
      { issuer: 'spire', ok: false, detail: 'connect ECONNREFUSED 10.1.2.3' },
    ]
    const house = buildHouse({ ledger: found, targets, parts: { verifier: { ...buildHouse().parts.verifier, ready } } })
    const answer = await house.ask('/readyz')
    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual({
      status: 'ready',
      store: 'ok',
      reaper: { state: 'ok', last_lap_seconds: 0 },
      log: { state: 'ok' },
      issuers: [
        { name: 'corp', state: 'ok' },
        { name: 'spire', state: 'failing' },
      ],
      providers: [
        { name: 'tokens', state: 'ok' },
        { name: 'vault', state: 'failing' },
      ],
      clock: { state: 'ok', seconds_apart: 12 },
      stuck_leases: 2,
      oldest_unfinished_revocation_seconds: 61.5,
    })
  })

  test('finds the broker ready, and sees that nothing is signed, while the key of the log does not answer', async () => {
    const house = buildHouse({ ledger: found, targets, parts: { sequencer: { refusal: () => 'key away', hasStrays: () => false } } })
    const answer = await house.ask('/readyz')
    expect([answer.status, await answer.json()]).toMatchObject([200, { status: 'ready', log: { state: 'failing' } }])
  })

  test('finds the broker ready, and sees that entries were written behind the back of the log', async () => {
    const house = buildHouse({ ledger: found, targets, parts: { sequencer: { refusal: () => undefined, hasStrays: () => true } } })
    expect(await (await house.ask('/readyz')).json()).toMatchObject({ status: 'ready', log: { state: 'failing' } })
  })

  test('finds the broker not ready while the store does not answer', async () => {
    const refusing = buildHouse({ ledger: async () => Promise.reject(new BrokerError('store_unavailable', 'connect ECONNREFUSED')) })
    const hanging = buildHouse({ ledger: () => new Promise(() => {}) })
    for (const house of [refusing, hanging]) {
      const answer = await house.ask('/readyz')
      const body = (await answer.json()) as object
      expect(answer.status).toBe(503)
      expect(body).toMatchObject({ status: 'not_ready', store: 'failing' })
      expect(body).not.toHaveProperty('stuck_leases')
      expect(JSON.stringify(body)).not.toContain('ECONNREFUSED')
    }
  })

  test('puts one question to a store that does not answer, however many strangers probe', async () => {
    let [questions, looks] = [0, 0]
    const house = buildHouse({ ledger: () => (questions++, new Promise(() => {})) })
    const hasRoom = () => (looks++, new Promise<boolean>(() => {}))
    const broker = { ...house.parts.broker, ledger: { ...house.parts.broker.ledger, hasRoom } }
    const { ask } = buildHouse({ parts: { broker } })
    const probed = [...Array.from({ length: 10 }, () => ask('/readyz')), ...Array.from({ length: 10 }, () => ask('/metrics'))]
    expect((await Promise.all(probed)).map(({ status }) => status)).toEqual([...Array(10).fill(503), ...Array(10).fill(200)])
    expect((await ask('/readyz')).status).toBe(503)
    expect([questions, looks]).toEqual([1, 1])
  })

  test('has what lives counted once a second, however many strangers probe', async () => {
    let [now, questions] = [Date.parse('2026-11-24T09:30:00Z'), 0]
    const house = buildHouse({ clock: () => now, ledger: async () => (questions++, [{ ...(await found())[0], now }]) })
    for (const path of ['/readyz', '/metrics', '/readyz']) expect((await house.ask(path)).status).toBe(200)
    now += 999
    expect(await (await house.ask('/readyz')).json()).toMatchObject({ status: 'ready', clock: { seconds_apart: 0 } })
    expect(questions).toBe(1)
    now += 1
    await house.ask('/readyz')
    expect(questions).toBe(2)
  })

  test('finds the broker not ready while the store can only be read', async () => {
    const house = buildHouse({ ledger: async () => [{ ...(await found())[0], read_only: true }] })
    const answer = await house.ask('/readyz')
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({ status: 'not_ready', store: 'failing', stuck_leases: 2 })
    expect(await (await house.ask('/metrics')).text()).toContain('mayfly_store_up 0')
  })

  test.each([
    ['ahead', '2026-11-24T09:35:00Z', 300],
    ['behind', '2026-11-24T09:25:00Z', -300],
  ])("sees that the store's clock is %s, and stays ready: tasks still have to be ended", async (_, now, seconds) => {
    const house = buildHouse({ ledger: async () => [{ ...(await found())[0], now: Date.parse(now) }] })
    const answer = await house.ask('/readyz')
    expect(answer.status).toBe(200)
    expect(await answer.json()).toMatchObject({ status: 'ready', clock: { state: 'failing', seconds_apart: seconds } })
    expect(await (await house.ask('/metrics')).text()).toContain(`mayfly_clock_apart_seconds ${seconds}`)
  })

  test('finds the broker not ready while the disk of its store is full, and still says what lives', async () => {
    const house = buildHouse({ ledger: found })
    const full = { ...house.parts.broker.ledger, hasRoom: async () => false }
    const answer = await buildHouse({ parts: { broker: { ...house.parts.broker, ledger: full } } }).ask('/readyz')
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({ status: 'not_ready', store: 'failing', stuck_leases: 2 })
  })

  test('finds the broker not ready while its reaper stands still', async () => {
    const house = buildHouse({ ledger: found, parts: { reaper: { lastLap: () => 61_000 } } })
    const answer = await house.ask('/readyz')
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({ status: 'not_ready', store: 'ok', reaper: { state: 'failing', last_lap_seconds: 61 } })
  })
})

describe('metrics', () => {
  test('count what lives by the store', async () => {
    const house = buildHouse({ ledger: found, targets })
    const answer = await house.ask('/metrics')
    const text = await answer.text()
    expect(answer.headers.get('content-type')).toContain('text/plain')
    expect(text).toContain('mayfly_leases{state="active"} 3')
    expect(text).toContain('mayfly_leases{state="reserved"} 0')
    expect(text).toContain('mayfly_tasks{state="open"} 1')
    expect(text).toContain('mayfly_stuck_leases 2')
    expect(text).toContain('mayfly_standing_leases 1')
    expect(text).toContain('mayfly_oldest_unfinished_revocation_seconds 61.5')
    expect(text).toContain('mayfly_store_up 1')
    expect(text).toContain('mayfly_clock_apart_seconds 12')
    expect(text).toContain('mayfly_provider_up{provider="tokens"} 1')
    expect(text).toContain('mayfly_provider_up{provider="vault"} 0')
  })

  test('never repeat old numbers while the store does not answer', async () => {
    let [now, down] = [0, false]
    const house = buildHouse({
      clock: () => now,
      ledger: async () => (down ? Promise.reject(new BrokerError('store_unavailable', 'gone')) : found()),
    })
    await house.ask('/metrics')
    now += 1_000
    down = true
    const text = await (await house.ask('/metrics')).text()
    expect(text).toContain('mayfly_stuck_leases Nan')
    expect(text).toContain('mayfly_standing_leases Nan')
    expect(text).toContain('mayfly_clock_apart_seconds Nan')
    expect(text).toContain('mayfly_store_up 0')
    expect(text).not.toContain('mayfly_leases{')
  })
})
