import { describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { readDeclaration } from '../../src/http/declaration.ts'
import type { Declaration } from '../../src/http/contract.ts'
import { buildHouse } from './house.ts'

const now = Date.parse('2026-11-24T09:30:00Z')
const house = buildHouse({ clock: () => now })

const faults = async (json: unknown) => {
  const problem = await house.problem('/tasks', { method: 'POST', token: 'agent', json })
  expect(problem).toMatchObject({ status: 400, code: 'invalid_request', retry: 'no' })
  return (problem['errors'] as { pointer: string; message: string }[]).map((fault) => fault.pointer)
}

const grants = (count: number) => Array.from({ length: count }, () => ({ name: 'g' }))
const entries = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`key-${at}`, 'v']))

describe('a declaration', () => {
  test.each([
    ['without a kind', {}, ['/kind']],
    ['with an unknown key', { kind: 'k', nothing: 1 }, ['/nothing']],
    ['with an unknown key in a grant', { kind: 'k', grants: [{ name: 'g', role: 'admin' }] }, ['/grants/0/role']],
    ['with a key that needs escaping', { kind: 'k', 'a/b~c': 1 }, ['/a~1b~0c']],
    ['with a long purpose', { kind: 'k', purpose: 'x'.repeat(1_001) }, ['/purpose']],
    ['with NUL in its purpose', { kind: 'k', purpose: 'a\0b' }, ['/purpose']],
    ['with half a character in its purpose', { kind: 'k', purpose: 'a\ud800' }, ['/purpose']],
    ['with an escape sequence for terminals in a label', { kind: 'k', labels: { run: '\u001b[2J' } }, ['/labels/run']],
    ['with too many labels', { kind: 'k', labels: entries(33) }, ['/labels']],
    ['with a long label name', { kind: 'k', labels: { ['x'.repeat(65)]: 'v' } }, [`/labels/${'x'.repeat(64)}`]],
    ['with a long label', { kind: 'k', labels: { run: 'x'.repeat(257) } }, ['/labels/run']],
    ['with a label that is no text', { kind: 'k', labels: { run: 8841 } }, ['/labels/run']],
    ['with too many grants', { kind: 'k', grants: grants(17) }, ['/grants']],
    ['with a thousand grants', { kind: 'k', grants: grants(1_000) }, ['/grants']],
    ['with too many parameters', { kind: 'k', grants: [{ name: 'g', parameters: entries(33) }] }, ['/grants/0/parameters']],
    ['with a parameter that is no text', { kind: 'k', grants: [{ name: 'g', parameters: { customer: ['*'] } }] }, ['/grants/0/parameters/customer']],
    ['with a duration and a deadline', { kind: 'k', duration: '5m', deadline: '2026-11-24T09:40:00Z' }, ['/deadline']],
    ['with a deadline that has passed', { kind: 'k', deadline: '2026-11-24T09:30:00Z' }, ['/deadline']],
    ['with a deadline more than a day away', { kind: 'k', deadline: '2026-11-25T09:30:00.001Z' }, ['/deadline']],
    ['with a deadline on a day that does not exist', { kind: 'k', deadline: '2026-11-31T09:30:00Z' }, ['/deadline']],
    ['with a deadline without a zone', { kind: 'k', deadline: '2026-11-24T09:40:00' }, ['/deadline']],
  ])('%s is refused where it is at fault', async (_, json, pointers) => {
    expect(await faults(json)).toEqual(pointers)
  })

  test.each(['0s', '-5m', '1.5h', '5', '5 m', '25h', '99999h', '86401s', '1d', 'P1D', '٥m', '', '5M', '1h30m'])(
    'with the duration "%s" is refused, for its task and for a grant',
    async (duration) => {
      expect(await faults({ kind: 'k', duration })).toEqual(['/duration'])
      expect(await faults({ kind: 'k', grants: [{ name: 'g', ttl: duration }] })).toEqual(['/grants/0/ttl'])
    },
  )

  test('is never quoted back, whatever is at fault with it', async () => {
    const secret = 'hunter2-hunter2'
    for (const json of [
      { kind: 'k', duration: secret },
      { kind: 'k', deadline: secret },
      { kind: [secret] },
      { kind: 'k', labels: secret },
      { kind: 'k', grants: [{ name: { secret } }] },
      { kind: `${secret}\0` },
    ]) {
      const answer = await house.ask('/tasks', { method: 'POST', token: 'agent', json })
      expect(answer.status).toBe(400)
      expect(await answer.text()).not.toContain('hunter2')
    }
  })

  test('with many faults names a bounded number of them', async () => {
    expect(await faults({ kind: 'k', labels: Object.fromEntries(Array.from({ length: 500 }, (_, at) => [`key-${at}`, at])) })).toHaveLength(32)
  })

  test('becomes what the verbs are told: milliseconds, Dates, nothing left open', () => {
    const wire: Declaration = {
      kind: 'k',
      duration: '24h',
      grants: [{ name: 'a' }, { name: 'b', parameters: { customer: 'acme' }, ttl: '1s' }],
    }
    expect(readDeclaration(wire, now)).toEqual({
      kind: 'k',
      purpose: '',
      labels: {},
      duration: 86_400_000,
      grants: [
        { name: 'a', parameters: {} },
        { name: 'b', parameters: { customer: 'acme' }, ttl: 1_000 },
      ],
    })
    expect(readDeclaration({ kind: 'k', deadline: '2026-11-24T11:40:00.5+02:00' }, now)).toEqual({
      kind: 'k',
      purpose: '',
      labels: {},
      deadline: new Date('2026-11-24T09:40:00.500Z'),
      grants: [],
    })
  })
})

describe('the Idempotency-Key', () => {
  test.each(['', ' ', 'a b', 'ä', 'x'.repeat(256)])('"%s" is refused by its name', async (key) => {
    const problem = await house.problem('/tasks', { method: 'POST', token: 'agent', json: { kind: 'k' }, headers: { 'idempotency-key': key } })
    expect(problem).toMatchObject({ status: 400, errors: [{ pointer: 'idempotency-key', message: 'must be 1 to 255 visible ASCII characters' }] })
  })
})

describe('a list', () => {
  test.each([
    ['/tasks?limit=0', '?limit'],
    ['/tasks?limit=', '?limit'],
    ['/ledger?limit=abc', '?limit'],
    ['/ledger?limit=1000', '?limit'],
    ['/tasks?limit=501', '?limit'],
    ['/tasks?limit=1e2', '?limit'],
    ['/tasks?limit=5&limit=6', '?limit'],
    ['/tasks?cursor=%27%3B--', '?cursor'],
    ['/tasks?state=open%00', '?state'],
    ['/tasks?nothing=1', '?nothing'],
    ['/tasks?agent=', '?agent'],
    ['/leases?task=task_1', '?task'],
    ['/leases?stuck=yes', '?stuck'],
    ['/leases?standing=1', '?standing'],
    ['/ledger?from=yesterday', '?from'],
    [`/ledger?lease=${newId('task')}`, '?lease'],
  ])('%s is refused for %s', async (path, pointer) => {
    const problem = await house.problem(path, { token: 'reviewer' })
    expect(problem).toMatchObject({ status: 400, code: 'invalid_request', errors: [expect.objectContaining({ pointer })] })
  })
})
