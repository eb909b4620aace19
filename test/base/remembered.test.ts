import { describe, expect, test } from 'vitest'
import { remembered } from '../../src/base/remembered.ts'

/** A question that is answered when the test says so, and a clock to drive. */
function slow(ms: number) {
  const asked: { readonly resolve: (answer: string) => void; readonly reject: (error: Error) => void }[] = []
  const time = { now: 0 }
  const look = remembered(
    () => new Promise<string>((resolve, reject) => asked.push({ resolve, reject })),
    ms,
    () => time.now,
  )
  return { asked, time, look }
}

describe('an answer for all who ask', () => {
  test('is asked for once while it is under way', async () => {
    const { asked, time, look } = slow(0)
    const first = look()
    time.now = 1_999
    const later = look()
    expect(asked).toHaveLength(1)
    asked[0]!.resolve('one')
    expect(await Promise.all([first, later])).toEqual(['one', 'one'])
  })

  test('is asked for once more where two seconds brought none: the first question may stand where nobody answers', async () => {
    const { asked, time, look } = slow(0)
    const first = look()
    time.now = 2_000
    const [second, third] = [look(), look()]
    expect(asked).toHaveLength(2)
    asked[1]!.resolve('two')
    expect(await Promise.all([second, third])).toEqual(['two', 'two'])
    asked[0]!.reject(new Error('away'))
    await expect(first).rejects.toThrow('away')
    void look()
    expect(asked).toHaveLength(3)
  })

  test('is shown for its time, from when it was asked, and not to whoever comes later', async () => {
    const { asked, time, look } = slow(1_000)
    const first = look()
    time.now = 400
    asked[0]!.resolve('one')
    await first
    time.now = 999
    expect(await look()).toBe('one')
    time.now = 1_000
    void look()
    expect(asked).toHaveLength(2)
  })

  test('is for those alone who ask while it is under way, where it has no time', async () => {
    const { asked, look } = slow(0)
    const first = look()
    asked[0]!.resolve('one')
    await first
    void look()
    expect(asked).toHaveLength(2)
  })

  test('is not kept where it failed', async () => {
    const { asked, look } = slow(1_000)
    const first = look()
    asked[0]!.reject(new Error('away'))
    await expect(first).rejects.toThrow('away')
    const second = look()
    asked[1]!.resolve('two')
    expect(await second).toBe('two')
  })
})
