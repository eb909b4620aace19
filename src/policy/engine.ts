import {
  checkParseSchema,
  policySetTextToParts,
  policyToJson,
  preparsePolicySet,
  preparseSchema,
  statefulIsAuthorized,
  validate,
  type DetailedError,
  type EntityJson,
  type EntityUid,
  type PolicyJson,
  type Context,
} from '@cedar-policy/cedar-wasm/nodejs'
import type { Digest } from '../proof/canonical.ts'

export type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'

// The only file that knows cedar-wasm 4.13.0. Its functions are synchronous and keep their parsed sets in one place per thread, by name.

/** A schema and the texts of policies by their ids: what a set's digest is over, and what is archived. */
export interface PolicyTexts {
  readonly schema: string
  readonly policies: Readonly<Record<string, string>>
}

/** One question to the engine, as Cedar's JSON. */
export interface CedarRequest {
  readonly principal: EntityUid
  readonly action: EntityUid
  readonly resource: EntityUid
  readonly context: Context
  readonly entities: EntityJson[]
}

/** What the engine answered: its decision, the policies that determined it, and those that failed while they were evaluated. */
export interface Verdict {
  readonly allow: boolean
  readonly determining: readonly string[]
  readonly failed: readonly string[]
}

/** Something that the engine does not accept. */
export interface EngineFault {
  readonly message: string
  /** Bytes (UTF-8) from the beginning of the text that was read, or of the policy's own text where one is named. */
  readonly offset: number
  readonly policy?: string
}

export type Parts =
  | { readonly ok: true; readonly policies: readonly string[]; readonly templates: readonly string[] }
  | { readonly ok: false; readonly faults: readonly EngineFault[] }

/** The policies of one file, each with the very text it has there, comments before it left out. */
export function splitPolicies(text: string): Parts {
  const parts = policySetTextToParts(text)
  if (parts.type === 'failure') return { ok: false, faults: parts.errors.flatMap((error) => faultsOf(error)) }
  return { ok: true, policies: parts.policies, templates: parts.policy_templates }
}

/** One policy as its syntax tree. @throws Error if the text is not one policy */
export function parsePolicy(text: string): PolicyJson {
  const parsed = policyToJson(text)
  if (parsed.type === 'failure') throw new Error(`not a policy: ${parsed.errors.map(({ message }) => message).join(', ')}`)
  return parsed.json
}

/** Whatever Cedar's strict validation has against these policies. Warnings count: a policy that can never apply is a mistake of its author. */
export function validatePolicies({ schema, policies }: PolicyTexts): readonly EngineFault[] {
  const answer = validate({ schema, policies: { staticPolicies: { ...policies } } })
  if (answer.type === 'failure') {
    refuseSchema(schema)
    return answer.errors.flatMap((error) => faultsOf(error))
  }
  return [
    ...[...answer.validationErrors, ...answer.validationWarnings].flatMap(({ policyId, error }) => faultsOf(error, policyId)),
    ...answer.otherWarnings.flatMap((error) => faultsOf(error)),
  ]
}

/** Tells a schema that does not parse from policies that do not: of a validation that failed, the answer looks the same. @throws Error if it is the schema */
function refuseSchema(schema: string): void {
  const parsed = checkParseSchema(schema)
  if (parsed.type === 'failure') throw new Error(`the schema does not parse: ${parsed.errors.map(({ message }) => message).join(', ')}`)
}

/**
 * Asks the engine, with the schema and with request validation. Undefined where it gave no answer: the question does not fit the set's schema, or
 * the engine itself failed.
 */
export function evaluate(texts: PolicyTexts, digest: Digest, question: CedarRequest): Verdict | undefined {
  try {
    const slot = slotFor(texts, digest)
    const answer = statefulIsAuthorized({ ...question, preparsedSchemaName: slot, preparsedPolicySetId: slot, validateRequest: true })
    if (answer.type === 'failure') return undefined
    const { decision, diagnostics } = answer.response
    return {
      allow: decision === 'allow',
      determining: diagnostics.reason.toSorted(),
      failed: diagnostics.errors.map(({ policyId }) => policyId).toSorted(),
    }
  } catch {
    // It throws for input that it cannot read, and for a defect of its own. Neither is an answer, and what is no answer is a deny.
    return undefined
  }
}

/**
 * Names under which the engine keeps parsed sets, least recently used first. It never frees a name (2,000 of them cost 182 MB), so there are
 * three: the set in force, the one it just replaced, and one that is replayed or checked.
 */
const slots: { readonly name: string; holds: Digest | undefined }[] = ['a', 'b', 'c'].map((name) => ({ name, holds: undefined }))

/**
 * The slot that holds this set, filled first if none does (about 5 ms). A slot is known by the digest of what it holds and everything from this look
 * to the evaluation is one synchronous step, so no question is ever put to another set than its own.
 */
function slotFor(texts: PolicyTexts, digest: Digest): string {
  const held = slots.findIndex(({ holds }) => holds === digest)
  const [slot] = slots.splice(Math.max(held, 0), 1)
  slots.push(slot!)
  if (slot!.holds !== digest) fill(slot!, texts, digest)
  return slot!.name
}

function fill(slot: (typeof slots)[number], { schema, policies }: PolicyTexts, digest: Digest): void {
  // Between the two the slot is half of one set and half of another: it holds nothing until both are in.
  slot.holds = undefined
  for (const parsed of [preparseSchema(slot.name, schema), preparsePolicySet(slot.name, { staticPolicies: { ...policies } })]) {
    if (parsed.type === 'failure') throw new Error(parsed.errors.map(({ message }) => message).join(', '))
  }
  slot.holds = digest
}

/** An error of the engine and those that it brings along, in one line each. */
function faultsOf(error: DetailedError, policy?: string): EngineFault[] {
  const [location] = error.sourceLocations ?? []
  const message = [error.message, location?.label, error.help].filter((part) => part).join('; ')
  const fault = { message, offset: location?.start ?? 0, ...(policy === undefined ? {} : { policy }) }
  return [fault, ...(error.related ?? []).flatMap((related) => faultsOf(related, policy))]
}
