import type { Handle } from '../../base/evidence.ts'
import { unlessFired } from '../../base/signal.ts'
import { type Minted, ProviderError, type Reservation } from '../provider.ts'
import { authOf, renewedOf, type SecretAnswer, secretOf, unexpected, warns } from './answers.ts'
import type { Ask, VaultAnswer } from './client.ts'
import { credentialOf } from './credential.ts'
import type { Ending } from './end.ts'
import { asProviderError } from './faults.ts'
import { secretQuestion, type VaultGrant } from './grant.ts'
import type { Identity } from './identity.ts'
import { earlier, type Life, lifeOf, longestFirstLife } from './life.ts'
import type { Reads } from './reads.ts'
import type { Slots } from './slots.ts'

/** Seconds that a task token lives until it is known, read with and renewed: what a crash leaves behind dies in this time. */
const bootstrap = 45
/** Milliseconds after which a read is given up for good: Vault ends a request after 90 s, unless the backend behind it hangs. */
const longestRead = 100_000
/** Seconds by which the clocks of Vault and the store may be apart. */
const mostApart = 30

type Journal = (handle: Handle) => Promise<void>

/** A token that was made for one task, and where. */
interface TaskToken {
  readonly token: string
  readonly accessor: string
  readonly cluster: string | undefined
}

/** What is journaled of it, and stands in all that is journaled of what was read with it. */
type TokenHandle = Handle & { readonly accessor: string }

/** What a mint needs of its Vault. */
export interface Mint {
  readonly name: string
  readonly ask: Ask
  readonly identity: Identity
  readonly ending: Ending
  /** Of mints alone. */
  readonly slots: Slots
  readonly tokenRole: string
  readonly namespace: string | undefined
  /** Milliseconds that containing may take after a mint went wrong. */
  readonly timeout: number
  /** By the path of their grant, and by their lease. */
  readonly reads: Reads
  /** Reads of one path that may go on, behind mints that no longer wait for them too. */
  readonly mostReads: number
  /** What is done behind mints that no longer wait: about reads that go on, and about task tokens. */
  readonly late: Set<Promise<void>>
}

/** A read that gave nothing that can be used, and perhaps something that lives. */
class Ambiguous extends Error {
  readonly fault: ProviderError

  constructor(fault: ProviderError) {
    super(fault.message)
    this.fault = fault
  }
}

/** Mints with a task token of its own for each lease, which is also what ends it. */
export function createMint(vault: Mint): (reservation: Reservation<VaultGrant>, journal: Journal, signal: AbortSignal) => Promise<Minted> {
  const { name, identity, ending, namespace } = vault
  const place = namespace === undefined ? {} : { namespace }
  /** Lets something that never fails go on behind the mint. */
  function goOn(work: Promise<void>): void {
    const done: Promise<void> = work.finally(() => vault.late.delete(done))
    vault.late.add(done)
  }

  /** One attempt in its turn at the backend, which is what its path leads to as far as one can tell. Nothing is made where there is none. @throws as `attempt` */
  async function attemptInTurn(reservation: Reservation<VaultGrant>, journal: Journal, signal: AbortSignal): Promise<Minted> {
    const path = pathOf(reservation)
    if (vault.reads.of(path) >= vault.mostReads) throw new ProviderError('downstream', `${name} still owes answers to many reads`, 'no')
    const leave = await vault.slots.enter(path)
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
    const grant = reservation.settings
    const life = lifeOf(reservation)
    // Refused before anything is made.
    secretQuestion(grant, reservation.parameters, life.left().seconds)
    const { token, accessor, cluster } = await newToken(reservation, grant.policy, signal)
    const handle = { ...place, ...(cluster === undefined ? {} : { cluster_id: cluster }), accessor }
    await journal(grant.endedBy === 'serial' ? { ...handle, mount: grant.authority! } : handle)
    try {
      // As late as can be: what only time ends lives from when it is made.
      const asked = life.left()
      const question = secretQuestion(grant, reservation.parameters, asked.seconds)
      const secret = await readSecret(reservation, question, token, handle, journal, signal)
      const tokenEnds = secret.lease_id ? await journalBesideRenewal(secret, handle, journal, life, signal) : undefined
      if (grant.endedBy === 'serial') await journalCertificate(secret, grant, handle, journal)
      if (grant.endedBy === 'lease' && !secret.lease_id)
        throw new ProviderError('refused', `${name} gave a secret without a lease, and the catalogue says that its lease ends it`, 'maybe')
      if (grant.engine === 'leased' && !secret.lease_id)
        throw new ProviderError('refused', `${name} gave a secret without a lease, and nothing else says when it ends`, 'maybe')
      const credential = credentialOf(grant, secret.data)
      if (!credential) throw new ProviderError('garbage', `${name} gave a secret that is none of its kind`, 'maybe')
      if (grant.endedBy === 'time' && grant.engine !== 'kv' && outlives(secret, asked.seconds, reservation))
        throw new ProviderError('refused', `${name} gave a secret that outlives its lease: look at its role, and at its clock`, 'maybe')
      if (tokenEnds) {
        // What cannot be renewed ends by the time that was asked for with it, however long it took to be journaled.
        const leaseEnds = secret.renewable ? await renewLease(secret, life, signal) : asked.after(secret.lease_duration)
        // What only time ends does not end with the token.
        return { credential, expiresAt: grant.endedBy === 'time' ? leaseEnds : earlier(tokenEnds, leaseEnds) }
      }
      // Nothing hangs on the token any more: it has done its work.
      await ending.contain({ accessor, namespace, cluster }, signal)
      return { credential, expiresAt: life.until(endOf(secret)) }
    } catch (error) {
      const contained = contain(handle)
      // Once the time is up there is none to wait in: whose silence this is has to be told before the caller goes.
      if (signal.aborted) goOn(contained)
      else await contained
      throw error
    }
  }

  async function newToken(reservation: Reservation<VaultGrant>, policy: string, signal: AbortSignal): Promise<TaskToken> {
    const body = {
      ttl: `${bootstrap}s`,
      type: 'service',
      policies: [policy],
      no_default_policy: true,
      renewable: true,
      meta: { task: reservation.task, lease: reservation.lease },
      display_name: reservation.lease,
    }
    // Whatever becomes of this question, nothing was minted: a token whose answer was lost is known to nobody, reads nothing, and dies in its bootstrap time.
    const answer = await identity.ask({ path: `auth/token/create/${vault.tokenRole}`, body, namespace }, signal).catch((error: unknown) => {
      throw asProviderError(name, error).as({ minted: 'no' })
    })
    const made = authOf(answer)
    if (!made) throw unexpected(name, 'task token', answer, 'no')
    const { client_token: token, accessor, orphan, token_type: type, lease_duration: ttl, policies } = made.auth
    const fit = orphan === true && type === 'service' && accessor !== '' && ttl <= bootstrap && policies.length === 1 && policies[0] === policy
    if (fit && !warns(answer, /does not exist/)) return { token, accessor, cluster: answer.cluster }
    if (accessor !== '') await contain({ accessor })
    const reason = fit ? `it has no policy ${policy}` : `its token role ${vault.tokenRole} does not make what the broker asks for: see provider check`
    throw new ProviderError('refused', `${name} gave no task token: ${reason}`, 'no')
  }

  /**
   * Reads a secret with the task token. Never broken off: a database role whose making is cut short is known to no lease. Where it takes too long the
   * mint stops waiting, and what arrives later is journaled and ended.
   */
  async function readSecret(
    reservation: Reservation<VaultGrant>,
    question: ReturnType<typeof secretQuestion>,
    token: string,
    handle: TokenHandle,
    journal: Journal,
    signal: AbortSignal,
  ): Promise<SecretAnswer> {
    // Journaling may have taken longer than anybody waits, and what is read then nobody gets.
    if (signal.aborted) throw new ProviderError('timed_out', `${name} was not asked for a secret in time`, 'no')
    const asked = vault.ask({ ...question, token, namespace }, AbortSignal.timeout(longestRead))
    const reading = vault.reads.counted([pathOf(reservation), reservation.lease], asked)
    const answer = await unlessFired(reading, signal).catch((error: unknown) => {
      throw new Ambiguous(asProviderError(name, error))
    })
    if (answer === undefined) {
      goOn(vault.reads.counted([reservation.lease], endLate(reservation.settings, reading, handle, journal)))
      throw new ProviderError('timed_out', `${name} gave no secret in time`, 'maybe')
    }
    const secret = secretOf(answer)
    if (secret) return secret
    const fault = unexpected(name, 'secret', answer, 'maybe')
    // Another attempt would only be one more that meets the limit.
    throw answer.status === 429 ? fault : new Ambiguous(fault)
  }

  /**
   * Nobody waits for this secret any more. Its lease is journaled, so that it is ended with proof, and ended at once, in case the store cannot be written.
   * What fails here is not lost: the token is contained, and the lease ends by its own first time; nobody has the certificate, which ends at its own.
   */
  async function endLate(grant: VaultGrant, reading: Promise<VaultAnswer>, handle: TokenHandle, journal: Journal): Promise<void> {
    const answer = await reading.catch(() => undefined)
    const secret = answer && secretOf(answer)
    if (!secret) return
    const signal = AbortSignal.timeout(vault.timeout)
    const { lease_id: leaseId } = secret
    const ends: Promise<unknown>[] = []
    if (leaseId) ends.push(journal({ ...handle, lease_id: leaseId }), ending.revokeLease({ leaseId, namespace }, signal))
    const [mount, serialNumber] = [grant.authority, serialOf(secret)]
    if (grant.endedBy === 'serial' && mount !== undefined && serialNumber !== undefined)
      ends.push(journal({ ...handle, mount, serial_number: serialNumber }), ending.revokeCertificate({ mount, serialNumber, namespace }, signal))
    await Promise.allSettled(ends)
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
    const [journaled, renewed] = await Promise.allSettled([journaling, renewToken(handle.accessor, life, signal)])
    if (journaled.status === 'rejected') throw journaled.reason
    if (renewed.status === 'rejected') throw renewed.reason
    return renewed.value
  }

  async function journalCertificate(secret: SecretAnswer, grant: VaultGrant, handle: TokenHandle, journal: Journal): Promise<void> {
    const serialNumber = serialOf(secret)
    if (serialNumber === undefined) throw new ProviderError('garbage', `${name} gave a certificate without a serial number`, 'maybe')
    await journal({ ...handle, mount: grant.authority!, serial_number: serialNumber })
  }

  /** Makes a token last to the end of the reservation, and no longer. @returns when it ends: sooner where Vault allowed less */
  async function renewToken(accessor: string, life: Life, signal: AbortSignal): Promise<Date> {
    const { seconds, after } = life.left()
    const answer = await identity.ask({ path: 'auth/token/renew-accessor', body: { accessor, increment: seconds }, namespace }, signal)
    const renewed = authOf(answer)
    if (!renewed) throw unexpected(name, 'longer life for the task token', answer, 'maybe')
    return after(renewed.auth.lease_duration)
  }

  /** The same for a lease. */
  async function renewLease(secret: SecretAnswer, life: Life, signal: AbortSignal): Promise<Date> {
    const { seconds, after } = life.left()
    const answer = await identity.ask({ path: 'sys/leases/renew', body: { lease_id: secret.lease_id, increment: seconds }, namespace }, signal)
    const renewed = renewedOf(answer)
    if (!renewed) throw unexpected(name, 'longer lease', answer, 'maybe')
    return after(renewed.lease_duration)
  }

  /** After something went wrong, whatever that was. Where this fails too the broker's own end of the lease does it again, with proof. */
  const contain = ({ accessor, cluster_id: cluster }: TokenHandle): Promise<void> =>
    ending.contain({ accessor, namespace, cluster }, AbortSignal.timeout(vault.timeout)).catch(() => {})

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

/** The path of a grant as it stands in the catalogue: values of an agent must not make another backend of one. */
const pathOf = ({ settings }: Reservation<VaultGrant>): string => settings.parts.join('/')

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

/** The serial number of a certificate. Undefined: it is none. */
const serialOf = ({ data }: SecretAnswer): string | undefined =>
  typeof data.serial_number === 'string' && data.serial_number !== '' ? data.serial_number : undefined
