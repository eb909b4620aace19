import { z } from 'zod'
import type { Evidence } from '../../base/evidence.ts'
import type { Clock } from '../../base/time.ts'
import { type LeaseReference, ProviderError } from '../provider.ts'
import { healthOf, meaning, says, unexpected, warns } from './answers.ts'
import type { Backlog } from './backlog.ts'
import type { VaultAnswer } from './client.ts'
import { type Held, heldBy } from './handles.ts'
import { healthQuestion, type Identity } from './identity.ts'
import type { Reads } from './reads.ts'
import type { Slots } from './slots.ts'

/** Whether Vault has revoked something, or says that it does not, because that has expired. */
type Ended = 'revoked' | 'expired'

/** What ends leases at one Vault. All of it may be asked twice, and by several brokers at once. */
export interface Ending {
  /** Kills the token with which secrets are read, and puts what was read with it into Vault's own queue. Proves nothing about the latter. @throws ProviderError */
  contain(token: Held['tokens'][number], signal: AbortSignal): Promise<void>
  /** Ends one lease, and returns when the backend behind it has done so. @throws ProviderError */
  revokeLease(lease: Held['leases'][number], signal: AbortSignal): Promise<Ended>
  /** The same of a certificate. @throws ProviderError */
  revokeCertificate(certificate: Held['certificates'][number], signal: AbortSignal): Promise<Ended>
  /** @throws ProviderError */
  revoke(lease: LeaseReference, signal: AbortSignal): Promise<Evidence>
  /** @throws ProviderError */
  recover(lease: LeaseReference, signal: AbortSignal): Promise<{ readonly minted: boolean }>
}

/**
 * @param backlog by the backend behind Vault, or by the cluster that would have to know a token
 * @param reads by their lease
 * @param undecided milliseconds from the announcement of a lease after which nothing can live of which nobody knows: a token dies in its bootstrap time,
 *   and what a broken off read brought dies by its own first time. An account of Kubernetes or a certificate, asked for its whole life at once, may last
 *   longer, which is not waited for: nobody has it, and each mint that Kubernetes refuses would stay for as long as its task
 */
export function createEnding(
  name: string,
  identity: Identity,
  slots: Slots,
  backlog: Backlog,
  reads: Reads,
  undecided: number,
  clock: Clock,
): Ending {
  /** It comes back in its turn, which leaves room for those that wait for something else. */
  const later = (where: string, message: string, cause?: unknown): ProviderError =>
    new ProviderError('downstream', message, 'maybe', { pointlessFor: backlog.putOff(where), cause })

  /** @returns whether Vault knew the token; where it did not somebody has ended it before, or it is not the Vault that it was */
  async function contain({ accessor, namespace, cluster }: Held['tokens'][number], signal: AbortSignal): Promise<'revoked' | 'unknown'> {
    const there = cluster ?? 'wherever it was made'
    const answer = await identity.ask({ path: 'auth/token/revoke-accessor', body: { accessor }, namespace }, signal)
    if (answer.status === 204) {
      backlog.isBack(there)
      return 'revoked'
    }
    if (!saysUnknown(answer)) throw unexpected(name, 'proof that a task token is gone', answer, 'maybe')
    // A standby says it of tokens that live, for it looks into a state of its own (3 of 40 that had just been made, OpenBao 2.7.2).
    const health = healthOf(await identity.ask(healthQuestion, signal))
    if (health?.standby !== false)
      throw later(there, `${name}: a standby does not know a task token, which proves nothing: the address has to lead to the active node`)
    // Another one knows neither token nor lease, and says of an unknown lease what it says of one that it has ended.
    if (cluster !== undefined && health.cluster_id !== cluster)
      throw later(there, `${name}: this is another Vault than the one that made it, and what it does not know proves nothing`)
    backlog.isBack(there)
    return 'unknown'
  }

  async function revokeLease({ leaseId, namespace }: Held['leases'][number], signal: AbortSignal): Promise<Ended> {
    // Its id begins with the path that made it, which is as near as one can tell to the backend that has to end it.
    return await atBackend(placeOf(leaseId.slice(0, leaseId.lastIndexOf('/')), namespace), async () => {
      // `sync` always: without it some versions answer before anything has ended.
      return identity.ask({ path: 'sys/leases/revoke', body: { lease_id: leaseId, sync: true }, namespace }, signal)
    })
  }

  async function revokeCertificate({ mount, serialNumber, namespace }: Held['certificates'][number], signal: AbortSignal): Promise<Ended> {
    const question = { path: `${mount}/revoke`, body: { serial_number: serialNumber }, namespace, request: 'pki/revoke' }
    return await atBackend(placeOf(mount, namespace), () => identity.ask(question, signal))
  }

  /** One question that needs a backend behind Vault. Its silence is the backend's: Vault itself has just answered. */
  async function atBackend(backend: string, question: () => Promise<VaultAnswer>): Promise<Ended> {
    const leave = await slots.enter(backend)
    if (!leave) throw later(backend, `${name} is ending others of the same kind: this one waits for its turn`)
    let answered = false
    try {
      const answer = await question()
      answered = true
      const ended = endedBy(answer)
      if (ended) {
        backlog.isBack(backend)
        return ended
      }
      const { fault, reason } = meaning(answer)
      if (fault === 'downstream') throw later(backend, `${name} could not end it: ${reason}`)
      throw new ProviderError(fault, `${name} could not end it: ${reason}`, 'maybe', { pointlessFor: answer.pointlessFor })
    } catch (error) {
      if (!(error instanceof ProviderError) || error.fault !== 'timed_out') throw error
      throw later(backend, `${name} did not end it in time: the backend behind it may be down`, error.cause)
    } finally {
      leave(answered)
    }
  }

  /** @throws ProviderError as long as something of a lease may live of which nobody knows, and which ends by itself */
  function refuseUndecided(age: number, words: string): void {
    if (age < undecided)
      throw new ProviderError('downstream', `${name}: ${words} ends by itself within a minute or two`, 'maybe', { pointlessFor: undecided - age })
  }

  return {
    contain: async (token, signal) => void (await contain(token, signal)),
    revokeLease,
    revokeCertificate,

    async revoke({ lease, handles, age }, signal) {
      const held = heldBy(handles)
      // Looked for before anything is asked: what a read brings meanwhile is not among these handles.
      const mayBring = held.undecided && reads.of(lease) > 0
      // The token first, always: while it lives Vault does not retry a lease that it failed to revoke, and more can be read with it.
      const tokens = await Promise.all(held.tokens.map((token) => contain(token, signal)))
      const known = tokens.includes('revoked')
      const contained = `${known ? 'task token gone since' : 'Vault knew no such task token at'} ${new Date(clock()).toISOString()}`
      const ends = await allOf([
        ...held.leases.map((lease) => revokeLease(lease, signal)),
        ...held.certificates.map((certificate) => revokeCertificate(certificate, signal)),
      ])
      if (held.undecided || held.tokens.length === 0) refuseUndecided(age, 'a read failed or was cut off, and what it may have brought')
      if (mayBring) throw new ProviderError('downstream', `${name}: a read is still under way, and what it brings is ended when it is known`, 'maybe')
      const at = new Date(clock()).toISOString()
      if (ends.includes('expired'))
        return { by: 'time', statement: 'Vault does not revoke a certificate that has expired, or will within two seconds', at }
      return { by: 'provider', statement: statementOf(held, contained), at }
    },

    async recover({ handles, age }, signal) {
      const held = heldBy(handles)
      if (held.tokens.length === 0) {
        refuseUndecided(age, 'a token that nobody received may have been made, and')
        return { minted: false }
      }
      await Promise.all(held.tokens.map((token) => contain(token, signal)))
      return { minted: true }
    },
  }
}

/** A backend behind Vault as near as one can tell: a path, in its namespace. */
const placeOf = (path: string, namespace: string | undefined): string => `${namespace ?? ''}/${path}`

/** The answers that say that there is no such token: unknown, or already being revoked (all of them seen on OpenBao 2.7.2). */
const saysUnknown = (answer: VaultAnswer): boolean =>
  (answer.status === 200 && warns(answer, /No token found/i)) ||
  (answer.status === 400 && (says(answer, 'token not found') || says(answer, 'invalid accessor')))

/** What says that something has ended, and how. 204 is said for a lease that is unknown too: then somebody else has ended it. */
function endedBy(answer: VaultAnswer): Ended | undefined {
  const { status, body } = answer
  if (status === 204 || (status === 200 && revokedCertificate.safeParse(body).success)) return 'revoked'
  return status === 200 && warns(answer, /already expired/) ? 'expired' : undefined
}

/** A certificate is answered with the time of its revocation, the first one where it was revoked before. */
const revokedCertificate = z.looseObject({ data: z.looseObject({ revocation_time: z.int().positive() }) })

/** All of them to their end, then the first failure: one that fails must not leave the others unasked for. */
async function allOf<T>(ends: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(ends)
  return await Promise.all(ends)
}

/**
 * What a reviewer reads. Neither accessors nor lease ids: with an accessor a token can be revoked.
 *
 * @param contained what Vault said of the task's token, and when
 */
function statementOf({ tokens, leases, certificates, listed, undecided, unseen }: Held, contained: string): string {
  if (tokens.length === 0) return 'no token was journaled, and its bootstrap time has passed: nothing was read'
  const parts = [contained]
  if (leases.length > 0) parts.push(`sys/leases/revoke answered 204 for ${leases.length === 1 ? 'its lease' : `its ${leases.length} leases`}`)
  if (certificates.length > 0) parts.push('certificate revoked')
  if (listed) parts.push('relying parties have to read the revocation list')
  if (unseen.length > 0) parts.push(`a certificate that ${unseen.join(', ')} may have signed reached nobody, and ends at its own time`)
  else if (undecided) parts.push('what a read that failed may have brought reached nobody, and Vault ends it with the token or by its own first time')
  return parts.join('; ')
}
