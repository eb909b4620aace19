import { resolve } from 'node:path'
import { z } from 'zod'
import { ifJson } from '../base/json.ts'
import { isLoopback } from '../base/loopback.ts'
import type { Path } from '../base/shape-fault.ts'
import type { YamlFile } from '../base/yaml-file.ts'
import { IdentityEntry, List } from './shapes.ts'
import { readText } from './text.ts'

/** Somebody whose tokens are accepted: what the identity room makes a verifier of. */
export interface IssuerSettings {
  readonly name: string
  readonly profile: IdentityEntry['profile']
  readonly issuer?: string | undefined
  readonly trustDomain?: string | undefined
  readonly keys: { readonly discovery: true } | { readonly url: string } | { readonly jwks: object }
  readonly algorithms?: readonly string[] | undefined
  /** Milliseconds. */
  readonly maxLifetime?: number | undefined
  readonly replay?: 'reusable' | 'single-use' | undefined
  readonly allowHttp?: boolean | undefined
  readonly allowPrivate?: boolean | undefined
  readonly require?: Readonly<Record<string, string | readonly string[]>> | undefined
  readonly claims?: readonly string[] | undefined
}

/** The issuer of `mayfly dev`, which makes its own keys. */
const localIssuer = 'urn:mayfly:local-issuer'

const githubIssuer = 'https://token.actions.githubusercontent.com'

/** @param localKeys public keys of the local issuer, where there is one */
export async function readIdentity(yaml: YamlFile, value: unknown, folder: string, localKeys: object | undefined): Promise<IssuerSettings[]> {
  const list = yaml.parse(List.min(1, 'must have at least one issuer, or nobody could call'), value, ['identity']) ?? []
  const entries = list.map((entry, index) => yaml.parse(IdentityEntry, entry, ['identity', index]))
  const issuers: IssuerSettings[] = []
  for (const [index, entry] of entries.entries()) {
    if (!entry) continue
    const path = ['identity', index]
    checkProfile(yaml, entry, path)
    checkUnique(yaml, entry, entries.slice(0, index), path)
    const keys = localKeys && entry.issuer === localIssuer ? { jwks: localKeys } : await readKeys(yaml, entry, folder, [...path, 'keys'])
    if (keys) issuers.push(settingsOf(entry, keys))
  }
  return issuers
}

/** What each profile needs, and what would be ignored under it. */
function checkProfile(yaml: YamlFile, { profile, issuer, trust_domain, require, claims }: IdentityEntry, path: Path): void {
  const fault = (key: keyof IdentityEntry, message: string): void => yaml.fault([...path, key], message)
  if (profile === 'spiffe') {
    if (trust_domain === undefined) fault('trust_domain', 'is missing: spiffe needs it')
    if (issuer !== undefined) fault('issuer', 'is not for spiffe, whose keys are found by trust domain')
  } else {
    if (trust_domain !== undefined) fault('trust_domain', 'is for spiffe only')
    if (profile === 'github-actions' && issuer !== undefined && issuer !== githubIssuer)
      fault('issuer', `is always ${githubIssuer} for github-actions; another one is oidc`)
    if (profile !== 'github-actions' && issuer === undefined) fault('issuer', 'is missing: exactly as the tokens have it in iss')
  }
  if (profile !== 'oidc' && require) fault('require', 'is for oidc only')
  if (profile !== 'oidc' && claims) fault('claims', 'is for oidc only')
}

/** Two entries for one origin would be a question of which comes first. */
function checkUnique(yaml: YamlFile, entry: IdentityEntry, earlier: readonly (IdentityEntry | undefined)[], path: Path): void {
  const others = earlier.filter((other) => other !== undefined)
  if (others.some(({ name }) => name === entry.name)) yaml.fault([...path, 'name'], 'is the name of an issuer above')
  const mine = originOf(entry)
  if (mine.id === undefined || !others.some((other) => originOf(other).id === mine.id)) return
  yaml.fault([...path, mine.key], 'is that of an issuer above')
}

function originOf({ profile, issuer, trust_domain }: IdentityEntry): { readonly key: keyof IdentityEntry; readonly id: string | undefined } {
  if (profile === 'spiffe') return { key: 'trust_domain', id: trust_domain && `spiffe://${trust_domain}` }
  return profile === 'github-actions' ? { key: 'profile', id: githubIssuer } : { key: 'issuer', id: issuer }
}

/** An address, a file that is read now, or nothing: then the issuer says itself where its keys are. */
async function readKeys(yaml: YamlFile, entry: IdentityEntry, folder: string, path: Path): Promise<IssuerSettings['keys'] | undefined> {
  const { keys, issuer, profile, allow_http = false } = entry
  const refuse = (message: string): undefined => {
    yaml.fault(path, message)
  }
  if (keys === undefined) {
    if (profile === 'spiffe') return refuse('is missing: spiffe needs the address of the bundle, or a file with it')
    // The keys of the local issuer come with `mayfly dev`; other commands read the same file and need none.
    const found = profile === 'github-actions' || issuer === undefined || issuer === localIssuer || isKeyAddress(issuer, allow_http)
    return found ? { discovery: true } : refuse('is missing: the issuer is no https URL at which keys could be discovered')
  }
  if (!/^[a-z][a-z0-9+.-]*:/i.test(keys)) return await readKeyFile(resolve(folder, keys), refuse)
  return isKeyAddress(keys, allow_http)
    ? { url: keys }
    : refuse('must be a file, or an https URL without credentials (http on loopback or with allow_http)')
}

function isKeyAddress(address: string, allowHttp: boolean): boolean {
  if (!URL.canParse(address)) return false
  const { protocol, hostname, username, password, hash } = new URL(address)
  return !username && !password && !hash && (protocol === 'https:' || (protocol === 'http:' && (allowHttp || isLoopback(hostname))))
}

/** Public keys only: a private one in here was meant for somewhere else, and has been read by too many. */
const KeySet = z.looseObject({
  keys: z
    .array(z.looseObject({ kty: z.string() }))
    .min(1)
    .max(64),
})

async function readKeyFile(file: string, refuse: (message: string) => undefined): Promise<{ jwks: object } | undefined> {
  const text = await readText(file)
  if ('fault' in text) return refuse(text.fault)
  const found = KeySet.safeParse(ifJson(text.found)).data
  if (!found) return refuse('must be a JWK set in JSON, with one key at least')
  if (found.keys.some((key) => ['d', 'p', 'q', 'dp', 'dq', 'qi', 'k'].some((member) => member in key)))
    return refuse('holds a private key: pin public ones, and replace the one that lies here')
  return { jwks: found }
}

function settingsOf(entry: IdentityEntry, keys: IssuerSettings['keys']): IssuerSettings {
  const { trust_domain: trustDomain, max_lifetime: maxLifetime, allow_http: allowHttp, allow_private: allowPrivate, ...same } = entry
  return { ...same, trustDomain, maxLifetime, allowHttp, allowPrivate, keys }
}
