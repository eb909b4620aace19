import { ConfigurationError } from '../base/errors.ts'
import { systemClock } from '../base/time.ts'
import type { Config } from '../config.ts'
import type { Ledger } from '../ledger/connect.ts'
import { killLists } from '../ledger/kill-lists.ts'
import { roleSessions } from '../ledger/role-sessions.ts'
import { providerKinds } from '../providers/kinds.ts'
import type { ProviderSurroundings } from '../providers/provider.ts'
import { createTarget, type Target } from '../providers/target.ts'
import type { Telemetry } from '../telemetry.ts'

/**
 * The providers of a configuration, each behind its guard. @throws ConfigurationError with the faults of all
 *
 * @param ledger where sessions and kill lists are kept; absent where providers are only checked
 */
export async function connectTargets(
  config: Config,
  telemetry: Telemetry,
  production: boolean,
  ledger?: Ledger,
): Promise<ReadonlyMap<string, Target>> {
  const asked = (provider: string, request: string, outcome: string, seconds: number) =>
    telemetry.metrics.providerRequests.observe({ provider, request, outcome }, seconds)
  const noticed: ProviderSurroundings['noticed'] = (provider, level, event, detail) => {
    telemetry.metrics.providerEvents.inc({ provider, event })
    telemetry.log[level]({ provider, event, ...detail }, 'a provider has something to tell')
  }
  const kept = ledger && { sessions: roleSessions(ledger), killLists: killLists(ledger) }
  const surroundings: ProviderSurroundings = {
    publicUrl: config.publicUrl,
    keys: config.keys,
    clock: systemClock,
    production,
    asked,
    noticed,
    ...kept,
  }
  const targets = new Map<string, Target>()
  const faults: string[] = []
  for (const { name, kind, settings } of config.providers) {
    try {
      const provider = await providerKinds.get(kind)!.connect(name, settings, surroundings)
      const observe = (call: string, outcome: string, seconds: number) =>
        telemetry.metrics.providerCalls.observe({ provider: name, call, outcome }, seconds)
      targets.set(name, createTarget(provider, { clock: systemClock, observe }))
    } catch (error) {
      if (!(error instanceof ConfigurationError)) throw error
      faults.push(...error.faults)
    }
  }
  if (faults.length > 0) throw new ConfigurationError(faults)
  return targets
}
