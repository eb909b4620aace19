import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Evidence } from '../../src/base/evidence.ts'
import { newId } from '../../src/base/ids.ts'
import { claimSeconds } from '../../src/ledger/endings.ts'
import { providerKinds } from '../../src/providers/kinds.ts'
import { type LeaseReference, type Minted, type Provider, ProviderError } from '../../src/providers/provider.ts'
import { longestCall } from '../../src/providers/shapes.ts'
import { createTarget, type Target } from '../../src/providers/target.ts'
import { reservationOf } from './reservation.ts'

const patient = new AbortController().signal
const journal = async () => {}
const reservation = reservationOf({})
const lease: LeaseReference = { lease: newId('lease'), task: newId('task'), age: 0, handles: [] }
const evidence: Evidence = { by: 'provider', statement: 'gone', at: '2026-11-24T00:00:00.000Z' }
const down = new ProviderError('unavailable', 'crm did not answer', 'maybe')

let now = 0
let observed: string[] = []

/** A provider whose two verbs are the test's, behind limits of a second and two calls at once. */
function targetOf(verbs: Partial<Pick<Provider, 'mint' | 'revoke' | 'recover' | 'local' | 'upkeep' | 'limits'>>): Target {
  const provider: Provider = {
    name: 'crm',
    kind: 'test',
    revocation: () => 'provider',
    local: false,
    limits: { timeout: 1_000, concurrency: 2 },
    mint: async () => ({}) as Minted,
    revoke: async () => evidence,
    recover: async () => ({ minted: false }),
    check: async () => {},
    ...verbs,
  }
  return createTarget(provider, { clock: () => now, observe: (call, outcome) => observed.push(`${call} ${outcome}`) })
}

const forever = () => new Promise<never>(() => {})
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'no failure',
    (error: unknown) => error,
  )
/** Like a transport that never got a connection: it can still say so when its signal fires. */
const knowsThatItNeverAsked = (_reservation: unknown, _journal: unknown, signal: AbortSignal) =>
  new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(new ProviderError('timed_out', 'crm was never reached', 'no')))
  })
const failTimes = async (target: Target, times: number) => {
  for (let time = 0; time < times; time++) await failure(target.revoke(lease, patient))
}
const mint = (target: Target, signal = patient) => target.mint(reservation, journal, signal)

beforeEach(() => {
  vi.useFakeTimers()
  now = 1_000_000
  observed = []
})
afterEach(() => vi.useRealTimers())

describe('the time of a call', () => {
  test('ends even where the provider ignores its signal', async () => {
    const minting = failure(mint(targetOf({ mint: forever })))
    await vi.advanceTimersByTimeAsync(1_250)
    expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
    expect(vi.getTimerCount()).toBe(0)
  })

  test('leaves the provider a moment to say what it knows', async () => {
    const minting = failure(mint(targetOf({ mint: knowsThatItNeverAsked })))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'no' })
  })

  test('ends when the caller gives up', async () => {
    const caller = new AbortController()
    const minting = failure(mint(targetOf({ mint: forever }), caller.signal))
    caller.abort('left')
    await vi.advanceTimersByTimeAsync(250)
    expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
  })
})

describe('the longest time of a call', () => {
  test.each([
    ['http', { url: 'https://crm.example.com', token_file: '/token', revocation: 'provider' }],
    ['vault', { address: 'https://vault.example.com', auth: { method: 'token', token_file: '/token' }, token_role: 'mayfly-task' }],
    ['aws-sts', { region: 'eu-central-1', account: '111122223333' }],
  ])('is 25 s with a provider of kind %s, and a longer timeout is a fault of the configuration', (kind, settings) => {
    const faultsOf = (timeout: string) => {
      const { error } = providerKinds.get(kind)!.settings.safeParse({ ...settings, timeout })
      return error?.issues.map(({ path, message }) => `${path.join('.')} ${message}`)
    }
    expect(faultsOf('25s')).toBeUndefined()
    for (const timeout of ['26s', '1m']) expect(faultsOf(timeout)).toEqual(['timeout must be a duration from "1s" to "25s"'])
  })

  test('is over seconds before the claim of whoever ends a lease, so that nobody asks for an end that is under way', async () => {
    const ending = failure(targetOf({ revoke: forever, limits: { timeout: longestCall, concurrency: 1 } }).revoke(lease, patient))
    await vi.advanceTimersByTimeAsync((claimSeconds - 4) * 1_000)
    expect(observed).toEqual(['revoke timed_out'])
    expect(await ending).toMatchObject({ fault: 'timed_out' })
  })
})

describe('the lanes of a target', () => {
  test('let so many mints run, so many more wait, and refuse the rest without having asked', async () => {
    let asked = 0
    const target = targetOf({ mint: () => (asked++, forever()) })
    const running = Array.from({ length: 10 }, () => failure(mint(target)))
    expect(await failure(mint(target))).toMatchObject({ fault: 'busy', minted: 'no' })
    expect(asked).toBe(2)
    await vi.advanceTimersByTimeAsync(1_250)
    const faults = (await Promise.all(running)) as ProviderError[]
    expect(faults.map(({ fault, minted }) => `${fault} ${minted}`)).toEqual([...Array(2).fill('timed_out maybe'), ...Array(8).fill('timed_out no')])
    expect(asked).toBe(2)
  })

  test('keep room to end while minting is full, and to mint while ending is full', async () => {
    const fullOfMints = targetOf({ mint: forever })
    const mints = Array.from({ length: 11 }, () => failure(mint(fullOfMints)))
    expect(await fullOfMints.revoke(lease, patient)).toEqual(evidence)

    const minted = { expiresAt: new Date(0) } as Minted
    const fullOfEnds = targetOf({ revoke: forever, mint: async () => minted })
    const ends = Array.from({ length: 2 }, () => failure(fullOfEnds.revoke(lease, patient)))
    expect(await mint(fullOfEnds)).toBe(minted)
    await vi.advanceTimersByTimeAsync(1_250)
    await Promise.all([...mints, ...ends])
  })

  test('let nothing wait to be ended, and say how many more can be', async () => {
    const target = targetOf({ revoke: forever })
    expect(target.free()).toBe(2)
    await target.recover(lease, patient)
    const ends = [failure(target.revoke(lease, patient))]
    expect(target.free()).toBe(1)
    ends.push(failure(target.revoke(lease, patient)))
    expect(target.free()).toBe(0)
    expect(await failure(target.revoke(lease, patient))).toMatchObject({ fault: 'busy' })
    await vi.advanceTimersByTimeAsync(1_250)
    await Promise.all(ends)
    expect(target.free()).toBe(2)
  })

  test('end as many at once as the provider says, where most of them only wait', async () => {
    const target = targetOf({ revoke: forever, limits: { timeout: 1_000, concurrency: 2, ends: 5 } })
    const ends = Array.from({ length: 3 }, () => failure(target.revoke(lease, patient)))
    expect(target.free()).toBe(2)
    await vi.advanceTimersByTimeAsync(1_250)
    await Promise.all(ends)
  })

  test('give upkeep its time and no more, beside everything else, and never twice at once', async () => {
    const target = targetOf({ upkeep: forever })
    const tending = failure(target.upkeep(patient))
    expect(await failure(target.upkeep(patient))).toMatchObject({ fault: 'busy' })
    expect(await target.revoke(lease, patient)).toEqual(evidence)
    await vi.advanceTimersByTimeAsync(1_250)
    expect(await tending).toMatchObject({ fault: 'timed_out' })
    expect(target.failing, 'it says nothing about ends').toBe(false)
    await targetOf({}).upkeep(patient)
  })

  test('do not bound what never leaves the broker', async () => {
    const target = targetOf({ local: true })
    await expect(Promise.all(Array.from({ length: 500 }, () => mint(target)))).resolves.toHaveLength(500)
  })
})

describe('a target whose backend is dead', () => {
  let works = false
  let asked = 0
  const revoke = async () => {
    asked++
    if (!works) throw down
    return evidence
  }

  beforeEach(() => {
    works = false
    asked = 0
  })

  test('is left alone after three failures in a row, and asked again a second later', async () => {
    const target = targetOf({ revoke })
    await failTimes(target, 2)
    expect(target.failing).toBe(false)
    await failTimes(target, 1)
    expect(target.failing).toBe(true)
    expect(target.free()).toBe(0)
    expect(await failure(target.revoke(lease, patient))).toMatchObject({ fault: 'unavailable' })
    expect(asked).toBe(3)

    works = true
    now += 1_000
    expect(target.free()).toBe(1)
    expect(await target.revoke(lease, patient)).toEqual(evidence)
    expect(target.failing).toBe(false)
    expect(target.free()).toBe(2)
  })

  test('is probed with one call, every two seconds at the latest', async () => {
    const target = targetOf({ revoke })
    await failTimes(target, 3)
    now += 1_000
    const probe = failure(target.revoke(lease, patient))
    expect(target.free()).toBe(0)
    await failTimes(target, 1)
    await probe
    expect(asked).toBe(4)
    for (let round = 0; round < 3; round++) {
      now += 1_999
      expect(target.free()).toBe(0)
      now += 1
      expect(target.free()).toBe(1)
      await failTimes(target, 1)
    }
    expect(asked).toBe(7)
  })

  test('is probed again while the probe before still hangs', async () => {
    let hangs = false
    const target = targetOf({ revoke: () => (hangs ? forever() : revoke()) })
    await failTimes(target, 3)
    hangs = true
    now += 1_000
    const probe = failure(target.revoke(lease, patient))
    expect(target.free()).toBe(0)
    hangs = false
    works = true
    now += 1_000
    expect(await target.revoke(lease, patient)).toEqual(evidence)
    expect(target.failing).toBe(false)
    await vi.advanceTimersByTimeAsync(1_250)
    await probe
    expect(target.failing).toBe(false)
  })

  test('is not called failing any more a minute after anybody tried', async () => {
    const target = targetOf({ revoke })
    await failTimes(target, 3)
    now += 64_000
    expect(target.failing).toBe(true)
    now += 1_000
    expect(target.failing).toBe(false)
    expect(target.free()).toBe(1)
  })

  test('is asked again soon even if the clock was set back by an hour', async () => {
    const target = targetOf({ revoke })
    await failTimes(target, 3)
    now -= 3_600_000
    expect(target.free()).toBe(1)
  })

  test('still mints, since only a mint itself can say whether that works', async () => {
    const target = targetOf({ revoke })
    await failTimes(target, 3)
    await expect(mint(target)).resolves.toBeDefined()
  })

  test('is not taken for dead because it refuses, because we are busy, or because the caller left', async () => {
    const refusing = targetOf({ revoke: () => Promise.reject(new ProviderError('refused', 'crm refused', 'maybe')) })
    await failTimes(refusing, 5)
    expect(refusing.failing).toBe(false)

    const hanging = targetOf({ revoke: forever })
    for (let time = 0; time < 5; time++) {
      const caller = new AbortController()
      const ends = Array.from({ length: 3 }, () => failure(hanging.revoke(lease, caller.signal)))
      caller.abort()
      await vi.advanceTimersByTimeAsync(250)
      await Promise.all(ends)
    }
    expect(hanging.failing).toBe(false)
  })
})

describe('a target whose mints hang', () => {
  let hangs = true
  let asked = 0
  const target = () => targetOf({ mint: () => (asked++, hangs ? forever() : Promise.resolve({} as Minted)) })
  const timeOut = async (target: Target, times: number) => {
    for (let time = 0; time < times; time++) {
      const minting = failure(mint(target))
      await vi.advanceTimersByTimeAsync(1_250)
      await minting
    }
  }

  beforeEach(() => {
    hangs = true
    asked = 0
  })

  test('refuses them at once after three in a row, without having asked, and lets one try every second or two', async () => {
    const slow = target()
    await timeOut(slow, 3)
    expect(slow.failing).toBe(true)
    expect(await failure(mint(slow))).toMatchObject({ fault: 'unavailable', minted: 'no' })
    expect(asked).toBe(3)
    now += 1_000
    await timeOut(slow, 1)
    expect(asked).toBe(4)

    hangs = false
    now += 2_000
    await expect(mint(slow)).resolves.toBeDefined()
    expect(slow.failing).toBe(false)
  })

  test('still ends what it holds', async () => {
    const slow = target()
    await timeOut(slow, 3)
    expect(slow.free()).toBe(2)
    await expect(slow.revoke(lease, patient)).resolves.toEqual(evidence)
  })

  test('is not taken for one where the backend answers, however badly: a single agent must not close it to the others', async () => {
    for (const error of [new ProviderError('garbage', 'crm answered nonsense', 'maybe'), down, new ProviderError('refused', 'crm refused', 'no')]) {
      const answering = targetOf({ mint: () => Promise.reject(error) })
      for (let time = 0; time < 5; time++) expect(await failure(mint(answering))).toBe(error)
      expect(answering.failing).toBe(false)
    }
  })
})

describe('the errors of a target', () => {
  test('are of one class, and repeat nothing that a provider did not mean to say', async () => {
    const error = await failure(mint(targetOf({ mint: () => Promise.reject(new Error('the password is hunter2')) })))
    expect(error).toBeInstanceOf(ProviderError)
    expect(error).toMatchObject({ fault: 'garbage', minted: 'maybe', message: expect.not.stringContaining('hunter2') })
  })

  test('let a store that cannot be written through', async () => {
    const gone = new BrokerError('store_unavailable', 'The ledger cannot be written')
    const target = targetOf({ mint: (_, journal) => journal({ id: '1' }).then(() => ({}) as Minted) })
    expect(await failure(target.mint(reservation, () => Promise.reject(gone), patient))).toBe(gone)
    expect(observed).toEqual(['mint interrupted'])
  })

  test('say that there is nothing fresh to get from a provider without refresh', async () => {
    expect(await failure(targetOf({}).refresh(reservation, patient))).toMatchObject({ fault: 'refused', minted: 'no' })
  })
})

describe('a place where something is ended is left', () => {
  test.each([
    ['once it is revoked', {}, (target: Target) => target.revoke(lease, patient), 1],
    ['once its revocation has failed', { revoke: () => Promise.reject(down) }, (target: Target) => target.revoke(lease, patient), 1],
    ['once it is known that nothing was minted', {}, (target: Target) => target.recover(lease, patient), 1],
    ['once nobody can say what was minted', { recover: () => Promise.reject(down) }, (target: Target) => target.recover(lease, patient), 1],
    ['not while what was minted is revoked next', { recover: async () => ({ minted: true }) }, (target: Target) => target.recover(lease, patient), 0],
  ] as const)('%s', async (_, verbs, end, times) => {
    const target = targetOf(verbs)
    const left = vi.fn()
    target.onPlaceLeft(left)
    await end(target).catch(() => {})
    expect(left).toHaveBeenCalledTimes(times)
  })
})

test('every call of a target is observed with its outcome', async () => {
  const target = targetOf({ revoke: () => Promise.reject(down) })
  await mint(target)
  await failure(target.revoke(lease, patient))
  await target.recover(lease, patient)
  await target.check(patient)
  expect(observed).toEqual(['mint ok', 'revoke unavailable', 'recover ok', 'check ok'])
})
