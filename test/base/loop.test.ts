import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { type Loop, startLoop } from '../../src/base/loop.ts'

describe('a loop', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
  afterEach(() => void vi.useRealTimers())

  /** One that says after its rounds how long to wait, in turn and then a minute, or whose rounds fail. */
  function started(...said: readonly (number | Error)[]): { readonly loop: Loop; rounds: number; readonly failures: string[] } {
    const seen = { rounds: 0, failures: [] as string[] }
    const round = async (): Promise<void> => {
      const one = said[seen.rounds++]
      if (one instanceof Error) throw one
    }
    const pause = async (): Promise<number> => (said[seen.rounds - 1] as number | undefined) ?? 60_000
    const loop = startLoop(round, pause, 1_000, (error) => seen.failures.push(error))
    onTestFinished(async () => await loop.stop())
    return Object.assign(seen, { loop })
  }
  const passed = async (ms: number) => void (await vi.advanceTimersByTimeAsync(ms))

  test('takes the next round after as long as the last one said', async () => {
    const seen = started(50, 200)
    await passed(49)
    expect(seen.rounds).toBe(1)
    await passed(1)
    expect(seen.rounds).toBe(2)
    await passed(199)
    expect(seen.rounds).toBe(2)
    await passed(1)
    expect(seen.rounds).toBe(3)
  })

  test('goes on at once when it is woken, in a pause or during a round', async () => {
    const seen = started()
    await passed(0)
    seen.loop.wake()
    await passed(0)
    expect(seen.rounds).toBe(2)

    let [rounds, asked] = [0, 0]
    const loop: Loop = startLoop(
      async () => {
        if (++rounds === 1) loop.wake()
      },
      async () => {
        asked++
        return 60_000
      },
      1_000,
      () => {},
    )
    await passed(0)
    // How long to wait is asked only where nothing has woken it yet.
    expect([rounds, asked]).toEqual([2, 1])
    await loop.stop()
  })

  test('tells of a round that fails, and takes the next one a while later', async () => {
    const seen = started(new Error('no store'))
    await passed(999)
    expect([seen.rounds, seen.failures]).toEqual([1, ['no store']])
    await passed(1)
    expect(seen.rounds).toBe(2)
  })

  test('is not stopped before the round that is under way is over, and takes no other', async () => {
    let finish = (): void => {}
    let rounds = 0
    let overdue = false
    const loop = startLoop(
      async (isOver) => {
        rounds++
        await new Promise<void>((resolve) => (finish = resolve))
        overdue = isOver()
      },
      async () => 0,
      1_000,
      () => {},
    )
    await passed(0)
    let stopped = false
    const stopping = loop.stop().then(() => (stopped = true))
    await passed(10)
    expect(stopped).toBe(false)
    finish()
    await stopping
    expect([rounds, overdue]).toEqual([1, true])
  })
})
