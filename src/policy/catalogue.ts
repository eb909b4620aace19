import { z, type ZodType } from 'zod'
import { Name } from '../base/name.ts'
import type { Actor } from '../identity/actor.ts'
import { Attribute, Match, matches } from '../identity/match.ts'
import { neverProven } from '../identity/profiles.ts'
import { Duration } from './duration.ts'
import type { Agent, Grant, Kind } from './entry.ts'
import { type Action, type Declared, type Inquiry, type Pointers, resolve } from './inquiry.ts'
import { readPattern } from './pattern.ts'
import { readYaml, type YamlFile } from '../base/yaml-file.ts'

/** Who the agents are, what kinds of task exist, and what can be asked for. */
export interface Catalogue {
  readonly agents: ReadonlyMap<string, Agent>
  readonly kinds: ReadonlyMap<string, Kind>
  readonly grants: ReadonlyMap<string, Grant>
  /** The agent that this actor is. Undefined if none matches, and if several do: nobody may choose which of them to be. */
  agentOf(actor: Actor): Agent | undefined
  /**
   * What was declared, looked up and held against the limits of the catalogue.
   * @param pointers of what was declared, in the request that asks now: a whole declaration where nothing else is said
   * @throws BrokerError `unknown_kind`, `unknown_grant`, `invalid_request` with a JSON pointer for each faulty field, `conflict` where the request has none of them
   */
  resolve(agent: Agent, actor: Actor, action: Action, declared: Declared, pointers?: Pointers): Inquiry
}

/** A provider's requirements for the grants that name it. */
export interface GrantRules {
  /** Shape of a grant's own keys: those that not every grant has. */
  readonly grant: ZodType
  /** Faults that the shape cannot see, because they lie in how the own keys fit what every grant has. */
  grantFaults?(
    settings: unknown,
    entry: { readonly standing: boolean; readonly parameters: ReadonlyMap<string, number> },
  ): readonly { readonly path: readonly (string | number)[]; readonly message: string }[]
  /** What of its backend a grant names, each by what it is and by what the grant calls it. `alone`: grants of no other provider may, and by one name. */
  named?(settings: unknown): readonly { readonly thing: string; readonly name: string; readonly alone: boolean }[]
}

/** By the name of each configured issuer: the attributes that its tokens may prove. */
type Issuers = ReadonlyMap<string, ReadonlySet<string>>

/**
 * Loads the catalogue.
 *
 * @param rules for each configured provider, by name: what it asks of a grant's own keys
 * @param issuers those that agents may be of
 * @throws ConfigurationError with every fault, each as `file:line: path: message`
 */
export async function loadCatalogue(file: string, rules: ReadonlyMap<string, GrantRules>, issuers: Issuers): Promise<Catalogue> {
  const yaml = await readYaml(file)
  const sections = readSections(yaml)
  const agents = readEntries(yaml, sections, 'agents', (name, entry) => readAgent(yaml, name, entry, issuers))
  const kinds = readEntries(yaml, sections, 'kinds', (name, entry) => readKind(yaml, name, entry, sections.grants))
  const grants = readEntries(yaml, sections, 'grants', (name, entry) => readGrant(yaml, name, entry, rules))
  refuseShared(yaml, grants, rules)
  yaml.refuseFaults()
  return createCatalogue(agents, kinds, grants)
}

/** Two providers, or one that takes a thing for two, would undo each other's work on what one of them has to itself. */
function refuseShared(yaml: YamlFile, grants: ReadonlyMap<string, Grant>, rules: ReadonlyMap<string, GrantRules>): void {
  const first = new Map<string, { readonly provider: string; readonly name: string; readonly alone: boolean }>()
  for (const { name: grant, provider, settings } of grants.values()) {
    const things = settings === undefined ? [] : (rules.get(provider)?.named?.(settings) ?? [])
    for (const { thing, name, alone } of things) {
      const known = first.get(thing)
      first.set(thing, known ?? { provider, name, alone })
      if (!known || !(alone || known.alone)) continue
      if (known.provider !== provider)
        yaml.fault(['grants', grant, 'provider'], `names ${thing}, which one provider has to itself, and so do grants of "${known.provider}"`)
      else if (known.name !== name)
        yaml.fault(['grants', grant], `names ${thing} as "${name}", which is "${known.name}" elsewhere: call it by one name`)
    }
  }
}

function createCatalogue(agents: ReadonlyMap<string, Agent>, kinds: ReadonlyMap<string, Kind>, grants: ReadonlyMap<string, Grant>): Catalogue {
  const entries = [...agents.values()]
  // Whoever asked before: a remembered token is the same actor each time, and most calls of an agent bring the same token. Without this each call would
  // be held against every agent there is.
  const known = new WeakMap<Actor, Agent | undefined>()
  const find = (actor: Actor): Agent | undefined => {
    const [first, second] = entries.filter((agent) => matches(actor, agent.issuer, agent.match))
    return second ? undefined : first
  }
  return {
    agents,
    kinds,
    grants,
    agentOf(actor) {
      if (!known.has(actor)) known.set(actor, find(actor))
      return known.get(actor)
    },
    resolve: (agent, actor, action, declared, pointers) => resolve({ kinds, grants }, agent, actor, action, declared, pointers),
  }
}

const Words = z
  .string()
  .min(1)
  .max(254)
  .regex(/^[^\p{Cc}]*$/u, 'must not contain control characters')

const Pattern = z.string().transform((text, context) => {
  const pattern = readPattern(text)
  if (!pattern.ok) context.addIssue({ code: 'custom', message: pattern.fault })
  return pattern.ok ? pattern : z.NEVER
})

const Section = z.record(z.string(), z.unknown())
const Sections = z.strictObject({ agents: Section, kinds: Section, grants: Section })
type Sections = z.infer<typeof Sections>

const AgentEntry = z.strictObject({
  issuer: z.string(),
  match: Match,
  owner: Words,
  groups: z.array(Name).max(16).default([]),
  tags: z.array(Attribute).max(32).default([]),
  max_live_leases: z.int().min(1).max(100_000).default(100),
})

const KindEntry = z.strictObject({ owner: Words, max_duration: Duration, max_life: Duration.optional(), grants: z.array(z.string()).max(256) })

/** The keys that every grant has. All others belong to its provider. */
const GrantEntry = z.looseObject({
  provider: z.string(),
  max_ttl: Duration,
  sensitivity: Name.default('normal'),
  standing: z.boolean().default(false),
  parameters: z.record(Name, z.strictObject({ pattern: Pattern })).default({}),
})

/** All three sections. One that is missing or is no mapping is a fault, and is read as empty so that the others are checked as well. */
function readSections(yaml: YamlFile): Sections {
  const sections = yaml.parse(Sections, yaml.value, [])
  if (sections) return sections
  const file = Section.safeParse(yaml.value).data ?? {}
  const section = (name: keyof Sections): z.infer<typeof Section> => Section.safeParse(file[name]).data ?? {}
  return { agents: section('agents'), kinds: section('kinds'), grants: section('grants') }
}

/** The entries of one section that are without fault. One that is not hides no fault of another. */
function readEntries<Entry>(
  yaml: YamlFile,
  sections: Sections,
  section: keyof Sections,
  read: (name: string, entry: unknown) => Entry | undefined,
): ReadonlyMap<string, Entry> {
  const entries = new Map<string, Entry>()
  for (const [name, value] of Object.entries(sections[section])) {
    yaml.parse(Name, name, [section, name])
    const entry = read(name, value)
    if (entry) entries.set(name, entry)
  }
  return entries
}

function readAgent(yaml: YamlFile, name: string, value: unknown, issuers: Issuers): Agent | undefined {
  const entry = yaml.parse(AgentEntry, value, ['agents', name])
  if (!entry) return undefined
  const proven = issuers.get(entry.issuer)
  if (!proven) yaml.fault(['agents', name, 'issuer'], `no issuer is configured with the name "${entry.issuer}"`)
  const check = (attribute: string, ...place: [string, string | number]): void => {
    if (proven?.has(attribute) === false) yaml.fault(['agents', name, ...place], neverProven)
  }
  for (const attribute of Object.keys(entry.match)) check(attribute, 'match', attribute)
  // With a tag that no token has, each `forbid` that asks for it lets everything pass.
  for (const [index, tag] of entry.tags.entries()) check(tag, 'tags', index)
  const { max_live_leases: maxLiveLeases, ...rest } = entry
  return { name, ...rest, maxLiveLeases }
}

function readKind(yaml: YamlFile, name: string, value: unknown, known: Sections['grants']): Kind | undefined {
  const entry = yaml.parse(KindEntry, value, ['kinds', name])
  if (!entry) return undefined
  entry.grants.forEach((grant, index) => {
    if (!Object.hasOwn(known, grant)) yaml.fault(['kinds', name, 'grants', index], `the catalogue has no grant "${grant}"`)
    if (entry.grants.indexOf(grant) !== index) yaml.fault(['kinds', name, 'grants', index], `"${grant}" is listed twice`)
  })
  const { owner, max_duration: maxDuration, max_life: maxLife, grants } = entry
  if (maxLife !== undefined && maxLife < maxDuration)
    yaml.fault(['kinds', name, 'max_life'], 'must not be shorter than max_duration, for which a task may be opened')
  return { name, owner, maxDuration, ...(maxLife !== undefined && { maxLife }), grants }
}

function readGrant(yaml: YamlFile, name: string, value: unknown, rules: ReadonlyMap<string, GrantRules>): Grant | undefined {
  const entry = yaml.parse(GrantEntry, value, ['grants', name])
  if (!entry) return undefined
  const { provider, max_ttl: maxTtl, sensitivity, standing, parameters, ...own } = entry
  const rule = rules.get(provider)
  if (!rule) {
    yaml.fault(['grants', name, 'provider'], `no provider is configured with the name "${provider}"`)
    return undefined
  }
  const settings = yaml.parse(rule.grant, own, ['grants', name])
  const longest = new Map(Object.entries(parameters).map(([parameter, { pattern }]) => [parameter, pattern.longest]))
  const faults = settings === undefined ? undefined : rule.grantFaults?.(settings, { standing, parameters: longest })
  for (const { path, message } of faults ?? []) yaml.fault(['grants', name, ...path], message)
  const patterns = Object.fromEntries(Object.entries(parameters).map(([parameter, { pattern }]) => [parameter, pattern.value]))
  return { name, provider, maxTtl, sensitivity, standing, parameters: patterns, settings }
}
