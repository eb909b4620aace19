import type { Handle } from '../../base/evidence.ts'
import { unlessFired } from '../../base/signal.ts'
import { ProviderError, type Reservation } from '../provider.ts'
import { renewedOf, type SecretAnswer, secretOf, unexpected } from './answers.ts'
import type { Ask, VaultAnswer } from './client.ts'
import type { Ending } from './end.ts'
import { asProviderError } from './faults.ts'
import type { secretQuestion, VaultGrant } from './grant.ts'
import type { Identity } from './identity.ts'
import type { Late } from './late.ts'
import type { Life } from './life.ts'
import type { Reads } from './reads.ts'
import type { TaskToken, TokenHandle } from './task-token.ts'

/** Milliseconds after which a read is given up for good: Vault ends a request after 90 s, unless the backend behind it hangs. */
const longestRead = 100_000

export type Journal = (handle: Handle) => Promise<void>

/** A read that gave nothing that can be used, and perhaps something that lives. */
export class Ambiguous extends Error {
  readonly fault: ProviderError

  constructor(fault: ProviderError) {
    super(fault.message)
    this.fault = fault
  }
}

/** The secrets of one Vault. */
export interface Secrets {
  /**
   * Reads a secret with the task token. Never broken off: a database role whose making is cut short is known to no lease. Where it takes too long the
   * mint stops waiting, and what arrives later is journaled and ended.
   *
   * @throws Ambiguous where another read may do better, ProviderError where not
   */
  read(
    reservation: Reservation<VaultGrant>,
    question: ReturnType<typeof secretQuestion>,
    by: TaskToken,
    journal: Journal,
    signal: AbortSignal,
  ): Promise<SecretAnswer>
  /** Makes the lease of one last to the end of the reservation, and no longer. @returns when it ends: sooner where Vault allowed less. @throws ProviderError */
  renew(secret: SecretAnswer, life: Life, signal: AbortSignal): Promise<Date>
}

/** What reading needs of its Vault. */
interface Reading {
  readonly name: string
  readonly ask: Ask
  readonly identity: Identity
  readonly ending: Ending
  readonly namespace: string | undefined
  /** Milliseconds that ending may take what arrived late. */
  readonly timeout: number
  /** By the path of their grant, and by their lease. */
  readonly reads: Reads
  readonly late: Late
}

export function createSecrets({ name, ask, identity, ending, namespace, timeout, reads, late }: Reading): Secrets {
  /**
   * Nobody waits for this secret any more. Its lease is journaled, so that it is ended with proof, and ended at once, in case the store cannot be written.
   * What fails here is not lost: the token is contained, and the lease ends by its own first time; nobody has the certificate, which ends at its own.
   */
  async function endLate(grant: VaultGrant, reading: Promise<VaultAnswer>, handle: TokenHandle, journal: Journal): Promise<void> {
    const answer = await reading.catch(() => undefined)
    const secret = answer && secretOf(answer)
    if (!secret) return
    const signal = AbortSignal.timeout(timeout)
    const { lease_id: leaseId } = secret
    const ends: Promise<unknown>[] = []
    if (leaseId) ends.push(journal({ ...handle, lease_id: leaseId }), ending.revokeLease({ leaseId, namespace }, signal))
    const [mount, serialNumber] = [grant.authority, serialOf(secret)]
    if (grant.endedBy === 'serial' && mount !== undefined && serialNumber !== undefined)
      ends.push(journal({ ...handle, mount, serial_number: serialNumber }), ending.revokeCertificate({ mount, serialNumber, namespace }, signal))
    await Promise.allSettled(ends)
  }

  return {
    async read(reservation, question, { token, handle }, journal, signal) {
      // Journaling may have taken longer than anybody waits, and what is read then nobody gets.
      if (signal.aborted) throw new ProviderError('timed_out', `${name} was not asked for a secret in time`, 'no')
      const asked = ask({ ...question, token, namespace }, AbortSignal.timeout(longestRead))
      const reading = reads.counted([pathOf(reservation), reservation.lease], asked)
      const answer = await unlessFired(reading, signal).catch((error: unknown) => {
        throw new Ambiguous(asProviderError(name, error))
      })
      if (answer === undefined) {
        late.goOn(reads.counted([reservation.lease], endLate(reservation.settings, reading, handle, journal)))
        throw new ProviderError('timed_out', `${name} gave no secret in time`, 'maybe')
      }
      const secret = secretOf(answer)
      if (secret) return secret
      const fault = unexpected(name, 'secret', answer, 'maybe')
      // Another attempt would only be one more that meets the limit.
      throw answer.status === 429 ? fault : new Ambiguous(fault)
    },

    async renew({ lease_id }, life, signal) {
      const { seconds, after } = life.left()
      const answer = await identity.ask({ path: 'sys/leases/renew', body: { lease_id, increment: seconds }, namespace }, signal)
      const renewed = renewedOf(answer)
      if (!renewed) throw unexpected(name, 'longer lease', answer, 'maybe')
      return after(renewed.lease_duration)
    },
  }
}

/** The path of a grant as it stands in the catalogue: values of an agent must not make another backend of one. */
export const pathOf = ({ settings }: Reservation<VaultGrant>): string => settings.parts.join('/')

/** The serial number of a certificate. Undefined: it is none. */
export const serialOf = ({ data }: SecretAnswer): string | undefined =>
  typeof data.serial_number === 'string' && data.serial_number !== '' ? data.serial_number : undefined
