import { existsSync } from 'node:fs'
import { z } from 'zod'
import { BrokerError, ConfigurationError } from '../base/errors.ts'
import { formatDuration } from '../base/time.ts'
import type { Actor } from '../identity/actor.ts'
import type { Catalogue } from './catalogue.ts'
import { decide } from './decide.ts'
import type { PolicySet } from './document.ts'
import { Duration } from './duration.ts'
import type { Agent } from './entry.ts'
import { readYaml, type YamlFile } from '../base/yaml-file.ts'

/** The result of a case: the policy's answer, or `refused` if the catalogue already says no. */
export interface Outcome {
  readonly outcome: 'permit' | 'deny' | 'refused'
  /** Ids of the determining policies, sorted. */
  readonly policies: readonly string[]
  /** Milliseconds. */
  readonly maxTtl: number | undefined
  /** Why the catalogue refused. */
  readonly refusal?: string
}

/** One case, held against the catalogue and the policies. */
export interface CaseResult {
  readonly name: string
  /** `file:line` of the case. */
  readonly place: string
  readonly ok: boolean
  /** The difference from the expectation, in one sentence; empty if there is none. */
  readonly detail: string
  readonly got: Outcome
}

/** The time of a case that names none. Any would do; a fixed one gives the same results on every day. */
const someTime = '2026-01-01T12:00:00Z'

/**
 * Asks what the cases of a file ask and compares the answers with what they expect.
 *
 * @throws ConfigurationError with every fault of the file, each as `file:line: path: message`; an agent that the catalogue lacks is one, and so is no file:
 * one that got lost would look like cases that all came out
 */
export async function checkCases(catalogue: Catalogue, set: PolicySet, file: string): Promise<readonly CaseResult[]> {
  if (!existsSync(file)) throw new ConfigurationError([`${file}: is missing: write \`cases: []\` where there are none`])
  const yaml = await readYaml(file)
  const { cases } = yaml.parse(CasesFile, yaml.value, []) ?? { cases: [] }
  const ready = cases.flatMap((wanted, index) => {
    const asker = askerOf(catalogue, wanted, yaml, index)
    return asker ? [{ wanted, asker, place: yaml.place(['cases', index]) }] : []
  })
  yaml.refuseFaults()
  return ready.map(({ wanted, asker, place }) => {
    const got = ask(catalogue, set, wanted, asker)
    const detail = differences(wanted.expect, got)
    return { name: wanted.name, place, ok: detail === '', detail, got }
  })
}

const AskedGrant = z.strictObject({ name: z.string(), parameters: z.record(z.string(), z.string()).default({}), ttl: Duration.optional() })

/** An outcome alone, or with further expectations. No union: a wrong part would be reported as a fault of the whole. */
const Expected = z.preprocess(
  (value) => (typeof value === 'string' ? { outcome: value } : value),
  z.strictObject(
    { outcome: z.enum(['permit', 'deny', 'refused']), policies: z.array(z.string()).optional(), max_ttl: Duration.optional() },
    { error: ({ code }) => (code === 'invalid_type' ? 'must be permit, deny or refused, or { outcome, policies, max_ttl }' : undefined) },
  ),
)

const Case = z.strictObject({
  name: z.string().min(1).max(200),
  agent: z.string(),
  attributes: z.record(z.string(), z.union([z.string(), z.array(z.string())], 'must be text, or a list of texts')).default({}),
  trust_domain: z.string().optional(),
  kind: z.string(),
  action: z.enum(['issue', 'renew', 'declare']).optional(),
  duration: Duration.optional(),
  grants: z.array(AskedGrant).max(16).default([]),
  at: z.iso.datetime({ offset: true, error: 'must be a moment such as 2026-11-24T09:30:00Z' }).default(someTime),
  expect: Expected,
})
type Case = z.infer<typeof Case>

const CasesFile = z.strictObject({ cases: z.array(Case).max(10_000) })

interface Asker {
  readonly agent: Agent
  readonly actor: Actor
}

/** The agent of a case and an actor that matches this agent only; otherwise a fault of the file. */
function askerOf(catalogue: Catalogue, wanted: Case, yaml: YamlFile, index: number): Asker | undefined {
  const agent = catalogue.agents.get(wanted.agent)
  if (!agent) {
    yaml.fault(['cases', index, 'agent'], `the catalogue has no agent "${wanted.agent}"`)
    return undefined
  }
  const actor = actorOf(agent, wanted)
  if (catalogue.agentOf(actor) === agent) return { agent, actor }
  yaml.fault(['cases', index, 'agent'], 'with these attributes it matches another entry of the catalogue too, or not its own')
  return undefined
}

/** An actor that has the first value of everything that the agent's entry matches on, and the case's own attributes. */
function actorOf(agent: Agent, { attributes, trust_domain: trustDomain }: Case): Actor {
  const matched = Object.fromEntries(Object.entries(agent.match).map(([name, value]) => [name, typeof value === 'string' ? value : value[0]!]))
  const all = { ...matched, ...attributes }
  const token = { digest: '', jti: undefined, kid: '', alg: '', expiresAt: 0 }
  return { issuer: agent.issuer, profile: 'oidc', subject: String(all['sub'] ?? agent.name), trustDomain, attributes: all, token }
}

function ask(catalogue: Catalogue, set: PolicySet, wanted: Case, { agent, actor }: Asker): Outcome {
  const action = wanted.action ?? (wanted.grants.length === 0 ? 'declare' : 'issue')
  const grants = wanted.grants.map(({ ttl, ...grant }) => ({ ...grant, ...(ttl === undefined ? {} : { ttl }) }))
  const duration = wanted.duration === undefined ? {} : { duration: wanted.duration }
  try {
    const inquiry = catalogue.resolve(agent, actor, action, { kind: wanted.kind, ...duration, grants })
    const { outcome, policies, obligations } = decide(set, inquiry, new Date(wanted.at))
    return { outcome, policies, maxTtl: obligations.maxTtl }
  } catch (error) {
    if (error instanceof BrokerError) {
      const fields = error.errors.map(({ pointer, message }) => `${pointer} ${message}`)
      return { outcome: 'refused', policies: [], maxTtl: undefined, refusal: [error.code, ...fields].join(', ') }
    }
    throw error
  }
}

function differences(expected: Case['expect'], got: Outcome): string {
  const differs: string[] = []
  if (expected.outcome !== got.outcome)
    differs.push(`expected ${expected.outcome}, got ${got.outcome}${got.refusal === undefined ? '' : ` (${got.refusal})`}`)
  const policies = expected.policies?.toSorted().join(', ')
  if (policies !== undefined && policies !== got.policies.join(', ')) {
    differs.push(`expected to be determined by ${policies || 'no policy'}, was by ${got.policies.join(', ') || 'no policy'}`)
  }
  if (expected.max_ttl !== undefined && expected.max_ttl !== got.maxTtl) {
    differs.push(`expected max_ttl ${formatDuration(expected.max_ttl)}, got ${got.maxTtl === undefined ? 'none' : formatDuration(got.maxTtl)}`)
  }
  return differs.join('; ')
}
