import { ConfigurationError, describe } from '../base/errors.ts'
import type { Ledger } from '../ledger/connect.ts'
import { archivePolicySet } from '../ledger/policy-sets.ts'
import type { Telemetry } from '../telemetry.ts'
import type { ActivePolicy } from './task.ts'

/** The catalogue and policies in force, and the way to replace them. */
export interface PolicyInForce {
  current(): ActivePolicy
  /** Loads both again. All or nothing: whatever is wrong leaves the old ones in force, and is logged. Never rejects. */
  reload(): Promise<void>
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
  let reloading = Promise.resolve()

  async function replace(): Promise<void> {
    try {
      current = await activate(await load())
      metrics.policyReloads.inc({ outcome: 'activated' })
    } catch (error) {
      metrics.policyReloads.inc({ outcome: 'refused' })
      const faults = error instanceof ConfigurationError ? error.faults : [describe(error)]
      log.error({ faults }, 'the new catalogue and policies were refused; the old ones stay in force')
    }
  }
  return {
    current: () => current,
    // One after the other: of two signals the later files win.
    reload: () => (reloading = reloading.then(replace)),
  }
}
