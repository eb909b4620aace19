import { isSafeAddress } from '../base/address.ts'
import { ConfigurationError } from '../base/errors.ts'
import { type Algorithm, algorithms, isAlgorithm } from './algorithm.ts'
import type { ProfileName } from './actor.ts'
import { readKeys } from './jwk.ts'
import { isTrustDomain } from './spiffe.ts'

/** Where the keys of an issuer come from: its discovery document, an address, or a set that is pinned here and never fetched. */
export type KeySettings = { readonly discovery: true } | { readonly url: string } | { readonly jwks: object }

/** `reusable`: the workload presents one token until it is renewed. `single-use`: each token opens one call, on whichever broker. */
export type ReplayRule = 'reusable' | 'single-use'

/** An issuer whose tokens are accepted, as written in the configuration. */
export interface Issuer {
  /** The name by which catalogue, operators and resource servers refer to it. */
  readonly name: string
  readonly profile: ProfileName
  /** The exact value of `iss`. Fixed for `github-actions`; `spiffe` has none. */
  readonly issuer?: string | undefined
  /** For `spiffe` only: whose SPIFFE IDs the bundle may vouch for. */
  readonly trustDomain?: string | undefined
  readonly keys: KeySettings
  /** Asymmetric ones only. The default is those of the profile. */
  readonly algorithms?: readonly string[] | undefined
  /** The longest total life of a token, in milliseconds. */
  readonly maxLifetime?: number | undefined
  readonly replay?: ReplayRule | undefined
  /** Keys over plain http from elsewhere than loopback: for a mesh that protects them by itself. */
  readonly allowHttp?: boolean | undefined
  /** Keys from private addresses, such as an issuer inside the cluster. */
  readonly allowPrivate?: boolean | undefined
  /** For `oidc` only: claims that must have this value, or one of these. */
  readonly require?: Readonly<Record<string, string | readonly string[]>> | undefined
  /** For `oidc` only: further claims that become attributes. */
  readonly claims?: readonly string[] | undefined
}

/** An issuer with everything decided. */
export interface Rules {
  readonly name: string
  readonly profile: ProfileName
  readonly issuer: string | undefined
  readonly trustDomain: string | undefined
  readonly keys: KeySettings
  readonly algorithms: readonly Algorithm[]
  readonly maxLifetime: number
  readonly replay: ReplayRule
  readonly allowHttp: boolean
  readonly allowPrivate: boolean
  readonly require: Readonly<Record<string, string | readonly string[]>>
  readonly claims: readonly string[]
}

/** The one issuer of GitHub's own runners. Enterprise servers have others: they are `oidc`. */
const githubIssuer = 'https://token.actions.githubusercontent.com'

/**
 * One hour, in milliseconds, whatever the profile: as long as Kubernetes, GCP and most others make a token by default, and short enough to bound what a deleted workload
 * can still do. It shuts out the year-long default tokens of Kubernetes and the day-long ones of Azure.
 */
const defaultLifetime = 3_600_000

/** SPIFFE: JWT-SVID section 2.1, which has no EdDSA. Kubernetes: what an API server can sign with. */
const defaultAlgorithms: Readonly<Record<ProfileName, readonly Algorithm[]>> = {
  spiffe: ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'],
  kubernetes: ['RS256', 'ES256', 'ES384', 'ES512'],
  'github-actions': ['RS256'],
  oidc: algorithms,
}

/** GitHub makes a token for each request of a job; the others hand out the same one until it is renewed. */
const defaultReplay: Readonly<Record<ProfileName, ReplayRule>> = {
  spiffe: 'reusable',
  kubernetes: 'reusable',
  'github-actions': 'single-use',
  oidc: 'reusable',
}

/** Settings with their defaults. They must have no faults. */
export function rulesOf(issuer: Issuer): Rules {
  const { name, profile, keys } = issuer
  return {
    name,
    profile,
    issuer: profile === 'github-actions' ? githubIssuer : issuer.issuer,
    trustDomain: issuer.trustDomain,
    keys,
    algorithms: issuer.algorithms?.filter(isAlgorithm) ?? defaultAlgorithms[profile],
    maxLifetime: issuer.maxLifetime ?? defaultLifetime,
    replay: issuer.replay ?? defaultReplay[profile],
    allowHttp: issuer.allowHttp ?? false,
    allowPrivate: issuer.allowPrivate ?? false,
    require: issuer.require ?? {},
    claims: issuer.claims ?? [],
  }
}

/** What is wrong with an issuer. */
export interface IssuerFault {
  /** Its place in the list. */
  readonly at: number
  /** The key of its entry in the configuration that says so. */
  readonly key: FaultyKey
  /** In words that follow the key. */
  readonly message: string
}

type FaultyKey = 'name' | 'profile' | 'issuer' | 'trust_domain' | 'keys' | 'algorithms' | 'max_lifetime' | 'require' | 'claims'
type OwnFault = Omit<IssuerFault, 'at'>

/** An issuer that may be without its keys: then nothing is said about them. */
export type Judged = Omit<Issuer, 'keys'> & { readonly keys?: KeySettings | undefined }

/** @throws ConfigurationError with everything that is wrong with the issuers */
export function checkIssuers(issuers: readonly Issuer[]): void {
  const faults = issuerFaults(issuers)
  if (faults.length > 0) throw new ConfigurationError(faults.map(({ at, key, message }) => `issuer ${issuers[at]!.name}: ${key}: ${message}`))
}

/** Everything that is wrong with a list of issuers. Empty: they can be used. */
export const issuerFaults = (issuers: readonly Judged[]): IssuerFault[] =>
  issuers.flatMap((issuer, at) => {
    const faults = [...settingFaults(issuer), ...clashes(issuer, issuers.slice(0, at)), ...keyFaults(issuer)]
    return faults.map((fault) => ({ at, ...fault }))
  })

/** What each profile needs, and what would be ignored under it. */
function settingFaults({ name, profile, issuer, trustDomain, algorithms: named = algorithms, maxLifetime, require, claims }: Judged): OwnFault[] {
  const faults: OwnFault[] = []
  const unless = (holds: boolean, key: FaultyKey, message: string): void => void (holds || faults.push({ key, message }))

  unless(name !== 'unknown', 'name', 'stands for all strangers in the metrics')
  if (profile === 'spiffe') {
    unless(issuer === undefined, 'issuer', 'is not for spiffe, whose keys are found by trust domain')
    unless(trustDomain !== undefined, 'trust_domain', 'is missing: spiffe needs it')
    unless(trustDomain === undefined || isTrustDomain(trustDomain), 'trust_domain', 'must be a trust domain such as prod.example.com')
  } else {
    unless(trustDomain === undefined, 'trust_domain', 'is for spiffe only')
    if (profile === 'github-actions')
      unless((issuer ?? githubIssuer) === githubIssuer, 'issuer', `is always ${githubIssuer} for github-actions; another one is oidc`)
    else unless(!!issuer, 'issuer', 'is missing: exactly as the tokens have it in iss')
  }
  unless(profile === 'oidc' || require === undefined, 'require', 'is for oidc only')
  unless(profile === 'oidc' || claims === undefined, 'claims', 'is for oidc only')

  const wrong = named.filter((algorithm) => !isAlgorithm(algorithm))
  unless(wrong.length === 0, 'algorithms', `can be asymmetric ones only (${algorithms.join(', ')}), and not ${wrong.join(', ')}`)
  unless(named.length > 0, 'algorithms', 'must not be empty')
  unless(maxLifetime === undefined || (Number.isFinite(maxLifetime) && maxLifetime > 0), 'max_lifetime', 'must be a positive duration')
  return faults
}

/** Whether there is a place where keys can be had, or one at least among those that are pinned. */
function keyFaults({ keys, ...settings }: Judged): readonly OwnFault[] {
  const fault = (message: string): readonly OwnFault[] => [{ key: 'keys', message }]
  const { profile, issuer } = settings
  if (keys === undefined) return []
  if ('url' in keys)
    return isKeyAddress(keys.url, settings) ? [] : fault('must be a file, or an https URL without credentials (http on loopback or with allow_http)')
  if ('jwks' in keys) return hasKeys(keys.jwks, rulesOf({ ...settings, keys })) ? [] : fault('none of the pinned keys can be used')
  if (profile === 'spiffe') return fault('is missing: spiffe needs the address of the bundle, or a file with it')
  const isFound = profile === 'github-actions' || !issuer || isKeyAddress(issuer, settings)
  return isFound ? [] : fault('is missing: the issuer is no https URL at which keys could be discovered')
}

function hasKeys(jwks: object, rules: Rules): boolean {
  try {
    return readKeys(jwks, rules).length > 0
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

/** Two entries for one origin: whichever came first would silently decide. */
function clashes(issuer: Judged, earlier: readonly Judged[]): OwnFault[] {
  const faults: OwnFault[] = []
  if (earlier.some(({ name }) => name === issuer.name)) faults.push({ key: 'name', message: 'is the name of an issuer above' })
  const { key, id } = originOf(issuer)
  if (id && earlier.some((other) => originOf(other).id === id)) faults.push({ key, message: 'is that of an issuer above' })
  return faults
}

/** What its tokens are known by, and the key that says it. */
function originOf({ profile, issuer, trustDomain }: Judged): { readonly key: FaultyKey; readonly id: string | undefined } {
  if (profile === 'spiffe') return { key: 'trust_domain', id: trustDomain && `spiffe://${trustDomain}` }
  return profile === 'github-actions' ? { key: 'profile', id: githubIssuer } : { key: 'issuer', id: issuer }
}

/** Whether keys may be asked for there: over https, or over http where that is safe or the configuration says so. */
export const isKeyAddress = (address: string, { allowHttp }: Pick<Issuer, 'allowHttp'>): boolean =>
  isSafeAddress(address, allowHttp) && !new URL(address).hash
