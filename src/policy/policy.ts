import { parseDuration } from '../base/time.ts'
import type { PolicyJson } from './engine.ts'

export type PolicyId = { readonly ok: true; readonly value: string } | { readonly ok: false; readonly fault: string }

/** What a policy binds to its permit: so far, milliseconds that the credential may live at most. */
export type Duties = { readonly ok: true; readonly maxTtl: number | undefined } | { readonly ok: false; readonly faults: readonly string[] }

/** `engine` would be mistaken for the engine itself, which stands under that name among the diagnostics. */
const idPattern = /^(?!engine$)[a-z0-9][a-z0-9._-]{0,63}$/

/** The id under which a policy is archived, answers and is replayed: its `@id`, which the engine itself ignores. */
export function idOf({ annotations = {} }: PolicyJson): PolicyId {
  const { id } = annotations
  if (typeof id !== 'string') return { ok: false, fault: 'the policy has no @id("…")' }
  if (!idPattern.test(id)) return { ok: false, fault: '@id must be lower-case letters, digits, ".", "_" or "-", at most 64, and not "engine"' }
  return { ok: true, value: id }
}

/**
 * The duties in a policy's annotations. The vocabulary is closed: `@id`, `@description`, `@max_ttl`. Any other would be a duty that the author
 * relies on and nobody performs.
 */
export function dutiesOf({ annotations = {}, effect }: PolicyJson): Duties {
  const faults: string[] = []
  let maxTtl: number | undefined
  for (const [name, value] of Object.entries(annotations)) {
    switch (name) {
      case 'id':
      case 'description':
        break
      case 'max_ttl':
        maxTtl = typeof value === 'string' ? parseDuration(value) : undefined
        if (maxTtl === undefined) faults.push('@max_ttl must be a duration such as "90s", "15m" or "2h"')
        if (effect === 'forbid') faults.push('@max_ttl on a forbid would shorten nothing: only a permit that determines the answer does')
        break
      default:
        faults.push(`@${name} is an obligation that the broker cannot perform; known are @id, @description and @max_ttl`)
    }
  }
  return faults.length > 0 ? { ok: false, faults } : { ok: true, maxTtl }
}

/** Whether the policy may look at `context.now`. When in doubt it does: any use of `context` as a whole counts. */
export function readsNow(policy: PolicyJson): boolean {
  return mayReadNow(policy.conditions)
}

function mayReadNow(node: unknown): boolean {
  if (typeof node !== 'object' || node === null) return false
  if ('Var' in node && node.Var === 'context') return true
  // `context.ttl` is fine: its `context` is not looked at again.
  if ('.' in node && isAttributeOfContext(node['.'])) return node['.'].attr === 'now'
  return Object.values(node).some((child) => mayReadNow(child))
}

function isAttributeOfContext(access: unknown): access is { readonly attr: string } {
  if (typeof access !== 'object' || access === null || !('left' in access) || !('attr' in access)) return false
  const { left } = access
  return typeof left === 'object' && left !== null && 'Var' in left && left.Var === 'context'
}
