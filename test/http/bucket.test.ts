import { describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { createBuckets } from '../../src/http/bucket.ts'
import { newTaskToken } from '../../src/tasks/token.ts'
import { buildHouse } from './house.ts'

describe('a token bucket', () => {
  test('gives its burst at once, then its rate, and says how long to wait', () => {
    let now = 0
    const buckets = createBuckets({ burst: 3, perSecond: 0.5 }, () => now)
    expect([1, 2, 3].map(() => buckets.take('a'))).toEqual([0, 0, 0])
    expect(buckets.take('a')).toBe(2)
    now += 1_000
    expect(buckets.take('a')).toBe(1)
    now += 1_000
    expect(buckets.take('a')).toBe(0)
    expect(buckets.take('a')).toBe(2)
  })

  test('never holds more than its burst', () => {
    let now = 0
    const buckets = createBuckets({ burst: 2, perSecond: 100 }, () => now)
    buckets.take('a')
    now += 3_600_000
    expect([1, 2, 3].map(() => buckets.take('a'))).toEqual([0, 0, 1])
  })

  test('takes nothing away when the clock is set back', () => {
    let now = 1_000_000
    const buckets = createBuckets({ burst: 2, perSecond: 1 }, () => now)
    buckets.take('a')
    now = 0
    expect(buckets.take('a')).toBe(0)
  })

  test('is one for each caller, and remembers only so many of them', () => {
    const buckets = createBuckets({ burst: 1, perSecond: 0.001 }, () => 0)
    expect(buckets.take('first')).toBe(0)
    expect(buckets.take('first')).toBeGreaterThan(0)
    for (let caller = 0; caller < 9_999; caller++) buckets.take(`caller ${caller}`)
    expect(buckets.take('first')).toBeGreaterThan(0)
    // Seen just now, so it is not the one to be forgotten.
    buckets.take('one more')
    expect(buckets.take('first')).toBeGreaterThan(0)
    for (let caller = 0; caller < 10_000; caller++) buckets.take(`other ${caller}`)
    expect(buckets.take('first')).toBe(0)
  })
})

describe('a caller who asks too often', () => {
  const rates = { issue: { burst: 2, perSecond: 0.1 }, introspect: { burst: 1, perSecond: 0.1 } }
  // Faulty on purpose: a request counts before it is read, so that a loop of bad ones is stopped as well.
  const declare = { method: 'POST', token: 'agent', json: {} }

  test('is sent away until there is a token again', async () => {
    let now = 0
    const house = buildHouse({ clock: () => now, parts: { rates } })
    for (let call = 0; call < 2; call++) expect((await house.ask('/tasks', declare)).status).toBe(400)

    const refused = await house.ask('/tasks', declare)
    expect(refused.headers.get('retry-after')).toBe('10')
    expect(await refused.json()).toMatchObject({ status: 429, code: 'rate_limited', retry: 'later' })
    expect((await house.ask(`/tasks/${newId('task')}/leases`, declare)).status).toBe(429)
    expect((await house.ask(`/tasks/${newId('task')}/renew`, declare)).status).toBe(429)
    expect((await house.ask(`/leases/${newId('lease')}/refresh`, declare)).status).toBe(429)

    now += 10_000
    expect((await house.ask('/tasks', declare)).status).toBe(400)
    expect(await house.parts.broker.telemetry.metrics.registry.metrics()).toContain('mayfly_rate_limited_total{limit="issue"} 4')
  })

  test('has one rate with the tokens of all of their tasks, however many they open', async () => {
    const tasks = ['invoice-bot', 'invoice-bot', 'invoice-bot', 'other-bot'].map((agent) => {
      const id = newId('task')
      const { token, hash } = newTaskToken(id)
      return { id, agent, hash, token: token.open() }
    })
    const house = buildHouse({
      clock: () => 0,
      ledger: async (statement, [ids]) => (statement.includes('token_hash') ? tasks.filter(({ id }) => String(ids).includes(id)) : []),
      parts: { rates },
    })
    const met = []
    for (const { id, token } of tasks) met.push((await house.ask(`/tasks/${id}/leases`, { ...declare, token })).status)
    expect(met).toEqual([400, 400, 429, 400])
  })

  test('may still end and look at what there is', async () => {
    const house = buildHouse({ clock: () => 0, parts: { rates } })
    for (let call = 0; call < 3; call++) await house.ask('/tasks', declare)
    const id = newId('task')
    for (let call = 0; call < 5; call++) {
      expect((await house.ask(`/tasks/${id}/complete`, { method: 'POST', token: 'agent' })).status).toBe(404)
      expect((await house.ask(`/tasks/${id}`, { token: 'agent' })).status).toBe(404)
      expect((await house.ask(`/leases/${newId('lease')}/revoke`, { method: 'POST', token: 'agent' })).status).toBe(404)
    }
  })

  test('to have decisions asked again has a limit of their own', async () => {
    const house = buildHouse({ clock: () => 0 })
    const replay = async (token: string) => (await house.ask(`/decisions/${newId('dec')}/replay`, { token })).status
    const met = []
    for (let call = 0; call < 51; call++) met.push(await replay('reviewer'))
    expect(met).toEqual([...Array.from({ length: 50 }, () => 404), 429])
    expect(await replay('operator')).toBe(404)
    expect(await house.parts.broker.telemetry.metrics.registry.metrics()).toContain('mayfly_rate_limited_total{limit="replay"} 1')
  })

  test('about tokens has a limit of their own', async () => {
    const house = buildHouse({ clock: () => 0, parts: { rates } })
    const ask = { method: 'POST', token: 'server', text: 'token=x', headers: { 'content-type': 'application/x-www-form-urlencoded' } }
    expect((await house.ask('/introspect', ask)).status).toBe(200)
    expect((await house.ask('/introspect', ask)).status).toBe(429)
  })
})
