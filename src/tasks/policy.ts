import { BrokerError, ConfigurationError, describe } from '../base/errors.ts'
import type { Ledger } from '../ledger/connect.ts'
import { archivePolicySet } from '../ledger/policy-sets.ts'
import type { Telemetry } from '../telemetry.ts'
import type { ActivePolicy } from './task.ts'

/** Milliseconds from one try to put a set in force to the next, while the store is away. */
const retryEvery = 1_000

/** The catalogue and policies in force, and the way to replace them. */
export interface PolicyInForce {
  current(): ActivePolicy
  /**
   * Loads both again. All or nothing: whatever is wrong leaves the old ones in force, and is logged. What is right while the store is away is tried again until
   * it is in force, or later files replace it. Never rejects; resolves after the first try.
   */
  reload(): Promise<void>
  /** Nothing is put in force any more once this resolves. */
  stop(): Promise<void>
}

/**
 * Puts catalogue and policies in force. A set is archived before it decides anything, so that there is no decision that cannot be replayed.
 *
 * @param load loads both again, for a reload
 * @throws BrokerError `store_unavailable`, `conflict` where the archive has another set under the digest
 */
export async function putInForce(
  first: ActivePolicy,
  load: () => Promise<ActivePolicy>,
  ledger: Ledger,
  { log, metrics }: Telemetry,
): Promise<PolicyInForce> {
  const activate = async (loaded: ActivePolicy): Promise<ActivePolicy> => {
    await archivePolicySet(ledger, loaded.set.digest, loaded.set.document)
    log.info({ policy_digest: loaded.set.digest, agents: loaded.catalogue.agents.size }, 'a policy set is in force')
    return loaded
  }
  let current = await activate(first)
  /** What was loaded while the store was away: in force as soon as it is back. */
  let waiting: ActivePolicy | undefined
  let retry: NodeJS.Timeout | undefined
  let turn = Promise.resolve()
  let stopped = false

  /** One after the other: of two signals the later files win. */
  const inTurn = (step: () => Promise<void>): Promise<void> => (turn = turn.then(() => (stopped ? undefined : step())))

  async function replace(): Promise<void> {
    try {
      waiting = await load()
    } catch (error) {
      // What waits goes on waiting: it is what was last found to be right.
      return refuse(error)
    }
    await advance()
    if (!waiting) return
    metrics.policyReloads.inc({ outcome: 'waiting' })
    log.warn({ policy_digest: waiting.set.digest }, 'the new catalogue and policies wait for the store; the old ones stay in force until it is back')
  }

  async function advance(): Promise<void> {
    clearTimeout(retry)
    if (!waiting) return
    try {
      current = await activate(waiting)
      waiting = undefined
      metrics.policyReloads.inc({ outcome: 'activated' })
    } catch (error) {
      if (error instanceof BrokerError && error.code === 'store_unavailable') {
        retry = setTimeout(() => void inTurn(advance), retryEvery)
        return
      }
      waiting = undefined
      refuse(error)
    }
  }

  function refuse(error: unknown): void {
    metrics.policyReloads.inc({ outcome: 'refused' })
    const faults = error instanceof ConfigurationError ? error.faults : [describe(error)]
    log.error({ faults }, 'the new catalogue and policies were refused; the old ones stay in force')
  }
  return {
    current: () => current,
    reload: () => inTurn(replace),
    async stop() {
      stopped = true
      await turn
      clearTimeout(retry)
    },
  }
}
