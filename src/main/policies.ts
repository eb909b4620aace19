import path from 'node:path'
import { withAllFaults } from '../base/errors.ts'
import { type Config, loadConfig } from '../config.ts'
import { attributesOf } from '../identity/profiles.ts'
import { checkCases } from '../policy/cases.ts'
import { loadCatalogue } from '../policy/catalogue.ts'
import { loadPolicySet } from '../policy/document.ts'
import { providerKinds } from '../providers/kinds.ts'
import type { ActivePolicy } from '../tasks/task.ts'

/** Catalogue and policies, with the faults of both at once. @throws ConfigurationError */
export async function loadPolicy(config: Config): Promise<ActivePolicy> {
  const rules = new Map(
    config.providers.map(({ name, kind: kindOf, settings }) => {
      const kind = providerKinds.get(kindOf)!
      return [name, { ...kind, named: (grant: unknown) => kind.things?.(settings, grant) ?? [] }]
    }),
  )
  const issuers = new Map(config.identity.map((issuer) => [issuer.name, attributesOf(issuer)]))
  const [catalogue, set] = await withAllFaults([loadCatalogue(config.catalogue, rules, issuers), loadPolicySet(config.policies)])
  return { catalogue, set }
}

/** What the files of catalogue and policies come to, with their cases. @throws ConfigurationError with every fault */
export async function checkPolicies(
  configFile: string,
): Promise<{ digest: string; policies: number; cases: readonly { name: string; ok: boolean; detail: string }[] }> {
  const config = await loadConfig(configFile, providerKinds)
  const { catalogue, set } = await loadPolicy(config)
  const cases = await checkCases(catalogue, set, path.join(config.policies, 'cases.yaml'))
  return {
    digest: set.digest,
    policies: Object.keys(set.texts.policies).length,
    cases: cases.map(({ name, place, ok, detail }) => ({ name: `${name} (${place})`, ok, detail })),
  }
}
