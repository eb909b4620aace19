import type { Handle } from '../../base/evidence.ts'
import { ProviderError, type Reservation } from '../provider.ts'
import { authOf, unexpected, warns } from './answers.ts'
import type { Ending } from './end.ts'
import { asProviderError } from './faults.ts'
import type { VaultGrant } from './grant.ts'
import type { Identity } from './identity.ts'
import type { Life } from './life.ts'

/** Seconds that a task token lives until it is known, read with and renewed: what a crash leaves behind dies in this time. */
const bootstrap = 45

/** What is journaled of a task token, and stands in all that is journaled of what was read with it. */
export type TokenHandle = Handle & { readonly accessor: string }

/** A token that was made for one lease. Nobody is given it. */
export interface TaskToken {
  readonly token: string
  readonly handle: TokenHandle
}

/** The tokens with which secrets are read, at one Vault. */
export interface TaskTokens {
  /** Makes one of the policy of its grant alone. Where it fails nothing was minted. @throws ProviderError */
  make(reservation: Reservation<VaultGrant>, signal: AbortSignal): Promise<TaskToken>
  /** Makes one last to the end of the reservation, and no longer. @returns when it ends: sooner where Vault allowed less. @throws ProviderError */
  renew(handle: TokenHandle, life: Life, signal: AbortSignal): Promise<Date>
  /** Ends one that has done its work. @throws ProviderError */
  end(handle: TokenHandle, signal: AbortSignal): Promise<void>
  /** The same after something went wrong, whatever that was. Never rejects: where this fails too the broker's own end of the lease does it again, with proof. */
  contain(handle: TokenHandle): Promise<void>
}

/**
 * @param tokenRole the role of Vault's that makes them
 * @param timeout milliseconds that containing may take
 */
export function createTaskTokens(
  name: string,
  identity: Identity,
  ending: Ending,
  { tokenRole, namespace, timeout }: { readonly tokenRole: string; readonly namespace: string | undefined; readonly timeout: number },
): TaskTokens {
  const end: TaskTokens['end'] = ({ accessor, cluster_id: cluster }, signal) => ending.contain({ accessor, namespace, cluster }, signal)
  const contain: TaskTokens['contain'] = (handle) => end(handle, AbortSignal.timeout(timeout)).catch(() => {})
  const handleOf = (accessor: string, cluster: string | undefined): TokenHandle => ({
    ...(namespace === undefined ? {} : { namespace }),
    ...(cluster === undefined ? {} : { cluster_id: cluster }),
    accessor,
  })

  return {
    async make({ task, lease, settings: { policy } }, signal) {
      const body = {
        ttl: `${bootstrap}s`,
        type: 'service',
        policies: [policy],
        no_default_policy: true,
        renewable: true,
        meta: { task, lease },
        display_name: lease,
      }
      // Whatever becomes of this question, nothing was minted: a token whose answer was lost is known to nobody, reads nothing, and dies in its bootstrap time.
      const answer = await identity.ask({ path: `auth/token/create/${tokenRole}`, body, namespace }, signal).catch((error: unknown) => {
        throw asProviderError(name, error).as({ minted: 'no' })
      })
      const made = authOf(answer)
      if (!made) throw unexpected(name, 'task token', answer, 'no')
      const { client_token: token, accessor, orphan, token_type: type, lease_duration: ttl, policies } = made.auth
      const handle = handleOf(accessor, answer.cluster)
      const fit = orphan === true && type === 'service' && accessor !== '' && ttl <= bootstrap && policies.length === 1 && policies[0] === policy
      if (fit && !warns(answer, /does not exist/)) return { token, handle }
      if (accessor !== '') await contain(handle)
      const reason = fit ? `it has no policy ${policy}` : `its token role ${tokenRole} does not make what the broker asks for: see provider check`
      throw new ProviderError('refused', `${name} gave no task token: ${reason}`, 'no')
    },

    async renew({ accessor }, life, signal) {
      const { seconds, after } = life.left()
      const answer = await identity.ask({ path: 'auth/token/renew-accessor', body: { accessor, increment: seconds }, namespace }, signal)
      const renewed = authOf(answer)
      if (!renewed) throw unexpected(name, 'longer life for the task token', answer, 'maybe')
      return after(renewed.auth.lease_duration)
    },

    end,
    contain,
  }
}
