import { afterEach, describe, expect, test, vi } from 'vitest'
import { createTurns, type Rank } from '../../src/ledger/turns.ts'

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
