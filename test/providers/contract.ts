import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Handle } from '../../src/base/evidence.ts'
import { secretsOf } from '../../src/providers/credential.ts'
import { type LeaseReference, type Minted, type Provider, ProviderError, type Reservation } from '../../src/providers/provider.ts'
import type { Lab, LabCall, LabFault } from '../support/lab.ts'

/** A connected provider, and the backend behind it where there is one. */
export interface Subject {
  readonly provider: Provider
  /** A new reservation: another lease each time. */
  reserve(): Reservation
  /** Whether this secret opens what it is for. */
  works(secret: string): Promise<boolean>
  /** The backend, to be told to fail; absent where minting changes nothing outside the broker. */
  readonly lab?: Lab
  stop(): Promise<void>
}

/** Which calls of the backend each verb makes, in their order: that is where faults are put. */
export type Steps = Readonly<Record<'mint' | 'revoke' | 'recover' | 'check', readonly LabCall[]>>

/** Faults in pairs: it did not happen, and it happened and the answer was lost. */
const pairs: readonly { readonly how: LabFault; readonly done: boolean }[] = (
  [
    'refuses without a word',
    'fails',
    'is overloaded',
    'resets',
    'hangs',
    'garbage',
    'another media type',
    'half',
    'floods',
    'redirects',
    'promises it for later',
    'forgets',
  ] as const
).flatMap((how) => [
  { how, done: false },
  { how, done: true },
])

const titleOf = (call: LabCall, { how, done }: (typeof pairs)[number]) =>
  `${call.toUpperCase()} ${how}, ${done ? 'and it was done' : 'and nothing was done'}`

/**
 * Holds a provider to its promise (src/providers/provider.ts). At this level there is no ledger: what the broker makes of a fault is tested
 * with the tasks. Every test ends with the question whether anything works that was not handed out.
 */
export function providerContract(name: string, steps: Steps | undefined, connect: () => Promise<Subject>): void {
  describe(`a provider of kind ${name}`, () => {
    let subject: Subject
    const handedOut = new Set<string>()
    /** What the ledger would know: the handles of each lease. */
    const journaled = new Map<string, Handle[]>()
    const patient = new AbortController().signal

    beforeAll(async () => {
      subject = await connect()
    })
    afterAll(() => subject.stop())
    afterEach(async () => {
      await subject.lab?.clear()
      await subject.lab?.release()
      const strays = ((await subject.lab?.alive()) ?? []).filter(({ secret }) => !handedOut.has(secret))
      // Told once, by the test that left it.
      for (const { secret } of strays) handedOut.add(secret)
      expect(strays, 'credentials that work and were never handed out').toEqual([])
    })

    const journalOf =
      ({ lease }: Reservation) =>
      async (handle: Handle): Promise<void> =>
        void journaled.set(lease, [...(journaled.get(lease) ?? []), handle])
    const referenceTo = ({ lease, task, issuedAt }: Reservation): LeaseReference => ({
      lease,
      task,
      age: Date.now() - issuedAt.getTime(),
      handles: journaled.get(lease) ?? [],
    })
    const mint = (reservation: Reservation, signal = patient): Promise<Minted> => subject.provider.mint(reservation, journalOf(reservation), signal)
    const revoke = (reservation: Reservation, signal = patient) => subject.provider.revoke(referenceTo(reservation), signal)
    const recover = (reservation: Reservation, signal = patient) => subject.provider.recover(referenceTo(reservation), signal)

    /** Hands a credential out as the broker would, and returns its first secret. */
    function handOut({ credential }: Minted): string {
      const secrets = Object.values(secretsOf(credential)).map((secret) => secret.open())
      for (const secret of secrets) handedOut.add(secret)
      const [first] = secrets
      if (first === undefined) throw new Error('a credential without a secret')
      return first
    }

    describe('when all goes well', () => {
      test('mints a credential that works and ends in time', async () => {
        const reservation = subject.reserve()
        const minted = await mint(reservation)
        expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(reservation.expiresAt.getTime())
        expect(minted.expiresAt.getTime()).toBeGreaterThan(reservation.issuedAt.getTime())
        expect(await subject.works(handOut(minted))).toBe(true)
      })

      test('ends a credential with evidence, and ends it again', async () => {
        const reservation = subject.reserve()
        const secret = handOut(await mint(reservation))
        for (const evidence of [await revoke(reservation), await revoke(reservation)]) {
          expect(evidence.by).toBe(subject.provider.local ? 'broker' : 'provider')
          expect(evidence.statement).not.toBe('')
          expect(evidence.statement).not.toContain(secret)
          expect(new Date(evidence.at).toISOString()).toBe(evidence.at)
        }
      })

      test('ends what it never heard of', async () => {
        await expect(revoke(subject.reserve())).resolves.toMatchObject({ statement: expect.any(String) })
      })

      test('knows that a mint never arrived', async () => {
        await expect(recover(subject.reserve())).resolves.toEqual({ minted: false })
      })

      test('passes its check', async () => {
        await expect(subject.provider.check(patient)).resolves.toBeUndefined()
      })
    })

    if (!steps) return
    const lab = (): Lab => {
      if (!subject.lab) throw new Error('a provider that is not local needs a lab')
      return subject.lab
    }
    const livesIn = async ({ lease }: Reservation) => (await lab().alive()).some((credential) => credential.lease === lease)

    /** Lets a verb meet a fault, and returns the error that it must become: of the one class, and without a secret anywhere in it. */
    async function meet(call: LabCall, fault: { how: LabFault; done: boolean }, verb: (signal: AbortSignal) => Promise<unknown>) {
      const impatient = new AbortController()
      await lab().next(call, fault.how, { done: fault.done })
      const outcome = failureOf(verb(impatient.signal))
      if (fault.how === 'hangs') {
        await lab().hanging(call)
        impatient.abort()
      }
      const error = await outcome
      const everything = inspect(error, { depth: 10, showHidden: true })
      for (const { secret } of await lab().minted()) expect(everything).not.toContain(secret)
      return error
    }

    describe('when a credential is ended', () => {
      test('kills it', async () => {
        const reservation = subject.reserve()
        const secret = handOut(await mint(reservation))
        await revoke(reservation)
        expect(await subject.works(secret)).toBe(false)
        expect(await livesIn(reservation)).toBe(false)
      })

      test('refuses a mint that comes later, and says that it left nothing', async () => {
        const reservation = subject.reserve()
        handOut(await mint(reservation))
        await revoke(reservation)
        expect(await failureOf(mint(reservation))).toMatchObject({ fault: 'refused', minted: 'no' })
        expect(await livesIn(reservation)).toBe(false)
      })

      test('refuses a mint that was announced and never seen', async () => {
        const reservation = subject.reserve()
        await recover(reservation)
        expect(await failureOf(mint(reservation))).toMatchObject({ fault: 'refused', minted: 'no' })
      })

      test.each(['revoke', 'recover'] as const)('%s leaves nothing of a mint that is still under way', async (verb) => {
        const reservation = subject.reserve()
        const call = lastOf(steps.mint)
        await lab().next(call, 'held')
        const minting = failureOf(mint(reservation))
        await lab().hanging(call)
        await (verb === 'revoke' ? revoke(reservation) : recover(reservation))
        await lab().release()
        expect(await minting).toMatchObject({ minted: 'no' })
        expect(await livesIn(reservation)).toBe(false)
      })
    })

    describe('when it is asked twice', () => {
      test('leaves one credential that works', async () => {
        const reservation = subject.reserve()
        const first = handOut(await mint(reservation))
        const second = handOut(await mint(reservation))
        expect(await subject.works(second)).toBe(true)
        if (first !== second) expect(await subject.works(first)).toBe(false)
        expect((await lab().alive()).filter(({ lease }) => lease === reservation.lease)).toHaveLength(1)
      })
    })

    describe('when minting meets a fault', () => {
      for (const call of steps.mint) {
        for (const fault of [...pairs, { how: 'outlives', done: true } as const]) {
          test(`recovers and ends it: ${titleOf(call, fault)}`, async () => {
            const reservation = subject.reserve()
            const error = await meet(call, fault, (signal) => mint(reservation, signal))
            expect(await livesIn(reservation)).toBe(fault.done)
            expect(error.minted).toBe('maybe')
            expect(await recover(reservation)).toEqual({ minted: fault.done })
            await revoke(reservation)
            expect(await livesIn(reservation)).toBe(false)
            expect(await failureOf(mint(reservation))).toMatchObject({ minted: 'no' })
          })

          test(`can be asked once more: ${titleOf(call, fault)}`, async () => {
            const reservation = subject.reserve()
            await meet(call, fault, (signal) => mint(reservation, signal))
            expect(await subject.works(handOut(await mint(reservation)))).toBe(true)
          })
        }

        test(`knows that nothing was minted when ${call.toUpperCase()} is refused with a declaration`, async () => {
          const reservation = subject.reserve()
          const error = await meet(call, { how: 'refuses', done: false }, (signal) => mint(reservation, signal))
          expect(error).toMatchObject({ fault: 'refused', minted: 'no' })
          expect(await livesIn(reservation)).toBe(false)
        })

        test(`waits for a slow ${call.toUpperCase()}`, async () => {
          await lab().next(call, 'slow', { ms: 100 })
          expect(await subject.works(handOut(await mint(subject.reserve())))).toBe(true)
        })
      }

      test('knows that nothing was minted where it could not even ask', async () => {
        const reservation = subject.reserve()
        await lab().down()
        const error = await failureOf(mint(reservation))
        await lab().up()
        expect(error).toMatchObject({ fault: 'unavailable', minted: 'no' })
        expect(await failureOf(mint(reservation, AbortSignal.abort()))).toMatchObject({ fault: 'timed_out', minted: 'no' })
        expect(await livesIn(reservation)).toBe(false)
      })

      test('leaves nothing that cannot be ended when a handle cannot be journaled', async () => {
        const reservation = subject.reserve()
        // A provider without handles mints all the same; the broker crashed before it could hand the credential out.
        await subject.provider.mint(reservation, storeIsGone, patient).catch(() => undefined)
        await recover(reservation)
        await revoke(reservation)
        expect(await livesIn(reservation)).toBe(false)
      })
    })

    describe('when ending meets a fault', () => {
      for (const call of steps.revoke) {
        for (const fault of pairs) {
          test(`claims nothing, and ends it the next time: ${titleOf(call, fault)}`, async () => {
            const reservation = subject.reserve()
            const secret = handOut(await mint(reservation))
            await meet(call, fault, (signal) => revoke(reservation, signal))
            expect(await subject.works(secret)).toBe(!fault.done)
            await revoke(reservation)
            expect(await subject.works(secret)).toBe(false)
          })
        }
      }

      test('claims nothing while the backend is down', async () => {
        const reservation = subject.reserve()
        const secret = handOut(await mint(reservation))
        await lab().down()
        const error = await failureOf(revoke(reservation))
        await lab().up()
        expect(error).toMatchObject({ fault: 'unavailable' })
        expect(await subject.works(secret)).toBe(true)
        await revoke(reservation)
        expect(await subject.works(secret)).toBe(false)
      })
    })

    describe('when recovery meets a fault', () => {
      for (const call of steps.recover) {
        for (const fault of pairs) {
          for (const minted of [false, true]) {
            test(`gives no answer, and the right one the next time: ${titleOf(call, fault)}, of ${minted ? 'a mint' : 'no mint'}`, async () => {
              const reservation = subject.reserve()
              if (minted) await meet(lastOf(steps.mint), { how: 'resets', done: true }, (signal) => mint(reservation, signal))
              await meet(call, fault, (signal) => recover(reservation, signal))
              expect(await recover(reservation)).toEqual({ minted })
              await revoke(reservation)
              expect(await livesIn(reservation)).toBe(false)
            })
          }
        }
      }
    })

    describe('when its check meets a fault', () => {
      for (const call of steps.check) {
        for (const fault of pairs) {
          test(`fails, and passes again: ${titleOf(call, fault)}`, async () => {
            await meet(call, fault, (signal) => subject.provider.check(signal))
            await expect(subject.provider.check(patient)).resolves.toBeUndefined()
          })
        }
      }
    })
  })
}

const storeIsGone = async (): Promise<void> => {
  throw new Error('the store is gone')
}

const lastOf = (calls: readonly LabCall[]): LabCall => {
  const last = calls.at(-1)
  if (!last) throw new Error('no calls')
  return last
}

/** The error of a promise that must fail, and must fail with the one class that leaves a provider's folder. */
export async function failureOf(promise: Promise<unknown>): Promise<ProviderError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(ProviderError)
  return error as ProviderError
}
