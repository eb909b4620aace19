import { type Algorithm, algorithms, isAlgorithm } from './algorithm.ts'
import type { ProfileName } from './actor.ts'
import { isLoopbackHost } from './address.ts'
import { readKeys } from './jwk.ts'
import { isTrustDomain } from './spiffe.ts'

/** Where the keys of an issuer come from: its discovery document, an address, or a set that is pinned here and never fetched. */
export type KeySettings = { readonly discovery: true } | { readonly url: string } | { readonly jwks: object }

/** `reusable`: the workload presents one token until it is renewed. `single-use`: each token opens one call, on whichever broker. */
export type ReplayRule = 'reusable' | 'single-use'

/** Somebody whose tokens are accepted, as the configuration says it. */
export interface Issuer {
  /** By which catalogue, operators and resource servers refer to it. */
  readonly name: string
  readonly profile: ProfileName
  /** What `iss` must be, to the character. Fixed for `github-actions`; `spiffe` has none. */
  readonly issuer?: string | undefined
  /** For `spiffe` only: whose SPIFFE IDs the bundle may vouch for. */
  readonly trustDomain?: string | undefined
  readonly keys: KeySettings
  /** Asymmetric ones only. Those of the profile where absent. */
  readonly algorithms?: readonly string[] | undefined
  /** Milliseconds that a token may live as a whole. */
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
export const githubIssuer = 'https://token.actions.githubusercontent.com'

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

/** Everything that is wrong with a list of issuers, each fault with the name of its issuer. Empty: they can be used. */
export function issuerFaults(issuers: readonly Issuer[]): string[] {
  return issuers.flatMap((issuer, at) => {
    const earlier = issuers.slice(0, at)
    const faults = [...faultsOf(issuer), ...clashes(issuer, earlier)]
    return faults.map((fault) => `issuer ${issuer.name}: ${fault}`)
  })
}

function faultsOf(issuer: Issuer): string[] {
  const { name, profile, trustDomain, keys, maxLifetime } = issuer
  const faults: string[] = []
  const unless = (holds: boolean, fault: string): void => void (holds || faults.push(fault))

  unless(name !== 'unknown', 'this name stands for all strangers in the metrics')
  if (profile === 'spiffe') {
    unless(issuer.issuer === undefined, 'spiffe has no issuer: its keys are found by trust domain')
    unless(trustDomain !== undefined && isTrustDomain(trustDomain), 'spiffe needs a trust_domain, such as prod.example.com')
    unless(!('discovery' in keys), 'spiffe needs keys: the address of the bundle, or a file with it')
  } else {
    unless(trustDomain === undefined, 'trust_domain is for spiffe only')
    if (profile === 'github-actions')
      unless((issuer.issuer ?? githubIssuer) === githubIssuer, `github-actions is always ${githubIssuer}; use oidc for another`)
    else unless(!!issuer.issuer, 'needs an issuer, exactly as its tokens have it in iss')
  }
  if (profile !== 'oidc') unless(Object.keys(issuer.require ?? {}).length === 0 && !issuer.claims?.length, 'require and claims are for oidc only')

  const wrong = (issuer.algorithms ?? []).filter((algorithm) => !isAlgorithm(algorithm))
  unless(wrong.length === 0, `${wrong.join(', ')}: only asymmetric algorithms can be accepted (${algorithms.join(', ')})`)
  unless(issuer.algorithms?.length !== 0, 'accepts no algorithm at all')
  unless(maxLifetime === undefined || (Number.isFinite(maxLifetime) && maxLifetime > 0), 'max_lifetime must be a positive duration')

  if ('url' in keys) unless(isKeyAddress(keys.url, issuer), addressFault('keys', keys.url))
  else if ('jwks' in keys) unless(wrong.length > 0 || hasKeys(keys.jwks, rulesOf(issuer)), 'none of the pinned keys can be used')
  else if (profile === 'kubernetes' || profile === 'oidc')
    unless(!issuer.issuer || isKeyAddress(issuer.issuer, issuer), addressFault('issuer', issuer.issuer ?? ''))
  return faults
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
function clashes(issuer: Issuer, earlier: readonly Issuer[]): string[] {
  const origin = ({ profile, issuer, trustDomain }: Issuer): string | undefined =>
    profile === 'spiffe' ? trustDomain && `spiffe://${trustDomain}` : profile === 'github-actions' ? githubIssuer : issuer
  const faults: string[] = []
  if (earlier.some(({ name }) => name === issuer.name)) faults.push('there are two of this name')
  const mine = origin(issuer)
  const other = mine && earlier.find((one) => origin(one) === mine)
  if (other) faults.push(`${other.name} is already ${mine}`)
  return faults
}

/** Whether keys may be asked for there: https, or http where nobody can stand in between, or where the configuration says so. */
export function isKeyAddress(address: string, { allowHttp }: Pick<Issuer, 'allowHttp'>): boolean {
  if (!URL.canParse(address)) return false
  const url = new URL(address)
  if (url.username || url.password || url.hash) return false
  return url.protocol === 'https:' || (url.protocol === 'http:' && (allowHttp === true || isLoopbackHost(url.hostname)))
}

const addressFault = (key: string, address: string): string =>
  URL.canParse(address)
    ? `${key} must be an https URL without credentials (http only on loopback, or with allow_http)`
    : `${key} must be a URL where keys are fetched`
