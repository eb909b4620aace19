import { resolve } from 'node:path'
import type { ZodType } from 'zod'
import type { Path } from '../base/shape-fault.ts'
import type { YamlFile } from '../base/yaml-file.ts'
import { List, ProviderHead } from './shapes.ts'

export interface ProviderSettings {
  readonly name: string
  readonly kind: string
  /** Parsed by the shape of the kind. */
  readonly settings: unknown
}

/** The shape of a provider's own settings, and of what names a key that it keeps, by kind. */
export type Kinds = ReadonlyMap<string, Kind>

interface Kind {
  readonly settings: ZodType
  readonly signingKey?: ZodType
  settingsFaults?(settings: unknown, above: readonly ProviderSettings[]): readonly { readonly path: Path; readonly message: string }[]
}

export function readProviders(yaml: YamlFile, value: unknown, kinds: Kinds, folder: string): ProviderSettings[] {
  const list = yaml.parse(List.min(1, 'must have at least one provider'), value, ['providers']) ?? []
  const names = new Set<string>()
  const above: ProviderSettings[] = []
  for (const [index, entry] of list.entries()) {
    const path = ['providers', index]
    const head = yaml.parse(ProviderHead, entry, path)
    if (!head) continue
    const { name, kind, ...own } = head
    if (names.has(name)) yaml.fault([...path, 'name'], 'is the name of a provider above')
    names.add(name)
    const known = kinds.get(kind)
    if (!known) yaml.fault([...path, 'kind'], `is not a kind of provider: ${[...kinds.keys()].join(', ')}`)
    const settings = known && yaml.parse(known.settings, withAbsolutePaths(own, folder), path)
    const ofKind = above.filter((one) => one.kind === kind && one.settings !== undefined)
    const faults = settings === undefined ? undefined : known?.settingsFaults?.(settings, ofKind)
    for (const fault of faults ?? []) yaml.fault([...path, ...fault.path], fault.message)
    if (known) above.push({ name, kind, settings })
  }
  return above
}

/**
 * Settings of a provider with its paths made absolute. Which ones are paths is told by their names, the same in every kind and in `listen.tls`:
 * whatever ends in `file`, `cert` or `ca`, and `key` beside a `cert`.
 */
function withAbsolutePaths(value: unknown, folder: string): unknown {
  if (Array.isArray(value)) return value.map((item) => withAbsolutePaths(item, folder))
  if (typeof value !== 'object' || value === null) return value
  const isPath = (key: string): boolean => /(^|_)(file|cert|ca)$/.test(key) || (key === 'key' && 'cert' in value)
  const entries = Object.entries(value).map(([key, item]) => [
    key,
    typeof item === 'string' && item !== '' && isPath(key) ? resolve(folder, item) : withAbsolutePaths(item, folder),
  ])
  return Object.fromEntries(entries)
}
