import { beforeEach, describe, expect, test } from 'vitest'
import { type Begun, type CredentialSource, refreshed } from '../../../src/providers/aws-sts/refreshed.ts'
import { ProviderError } from '../../../src/providers/provider.ts'

const hour = 3_600_000
const down = new ProviderError('unavailable', 'down', 'no')

describe("the broker's own session of a role", () => {
  /** Milliseconds. */
  let now: number
  let asked: number
  /** Whether the next answers come, fail, or wait until they are let go. */
  let answer: 'comes' | 'fails' | 'waits'
  let letGo: (() => void)[]
  let source: CredentialSource

  beforeEach(() => {
    now = Date.parse('2026-11-26T12:00:00Z')
    asked = 0
    answer = 'comes'
    letGo = []
    const begin = async (): Promise<Begun> => {
      asked += 1
      const session = { accessKeyId: `ASIA${asked}`, secretAccessKey: 'secret', sessionToken: 'token' }
      if (answer === 'fails') throw down
      if (answer === 'waits') await new Promise<void>((resolve) => letGo.push(resolve))
      return session
    }
    source = refreshed({ begin, life: hour, timeout: 1_000 }, () => now)
  })

  const id = async (): Promise<string> => (await source()).accessKeyId
  const settle = () => new Promise((resolve) => setImmediate(resolve))

  test('is begun once for all who wait for the first', async () => {
    answer = 'waits'
    const all = Promise.all([id(), id(), id()])
    letGo[0]!()
    expect(await all).toEqual(['ASIA1', 'ASIA1', 'ASIA1'])
    expect(asked).toBe(1)
  })

  test('is followed by another at half of its life, and nobody waits for that', async () => {
    await id()
    now += hour / 2 - 1
    expect(await id()).toBe('ASIA1')
    expect(asked).toBe(1)
    now += 1
    answer = 'waits'
    expect([await id(), await id()]).toEqual(['ASIA1', 'ASIA1'])
    expect(asked).toBe(2)
    letGo[0]!()
    await settle()
    expect(await id()).toBe('ASIA2')
  })

  test('is asked for by the SDK from half of its life on, which asks 5 minutes before the end that it knows', async () => {
    const { expiration } = await source()
    expect(expiration!.getTime() - now).toBe(hour / 2 + 300_000)
  })

  test('goes on while no other can be had, until half a minute before its end', async () => {
    await id()
    answer = 'fails'
    now += hour - 31_000
    expect(await id()).toBe('ASIA1')
    await settle()
    now += 1_000
    await expect(source()).rejects.toBe(down)
  })

  test('is asked for again a second after that failed, and not before', async () => {
    answer = 'fails'
    await expect(source()).rejects.toBe(down)
    answer = 'comes'
    now += 999
    await expect(source()).rejects.toBe(down)
    expect(asked).toBe(1)
    now += 1
    expect(await id()).toBe('ASIA2')
  })

  test('is begun anew where the clock was set back', async () => {
    await id()
    now -= 5_000
    expect(await id()).toBe('ASIA2')
  })
})
