import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import { whenFired } from '../../src/base/signal.ts'
import { callableBy } from '../../src/http/callable.ts'
import { buildHouse, type House } from './house.ts'
import { houseLimits } from '../../src/http/door.ts'
import { usualGrace } from '../../src/http/listen.ts'
import { waitedFor } from '../../src/http/prefer.ts'

describe('every answer', () => {
  const house = buildHouse({ ledger: async () => Promise.reject(new TypeError('the ledger said mft_not-to-be-seen')) })
  const answers = [
    ['one that is well', '/healthz', {}],
    ['a page', '/docs', {}],
    ['one for nobody', '/nothing', {}],
    ['one without a token', '/tasks', {}],
    ['one about a fault of ours', '/ledger', { token: 'operator' }],
    ['one to another method', '/tasks', { method: 'PATCH' }],
    ['one to HEAD', '/healthz', { method: 'HEAD' }],
  ] as const

  test.each(answers)('carries a request id and the headers of a careful server: %s', async (_, path, asked) => {
    const { headers } = await house.ask(path, asked)
    expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    expect(headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(headers.get('content-security-policy')).toContain("frame-ancestors 'none'")
    expect(headers.get('x-content-type-options')).toBe('nosniff')
    expect(headers.get('x-frame-options')).toBe('DENY')
    expect(headers.get('referrer-policy')).toBe('no-referrer')
    expect(headers.get('strict-transport-security')).toContain('max-age=')
    expect(headers.get('x-powered-by')).toBeNull()
  })

  test('is stored nowhere unless it is public', async () => {
    for (const path of ['/tasks', '/leases', '/ledger', '/healthz', '/readyz', '/nothing']) {
      expect((await house.ask(path, { token: 'operator' })).headers.get('cache-control'), path).toBe('no-store')
    }
    expect((await house.ask('/.well-known/jwks.json')).headers.get('cache-control')).toBe('public, max-age=60')
    expect((await house.ask('/openapi.json')).headers.get('cache-control')).toBe('no-cache')
  })

  test('takes over a request id only if it is short and plain', async () => {
    const given = async (id: string) => (await house.ask('/healthz', { headers: { 'x-request-id': id } })).headers.get('x-request-id')
    expect(await given('run-8841_a')).toBe('run-8841_a')
    for (const id of ['a'.repeat(65), 'a b', 'a"b', '<b>', 'a;b', 'ä']) expect(await given(id), id).toMatch(/^[0-9a-f-]{36}$/)
  })

  test.each([
    ['in_flight', 7, '7'],
    ['in_flight', undefined, null],
    ['conflict', 2, '2'],
    ['rate_limited', 30, '30'],
    ['rate_limited', undefined, '1'],
    ['store_unavailable', undefined, '1'],
    ['internal', undefined, null],
  ] as const)('of %s that knows of %s seconds has the retry-after %s', async (code, retryAfter, header) => {
    const house = buildHouse({ frame: true })
    house.app.get('/refused', () => {
      throw new BrokerError(code, 'no', { retryAfter })
    })
    expect((await house.ask('/refused')).headers.get('retry-after')).toBe(header)
  })

  test('about a fault of ours shows nothing of it, and the log finds it by the request id', async () => {
    const problem = await house.problem('/ledger', { token: 'operator' })
    expect(problem).toMatchObject({ status: 500, code: 'internal', retry: 'later' })
    expect(JSON.stringify(problem)).not.toContain('ledger said')
    expect(house.log).toContainEqual(
      expect.objectContaining({ request_id: problem['request_id'], error: expect.stringContaining('the ledger said') as unknown }),
    )
  })
})

test('a request is logged and measured by its pattern, never by its path', async () => {
  const house = buildHouse()
  await house.ask('/tasks/mft_pasted-by-mistake?token=mft_pasted-by-mistake', { token: 'agent' })
  await house.ask('/mft_pasted-by-mistake')
  await house.app.request('/tasks', { method: 'BREW' })

  expect(JSON.stringify(house.log)).not.toContain('mft_pasted')
  expect(house.log).toContainEqual(
    expect.objectContaining({ method: 'GET', route: '/tasks/:id', status: 404, agent: 'invoice-bot', subject: 'agent' }),
  )
  const measured = await (await house.ask('/metrics')).text()
  expect(measured).toContain('mayfly_request_seconds_count{method="GET",route="/tasks/:id",status="404"} 1')
  expect(measured).toContain('mayfly_request_seconds_count{method="GET",route="none",status="404"} 1')
  expect(measured).toContain('mayfly_request_seconds_count{method="other",route="none",status="405"} 1')
  expect(measured).not.toContain('mft_pasted')
})

describe('the time limit', () => {
  const limits = { ...houseLimits, time: 10, endsTime: 40, grace: 20 }

  test('fires the signal that the call was handed, with a reason that becomes the answer', async () => {
    const house = buildHouse({ frame: true, parts: { limits } })
    house.app.post('/slow', async (c) => {
      await new Promise((_, reject) => c.var.signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError'))))
      return c.text('never')
    })
    expect(await house.problem('/slow', { method: 'POST' })).toMatchObject({ status: 504, code: 'timed_out', retry: 'same' })
  })

  test('answers in the place of a call that does not listen', async () => {
    const house = buildHouse({ frame: true, parts: { limits } })
    house.app.post('/deaf', () => new Promise<Response>(() => {}))
    expect(await house.problem('/deaf', { method: 'POST' })).toMatchObject({ status: 504, code: 'timed_out' })
  })

  test('leaves a call its own words, if it has some when its signal fires', async () => {
    const house = buildHouse({ frame: true, parts: { limits } })
    house.app.post('/slow', async (c) => {
      await new Promise((resolve) => c.var.signal.addEventListener('abort', resolve))
      return c.text('half of it', 202)
    })
    expect((await house.ask('/slow', { method: 'POST' })).status).toBe(202)
  })

  test('is up for an end soon after the broker was told to stop, and for nothing else', async () => {
    const stop = new AbortController()
    const house = buildHouse({ frame: true, parts: { limits: { ...houseLimits, endsWhenStopping: 10, grace: 20 }, stop: stop.signal } })
    const until = (signal: AbortSignal) => new Promise((resolve) => (signal.aborted ? resolve(0) : signal.addEventListener('abort', resolve)))
    let other!: AbortSignal
    house.app.post('/tasks', async (c) => {
      other = c.var.signal
      await new Promise(() => {})
      return c.text('never')
    })
    house.app.post('/tasks/1/complete', async (c) => {
      await until(c.var.signal)
      return c.text('half of it', 202)
    })
    void house.ask('/tasks', { method: 'POST' })
    const ending = house.ask('/tasks/1/complete', { method: 'POST' })
    stop.abort()
    expect((await ending).status).toBe(202)
    // And for one that comes later still, whose wait would be cut off with its connection.
    expect((await house.ask('/tasks/1/complete', { method: 'POST' })).status).toBe(202)
    expect(other.aborted).toBe(false)
  })

  test('is up before the server closes what is left of its connections', () => {
    expect(houseLimits.endsWhenStopping + houseLimits.grace).toBeLessThan(usualGrace)
  })

  test('lets a client that hangs up stop what it asked for, but not what it ended', async () => {
    const house = buildHouse({ frame: true, parts: { limits: houseLimits } })
    const signals: AbortSignal[] = []
    const hold = async (signal: AbortSignal) => {
      signals.push(signal)
      await Promise.resolve()
    }
    for (const path of ['/tasks', '/tasks/1/complete', '/tasks/1/revoke', '/leases/1/revoke']) {
      house.app.post(path, async (c) => {
        await hold(c.var.signal)
        client.abort()
        return c.text('ok')
      })
    }
    let client = new AbortController()
    const post = async (path: string) => {
      client = new AbortController()
      await house.app.request(new Request(`http://localhost${path}`, { method: 'POST', signal: client.signal }))
    }
    for (const path of ['/tasks', '/tasks/1/complete', '/tasks/1/revoke', '/leases/1/revoke']) await post(path)
    expect(signals.map((signal) => signal.aborted)).toEqual([true, false, false, false])
  })
})

describe('waiting for the ends', () => {
  /** A house whose ends wait until they are let go, or told to wait no longer; and what each was told. */
  function patient() {
    const house = buildHouse({ frame: true, parts: { limits: { waits: { most: 2, share: 1 } } } })
    const told: { seconds: number; letGo: () => void; signal: AbortSignal }[] = []
    house.app.post('/tasks/:id/complete', ...callableBy(['agent', 'operator', 'reviewer']).middleware, (c) =>
      waitedFor(c, async (seconds, signal) => {
        if (seconds > 0) await new Promise<void>((letGo) => (told.push({ seconds, letGo, signal }), whenFired(signal, letGo)))
        return c.text(c.var.signal.aborted ? 'stopped' : 'goes on')
      }),
    )
    const end = (token: string) => house.ask('/tasks/1/complete', { method: 'POST', token, headers: { prefer: 'wait=9' } })
    return { house, told, end }
  }

  test('has no place for whoever has their share or where all are taken: they are answered at once, and nobody is refused', async () => {
    const { told, end } = patient()
    const applied = async (token: string) => {
      const answer = await end(token)
      return [answer.status, answer.headers.get('preference-applied')]
    }
    const first = applied('agent')
    await expect.poll(() => told.length).toBe(1)
    expect(await applied('agent')).toEqual([200, 'wait=0'])
    const second = applied('operator')
    await expect.poll(() => told.length).toBe(2)
    expect(await applied('reviewer')).toEqual([200, 'wait=0'])

    for (const { letGo } of told) letGo()
    expect([await first, await second]).toEqual([
      [200, 'wait=9'],
      [200, 'wait=9'],
    ])
    const again = applied('agent')
    await expect.poll(() => told.length).toBe(3)
    told[2]!.letGo()
    expect(await again).toEqual([200, 'wait=9'])
  })

  test('is over for a client that hangs up, whose place is free, while what it ended goes on', async () => {
    const { house, told, end } = patient()
    const client = new AbortController()
    const headers = { authorization: 'Bearer agent' }
    const left = house.app.request(new Request('http://localhost/tasks/1/complete', { method: 'POST', headers, signal: client.signal }))
    await expect.poll(() => told.length).toBe(1)
    client.abort()
    expect(await (await left).text()).toBe('goes on')

    const next = end('agent')
    await expect.poll(() => told.length).toBe(2)
    told[1]!.letGo()
    expect((await next).status).toBe(200)
  })
})

describe('a crowd', () => {
  const limits = { ...houseLimits, inFlight: 2, endsInFlight: 1, probesInFlight: 1 }

  /** A house whose calls stay inside until they are let go. */
  function crowded() {
    const house = buildHouse({ frame: true, parts: { limits } })
    const waiting: (() => void)[] = []
    const stay = async () => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      return new Response('ok')
    }
    house.app.post('/tasks', stay).post('/introspect', stay).post('/tasks/1/complete', stay).get('/healthz', stay)
    const enter = (path: string, method = 'POST') => house.ask(path, { method })
    return { house, enter, letGo: () => waiting.splice(0).forEach((go) => go()) }
  }

  test('is sent away at once when the broker has enough to do, and let in again afterwards', async () => {
    const { house, enter, letGo } = crowded()
    const inside = [enter('/tasks'), enter('/tasks')]
    const refused = await enter('/tasks')
    expect(refused.headers.get('retry-after')).toBe('1')
    expect(await refused.json()).toMatchObject({ status: 429, code: 'rate_limited', retry: 'later' })

    letGo()
    expect((await Promise.all(inside)).map((answer) => answer.status)).toEqual([200, 200])
    const again = enter('/tasks')
    await Promise.resolve()
    letGo()
    expect((await again).status).toBe(200)
    expect(await house.parts.broker.telemetry.metrics.registry.metrics()).toContain('mayfly_rate_limited_total{limit="in_flight_work"} 1')
  })

  test('of new work never keeps old work from being ended, nor probes from being answered', async () => {
    const { enter, letGo } = crowded()
    const inside = [enter('/tasks'), enter('/tasks'), enter('/tasks/1/complete'), enter('/healthz', 'GET')]
    expect((await enter('/tasks')).status).toBe(429)
    letGo()
    expect((await Promise.all(inside)).map((answer) => answer.status)).toEqual([200, 200, 200, 200])
  })

  test('of new work never keeps resource servers from asking about tokens, nor do these keep it out', async () => {
    const { enter, letGo } = crowded()
    const inside = [enter('/tasks'), enter('/tasks'), enter('/introspect'), enter('/introspect')]
    expect([(await enter('/tasks')).status, (await enter('/introspect')).status]).toEqual([429, 429])
    letGo()
    expect((await Promise.all(inside)).map((answer) => answer.status)).toEqual([200, 200, 200, 200])
  })

  test('of ends never keeps an operator from revoking and stopping', async () => {
    const house = buildHouse({ frame: true, parts: { limits } })
    const waiting: (() => void)[] = []
    const stay = async () => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      return new Response('ok')
    }
    house.app.post('/tasks/1/complete', stay).post('/leases/1/revoke', stay)
    for (const path of ['/tasks/1/revoke', '/revocations', '/stops', '/console/tasks/1/revoke', '/console/revoke'])
      house.app.post(path, () => new Response('ok'))
    const enter = async (path: string) => (await house.ask(path, { method: 'POST' })).status
    const inside = enter('/tasks/1/complete')

    expect([await enter('/tasks/1/complete'), await enter('/leases/1/revoke')]).toEqual([429, 429])
    for (const path of ['/tasks/1/revoke', '/revocations', '/stops', '/console/tasks/1/revoke', '/console/revoke'])
      expect(await enter(path), path).toBe(200)
    waiting[0]!()
    expect(await inside).toBe(200)
  })

  /** Requests of which the headers have arrived, and that come no further until they are closed. */
  function trickling(house: House) {
    const sending: ReadableStreamDefaultController[] = []
    const send = async (path: string, token: string, type: string, body: ReadableStream) =>
      await house.app.request(
        new Request(`http://localhost${path}`, {
          method: 'POST',
          headers: { authorization: `Bearer ${token}`, 'content-type': type },
          body,
          duplex: 'half',
        }),
      )
    return {
      sending,
      begin: (path: string, token: string, type = json) =>
        send(path, token, type, new ReadableStream({ start: (controller) => void sending.push(controller) })),
    }
  }
  const json = 'application/json'
  const form = 'application/x-www-form-urlencoded'

  test('of one agent who sends their ends slowly, or many, leaves half of the room to others', async () => {
    const house = buildHouse({ parts: { limits: { ...limits, endsInFlight: 3 } } })
    const { sending, begin } = trickling(house)
    const path = () => `/tasks/${newId('task')}/complete`
    const end = async () => (await house.ask(path(), { method: 'POST', token: 'agent', json: {} })).status
    const slow = [begin(path(), 'agent'), begin(path(), 'agent')]
    await expect.poll(() => sending.length).toBe(2)

    expect(await end()).toBe(429)
    // Not theirs to end, which is found out inside.
    expect((await house.ask(`/leases/${newId('lease')}/revoke`, { method: 'POST', token: 'operator', json: {} })).status).toBe(404)

    for (const controller of sending) controller.close()
    expect((await Promise.all(slow)).map(({ status }) => status)).toEqual([404, 404])
    expect(await end()).toBe(404)
  })

  test.each([
    { who: 'agent', slowly: 'declarations', path: '/tasks', type: json, lane: 'work', other: `/stops/${newId('stop')}/lift` },
    { who: 'server', slowly: 'questions about tokens', path: '/introspect', type: form, lane: 'introspection', other: '/introspect' },
  ])('of one caller who sends $slowly slowly leaves half of the room to others', async ({ who, path, type, lane, other }) => {
    const house = buildHouse({ parts: { limits: { ...limits, inFlight: 3 } } })
    const { sending, begin } = trickling(house)
    // Refused for what they say, once they are let in.
    const send = async (to: string, token: string) =>
      (await house.ask(to, { method: 'POST', token, text: '', headers: { 'content-type': type } })).status
    const slow = [begin(path, who, type), begin(path, who, type)]
    await expect.poll(() => sending.length).toBe(2)

    expect(await send(path, who)).toBe(429)
    expect(await send(other, 'operator')).toBe(400)

    for (const controller of sending) controller.close()
    expect((await Promise.all(slow)).map(({ status }) => status)).toEqual([400, 400])
    expect(await send(path, who)).toBe(400)
    expect(await house.parts.broker.telemetry.metrics.registry.metrics()).toContain(`mayfly_rate_limited_total{limit="in_flight_${lane}"} 1`)
  })

  test('of one caller whose requests have arrived may be as large as the room', async () => {
    const house = buildHouse({ frame: true, parts: { limits: { ...limits, inFlight: 3 } } })
    const waiting: (() => void)[] = []
    house.app.post('/tasks', ...callableBy(['agent'], 'issue').middleware, async (c) => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      return c.text('ok')
    })
    const inside = []
    for (let call = 1; call <= 3; call++) {
      inside.push(house.ask('/tasks', { method: 'POST', token: 'agent', json: {} }))
      await expect.poll(() => waiting.length).toBe(call)
    }
    for (const go of waiting) go()
    expect((await Promise.all(inside)).map(({ status }) => status)).toEqual([200, 200, 200])
  })

  test('counts a call that outlived its answer until it really ends', async () => {
    const house = buildHouse({ frame: true, parts: { limits: { ...limits, inFlight: 1, time: 5, grace: 5 } } })
    let go = () => {}
    house.app.post('/deaf', async (c) => {
      await new Promise<void>((resolve) => (go = resolve))
      return c.text('ok')
    })
    expect((await house.ask('/deaf', { method: 'POST' })).status).toBe(504)
    expect((await house.ask('/deaf', { method: 'POST' })).status).toBe(429)
    go()
    await new Promise((resolve) => setImmediate(resolve))
    expect((await house.ask('/deaf', { method: 'POST' })).status).toBe(504)
  })
})
