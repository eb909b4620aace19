import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { ConfigurationError, describe } from '../base/errors.ts'
import type { Json } from '../base/json.ts'
import { readText } from '../base/text-file.ts'
import { type Digest, digestOf } from '../proof/canonical.ts'
import { parsePolicy, splitPolicies, validatePolicies, type PolicyTexts } from './engine.ts'
import { dutiesOf, idOf, readsNow } from './policy.ts'
import { schemaText } from './schema.ts'

/** Policies that are in force together. Never changed: a reload makes another one. */
export interface PolicySet {
  /** Over the canonical form of `document`. */
  readonly digest: Digest
  /** Schema and policies by id, as they are archived and as `restorePolicySet` reads them. */
  readonly document: Json
  readonly texts: PolicyTexts
  /** Milliseconds of `@max_ttl`, by the id of the policy that says so. */
  readonly maxTtl: ReadonlyMap<string, number>
  /** Whether any policy looks at the time. If none does, an answer holds for as long as the set. */
  readonly readsNow: boolean
}

/** Bounds of a folder: files, bytes of one, policies in all. With a thousand policies one decision takes several milliseconds. */
const most = { files: 256, bytes: 256 * 1024, policies: 1_000 }

/** A policy as it was found. */
interface Found {
  readonly file: string
  readonly line: number
  readonly text: string
  /** Its `@id`, or where it stands for one that has no usable id. */
  readonly key: string
}

interface Fault {
  readonly file: string
  readonly line: number
  readonly message: string
}

/**
 * Loads every `*.cedar` file of a folder as one set, checked against the schema.
 *
 * @throws ConfigurationError with every fault, each as `file:line: message`. What Cedar would only warn about is a fault as well.
 */
export async function loadPolicySet(folder: string): Promise<PolicySet> {
  const faults: Fault[] = []
  const found: Found[] = []
  for (const file of await listFiles(folder)) found.push(...split(file, await readText(file, most.bytes), faults))
  if (found.length > most.policies) throw new ConfigurationError([`${folder}: holds more than ${most.policies} policies`])
  const policies = byKey(found, faults)
  check(policies, faults)
  if (faults.length > 0) throw new ConfigurationError(inOrder(faults))
  if (policies.size === 0) throw new ConfigurationError([`${folder}: holds no policy, so nothing could ever be permitted`])
  return createSet({ schema: schemaText, policies: Object.fromEntries([...policies].map(([id, { text }]) => [id, text])) })
}

const Archived = z.strictObject({ schema: z.string(), policies: z.record(z.string(), z.string()) })

/** Sets that were restored last, the latest first: whoever asks about decisions of one time asks about one set, and a thousand policies take long to parse. */
const restored: PolicySet[] = []
const mostRestored = 2

/** A set as it was when it was archived, with the schema of its time. @throws Error if this is not an archived set */
export function restorePolicySet(document: Json): PolicySet {
  const texts = Archived.parse(document)
  const digest = digestOf(texts)
  const known = restored.findIndex((set) => set.digest === digest)
  const set = known < 0 ? createSet(texts) : restored.splice(known, 1)[0]!
  restored.unshift(set)
  restored.splice(mostRestored)
  return set
}

function createSet(texts: PolicyTexts): PolicySet {
  const trees = Object.entries(texts.policies).map(([id, text]) => ({ id, tree: parsePolicy(text) }))
  const maxTtl = new Map<string, number>()
  for (const { id, tree } of trees) {
    const duties = dutiesOf(tree)
    // A duty that this version cannot perform must not vanish from an answer, not even from a replayed one.
    if (!duties.ok) throw new Error(`policy ${id}: ${duties.faults.join(', ')}`)
    if (duties.maxTtl !== undefined) maxTtl.set(id, duties.maxTtl)
  }
  return { digest: digestOf(texts), document: { ...texts }, texts, maxTtl, readsNow: trees.some(({ tree }) => readsNow(tree)) }
}

async function listFiles(folder: string): Promise<readonly string[]> {
  let names: readonly string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    throw new ConfigurationError([`${folder}: cannot be read: ${describe(error)}`])
  }
  const files = names.filter((name) => name.endsWith('.cedar')).toSorted()
  if (files.length > most.files) throw new ConfigurationError([`${folder}: holds more than ${most.files} files`])
  return files.map((name) => join(folder, name))
}

/** The policies of one file with their ids; what is wrong with one by itself is added to the faults. */
function split(file: string, text: string, faults: Fault[]): Found[] {
  const parts = splitPolicies(text)
  if (!parts.ok) {
    faults.push(...parts.faults.map(({ message, offset }) => ({ file, line: lineAt(text, offset), message })))
    return []
  }
  const lineOf = linesIn(text)
  for (const template of parts.templates) faults.push({ file, line: lineOf(template), message: 'a template cannot be used: nothing fills its slots' })
  return parts.policies.map((policy) => {
    const line = lineOf(policy)
    const tree = parsePolicy(policy)
    const id = idOf(tree)
    const duties = dutiesOf(tree)
    const messages = [...(id.ok ? [] : [id.fault]), ...(duties.ok ? [] : duties.faults)]
    faults.push(...messages.map((message) => ({ file, line, message })))
    return { file, line, text: policy, key: id.ok ? id.value : `${file}:${line}` }
  })
}

/** The line at which each part of a text begins; a part that is asked for again stands there again. */
function linesIn(text: string): (part: string) => number {
  const seen = new Map<string, number>()
  return (part) => {
    const start = text.indexOf(part, seen.get(part) ?? 0)
    seen.set(part, start + part.length)
    return text.slice(0, start).split('\n').length
  }
}

/** The policies by id; the second one of an id is a fault that names the first. */
function byKey(found: readonly Found[], faults: Fault[]): ReadonlyMap<string, Found> {
  const policies = new Map<string, Found>()
  for (const policy of found) {
    const first = policies.get(policy.key)
    if (first) faults.push({ ...policy, message: `the id "${policy.key}" is taken by ${first.file}:${first.line}` })
    policies.set(first ? `${policy.file}:${policy.line}` : policy.key, policy)
  }
  return policies
}

/** Holds all policies against the schema, those with other faults too. */
function check(policies: ReadonlyMap<string, Found>, faults: Fault[]): void {
  const texts = Object.fromEntries([...policies].map(([key, { text }]) => [key, text]))
  for (const { policy, offset, message } of validatePolicies({ schema: schemaText, policies: texts })) {
    const found = policies.get(policy ?? '')
    if (found) faults.push({ file: found.file, line: found.line + lineAt(found.text, offset) - 1, message })
    else faults.push({ file: 'policies', line: 1, message })
  }
}

/** @param offset bytes of UTF-8, as the engine counts */
const lineAt = (text: string, offset: number): number => Buffer.from(text).subarray(0, offset).toString('utf8').split('\n').length

const inOrder = (faults: readonly Fault[]): readonly string[] =>
  faults
    .toSorted((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1))
    .map(({ file, line, message }) => `${file}:${line}: ${message}`)
