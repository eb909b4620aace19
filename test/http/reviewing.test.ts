import { describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { buildHouse } from './house.ts'

const asked: string[] = []
const house = buildHouse({
  ledger: async (statement) => {
    asked.push(statement)
    return []
  },
})

const faultsOf = async (path: string) => {
  const problem = await house.problem(path, { token: 'reviewer' })
  expect(problem).toMatchObject({ status: 400, code: 'invalid_request' })
  return (problem['errors'] as { pointer: string }[]).map(({ pointer }) => pointer)
}

describe('a filter that is garbage is refused where it is at fault', () => {
  test.each([
    ['/tasks?completed=true', '?completed'],
    ['/tasks?limit=5&limit=6', '?limit'],
    ['/tasks?from=yesterday', '?from'],
    ['/tasks?from=2026-11-31T00:00:00Z', '?from'],
    ['/tasks?cursor=1', '?cursor'],
    [`/tasks?cursor=${newId('lease')}`, '?cursor'],
    ['/leases?to=2026-11-24', '?to'],
    ['/leases?ended_late=0s', '?ended_late'],
    ['/leases?ended_late=soon', '?ended_late'],
    ['/leases?outlived_task=true', '?outlived_task'],
    ['/leases?alive=false', '?alive'],
    ['/leases?held=1', '?held'],
    [`/leases?cursor=${newId('ent')}`, '?cursor'],
    ['/denials?by_default=false', '?by_default'],
    ['/denials?by_default=true&policy=p', '?by_default'],
    ['/denials?policy=', '?policy'],
    ['/denials?cursor=%27%20or%201', '?cursor'],
    ['/tasks?from=0000-01-01T00:00:00Z', '?from'],
    ['/leases?to=9999-12-31T23:59:59-01:00', '?to'],
    ['/ledger?kind=lease.revokd', '?kind'],
    ['/ledger?by=agent:bot', '?by'],
    ['/ledger?by=operator:', '?by'],
    ['/ledger?by=operator:a%00b', '?by'],
    [`/ledger?cursor=${newId('task')}`, '?cursor'],
    ['/revocations?ended=yes', '?ended'],
    ['/revocations?cursor=x', '?cursor'],
    ['/stops?in_force=1', '?in_force'],
    ['/tasks?from=2026-11-24T10:00:00Z&to=2026-11-24T09:00:00Z', '?to'],
    ['/leases?from=2026-11-24T09:30:00Z&to=2026-11-24T10:00:00%2B01:00', '?to'],
    ['/ledger?from=2026-11-24T10:00:00Z&to=2026-11-24T09:59:59.999Z', '?to'],
    ['/denials?from=2026-11-24T10:00:00Z&to=2026-11-24T09:00:00Z', '?to'],
  ])('%s', async (path, pointer) => {
    expect(await faultsOf(path)).toEqual([pointer])
  })
})

test('a parameter that is there twice is told to be given once', async () => {
  expect(await house.problem('/tasks?limit=5&limit=6', { token: 'reviewer' })).toMatchObject({ errors: [{ message: 'must be text, given once' }] })
})

test.each([
  ['/tasks', 'a task'],
  ['/leases', 'a lease'],
  ['/ledger', 'an entry'],
  ['/denials', 'a decision'],
  ['/revocations', 'a revocation'],
  ['/stops', 'a stop'],
])('a cursor of %s that is none is told what it has to be', async (path, what) => {
  expect(await house.problem(`${path}?cursor=x`, { token: 'reviewer' })).toMatchObject({
    errors: [{ pointer: '?cursor', message: `must be the id of ${what}` }],
  })
})

test.each([
  '/tasks?owner=o&completed=false&from=2026-11-20T00:00:00Z&to=2026-11-27T00:00:00Z',
  '/leases?grant=g&from=2026-11-24T09:00:00Z&to=2026-11-24T10:00:00%2B01:00&owner=o',
  '/leases?ended_late=10s',
  '/leases?outlived_task=1m',
  '/leases?alive=true&agent=a',
  '/denials?policy=p&agent=a',
  '/denials?by_default=true',
  '/ledger?by=operator:corp/alice',
  '/revocations?ended=false',
  '/stops?in_force=true',
])('%s is one statement', async (path) => {
  asked.length = 0
  const answer = await house.ask(path, { token: 'reviewer' })
  expect(answer.status).toBe(200)
  expect(await answer.json()).toEqual({ items: [], next: null })
  expect(asked).toHaveLength(1)
})

describe('a revocation of many', () => {
  const selector = { agent: 'bot' }
  test.each<[object, string[]]>([
    [{ selector: {} }, ['/selector', '/reason', '/confirm']],
    [{ selector: { everything: true, agent: 'bot' }, reason: 'r', confirm: 1 }, ['/selector/everything']],
    [{ selector: { everything: false }, reason: 'r', confirm: 1 }, ['/selector/everything']],
    [{ selector: { task: 'x' }, reason: 'r', confirm: 1 }, ['/selector', '/selector/task']],
    [{ selector, confirm: 'revoke agent bot' }, ['/reason']],
    [{ selector, reason: 'r' }, ['/confirm']],
    [{ selector, reason: 'r', confirm: 'yes' }, ['/confirm']],
    [{ selector, reason: 'r', confirm: -1 }, ['/confirm']],
    [{ selector, reason: 'r', confirm: 1, stop_issuing: 'forever' }, ['/stop_issuing']],
    [{ selector, reason: 'r', confirm: 1, stop_issuing: '721h' }, ['/stop_issuing']],
  ])('is refused as %j', async (json, pointers) => {
    const problem = await house.problem('/revocations', { method: 'POST', token: 'operator', json })
    expect(problem).toMatchObject({ status: 400, code: 'invalid_request' })
    expect(new Set((problem['errors'] as { pointer: string }[]).map(({ pointer }) => pointer))).toEqual(new Set(pointers))
  })
})

describe('whoever is no operator', () => {
  test.each(['agent', 'reviewer', 'server', 'stranger'])('is refused as %s, and the ledger says so', async (token) => {
    for (const path of ['/revocations', '/stops', `/tasks/${newId('task')}/revoke`, `/stops/${newId('stop')}/lift`]) {
      asked.length = 0
      expect(await house.problem(path, { method: 'POST', token, json: {} })).toMatchObject({ status: 403, code: 'forbidden' })
      expect(asked).toHaveLength(1)
      expect(asked[0]).toContain('insert into entries')
    }
  })

  test('fills no ledger with it', async () => {
    const { ask, parts } = buildHouse({ parts: { rates: { issue: { burst: 2, perSecond: 1 } } } })
    const tries = async () => (await ask('/stops', { method: 'POST', token: 'reviewer', json: {} })).status
    expect(parts.operators).toHaveLength(2)
    expect([await tries(), await tries(), await tries()]).toEqual([403, 403, 429])
  })

  test('fills no ledger with it as a stranger of many names either, and keeps no others from being heard', async () => {
    let subject = 0
    const { verifier } = buildHouse().parts
    const manyNamed = {
      ...verifier,
      verify: async (token: string, signal: AbortSignal) => {
        const actor = await verifier.verify(token, signal)
        return token === 'stranger' ? { ...actor, subject: `stranger ${subject++}` } : actor
      },
    }
    const { ask } = buildHouse({ clock: () => 0, parts: { verifier: manyNamed } })
    const tries = async (token: string) => (await ask('/stops', { method: 'POST', token, json: {} })).status
    const met = []
    for (let call = 0; call < 150; call++) met.push(await tries('stranger'))
    expect(met).toEqual([...Array.from({ length: 100 }, () => 403), ...Array.from({ length: 50 }, () => 429)])
    for (const known of ['reviewer', 'agent', 'server']) expect([known, await tries(known)]).toEqual([known, 403])
  })
})
