import { dirname, resolve } from 'node:path'
import type { z, ZodType } from 'zod'
import { readYaml, type YamlFile } from './base/yaml-file.ts'
import { type ConsoleSettings, readConsole } from './config/console.ts'
import { type Environment, wholeEnvironment } from './config/environment.ts'
import { readIdentity } from './config/identity.ts'
import { type LogKeySettings, readLogKey } from './config/log-key.ts'
import { type ListenSettings, readListen } from './config/listen.ts'
import { type Kinds, type ProviderSettings, readProviders } from './config/providers.ts'
import { withReferences } from './config/references.ts'
import * as shapes from './config/shapes.ts'
import type { Issuer } from './identity/issuer.ts'
import { attributesOf, neverProven } from './identity/profiles.ts'
import { parseWitnessKey, type WitnessKey } from './proof/cosignature.ts'

/** What a broker is told: plain values, every path absolute, every duration in milliseconds. It holds secrets, so it is never logged. */
export interface Config {
  readonly file: string
  readonly publicUrl: string
  readonly listen: ListenSettings
  readonly store: StoreSettings
  /** Folder (0700) of the keys that the broker makes itself. */
  readonly keys: string
  readonly catalogue: string
  /** Folder. */
  readonly policies: string
  readonly identity: readonly Issuer[]
  readonly operators: readonly (Bearer & { readonly roles: readonly ('operator' | 'reviewer')[] })[]
  /** How people sign in; absent where they cannot. */
  readonly console: ConsoleSettings | undefined
  readonly resourceServers: readonly (Bearer & { readonly audience: string })[]
  readonly providers: readonly ProviderSettings[]
  /** Absent: `log.key` in the folder of keys. */
  readonly logKey: LogKeySettings | undefined
  /** Where each checkpoint is kept besides, with absolute paths. */
  readonly anchors: readonly AnchorSettings[]
  readonly limits: { readonly leasesPerTask: number; readonly stuckAfter: number }
  /** How often one caller may ask for something new. */
  readonly rates: Readonly<Record<'issue' | 'introspect' | 'replay', { readonly burst: number; readonly perSecond: number }>>
  /** How many requests at once, and how long one may take. */
  readonly doorLimits: { readonly inFlight: number; readonly time: number }
  /** Of clients, at once. */
  readonly connections: number
  readonly log: { readonly level: string }
}

export type AnchorSettings =
  | { readonly file: string }
  | { readonly url: string; readonly tokenFile?: string }
  | { readonly witness: string; readonly key: WitnessKey; readonly file: string }

export type StoreSettings = { readonly embedded: string } | { readonly url: string; readonly pool?: number }

/** Whoever has these attributes from this issuer. */
interface Bearer {
  readonly issuer: string
  readonly match: Readonly<Record<string, string | readonly string[]>>
}

/** What `mayfly dev` puts in the place of what the file says. What is replaced is not read at all, and so cannot be at fault. */
export interface Overrides {
  readonly publicUrl?: string
  /** Listens there on loopback, without TLS. */
  readonly port?: number
  /** Absolute. */
  readonly store?: StoreSettings
  /** Absolute. */
  readonly keys?: string
  /** JWK set of the issuer `urn:mayfly:local-issuer`. */
  readonly localKeys?: object
}

/**
 * Reads the configuration: the file, what it refers to in the environment and in other files, and the certificates and pinned keys it names.
 *
 * @throws ConfigurationError with every fault at once, each as `file:line: path: message`; no fault repeats a value
 */
export async function loadConfig(
  file: string,
  kinds: Kinds,
  environment: Environment = wholeEnvironment(),
  overrides: Overrides = {},
): Promise<Config> {
  const yaml = await readYaml(file)
  const folder = dirname(resolve(file))
  const raw = await withReferences(yaml, withOverrides(yaml.value, overrides), folder, environment)
  yaml.parse(shapes.Sections, raw, [])
  if (!isMapping(raw)) yaml.refuseFaults()
  const sections: Readonly<Record<string, unknown>> = isMapping(raw) ? raw : {}
  const read = <T>(name: string, shape: ZodType<T>): T | undefined => yaml.parse(shape, sections[name], [name])
  const issuers = namesOf(sections['identity'])

  const publicUrl = read('public_url', shapes.PublicUrl)
  const listen = await readListen(yaml, sections['listen'], folder)
  const store = read('store', shapes.Store)
  const keys = read('keys', shapes.File.default('./keys'))
  const catalogue = read('catalogue', shapes.File)
  const policies = read('policies', shapes.File)
  const identity = await readIdentity(yaml, sections['identity'], folder, overrides.localKeys)
  const operators = readBearers(yaml, 'operators', sections['operators'], shapes.OperatorEntry, identity, issuers)
  const console = readConsole(yaml, sections['console'], identity, issuers)
  const resourceServers = readBearers(yaml, 'resource_servers', sections['resource_servers'], shapes.ResourceServerEntry, identity, issuers)
  const providers = readProviders(yaml, sections['providers'], kinds, folder)
  const logKey = readLogKey(yaml, sections['log_key'], kinds, providers, namesOf(sections['providers']))
  const anchors = readAnchors(yaml, sections['anchors'], folder)
  const limits = read('limits', shapes.Limits.prefault({}))
  const log = read('log', shapes.LogSettings.prefault({}))
  yaml.refuseFaults()
  if (!publicUrl || !listen || !store || !keys || !catalogue || !policies || !limits || !log) throw new Error('a fault was not reported')

  return {
    file: resolve(file),
    publicUrl,
    listen,
    store: storeOf(store, folder),
    keys: resolve(folder, keys),
    catalogue: resolve(folder, catalogue),
    policies: resolve(folder, policies),
    identity,
    operators,
    console,
    resourceServers,
    providers,
    logKey,
    anchors,
    limits: { leasesPerTask: limits.leases_per_task, stuckAfter: limits.stuck_after },
    rates: {
      issue: { burst: limits.burst, perSecond: limits.requests_per_second },
      // Two seconds' worth at once: a resource server asks as its own callers come.
      introspect: { burst: 2 * limits.introspections_per_second, perSecond: limits.introspections_per_second },
      replay: { burst: Math.ceil(limits.burst / 4), perSecond: limits.requests_per_second / 25 },
    },
    doorLimits: { inFlight: limits.in_flight, time: limits.request_timeout },
    connections: limits.connections,
    log,
  }
}

function withOverrides(value: unknown, { publicUrl, port, store, keys }: Overrides): unknown {
  if (!isMapping(value)) return value
  return {
    ...value,
    ...(publicUrl !== undefined && { public_url: publicUrl }),
    ...(port !== undefined && { listen: { host: '127.0.0.1', port } }),
    ...(store !== undefined && { store }),
    ...(keys !== undefined && { keys }),
  }
}

function storeOf({ embedded, url, pool }: z.output<typeof shapes.Store>, folder: string): StoreSettings {
  if (embedded !== undefined) return { embedded: resolve(folder, embedded) }
  return { url: url ?? '', ...(pool !== undefined && { pool }) }
}

/** Operators, or resource servers. @param names of issuers that may be referred to, also of entries that have faults of their own */
function readBearers<Entry extends Bearer>(
  yaml: YamlFile,
  section: string,
  value: unknown,
  shape: ZodType<Entry>,
  identity: readonly Issuer[],
  names: ReadonlySet<unknown>,
): Entry[] {
  const list = yaml.parse(shapes.List.default([]), value, [section]) ?? []
  return list.flatMap((one, index) => {
    const entry = yaml.parse(shape, one, [section, index])
    const issuer = isMapping(one) ? one['issuer'] : undefined
    if (issuer !== undefined && !names.has(issuer)) yaml.fault([section, index, 'issuer'], 'is not the name of an issuer under identity')
    if (!entry) return []
    const known = identity.find(({ name }) => name === entry.issuer)
    const proven = known && attributesOf(known)
    for (const name of Object.keys(entry.match)) if (proven?.has(name) === false) yaml.fault([section, index, 'match', name], neverProven)
    return [entry]
  })
}

function readAnchors(yaml: YamlFile, value: unknown, folder: string): AnchorSettings[] {
  const list = yaml.parse(shapes.List.default([]), value, ['anchors']) ?? []
  return list.flatMap((one, index): AnchorSettings[] => {
    const { file, url, token_file: token, witness, key } = yaml.parse(shapes.AnchorEntry, one, ['anchors', index]) ?? {}
    const witnessKey = parseWitnessKey(key ?? '')
    if (witness !== undefined && witnessKey && file !== undefined) return [{ witness, key: witnessKey, file: resolve(folder, file) }]
    if (file !== undefined) return [{ file: resolve(folder, file) }]
    return url === undefined ? [] : [{ url, ...(token !== undefined && { tokenFile: resolve(folder, token) }) }]
  })
}

const namesOf = (list: unknown): ReadonlySet<unknown> =>
  new Set(Array.isArray(list) ? list.map((entry) => (isMapping(entry) ? entry['name'] : undefined)) : [])

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value)
