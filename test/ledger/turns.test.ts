import { afterEach, describe, expect, test, vi } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { type Door, overDoor } from '../../src/ledger/connect.ts'
import { findKey } from '../../src/ledger/keys.ts'
import { createTurns, type Rank } from '../../src/ledger/turns.ts'
import { completeTask, revokeLease, revokeTask } from '../../src/tasks/close.ts'
import { addLease } from '../../src/tasks/lease.ts'
import { refreshLease } from '../../src/tasks/refresh.ts'
import { renewTask } from '../../src/tasks/renew.ts'
import { showLease, showTask } from '../../src/tasks/show.ts'
import type { Broker, Caller } from '../../src/tasks/task.ts'
import { actorNamed, never } from '../support/house.ts'

afterEach(() => void vi.useRealTimers())

/** A store that runs statements until a test lets them end. */
function slowStore(connections: number, patience?: number) {
  const turns = createTurns(connections, patience)
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const settled = () => new Promise<void>((resolve) => setImmediate(resolve))
  return {
    begun,
    settled,
    ask: (rank: Rank, name: string) =>
      turns.take(rank, async () => {
        begun.push(name)
        await new Promise<void>((resolve) => ends.set(name, resolve))
        if (name.startsWith('broken')) throw new Error(name)
        return name
      }),
    async end(name: string) {
      await settled()
      ends.get(name)!()
      await settled()
    },
  }
}

describe('the turns of statements', () => {
  test('come in order, as many at once as there are connections', async () => {
    const store = slowStore(2)
    for (const name of ['a', 'b', 'c']) void store.ask('first', name)
    await store.settled()
    expect(store.begun).toEqual(['a', 'b'])
    await store.end('b')
    expect(store.begun).toEqual(['a', 'b', 'c'])
  })

  test('go to what ends something before new work, whoever came earlier', async () => {
    const store = slowStore(1)
    void store.ask('later', 'declare')
    void store.ask('later', 'declare too')
    void store.ask('first', 'complete')
    await store.end('declare')
    expect(store.begun).toEqual(['declare', 'complete'])
    await store.end('complete')
    expect(store.begun).toEqual(['declare', 'complete', 'declare too'])
  })

  test('are never all taken by new work, where there is more than one connection', async () => {
    for (const [connections, atMost] of [
      [2, 1],
      [10, 8],
    ] as const) {
      const store = slowStore(connections)
      for (let at = 0; at < 20; at++) void store.ask('later', `declare ${at}`)
      await store.settled()
      expect(store.begun.length).toBe(atMost)
      void store.ask('first', 'complete')
      await store.settled()
      expect(store.begun.at(-1)).toBe('complete')
    }
  })

  test('are given back by a statement that failed', async () => {
    const store = slowStore(1)
    const broken = expect(store.ask('first', 'broken')).rejects.toThrow('broken')
    const next = store.ask('first', 'next')
    await store.end('broken')
    await broken
    await store.end('next')
    expect(await next).toBe('next')
  })

  test('that do not come in time are refused to new work, which is then never begun; what ends something waits on', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const store = slowStore(1, 100)
    void store.ask('first', 'long')
    const refused = expect(store.ask('later', 'declare')).rejects.toMatchObject({ code: 'store_unavailable', retryAfter: 1 })
    void store.ask('first', 'complete')
    vi.advanceTimersByTime(100)
    await refused
    await store.end('long')
    await store.end('complete')
    expect(store.begun).toEqual(['long', 'complete'])
  })
})

/** A broker over a store that answers nothing before a test lets it, and then that there is nothing. */
function brokerOfSlowStore() {
  const statements: { readonly parameters: readonly unknown[]; answer(): void }[] = []
  const query: Door['query'] = async (_, parameters) => {
    await new Promise<void>((resolve) => statements.push({ parameters, answer: resolve }))
    return []
  }
  const ledger = overDoor({ connections: 1, query } as Partial<Door> as Door)
  return { broker: { ledger } as Broker, statements }
}

/** Whatever becomes of it. */
const settled = (work: Promise<unknown>): Promise<unknown> => work.catch(() => {})

/** Until what is asked for stands in line: what goes together with others sets out a turn of the event loop later. */
async function inLine(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve))
}

const caller: Caller = { actor: actorNamed('agent:bot'), agent: undefined, task: undefined, roles: new Set(['operator']) }
const grant = { name: 'api', parameters: {} }
const [task, lease] = [newId('task'), newId('lease')]

describe('the turn of an end at a store that reads hold is the next one, behind ten more of them:', () => {
  const reads: readonly (readonly [string, (broker: Broker) => Promise<unknown>])[] = [
    ['tasks that are shown', (broker) => showTask(broker, caller, task)],
    ['leases that are shown', (broker) => showLease(broker, caller, lease)],
    ['tasks that are to be renewed', (broker) => renewTask(broker, caller, task, { duration: 1_000 })],
    ['tasks that are to have a further lease', (broker) => addLease(broker, caller, task, grant, never)],
    ['leases that are to be refreshed', (broker) => refreshLease(broker, caller, lease, never)],
    ['keys of declarations that are retried', (broker) => findKey(broker.ledger, 'key')],
  ]
  const [ending, endingLease] = [newId('task'), newId('lease')]
  const ends: readonly (readonly [string, (broker: Broker) => Promise<unknown>])[] = [
    [ending, (broker) => completeTask(broker, caller, ending, 0, never)],
    [ending, (broker) => completeTask(broker, { ...caller, actor: undefined, task: { id: ending, agent: 'bot', tokenHash: '' } }, ending, 0, never)],
    [ending, (broker) => revokeTask(broker, caller, ending, 'a test says so', 0, never)],
    [endingLease, (broker) => revokeLease(broker, caller, endingLease, undefined, 0, never)],
  ]

  test.each(reads)('%s', async (_, read) => {
    for (const [id, end] of ends) {
      const { broker, statements } = brokerOfSlowStore()
      const work = Array.from({ length: 11 }, () => settled(read(broker)))
      work.push(settled(end(broker)))
      await inLine()
      expect(statements).toHaveLength(1)
      statements[0]!.answer()
      await inLine()
      expect(JSON.stringify(statements[1]?.parameters)).toContain(id)
      for (let at = 1; at < statements.length; at++) {
        statements[at]!.answer()
        await inLine()
      }
      await Promise.all(work)
    }
  })
})
