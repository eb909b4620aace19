import { describe, expect, test } from 'vitest'
import { BrokerError, tokenRefused } from '../../src/base/errors.ts'
import { newId } from '../../src/base/ids.ts'
import { callableBy } from '../../src/http/callable.ts'
import { createGate, houseRates } from '../../src/http/gate.ts'
import type { Actor } from '../../src/identity/actor.ts'
import { createVerifier } from '../../src/identity/verify.ts'
import { newTaskToken } from '../../src/tasks/token.ts'
import { corp, goodClaims, signed, signingKey, start } from '../identity/given.ts'
import { audience, buildHouse } from './house.ts'

const task = newId('task')
const { token, hash } = newTaskToken(task)
const taskToken = token.open()

/** A house whose store knows one task, by its id. */
const withTask = () =>
  buildHouse({ frame: true, ledger: async (statement) => (statement.includes('token_hash') ? [{ id: task, hash, agent: 'invoice-bot' }] : []) })

describe('the token of a task', () => {
  test('speaks for its task, wherever it is let in', async () => {
    const house = withTask()
    house.app.get('/mine', ...callableBy(['agent', 'task']).middleware, (c) => c.json({ task: c.var.caller.task, roles: [...c.var.caller.roles] }))
    expect(await (await house.ask('/mine', { token: taskToken })).json()).toEqual({
      task: { id: task, agent: 'invoice-bot', tokenHash: hash },
      roles: [],
    })
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
    const house = buildHouse({ frame: true, ledger: async () => [{ id: task, hash, agent: 'invoice-bot' }], parts: { verifier } })
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

describe('a text that looks like the token of a task', () => {
  const refused = { status: 401, code: 'invalid_token' }
  const ask = async (text: string) => {
    const asked: string[] = []
    const house = buildHouse({ ledger: async (statement) => (asked.push(statement), [{ id: task, hash, agent: 'invoice-bot' }]) })
    return { asked, problem: await house.problem(`/tasks/${task}`, { token: text }) }
  }

  test('is refused where its id is right and its random bits are not', async () => {
    const last = taskToken.at(-1) === 'A' ? 'B' : 'A'
    for (const text of [taskToken.slice(0, -1) + last, newTaskToken(task).token.open()]) {
      expect(await ask(text)).toMatchObject({ problem: refused, asked: [expect.stringContaining('token_hash')] })
    }
  })

  test('is refused where its random bits are right and its id is that of another task', async () => {
    const other = taskToken.replace(task.slice(5), newId('task').slice(5))
    expect(await ask(other)).toMatchObject({ problem: refused, asked: [expect.stringContaining('token_hash')] })
  })

  test('never becomes a question to the store unless it is well-formed', async () => {
    const bits = taskToken.slice(-43)
    const ids = ['', 'u'.repeat(26), '8'.repeat(26), task.slice(5).toUpperCase(), task.slice(5, -1), `${task.slice(5)}0`, task]
    const others = [
      'mft_',
      `mft_${bits}`,
      `${taskToken}=`,
      `${taskToken}/`,
      `${taskToken}A`,
      taskToken.slice(0, -1),
      `${taskToken.slice(0, -44)}.${bits}`,
    ]
    for (const text of [...ids.map((id) => `mft_${id}_${bits}`), ...others]) {
      expect(await ask(text), text).toMatchObject({ problem: refused, asked: [] })
    }
  })
})

describe('a caller', () => {
  const room = { most: 2, share: 1 }
  const gate = createGate({ ...buildHouse().parts, rates: houseRates, rooms: { work: room, introspection: room, ends: room } })
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

  test('who brings no token, or none that could be one, is refused by the verifier, which counts why', async () => {
    const given: string[] = []
    const verify = (text: string): Promise<never> => {
      given.push(text)
      throw tokenRefused()
    }
    const strict = createGate({
      ...buildHouse().parts,
      verifier: { verify },
      rates: houseRates,
      rooms: { work: room, introspection: room, ends: room },
    })
    for (const header of [undefined, '', 'Bearer', 'Bearer ', 'Basic agent', 'Bearer a b', 'Bearer "a"'])
      await expect(strict.identify(header, new AbortController().signal)).rejects.toMatchObject({ code: 'invalid_token' })
    expect(given).toEqual(['', '', '', '', '', 'a b', '"a"'])
  })

  test('asks about the tokens of their own audience, an operator about all, others about none', async () => {
    expect(gate.audiencesOf(await identify('server'))).toEqual([audience])
    expect(gate.audiencesOf(await identify('operator'))).toBe('all')
    expect(gate.audiencesOf(await identify('agent'))).toEqual([])
  })
})

describe('a single-use token', () => {
  const key = signingKey('k1')
  const good = { ...goodClaims, aud: 'https://broker.example.com' }
  let tokens = 0
  const tokenFor = (sub: string) => signed(key, { ...good, sub, jti: String(tokens++) })

  /** @param tell what happens while it is being spent, or is not */
  function houseOf(tell: () => void = () => {}) {
    const spent = new Set<string>()
    const verifier = createVerifier([corp(key, { replay: 'single-use' })], {
      audience: 'https://broker.example.com',
      clock: () => start,
      spend: async (one) => !spent.has(one) && (spent.add(one), true),
      refused: () => {},
    })
    const house = buildHouse({ frame: true, parts: { verifier: { ...verifier, verify: (...asked) => verifier.verify(...asked).finally(tell) } } })
    house.app.get('/any', ...callableBy(['agent', 'operator', 'reviewer', 'resource_server']).middleware, (c) => c.json({}))
    const statuses = async (token: string) => [(await house.ask('/any', { token })).status, (await house.ask('/any', { token })).status]
    return { house, spent, statuses }
  }

  test.each(['agent', 'operator', 'reviewer', 'server'])('of the %s is spent with its first call', async (who) => {
    const { spent, statuses } = houseOf()
    expect([await statuses(tokenFor(who)), spent.size]).toEqual([[200, 401], 1])
  })

  test('of a stranger is refused as often as it comes, and nothing is written for it', async () => {
    const { spent, statuses } = houseOf()
    expect([await statuses(tokenFor('stranger')), spent.size]).toEqual([[403, 403], 0])
  })

  test('of a stranger grants nothing, though a reload brings their entry while it is looked at', async () => {
    let known = false
    const { house, spent, statuses } = houseOf(() => (known = true))
    const { policy } = house.parts.broker
    const { agentOf } = policy().catalogue
    const catalogue = { agentOf: (actor: Actor) => agentOf(known && actor.subject === 'newcomer' ? { ...actor, subject: 'agent' } : actor) }
    Object.assign(house.parts.broker, { policy: () => ({ catalogue }) })
    expect([await statuses(tokenFor('newcomer')), spent.size]).toEqual([[403, 200], 1])
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
