import { expect, test } from 'vitest'
import { createSlots } from '../../../src/providers/vault/slots.ts'

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
