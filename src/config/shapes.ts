import { z } from 'zod'
import { durationWithin } from '../base/duration.ts'
import { isLoopback, isSafeAddress } from '../base/address.ts'
import { Name } from '../base/name.ts'
import { profileNames } from '../identity/actor.ts'
import { algorithms } from '../identity/algorithm.ts'
import { Attribute, Match, OneOrSome } from '../identity/match.ts'
import { parseWitnessKey } from '../proof/cosignature.ts'

const hour = 3_600_000

/** A whole number within limits, both inclusive. Also as text, because that is what an environment variable holds. */
const whole = (least: number, most: number) =>
  z.preprocess(
    (value) => (typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value),
    z.int(`must be a whole number from ${least} to ${most}`).min(least, `must be ${least} at least`).max(most, `must be ${most} at most`),
  )

export const File = z.string().min(1).max(4_096)

/** The keys of the file. Each section is read by itself, so that a fault in one hides none in another. */
export const Sections = z
  .strictObject({
    public_url: z.unknown(),
    listen: z.unknown(),
    store: z.unknown(),
    keys: z.unknown(),
    catalogue: z.unknown(),
    policies: z.unknown(),
    identity: z.unknown(),
    operators: z.unknown(),
    console: z.unknown(),
    resource_servers: z.unknown(),
    providers: z.unknown(),
    log_key: z.unknown(),
    anchors: z.unknown(),
    limits: z.unknown(),
    log: z.unknown(),
  })
  .partial()

/**
 * The broker's issuer and audience. To the character as a URL parser writes it: it is compared as text by everybody who checks `iss` and `aud`,
 * so no second spelling of the same address may exist.
 */
export const PublicUrl = z.string().superRefine((text, context) => {
  const fault = (message: string): void => context.addIssue({ code: 'custom', message })
  if (!URL.canParse(text)) return fault('must be an absolute URL')
  const url = new URL(text)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname))) return fault('must be https; http only on loopback')
  if (url.username || url.password || text.includes('?') || text.includes('#')) return fault('must not carry credentials, a query or a fragment')
  if (text.endsWith('/')) return fault('must not end with a slash')
  const path = url.pathname === '/' ? '' : url.pathname
  if (text !== url.origin + path || !/^(\/[\w.~-]+)*$/.test(path))
    fault('must be in its plainest form: lower-case host, no default port, plain path segments')
})

export const Listen = z
  .strictObject({
    host: z.string().min(1).max(255).default('127.0.0.1'),
    /** 0 takes any free one. */
    port: whole(0, 65_535).default(7420),
    tls: z.strictObject({ cert: File, key: File, client_ca: File.optional() }).optional(),
    insecure: z.boolean().default(false),
  })
  .superRefine(({ host, tls, insecure }, context) => {
    if (tls || insecure || isLoopback(host)) return
    const message = 'beyond loopback needs tls, because credentials travel here; insecure: true where a proxy in front ends TLS'
    context.addIssue({ code: 'custom', path: ['host'], message })
  })

export const Store = z
  .strictObject({ embedded: File.optional(), url: z.string().max(4_096).optional(), pool: whole(1, 1_000).optional() })
  .superRefine(({ embedded, url, pool }, context) => {
    const fault = (path: string[], message: string): void => context.addIssue({ code: 'custom', path, message })
    if ((embedded === undefined) === (url === undefined)) return fault([], 'must have one of embedded and url')
    if (url !== undefined && !isPostgres(url)) fault(['url'], 'must be a postgres:// URL')
    if (pool !== undefined && url === undefined) fault(['pool'], 'is for a store with a url')
  })

export const IdentityEntry = z.strictObject({
  name: Name,
  profile: z.enum(profileNames),
  issuer: z.string().min(1).max(2_048).optional(),
  trust_domain: z.string().min(1).max(255).optional(),
  keys: File.optional(),
  algorithms: z.array(z.enum(algorithms)).min(1).optional(),
  /** The shortest that anybody issues is minutes. A week: whoever wants longer-lived tokens does not want this broker. */
  max_lifetime: durationWithin(60_000, 168 * hour).optional(),
  replay: z.enum(['reusable', 'single-use']).optional(),
  allow_http: z.boolean().optional(),
  allow_private: z.boolean().optional(),
  require: z.record(Attribute, OneOrSome).optional(),
  claims: z.array(Attribute).max(64).optional(),
})

export type IdentityEntry = z.output<typeof IdentityEntry>

export const OperatorEntry = z.strictObject({ issuer: z.string(), match: Match, roles: z.array(z.enum(['operator', 'reviewer'])).min(1) })

export const Console = z.strictObject({
  issuer: z.string(),
  client_id: z.string().min(1).max(256),
  client_secret: z.string().min(1).max(4_096).optional(),
  /** RFC 6749 section 3.3. */
  scopes: z
    .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,128}$/, 'must be a scope of OAuth 2.0, without spaces'))
    .max(16)
    .default([]),
  /** What a copied cookie is good for. Whoever is still known to the issuer comes back without noticing, so that short costs little. */
  session: durationWithin(5 * 60_000, 12 * hour).prefault('1h'),
})

export const ResourceServerEntry = z.strictObject({
  issuer: z.string(),
  match: Match,
  /** As in the grants of kind jwt: RFC 8707 section 2. */
  audience: z
    .string()
    .max(2_048)
    .refine((uri) => URL.canParse(uri) && !uri.includes('#'), 'must be an absolute URI without a fragment'),
})

/** Where checkpoints are kept outside the database. Their address has to be one over which a token may travel. */
export const AnchorEntry = z
  .strictObject({
    file: File.optional(),
    url: z.string().max(2_048).optional(),
    token_file: File.optional(),
    witness: z.string().max(2_048).optional(),
    key: z.string().max(1_024).optional(),
  })
  .superRefine(({ file, url, token_file: token, witness, key }, context) => {
    const fault = (path: string[], message: string): void => context.addIssue({ code: 'custom', path, message })
    if ([witness ?? file, url].filter((place) => place !== undefined).length !== 1) return fault([], 'must have one of file, url and witness')
    if (token !== undefined && url === undefined) fault(['token_file'], 'is for an anchor with a url')
    for (const [name, address] of Object.entries({ url, witness }))
      if (address !== undefined && !isSafeAddress(address)) fault([name], 'must be an https URL without credentials; http only on loopback')
    if (witness === undefined && key !== undefined) fault(['key'], 'is for an anchor with a witness')
    if (witness === undefined) return
    if (file === undefined) fault(['file'], 'is where the checkpoints are kept that the witness has cosigned')
    if (key === undefined || !parseWitnessKey(key))
      fault(['key'], 'must be the verifier key of the witness, name+id+key, of type 4 (an Ed25519 cosignature)')
  })

/** The keys that every provider has. All others belong to its kind. */
export const ProviderHead = z.looseObject({ name: Name, kind: z.string() })

/** Which provider keeps the key of the log. Its other keys belong to that provider's kind. */
export const LogKeyHead = z.looseObject({ provider: z.string() })

export const Limits = z.strictObject({
  requests_per_second: whole(1, 100_000).default(50),
  burst: whole(1, 1_000_000).default(200),
  introspections_per_second: whole(1, 100_000).default(1_000),
  in_flight: whole(1, 100_000).default(256),
  connections: whole(1, 100_000).default(4_096),
  request_timeout: durationWithin(1_000, hour / 12).prefault('30s'),
  leases_per_task: whole(1, 1_000).default(16),
  stuck_after: durationWithin(1_000, 24 * hour).prefault('5m'),
})

export const LogSettings = z.strictObject({ level: z.enum(['debug', 'info', 'warn', 'error', 'silent']).default('info') })

/** Lists that are read entry by entry. */
export const List = z.array(z.unknown()).max(1_000)

const isPostgres = (url: string): boolean => /^postgres(ql)?:\/\//.test(url) && URL.canParse(url)
