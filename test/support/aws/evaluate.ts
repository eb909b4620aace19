import { type Context, holds, matches } from './conditions.ts'
import type { Policy, Selection, Statement } from './policy.ts'

/** Everything that has a say in what one principal may do. */
export interface Rights {
  /** The account's root user, whom only a resource can refuse. */
  readonly root: boolean
  readonly identity: readonly Policy[]
  readonly boundary: Policy | undefined
  /** Each layer is a union of policies, and every layer must allow. */
  readonly session: readonly (readonly Policy[])[]
  /** ARNs by which policies of resources can name this principal, and what an allow by that name passes over. */
  readonly names: ReadonlyMap<string, Grant>
}

/**
 * How a resource's policy names who asks. `account` delegates to the account's own policies. `role` and `anyone` grant by themselves, within boundary
 * and session policies. `exact` names the user or the session, and what boundary and session policies do not mention does not limit it.
 */
export type Grant = 'account' | 'role' | 'anyone' | 'exact'

export interface Ask {
  readonly action: string
  readonly resource: string
  readonly context: Context
  readonly resourcePolicy?: Policy | undefined
  /** A role can be assumed by nobody whom its trust policy does not name. */
  readonly resourceMustAllow?: boolean
}

/** Undefined where the ask is allowed, and otherwise why not, in AWS's words. */
export function whyNot(rights: Rights, ask: Ask): string | undefined {
  const says = (effect: Statement['effect'], policies: readonly Policy[]) =>
    policies.some(({ statements }) => statements.some((statement) => statement.effect === effect && speaksOf(statement, ask)))
  const granted = grants(rights, ask)

  if (granted.denied) return explicit('a resource-based policy')
  if (says('Deny', rights.identity)) return explicit('an identity-based policy')
  if (rights.boundary && says('Deny', [rights.boundary])) return explicit('a permissions boundary')
  if (says('Deny', rights.session.flat())) return explicit('a session policy')

  if (ask.resourceMustAllow && granted.by.size === 0) return missing('resource-based policy', ask)
  if (rights.root || granted.by.has('exact')) return undefined
  if (!granted.by.has('role') && !granted.by.has('anyone') && !says('Allow', rights.identity)) return missing('identity-based policy', ask)
  if (rights.boundary && !says('Allow', [rights.boundary])) return missing('permissions boundary', ask)
  if (!rights.session.every((layer) => says('Allow', layer))) return missing('session policy', ask)
  return undefined
}

const explicit = (where: string) => `with an explicit deny in ${where}`
const missing = (what: string, ask: Ask) => `because no ${what} allows the ${ask.action} action`

function grants(rights: Rights, ask: Ask): { denied: boolean; by: ReadonlySet<Grant> } {
  const by = new Set<Grant>()
  let denied = false
  for (const statement of ask.resourcePolicy?.statements ?? []) {
    if (!speaksOf(statement, ask)) continue
    for (const { name } of statement.principals ?? []) {
      const grant = rights.names.get(name)
      if (!grant) continue
      if (statement.effect === 'Deny') denied = true
      else by.add(grant)
    }
  }
  return { denied, by }
}

function speaksOf(statement: Statement, ask: Ask): boolean {
  return (
    selects(statement.action, ask.action, ask.context, 'si') &&
    (!statement.resource || selects(statement.resource, ask.resource, ask.context, 's')) &&
    statement.conditions.every((condition) => holds(condition, ask.context))
  )
}

const selects = (selection: Selection, text: string, context: Context, flags: 's' | 'si') =>
  selection.patterns.some((pattern) => matches(pattern, text, context, flags)) !== selection.inverted
