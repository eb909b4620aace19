import { z } from 'zod'
import type { GrantFault } from '../provider.ts'
import { compile, compileParent, longestPolicy, placeholder, UnknownParameter, variable } from './compile.ts'
import { outlives, sameAction } from './outlives.ts'

/** A role of the account, with its path: `mayfly/invoices`. Not an ARN, for the account is the provider's. */
export const roleName = z
  .string()
  .max(575)
  .regex(/^([\w+=,.@-]+\/)*[\w+=,.@-]{1,64}$/, 'must be the name of a role, with its path where it has one, and no ARN')

/** `service:Action`, whole: a wildcard would also stand for what AWS adds tomorrow, and for what outlives the session. */
const action = z
  .string()
  .max(128)
  .regex(/^[a-z0-9-]+:[A-Za-z0-9]+$/, 'must be a service and an action, both whole, such as "s3:GetObject"')

/**
 * Text with placeholders, and variables of IAM such as `${aws:username}`. A brace that belongs to neither is a misspelt one. Beside a wildcard a
 * placeholder would bound nothing: `{customer}*` is also every customer whose name begins alike.
 */
const template = z
  .string()
  .min(1)
  .max(1_024)
  .regex(/^[\x20-\x7e]*$/, 'must be printable ASCII')
  .refine(
    (text) => !/[{}$]/.test(text.replace(placeholder, '').replace(variable, '')),
    'must not have a brace or "$" that is no parameter, as in "{name}", and no variable of IAM',
  )
  .refine(
    (text) => !/[*?]\{|(?<!\$)\{[^{}]*\}[*?]/.test(text),
    'must not have a wildcard right beside a parameter: it would match what only begins or ends alike',
  )

/** A parameter can stand in the last part only: what comes before says which service, Region and account. */
const resource = template.refine(
  (text) => text === '*' || /^arn:[^:{}]+:[^:{}]+:[^:{}]*:[^:{}]*:.+$/.test(text),
  'must be "*" or an ARN, with parameters in its last part only',
)

/** IAM User Guide, "Condition operators". */
const operator = z
  .string()
  .regex(
    /^(For(Any|All)Values:)?(String(Not)?(Equals(IgnoreCase)?|Like)|Arn(Not)?(Equals|Like)|(Numeric|Date)((Not)?Equals|(Less|Greater)Than(Equals)?)|(Not)?IpAddress|Bool|BinaryEquals|Null)(IfExists)?$/,
    'must be an operator of IAM, such as "StringEquals"',
  )

/** Operator -> key -> values, as in a policy of IAM. */
const conditions = z.record(
  operator,
  z.record(
    z.string().regex(/^[A-Za-z0-9-]+:[A-Za-z0-9:/_.-]{1,128}$/, 'must be a condition key, such as "s3:prefix"'),
    z.array(template).min(1).max(16),
  ),
)

/** A grant's own keys: roles that may be assumed, and what may be done with them. */
export const awsGrant = z
  .strictObject({
    role: roleName.optional(),
    /** A pool of roles that are alike: each session takes one of them. */
    roles: z
      .array(roleName)
      .min(1)
      .max(16)
      .refine((names) => new Set(names).size === names.length, 'must name each role once')
      .optional(),
    allow: z
      .array(
        z.strictObject({
          actions: z.array(action).min(1).max(64),
          resources: z.array(resource).min(1).max(64),
          conditions: conditions.optional(),
        }),
      )
      .min(1)
      .max(16),
    /** Actions among those allowed whose gift works on when the session is dead: whoever writes the catalogue has to say that it is meant. */
    outlives_revocation: z
      .array(action)
      .max(16)
      .refine((names) => new Set(names.map((name) => name.toLowerCase())).size === names.length, 'must name each action once')
      .default([]),
  })
  .transform(({ role, roles, ...own }, context) => {
    if ((role === undefined) !== (roles === undefined)) return { roles: roles ?? [role!], ...own }
    context.addIssue({ code: 'custom', path: ['role'], message: 'must be given, or else "roles" for a pool of them' })
    return z.NEVER
  })

export type AwsGrant = z.output<typeof awsGrant>

/** What every grant has, as far as it bears on these keys. */
interface Entry {
  /** The parameters, and the most characters that a value of each can have. */
  readonly parameters: ReadonlyMap<string, number>
}

/** What is allowed must end with the session or be lifted by name, name only parameters that there are, and fit into a session policy whatever values they get. */
export function awsGrantFaults(grant: AwsGrant, { parameters }: Entry): GrantFault[] {
  const faults = outlivingFaults(grant)
  const texts = JSON.stringify(grant.allow)
  for (const name of parameters.keys()) {
    if (texts.includes(`{${name}}`)) continue
    faults.push({ path: ['parameters', name], message: 'stands nowhere in allow: whoever reads a lease would believe that it narrows the session' })
  }
  const longest = Object.fromEntries([...parameters].map(([name, length]) => [name, '*'.repeat(Math.max(1, length))]))
  try {
    const length = Math.max(...[compile, compileParent].map((written) => written(grant, longest, new Date(0)).length))
    if (length > longestPolicy) {
      faults.push({
        path: ['allow'],
        message: `comes to a session policy of ${length} characters, for the longest parameters: STS takes ${longestPolicy}`,
      })
    }
  } catch (error) {
    if (!(error instanceof UnknownParameter)) throw error
    faults.push({ path: ['parameters'], message: `must have "${error.parameter}", which allow names` })
  }
  return faults
}

function outlivingFaults({ allow, outlives_revocation: lifted }: AwsGrant): GrantFault[] {
  const isAmong = (name: string, others: readonly string[]): boolean => others.some((other) => sameAction(name, other))
  const allowed = allow.flatMap(({ actions }, at) =>
    actions.flatMap((name, index): GrantFault[] => {
      const path = ['allow', at, 'actions', index]
      const how = outlives(name)
      if (how === 'never') return [{ path, message: 'cannot be allowed: it makes another identity, or changes who may do what' }]
      if (how === undefined || isAmong(name, lifted)) return []
      return [{ path, message: 'gives what goes on working when the session is dead: name it in outlives_revocation if that is meant' }]
    }),
  )
  const liftedInVain = lifted.flatMap((name, index): GrantFault[] => {
    const path = ['outlives_revocation', index]
    if (outlives(name) !== 'unless lifted') return [{ path, message: 'is none of the actions that can be lifted' }]
    return allow.some(({ actions }) => isAmong(name, actions)) ? [] : [{ path, message: 'is not allowed by this grant' }]
  })
  return [...allowed, ...liftedInVain]
}
