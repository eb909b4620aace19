import { afterEach, expect, test, vi } from 'vitest'
import { createSlots } from '../../../src/providers/vault/slots.ts'

afterEach(() => void vi.useRealTimers())

test('A backend that is silent gets one end at a time until it answers, or until 256 others were silent since', async () => {
  const slots = createSlots(2)
  const fallSilent = async (backend: string) => (await slots.enter(backend))!(false)
  const together = async (backend: string) => {
    const leaves = [await slots.enter(backend), await slots.enter(backend)]
    for (const leave of leaves) leave?.(false)
    return leaves.filter((leave) => leave).length
  }

  await fallSilent('database/creds/one')
  expect(await together('database/creds/one')).toBe(1)
  for (let invented = 0; invented < 255; invented++) await fallSilent(`invented/${invented}`)
  expect(await together('database/creds/one')).toBe(1)
  for (let invented = 255; invented < 511; invented++) await fallSilent(`invented/${invented}`)
  expect(await together('database/creds/one')).toBe(2)
  ;(await slots.enter('database/creds/one'))!(true)
  expect(await together('database/creds/one')).toBe(2)
})

test.each([
  ['nobody', 'at once', false],
  ['somebody', 'after a wait of their own', true],
])('Where %s was answered while one waited in vain, those who come next are refused %s', async (_, __, answers) => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const slots = createSlots(2)
  const [first] = [await slots.enter('database/creds/one'), await slots.enter('database/creds/one')]
  const waiting = Array.from({ length: 20 }, () => slots.enter('database/creds/one'))
  if (answers) first!(true)
  await vi.advanceTimersByTimeAsync(1_000)
  expect((await Promise.all(waiting)).filter((leave) => leave)).toHaveLength(answers ? 1 : 0)

  const next = Array.from({ length: 20 }, () => slots.enter('database/creds/one'))
  const atOnce = await Promise.race([Promise.all(next), new Promise((resolve) => setImmediate(resolve, 'still waiting'))])
  expect(atOnce).toEqual(answers ? 'still waiting' : next.map(() => undefined))
  await vi.advanceTimersByTimeAsync(1_000)
  await Promise.all(next)
})
