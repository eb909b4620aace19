import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { ConfigurationError } from '../../src/base/errors.ts'
import type { Actor } from '../../src/identity/actor.ts'
import { loadCatalogue, type Catalogue } from '../../src/policy/catalogue.ts'
import { loadPolicySet, type PolicySet } from '../../src/policy/document.ts'
import type { Agent, Grant, Kind } from '../../src/policy/entry.ts'
import type { Inquiry } from '../../src/policy/inquiry.ts'

/** A folder with these files, removed when the test has finished. */
export async function folderWith(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'mayfly-policy-'))
  onTestFinished(() => rm(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text)
  return folder
}

export const tokensShape = z.strictObject({ audience: z.url(), scope: z.string() })

/** Two, whose tokens prove a subject and an environment. */
export const issuers = new Map(['local', 'ci'].map((name) => [name, new Set(['sub', 'env'])]))

export async function catalogueOf(text: string): Promise<Catalogue> {
  const folder = await folderWith({ 'catalogue.yaml': text })
  return loadCatalogue(join(folder, 'catalogue.yaml'), new Map([['tokens', { grant: tokensShape }]]), issuers)
}

export async function setOf(...policies: readonly string[]): Promise<PolicySet> {
  return loadPolicySet(await folderWith({ 'policies.cedar': policies.join('\n') }))
}

/** The faults for which something is refused, without the folder of the test. */
export async function faultsOf(load: Promise<unknown>): Promise<readonly string[]> {
  const refused: unknown = await load.then(
    () => undefined,
    (error: unknown) => error,
  )
  if (!(refused instanceof ConfigurationError)) throw new Error('nothing was refused', { cause: refused })
  return refused.faults.map((fault) => fault.replace(/^.*?\/mayfly-policy-\w+\/?/, ''))
}

/** An actor of the issuer `local` with these attributes. */
export function actor(attributes: Actor['attributes'] = { sub: 'agent:invoice-bot' }, trustDomain?: string): Actor {
  const token = { digest: 'ab', jti: undefined, kid: 'k', alg: 'ES256', expiresAt: 0 }
  return { issuer: 'local', profile: 'oidc', subject: String(attributes['sub']), trustDomain, attributes, token }
}

export const agent: Agent = {
  name: 'invoice-bot',
  issuer: 'local',
  match: { sub: 'agent:invoice-bot' },
  owner: 'finance@example.com',
  groups: ['finance'],
  tags: [],
  maxLiveLeases: 100,
}

export const grant: Grant = {
  name: 'invoices-api',
  provider: 'tokens',
  maxTtl: 600_000,
  sensitivity: 'normal',
  standing: false,
  parameters: { customer: /^(?:[a-z]{1,8})$/u },
  settings: {},
}

export const kind: Kind = { name: 'invoice-sync', owner: 'finance@example.com', maxDuration: 1_800_000, grants: ['invoices-api'] }

/** `issue` of one grant, ten minutes, without parameters. */
export function inquiry(changes: Partial<Inquiry> = {}): Inquiry {
  return { action: 'issue', actor: actor(), agent, kind, duration: 1_800_000, grants: [{ grant, parameters: {}, ttl: 600_000 }], ...changes }
}

export const noon = new Date('2026-11-24T12:00:00Z')
export const night = new Date('2026-11-24T23:00:00Z')
