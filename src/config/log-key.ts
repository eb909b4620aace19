import type { YamlFile } from '../base/yaml-file.ts'
import type { Kinds, ProviderSettings } from './providers.ts'
import { LogKeyHead } from './shapes.ts'

/** The key of the log where a provider keeps it. */
export interface LogKeySettings {
  /** Its name under `providers`. */
  readonly provider: string
  /** Parsed by the shape of its kind. */
  readonly settings: unknown
}

/** @param names of providers that may be referred to, also of entries that have faults of their own */
export function readLogKey(
  yaml: YamlFile,
  value: unknown,
  kinds: Kinds,
  providers: readonly ProviderSettings[],
  names: ReadonlySet<unknown>,
): LogKeySettings | undefined {
  if (value === undefined) return undefined
  const head = yaml.parse(LogKeyHead, value, ['log_key'])
  if (!head) return undefined
  const { provider, ...own } = head
  const kind = providers.find(({ name }) => name === provider)?.kind
  const shape = kind === undefined ? undefined : kinds.get(kind)?.signingKey
  if (!names.has(provider)) yaml.fault(['log_key', 'provider'], 'is not the name of a provider under providers')
  else if (kind !== undefined && !shape) yaml.fault(['log_key', 'provider'], 'is the name of a provider that keeps no key to sign with')
  return shape && { provider, settings: yaml.parse(shape, own, ['log_key']) }
}
