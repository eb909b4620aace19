import { z } from 'zod'
import type { Json } from '../../../base/json.ts'
import type { Finding } from '../../provider.ts'

const texts = z.union([z.string(), z.array(z.string())]).transform((given) => [given].flat())

/** A trust policy, as IAM takes it (IAM JSON policy elements reference). */
const statement = z.looseObject({
  Effect: z.enum(['Allow', 'Deny']),
  Principal: z.union([z.literal('*').transform((): Record<string, string[]> => ({ AWS: ['*'] })), z.record(z.string(), texts)]).optional(),
  Action: texts.optional(),
  Condition: z.record(z.string(), z.record(z.string(), texts)).optional(),
})
const trustPolicy = z.looseObject({ Statement: z.union([statement.transform((one) => [one]), z.array(statement)]) })
type Statement = z.output<typeof statement>

/** What a role's trust is held against. */
export interface Expected {
  /** What the settings name, where they do. */
  readonly externalId?: string | undefined
  /** ARN of the only one that should take the role, where it is known. */
  readonly minter?: string | undefined
}

/** Whom a trust policy lets in that it should not. Nothing where there is nothing to say. */
export function judgeTrust(subject: string, document: Json | undefined, { externalId, minter }: Expected): Finding[] {
  const policy = trustPolicy.safeParse(document).data
  if (!policy) return [{ level: 'unchecked', subject, message: 'has a trust policy that is not understood: look at it yourself' }]
  const assuming = policy.Statement.filter(({ Effect, Action = ['*'] }) => Effect === 'Allow' && Action.some(assumes))
  return assuming.flatMap((allowed) => [
    ...judgePrincipals(subject, allowed, minter),
    ...(externalId !== undefined && allowed.Action?.some(assumesByKey) ? judgeExternalId(subject, allowed, externalId) : []),
  ])
}

const assumes = (action: string): boolean => /^(\*|sts:(\*|assume\*|assumerole.*))$/i.test(action)
const assumesByKey = (action: string): boolean => /^(\*|sts:(\*|assume\*|assumerole\*?))$/i.test(action)

function judgePrincipals(subject: string, { Principal = {}, Condition = {} }: Statement, minter: string | undefined): Finding[] {
  const aws = Principal['AWS'] ?? []
  const findings: Finding[] = []
  if (aws.includes('*')) {
    const any = Object.keys(Condition).length === 0
    const message = `trusts everybody${any ? '' : ' who meets its conditions'}: name the minter as its principal, as in deploy/aws/task-role-trust.json`
    findings.push({ level: any ? 'fault' : 'warning', subject, message })
  } else if (aws.some((name) => /^(\d{12}|arn:[a-z-]+:iam::\d{12}:root)$/.test(name))) {
    findings.push({ level: 'warning', subject, message: 'trusts whomever an account lets: name the minter itself as its principal' })
  } else if (minter !== undefined && aws.some((name) => name !== minter)) {
    findings.push({ level: 'warning', subject, message: 'trusts others than the minter, whose sessions no kill list knows: take them away' })
  }
  if (Principal['Service'])
    findings.push({ level: 'warning', subject, message: 'trusts a service of AWS, whose sessions no kill list knows: give that another role' })
  if (Principal['Federated']) findings.push(...judgeFederated(subject, Condition))
  return findings
}

/** Whoever has a token of the issuer is let in but for what the conditions ask of the token. */
function judgeFederated(subject: string, conditions: NonNullable<Statement['Condition']>): Finding[] {
  const missing = ['aud', 'sub'].filter((claim) => !valuesOf(conditions, new RegExp(`:${claim}$`)).some((value) => !/^\**$/.test(value)))
  if (missing.length === 0) return []
  const message = `trusts an issuer without a condition on ${missing.join(' and ')}, and so others whom it knows: pin them, as in deploy/aws/minter-trust-web-identity.json`
  return [{ level: 'fault', subject, message }]
}

function judgeExternalId(subject: string, { Condition = {} }: Statement, externalId: string): Finding[] {
  const asked = valuesOf(Condition, /^sts:externalid$/)
  if (asked.includes(externalId)) return []
  const message =
    asked.length === 0
      ? 'asks for no sts:ExternalId though external_id is configured, so another broker of somebody else can be talked into it: add the condition'
      : 'asks for another sts:ExternalId than external_id'
  return [{ level: 'fault', subject, message }]
}

/** Values that a condition wants a key to have. What it does not want, or only where the key is there, pins nothing. */
const valuesOf = (conditions: NonNullable<Statement['Condition']>, key: RegExp): string[] =>
  Object.entries(conditions).flatMap(([operator, keys]) =>
    /^(ForAnyValue:)?String(Equals(IgnoreCase)?|Like)$/.test(operator)
      ? Object.entries(keys).flatMap(([name, values]) => (key.test(name.toLowerCase()) ? values : []))
      : [],
  )
