import type { LeaseReference, Minted, Provider, ProviderKind, Reservation } from '../provider.ts'
import { ProviderError } from '../provider.ts'
import { bodyOf, faultOf, leaseAnswer, leftNothing, mintAnswer, type MintRequest } from './contract.ts'
import { type HttpGrant, httpGrant, type HttpSettings, httpSettings } from './settings.ts'
import { type Answer, NoAnswer } from '../exchange.ts'
import { refuseUnreadable } from '../files.ts'
import { createTransport, type Method } from './transport.ts'

/** Backends that people bring themselves, behind the contract of docs/writing-a-provider.md. */
export const httpKind: ProviderKind<HttpSettings, HttpGrant> = {
  kind: 'http',
  settings: httpSettings,
  grant: httpGrant,
  async connect(name, settings, { clock }) {
    const { token_file, ca, mtls } = settings
    await refuseUnreadable(name, { token_file, ca, 'mtls.cert': mtls?.cert, 'mtls.key': mtls?.key })
    const transport = createTransport(settings)

    /** @throws ProviderError in which nothing of the backend's is repeated */
    async function ask(method: Method, path: string, signal: AbortSignal, body?: MintRequest): Promise<Answer> {
      try {
        return await transport(method, path, body && JSON.stringify(body), signal)
      } catch (error) {
        if (!(error instanceof NoAnswer)) throw error
        throw new ProviderError(error.fault, `${name} did not answer ${method}: ${error.message}`, error.sent ? 'maybe' : 'no', {
          cause: error.cause,
        })
      }
    }

    /** Ends what there is, and keeps what may still arrive from coming to life. */
    async function end({ lease }: LeaseReference, signal: AbortSignal): Promise<void> {
      const answer = await ask('DELETE', `/leases/${lease}`, signal)
      // Nothing but 204 is evidence. A 404 may come from a proxy, or from a backend that lost its memory and would mint this lease later.
      if (answer.status !== 204) throw unexpected(name, 'DELETE', answer)
    }

    return {
      name,
      kind: 'http',
      revocation: () => settings.revocation,
      local: false,
      limits: { timeout: settings.timeout, concurrency: settings.concurrency },

      async mint(reservation, _journal, signal) {
        // No handle to journal: the backend knows its credentials by the id of the lease.
        const answer = await ask('PUT', `/leases/${reservation.lease}`, signal, mintRequestFor(reservation))
        if (answer.status !== 200 && answer.status !== 201) throw unexpected(name, 'PUT', answer)
        return accepted(name, reservation, answer)
      },

      async revoke(lease, signal) {
        await end(lease, signal)
        if (settings.revocation === 'expiry') throw new ProviderError('refused', `${name} cannot end a credential before its time`, 'maybe')
        const statement = settings.revocation === 'deny' ? 'DELETE answered 204: denied at the backend' : 'DELETE answered 204'
        return { by: 'provider', statement, at: new Date(clock()).toISOString() }
      },

      async recover(reference, signal) {
        // The fence first. GET alone proves nothing: the PUT of a broker that froze may still be on its way, and would mint after the answer.
        await end(reference, signal)
        const answer = await ask('GET', `/leases/${reference.lease}`, signal)
        if (answer.status !== 200) throw unexpected(name, 'GET', answer)
        const known = bodyOf(answer, leaseAnswer, 'application/json')
        if (known?.lease !== reference.lease || (known.state === 'live' && settings.revocation !== 'expiry')) throw garbage(name, 'GET')
        return { minted: known.minted }
      },

      async check(signal) {
        const answer = await ask('GET', '/check', signal)
        if (answer.status !== 204) throw unexpected(name, 'GET /check', answer)
      },
    } satisfies Provider<HttpGrant>
  },
}

function mintRequestFor(reservation: Reservation<HttpGrant>): MintRequest {
  const { task, agent, owner, kind, subject, grant, parameters, expiresAt } = reservation
  const { settings } = reservation.settings
  return { task, agent, owner, kind, subject, grant, settings, parameters: { ...parameters }, expires_at: expiresAt.toISOString() }
}

/** The credential, if it is one and ends in time. One that would outlive its lease is not handed out. */
function accepted(name: string, reservation: Reservation, answer: Answer): Minted {
  const minted = bodyOf(answer, mintAnswer, 'application/json')
  const expiresAt = new Date(minted?.expires_at ?? Number.NaN)
  if (!minted || !(expiresAt <= reservation.expiresAt)) throw garbage(name, 'PUT')
  return { credential: minted.credential, expiresAt }
}

const garbage = (name: string, method: string) =>
  new ProviderError('garbage', `${name} answered ${method} with something that the contract does not know`, 'maybe')

function unexpected(name: string, method: string, answer: Answer): ProviderError {
  const { status, pointlessFor } = answer
  const nothing = leftNothing(answer)
  const fault = faultOf(status)
  // The backend itself has just said so: one agent whose limit or whose lock it meets must not close it to the others.
  const isItsWord = nothing && fault === 'unavailable' && status < 500
  const message = `${name} answered ${method} with status ${status}`
  return new ProviderError(isItsWord ? 'downstream' : fault, message, nothing ? 'no' : 'maybe', { pointlessFor })
}
