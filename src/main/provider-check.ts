import { ConfigurationError } from '../base/errors.ts'
import { type Config, loadConfig } from '../config.ts'
import { originOf } from '../ledger/log-key.ts'
import type { Grant } from '../policy/entry.ts'
import { valueFault } from '../policy/pattern.ts'
import { openNote, signedNote, verifierKeyOf } from '../proof/note.ts'
import { orFault } from '../providers/examination.ts'
import { providerKinds } from '../providers/kinds.ts'
import type { Finding, TrialGrant } from '../providers/provider.ts'
import type { Target } from '../providers/target.ts'
import { createTelemetry } from '../telemetry.ts'
import { loadPolicy } from './policies.ts'
import { connectTargets } from './targets.ts'

/** What the check of one provider came to: good unless something is at fault. */
export interface CheckedProvider {
  readonly name: string
  readonly ok: boolean
  readonly findings: readonly Finding[]
}

export interface ProviderCheck {
  /** This one alone. */
  readonly only?: string | undefined
  /** Values for parameters of grants, by `GRANT.NAME` or, for whichever grant has it, `NAME`. */
  readonly parameters?: Readonly<Record<string, string>>
}

/**
 * Whether each configured provider answers and accepts the broker and, where its kind can tell, whether all is well with each grant of the catalogue that
 * names it. @throws ConfigurationError
 */
export async function checkProviders(configFile: string, { only, parameters = {} }: ProviderCheck = {}): Promise<readonly CheckedProvider[]> {
  const config = await loadConfig(configFile, providerKinds)
  const providers = config.providers.filter(({ name }) => only === undefined || name === only)
  if (providers.length === 0) throw new ConfigurationError([`no provider is configured with the name "${only}"`])
  const { catalogue } = await loadPolicy(config)
  const targets = await connectTargets({ ...config, providers }, createTelemetry({ level: 'silent' }), false)
  return await Promise.all(
    [...targets].map(async ([name, target]) => {
      const grants = [...catalogue.grants.values()].filter(({ provider }) => provider === name).map((grant) => trialOf(grant, parameters))
      const [found, ofKey] = await Promise.all([target.provider.examine?.(grants) ?? shallowCheck(target), checkLogKey(config, target)])
      const findings = [...found, ...ofKey]
      return { name, ok: findings.every(({ level }) => level !== 'fault'), findings }
    }),
  )
}

const shallowCheck = (target: Target): Promise<Finding[]> =>
  orFault('backend', async () => {
    await target.check(new AbortController().signal)
    return [{ level: 'ok', subject: 'backend', message: target.provider.local ? 'is this broker itself' : 'answers and accepts the broker' }]
  })

/** Whether the key of the log signs, where this provider keeps it: with a text that is no checkpoint, and that nobody keeps. */
async function checkLogKey({ logKey, publicUrl }: Config, { provider, signingKey }: Target): Promise<Finding[]> {
  if (logKey?.provider !== provider.name) return []
  const { signal } = new AbortController()
  return await orFault('log key', async () => {
    const remote = signingKey(logKey.settings)
    const key = verifierKeyOf(originOf(publicUrl), await remote.publicKey(signal))
    const text = 'mayfly provider check\n'
    const note = openNote(signedNote(key, text, await remote.sign(Buffer.from(text), signal)), [key])
    return note.ok
      ? [{ level: 'ok', subject: 'log key', message: `signs. The verifier key of a log that begins now: ${key.text}` }]
      : [
          {
            level: 'fault',
            subject: 'log key',
            message: 'gives signatures that are not of its public half: something between here and Vault changes them',
          },
        ]
  })
}

/** @throws ConfigurationError for a value that the catalogue would not let an agent give */
function trialOf({ name, settings, maxTtl, parameters: patterns }: Grant, given: Readonly<Record<string, string>>): TrialGrant {
  const values = Object.entries(patterns).map(([parameter, pattern]) => {
    const value = given[`${name}.${parameter}`] ?? given[parameter]
    const fault = value === undefined ? undefined : valueFault(pattern, value)
    if (fault !== undefined) throw new ConfigurationError([`--param ${parameter}, of the grant ${name}: ${fault}`])
    return [parameter, value] as const
  })
  const complete = values.every((entry): entry is readonly [string, string] => entry[1] !== undefined)
  return { name, settings, maxTtl, parameters: complete ? Object.fromEntries(values) : undefined }
}
