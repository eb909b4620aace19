import type { Credential } from '../credential.ts'
import { type Minted, ProviderError, type Reservation } from '../provider.ts'
import type { SecretAnswer } from './answers.ts'
import { credentialOf } from './credential.ts'
import { secretQuestion, type VaultGrant } from './grant.ts'
import type { Late } from './late.ts'
import { earlier, type Life, lifeOf, longestFirstLife } from './life.ts'
import type { Reads } from './reads.ts'
import { Ambiguous, type Journal, pathOf, type Secrets, serialOf } from './secret.ts'
import type { Slots } from './slots.ts'
import type { TaskTokens, TokenHandle } from './task-token.ts'

/** Seconds by which the clocks of Vault and the store may be apart. */
const mostApart = 30

/** What a mint needs of its Vault. */
export interface Mint {
  readonly name: string
  readonly tokens: TaskTokens
  readonly secrets: Secrets
  /** Of mints alone. */
  readonly slots: Slots
  /** By the path of their grant. */
  readonly reads: Reads
  /** Reads of one path that may go on, behind mints that no longer wait for them too. */
  readonly mostReads: number
  readonly late: Late
}

/** Mints with a task token of its own for each lease, which is also what ends it. */
export function createMint({
  name,
  tokens,
  secrets,
  slots,
  reads,
  mostReads,
  late,
}: Mint): (reservation: Reservation<VaultGrant>, journal: Journal, signal: AbortSignal) => Promise<Minted> {
  /** One attempt in its turn at the backend, which is what its path leads to as far as one can tell. Nothing is made where there is none. @throws as `attempt` */
  async function attemptInTurn(reservation: Reservation<VaultGrant>, journal: Journal, signal: AbortSignal): Promise<Minted> {
    const path = pathOf(reservation)
    if (reads.of(path) >= mostReads) throw new ProviderError('downstream', `${name} still owes answers to many reads`, 'no')
    const leave = await slots.enter(path)
    if (!leave) throw new ProviderError('downstream', `${name} is making others of the same kind, and the backend behind it may be down`, 'no')
    let answered: boolean | undefined
    try {
      const minted = await attempt(reservation, journal, signal)
      answered = true
      return minted
    } catch (error) {
      if (!isSilence(error, signal)) throw error
      answered = false
      // Its silence is the backend's: Vault itself has just made a token.
      throw error.as({ fault: 'downstream', minted: 'maybe' })
    } finally {
      leave(answered)
    }
  }

  /** One attempt, with one token. @throws Ambiguous where another may do better, ProviderError and whatever `journal` throws where not */
  async function attempt(reservation: Reservation<VaultGrant>, journal: Journal, signal: AbortSignal): Promise<Minted> {
    const { settings: grant, parameters } = reservation
    const life = lifeOf(reservation)
    // Refused before anything is made.
    secretQuestion(grant, parameters, life.left().seconds)
    const token = await tokens.make(reservation, signal)
    const { handle } = token
    await journal(grant.endedBy === 'serial' ? { ...handle, mount: grant.authority! } : handle)
    try {
      // As late as can be: what only time ends lives from when it is made.
      const asked = life.left()
      const secret = await secrets.read(reservation, secretQuestion(grant, parameters, asked.seconds), token, journal, signal)
      const tokenEnds = secret.lease_id ? await journalBesideRenewal(secret, handle, journal, life, signal) : undefined
      if (grant.endedBy === 'serial') await journalCertificate(secret, grant, handle, journal)
      const credential = credentialIn(secret, asked.seconds, reservation)
      if (!tokenEnds) {
        // Nothing hangs on the token any more: it has done its work.
        await tokens.end(handle, signal)
        return { credential, expiresAt: life.until(endOf(secret)) }
      }
      // What cannot be renewed ends by the time that was asked for with it, however long it took to be journaled.
      const leaseEnds = secret.renewable ? await secrets.renew(secret, life, signal) : asked.after(secret.lease_duration)
      // What only time ends does not end with the token.
      return { credential, expiresAt: grant.endedBy === 'time' ? leaseEnds : earlier(tokenEnds, leaseEnds) }
    } catch (error) {
      const contained = tokens.contain(handle)
      // Once the time is up there is none to wait in: whose silence this is has to be told before the caller goes.
      if (signal.aborted) late.goOn(contained)
      else await contained
      throw error
    }
  }

  /**
   * Journals a lease, and makes its token last meanwhile. Not the lease: until it is journaled it has to end by its own first time, for whoever finds the
   * token alone waits for no longer; and not even the token of one whose first time is longer than that, which only its token ends soon. Both to their
   * end, so that nothing of this is still under way when the mint has failed.
   *
   * @returns when the token ends
   */
  async function journalBesideRenewal(
    { lease_id, lease_duration }: SecretAnswer,
    handle: TokenHandle,
    journal: Journal,
    life: Life,
    signal: AbortSignal,
  ): Promise<Date> {
    const journaling = journal({ ...handle, lease_id })
    if (lease_duration > longestFirstLife) await journaling
    const [journaled, renewed] = await Promise.allSettled([journaling, tokens.renew(handle, life, signal)])
    if (journaled.status === 'rejected') throw journaled.reason
    if (renewed.status === 'rejected') throw renewed.reason
    return renewed.value
  }

  async function journalCertificate(secret: SecretAnswer, grant: VaultGrant, handle: TokenHandle, journal: Journal): Promise<void> {
    const serialNumber = serialOf(secret)
    if (serialNumber === undefined) throw new ProviderError('garbage', `${name} gave a certificate without a serial number`, 'maybe')
    await journal({ ...handle, mount: grant.authority!, serial_number: serialNumber })
  }

  /** What a secret is for its user. @param asked seconds that it was to live. @throws ProviderError where it is not what the catalogue says of it */
  function credentialIn(secret: SecretAnswer, asked: number, reservation: Reservation<VaultGrant>): Credential {
    const grant = reservation.settings
    if (grant.endedBy === 'lease' && !secret.lease_id)
      throw new ProviderError('refused', `${name} gave a secret without a lease, and the catalogue says that its lease ends it`, 'maybe')
    if (grant.engine === 'leased' && !secret.lease_id)
      throw new ProviderError('refused', `${name} gave a secret without a lease, and nothing else says when it ends`, 'maybe')
    const credential = credentialOf(grant, secret.data)
    if (!credential) throw new ProviderError('garbage', `${name} gave a secret that is none of its kind`, 'maybe')
    if (grant.endedBy === 'time' && grant.engine !== 'kv' && outlives(secret, asked, reservation))
      throw new ProviderError('refused', `${name} gave a secret that outlives its lease: look at its role, and at its clock`, 'maybe')
    return credential
  }

  return async (reservation, journal, signal) => {
    let begun = false
    const journalFirst: Journal = (handle) => {
      begun = true
      return journal(handle)
    }
    try {
      return await attemptInTurn(reservation, journalFirst, signal).catch((error: unknown) => {
        if (!(error instanceof Ambiguous) || signal.aborted) throw error
        return attemptInTurn(reservation, journalFirst, signal)
      })
    } catch (error) {
      const fault = error instanceof Ambiguous ? error.fault : error
      // From the first token on something may have been read, whatever the call that failed last says of itself.
      if (begun && fault instanceof ProviderError && fault.minted === 'no') throw fault.as({ minted: 'maybe' })
      throw fault
    }
  }
}

/** Whether nothing was answered in all the time of a mint, after its token was made. Whoever gave up earlier says nothing of the backend. */
const isSilence = (error: unknown, { reason }: AbortSignal): error is ProviderError =>
  error instanceof ProviderError &&
  error.fault === 'timed_out' &&
  error.minted === 'maybe' &&
  reason instanceof DOMException &&
  reason.name === 'TimeoutError'

/** When a secret ends by itself, where it says so: a certificate of pki does. */
const endOf = ({ data }: SecretAnswer): Date | undefined => (typeof data.expiration === 'number' ? new Date(data.expiration * 1_000) : undefined)

/** Whether what was made says of itself that it lives on after its lease, by more than clocks may be apart. @param asked seconds that it was to live */
function outlives(secret: SecretAnswer, asked: number, { expiresAt }: Reservation): boolean {
  const over = secret.lease_id ? secret.lease_duration - asked : 0
  return Math.max(over, ((endOf(secret) ?? expiresAt).getTime() - expiresAt.getTime()) / 1_000) > mostApart
}
