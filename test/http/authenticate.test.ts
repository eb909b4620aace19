import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import { callableBy, createGate, houseRates } from '../../src/http/authenticate.ts'
import { audience, buildHouse } from './house.ts'

const taskToken = `mft_${'a'.repeat(43)}`
const task = newId('task')

/** A house whose store knows one task token, by its hash. */
const withTask = () => buildHouse({ frame: true, ledger: async (statement) => (statement.includes('token_hash') ? [{ id: task }] : []) })

describe('the token of a task', () => {
  test('speaks for its task, wherever it is let in', async () => {
    const house = withTask()
    house.app.get('/mine', ...callableBy(['agent', 'task']).middleware, (c) => c.json({ task: c.var.caller.task, roles: [...c.var.caller.roles] }))
    expect(await (await house.ask('/mine', { token: taskToken })).json()).toEqual({ task, roles: [] })
  })

  test('is not enough where a living workload token is asked for', async () => {
    const house = withTask()
    house.app.post('/renew', ...callableBy(['agent']).middleware, (c) => c.text('never'))
    house.app.get('/all', ...callableBy(['operator', 'reviewer']).middleware, (c) => c.text('never'))
    expect(await house.problem('/renew', { method: 'POST', token: taskToken })).toMatchObject({ status: 403, code: 'forbidden' })
    expect(await house.problem('/all', { token: taskToken })).toMatchObject({ status: 403, code: 'forbidden' })
  })

  test('never reaches the identity provider, so that completing needs none', async () => {
    const verifier = { ...buildHouse().parts.verifier, verify: async () => Promise.reject(new BrokerError('store_unavailable', 'keys are away')) }
    const house = buildHouse({ frame: true, ledger: async () => [{ id: task }], parts: { verifier } })
    house.app.post('/complete', ...callableBy(['agent', 'task']).middleware, (c) => c.text('done'))
    expect((await house.ask('/complete', { method: 'POST', token: taskToken })).status).toBe(200)
    expect((await house.ask('/complete', { method: 'POST', token: 'agent' })).status).toBe(503)
  })

  test('is a 503 and not a 401 while the store cannot be asked', async () => {
    const house = buildHouse({
      ledger: async () => Promise.reject(new BrokerError('store_unavailable', 'The ledger cannot be read or written', { retryAfter: 3 })),
    })
    const answer = await house.ask(`/tasks/${task}`, { token: taskToken })
    expect(answer.headers.get('retry-after')).toBe('3')
    expect(await answer.json()).toMatchObject({ status: 503, code: 'store_unavailable', retry: 'later' })
  })
})

describe('a caller', () => {
  const gate = createGate({ ...buildHouse().parts, rates: houseRates, clock: () => 0 })
  const identify = (name: string) => gate.identify(`Bearer ${name}`, new AbortController().signal)

  test('is found by what is proven about them', async () => {
    expect(await identify('agent')).toMatchObject({ agent: { name: 'invoice-bot' }, task: undefined, roles: new Set() })
    expect(await identify('operator')).toMatchObject({ agent: undefined, roles: new Set(['operator']) })
    expect(await identify('reviewer')).toMatchObject({ agent: undefined, roles: new Set(['reviewer']) })
  })

  test('may write the scheme as they like, as RFC 9110 has it', async () => {
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
      expect((await gate.identify(`${scheme} agent`, new AbortController().signal)).actor?.subject).toBe('agent')
    }
  })

  test('asks about the tokens of their own audience, an operator about all, others about none', async () => {
    expect(gate.audiencesOf(await identify('server'))).toEqual([audience])
    expect(gate.audiencesOf(await identify('operator'))).toBe('all')
    expect(gate.audiencesOf(await identify('agent'))).toEqual([])
  })
})

describe('introspection', () => {
  test('says of a token that nobody knows only that it is not active', async () => {
    const house = buildHouse()
    for (const token of ['x', 'a.b.c', 'mft_x', 'ey'.repeat(4_000)]) {
      const answer = await house.ask('/introspect', {
        method: 'POST',
        token: 'server',
        text: new URLSearchParams({ token, token_type_hint: 'access_token', unknown: 'ignored' }).toString(),
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      })
      expect([answer.status, await answer.json()]).toEqual([200, { active: false }])
    }
  })

  test.each([
    ['without a token', 'token_type_hint=access_token', 'application/x-www-form-urlencoded', 400],
    ['with two tokens', 'token=a&token=b', 'application/x-www-form-urlencoded', 400],
    ['as JSON', '{"token":"a"}', 'application/json', 415],
    ['that is too large', `token=${'a'.repeat(70_000)}`, 'application/x-www-form-urlencoded', 413],
  ])('%s is refused', async (_, text, type, status) => {
    const house = buildHouse()
    expect(await house.problem('/introspect', { method: 'POST', token: 'server', text, headers: { 'content-type': type } })).toMatchObject({ status })
  })
})
