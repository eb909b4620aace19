import { Refusal } from './refusal.ts'

/** `identity` has resources and no principal, `trust` a principal and no resources, `resource` both. */
export type PolicyKind = 'identity' | 'trust' | 'resource'

export interface Policy {
  /** As it was written. */
  readonly text: string
  readonly statements: readonly Statement[]
}

export interface Statement {
  readonly effect: 'Allow' | 'Deny'
  readonly action: Selection
  /** Absent in a trust policy, which speaks of its own role. */
  readonly resource: Selection | undefined
  /** Present in resource and trust policies: `AWS`, `Federated` or `Service`, and who. */
  readonly principals: readonly { readonly kind: string; readonly name: string }[] | undefined
  /** All of them must hold. */
  readonly conditions: readonly Condition[]
}

/** What is meant by a list of patterns, or by everything but them. */
export interface Selection {
  readonly patterns: readonly string[]
  readonly inverted: boolean
}

export interface Condition {
  readonly operator: string
  readonly quantifier: 'ForAnyValue' | 'ForAllValues' | undefined
  readonly ifExists: boolean
  readonly key: string
  readonly values: readonly string[]
}

const orders = ['Equals', 'NotEquals', 'LessThan', 'LessThanEquals', 'GreaterThan', 'GreaterThanEquals']
const operators: ReadonlySet<string> = new Set(
  [
    ['StringEquals', 'StringNotEquals', 'StringEqualsIgnoreCase', 'StringNotEqualsIgnoreCase', 'StringLike', 'StringNotLike'],
    ['ArnEquals', 'ArnNotEquals', 'ArnLike', 'ArnNotLike', 'Bool', 'Null', 'IpAddress', 'NotIpAddress'],
    orders.flatMap((how) => [`Date${how}`, `Numeric${how}`]),
  ].flat(),
)

const malformed = (why: string) => new Refusal('MalformedPolicyDocument', why)

/** Reads a policy document. @throws MalformedPolicyDocument */
export function parsePolicy(text: string, kind: PolicyKind): Policy {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw malformed('This policy contains invalid Json')
  }
  const document = fields(parsed)
  if (document.Version !== undefined && document.Version !== '2012-10-17' && document.Version !== '2008-10-17')
    throw malformed('Syntax errors in policy.')
  if (Object.keys(document).some((name) => !['Version', 'Id', 'Statement'].includes(name))) throw malformed('Syntax errors in policy.')
  const statements = Array.isArray(document.Statement) ? document.Statement : [document.Statement]
  if (statements.length === 0) throw malformed('Syntax errors in policy.')
  return { text, statements: statements.map((statement) => parseStatement(fields(statement), kind)) }
}

const known = new Set(['Sid', 'Effect', 'Action', 'NotAction', 'Resource', 'NotResource', 'Principal', 'NotPrincipal', 'Condition'])

function parseStatement(statement: Record<string, unknown>, kind: PolicyKind): Statement {
  const { Effect: effect, Principal: principal } = statement
  if (effect !== 'Allow' && effect !== 'Deny') throw malformed('Syntax errors in policy.')
  if (Object.keys(statement).some((name) => !known.has(name))) throw malformed('Syntax errors in policy.')
  // It is so seldom meant that this peer has none, and says so instead of misreading it.
  if (statement.NotPrincipal !== undefined) throw malformed('NotPrincipal is not supported.')
  const action = selection(statement, 'Action')
  if (!action) throw malformed('Policy statement must contain actions.')
  if (action.patterns.some((name) => name !== '*' && !/^[a-zA-Z0-9-]+:[\w*?]+$/.test(name)))
    throw malformed('Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.')
  const resource = selection(statement, 'Resource')
  if ((kind === 'trust') !== (resource === undefined))
    throw malformed(kind === 'trust' ? 'Has prohibited field Resource' : 'Policy statement must contain resources.')
  if (resource?.patterns.some((name) => name !== '*' && !name.startsWith('arn:'))) throw malformed('Resource must be in ARN format or "*".')
  if ((kind === 'identity') !== (principal === undefined))
    throw malformed(kind === 'identity' ? 'Policy document should not specify a principal.' : 'Missing required field Principal')
  const principals = principal === undefined ? undefined : parsePrincipals(principal)
  return { effect, action, resource, principals, conditions: parseConditions(statement.Condition) }
}

function selection(statement: Record<string, unknown>, name: string): Selection | undefined {
  const [plain, inverted] = [statement[name], statement[`Not${name}`]]
  if (plain !== undefined && inverted !== undefined) throw malformed('Syntax errors in policy.')
  const found = plain ?? inverted
  return found === undefined ? undefined : { patterns: texts(found), inverted: plain === undefined }
}

function parsePrincipals(principal: unknown): { kind: string; name: string }[] {
  if (principal === '*') return [{ kind: 'AWS', name: '*' }]
  return Object.entries(fields(principal)).flatMap(([kind, names]) => texts(names).map((name) => ({ kind, name })))
}

function parseConditions(block: unknown): Condition[] {
  if (block === undefined) return []
  return Object.entries(fields(block)).flatMap(([spelled, keys]) => {
    const [, quantifier, operator = '', ifExists] = /^(?:(ForAnyValue|ForAllValues):)?(\w+?)(IfExists)?$/.exec(spelled) ?? []
    if (!operators.has(operator) || (operator === 'Null' && ifExists)) throw malformed(`Invalid Condition type : ${spelled}.`)
    return Object.entries(fields(keys)).map(([key, values]) => {
      const read = { operator, quantifier: quantifier as Condition['quantifier'], ifExists: ifExists !== undefined, key, values: texts(values) }
      if (
        operator.startsWith('Date') &&
        read.values.some((value) => !value.includes('${') && Number.isNaN(Date.parse(value)) && !/^\d+$/.test(value))
      )
        throw malformed(`Invalid date in ${spelled}.`)
      return read
    })
  })
}

function fields(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed('Syntax errors in policy.')
  return value as Record<string, unknown>
}

function texts(value: unknown): string[] {
  const all: unknown[] = Array.isArray(value) ? value : [value]
  if (!all.every((one) => ['string', 'number', 'boolean'].includes(typeof one))) throw malformed('Syntax errors in policy.')
  return all.map(String)
}
