import { z } from 'zod'
import { type GrantFault, ProviderError, type Revocation } from '../provider.ts'
import type { Question } from './client.ts'

/**
 * What a secret is, because that says what can be promised of it: `leased` (database logins and whatever else Vault makes and ends), `pki` and `ssh`
 * (certificates), `kubernetes` (service account tokens), `kv` (a value that stands there and that nobody can take back).
 */
const engines = ['leased', 'pki', 'ssh', 'kubernetes', 'kv'] as const
export type Engine = (typeof engines)[number]

/** What ends a secret before its time: its lease, the serial number of a certificate on the revocation list of its authority, or nothing. */
export type EndedBy = 'lease' | 'serial' | 'time'

/** Which ends an engine knows; the first is meant where the catalogue says nothing. */
const ends: Readonly<Record<Engine, readonly EndedBy[]>> = {
  leased: ['lease', 'time'],
  pki: ['time', 'lease', 'serial'],
  ssh: ['time'],
  kubernetes: ['time', 'lease'],
  kv: ['time'],
}

/** By the part of the API that makes it. The name of a mount says nothing. */
const engineOfPart: Readonly<Record<string, Engine>> = { creds: 'leased', issue: 'pki', sign: 'ssh', data: 'kv' }

const parameter = /\{([a-z0-9][a-z0-9._-]{0,63})\}/g
const literal = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/
const segment = /^(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\{[a-z0-9][a-z0-9._-]{0,63}\})$/

/** A grant's own part. `data` is what is written to a path that makes something; `{name}` in it or as a whole segment of `path` stands for a parameter. */
export const vaultGrant = z
  .strictObject({
    path: z
      .string()
      .max(512)
      .refine((path) => path.split('/').length >= 3 && path.split('/').every((part) => segment.test(part)), {
        message:
          'must be a mount, what it does and a name, such as database/creds/reader: letters, digits, ".", "_", "-", or {parameter} as a whole segment',
      }),
    /** The Vault policy of the task token: it should read this one path and nothing else. */
    policy: z
      .string()
      .regex(/^[a-z0-9][a-z0-9._-]{0,127}$/, 'must be lower-case letters, digits, ".", "_" or "-", as Vault writes names of policies'),
    engine: z.enum(engines).optional(),
    ended_by: z.enum(['lease', 'serial', 'time']).optional(),
    data: z
      .record(
        z.string().regex(/^[a-z0-9_]{1,64}$/, 'must be lower-case letters, digits or "_", at most 64'),
        z.union([z.string().max(1_024), z.number(), z.boolean()], 'must be a text of at most 1024 characters, a number, true or false'),
      )
      .default({}),
  })
  .transform(({ path, policy, data, ...said }, context) => {
    const fault = (key: string, message: string): typeof z.NEVER => {
      context.addIssue({ code: 'custom', path: [key], message })
      return z.NEVER
    }
    const parts = path.split('/')
    const engine = said.engine ?? engineOf(parts)
    if (!engine) return fault('engine', `must say what is read there: ${engines.join(', ')}`)
    const endedBy = said.ended_by ?? ends[engine][0]!
    if (!ends[engine].includes(endedBy)) return fault('ended_by', `must be ${ends[engine].join(' or ')} for ${engine}`)
    const authority = authorityOf(parts)
    if (endedBy === 'serial' && authority === undefined)
      return fault('path', 'must be a mount without parameters, issue or sign, and a role, where the serial number ends the certificate')
    if (Object.hasOwn(data, 'ttl')) return fault('data', 'must not say ttl: the broker asks for what is left of the task')
    const writes = engine === 'pki' || engine === 'ssh' || engine === 'kubernetes'
    if (!writes && Object.keys(data).length > 0) return fault('data', `is not sent where ${engine} is read`)
    if (parts[0]!.startsWith('{')) return fault('path', 'must not leave its mount to a parameter')
    return { parts, policy, engine, endedBy, authority, data, writes }
  })

/** By what stands between the first part, which is of the mount, and the last, a name. Undefined where nothing tells, or two tell different ones: a mount may have two parts. */
function engineOf(parts: readonly string[]): Engine | undefined {
  const told = new Set(parts.slice(1, -1).flatMap((part) => (Object.hasOwn(engineOfPart, part) ? [engineOfPart[part]!] : [])))
  return told.size === 1 ? [...told][0] : undefined
}

/**
 * The mount that revokes what was issued at a path: `pki` for `pki/issue/service`, and for `pki/issuer/name/issue/service`, since a serial number names
 * no issuer. Undefined for a path that does not end so.
 */
function authorityOf(parts: readonly string[]): string | undefined {
  const verb = parts.at(-2)
  const mount = mountOf(parts)
  return mount.every((part) => literal.test(part)) && (verb === 'issue' || verb === 'sign') ? mount.join('/') : undefined
}

/** The mount of a path that ends with what is done and a role, perhaps below a named issuer of `pki`. */
export function mountOf(parts: readonly string[]): readonly string[] {
  const [before, verb] = [parts.slice(0, -2), parts.at(-2)]
  const isNamed = before.length > 2 && before.at(-2) === 'issuer' && (verb === 'issue' || verb === 'sign')
  return isNamed ? before.slice(0, -2) : before
}

export type VaultGrant = z.output<typeof vaultGrant>

/** A standing secret has to be declared one, whatever the agent may fill in has to be a parameter, and each parameter has to fill in something. */
export function vaultGrantFaults(
  grant: VaultGrant,
  entry: { readonly standing: boolean; readonly parameters: ReadonlyMap<string, number> },
): GrantFault[] {
  const faults: GrantFault[] = []
  if (grant.engine === 'kv' && !entry.standing)
    faults.push({ path: ['standing'], message: 'must be true: a value in a KV store lives on after the task, and nobody can take it back' })
  const texts = [...grant.parts, ...Object.values(grant.data).map(String)]
  const wanted = new Set(texts.flatMap((text) => [...text.matchAll(parameter)].map(([, name]) => name!)))
  for (const name of wanted) {
    if (!entry.parameters.has(name)) faults.push({ path: ['parameters'], message: `must have "${name}", which path or data names` })
  }
  for (const name of entry.parameters.keys()) {
    if (wanted.has(name)) continue
    faults.push({
      path: ['parameters', name],
      message: 'stands neither in path nor in data: whoever reads a lease would believe that it narrows the secret',
    })
  }
  return faults
}

/** How a secret of this grant can be ended before its time. */
export const revocationOf = ({ endedBy }: VaultGrant): Revocation => (endedBy === 'time' ? 'expiry' : 'provider')

/** Seconds: Kubernetes makes no token of a service account for less (`MinTokenAgeSec` of its API server). */
export const leastAccountToken = 600

/**
 * What is asked of Vault for a grant.
 *
 * @param life whole seconds that the secret may live
 * @throws ProviderError `refused` for a value that cannot be part of a path, and for a life that is shorter than any that there is: nothing was asked
 */
export function secretQuestion(grant: VaultGrant, parameters: Readonly<Record<string, string>>, life: number): Pick<Question, 'path' | 'body'> {
  const path = secretPath(grant, parameters)
  if (!grant.writes) return { path }
  const data = Object.entries(grant.data).map(([key, value]) => [key, typeof value === 'string' ? filled(value, parameters) : value])
  return { path, body: { ...Object.fromEntries(data), ttl: `${checkedLife(grant, life)}s` } }
}

/** Where a secret of this grant is. A parameter fills one segment, never two, and never one that leads elsewhere. @throws ProviderError as above */
export const secretPath = ({ parts }: VaultGrant, parameters: Readonly<Record<string, string>>): string =>
  parts
    .map((part) => filled(part, parameters))
    .map(checkedSegment)
    .join('/')

/** Also where the account is deleted with the lease: wherever Kubernetes does not let its accounts be deleted, the token would work past the end of its task. */
function checkedLife({ engine }: VaultGrant, life: number): number {
  if (engine !== 'kubernetes' || life >= leastAccountToken) return life
  throw new ProviderError('refused', `Kubernetes makes no token for less than ${leastAccountToken} s, which would outlive a lease of ${life} s`, 'no')
}

/** In one pass: a value that looks like a placeholder stays what it is. */
const filled = (text: string, parameters: Readonly<Record<string, string>>): string =>
  text.replace(parameter, (whole, name: string) => (Object.hasOwn(parameters, name) ? parameters[name]! : whole))

function checkedSegment(text: string): string {
  if (!literal.test(text))
    throw new ProviderError('refused', 'A parameter of this grant must be letters, digits, ".", "_" or "-", because it is part of a path', 'no')
  return text
}
