import { ProviderError } from '../provider.ts'
import type { AwsGrant } from './grant.ts'
import { baseDeny } from './outlives.ts'
import { everythingDenied, policyText, toTheSecond } from './policy.ts'

/** Characters of a session policy that STS takes (STS API reference, AssumeRole, Policy). */
export const longestPolicy = 2_048

/** A placeholder of the catalogue. */
export const placeholder = /(?<!\$)\{([a-z0-9][a-z0-9._-]{0,63})\}/g

/** A variable of IAM's own, which stays as it is (IAM User Guide, "Policy variables"). */
export const variable = /\$\{([A-Za-z0-9-]+:[A-Za-z0-9/_-]+|[*?$])\}/g

/** A placeholder without a parameter. */
export class UnknownParameter extends Error {
  readonly parameter: string

  constructor(parameter: string) {
    super(`there is no parameter ${parameter}`)
    this.name = 'UnknownParameter'
    this.parameter = parameter
  }
}

/**
 * The session policy of one lease: what the grant allows, with the task's parameters; never what outlives the session, unless the grant lifts it;
 * nothing at all after `until`. Minified.
 *
 * @param until a whole second, for IAM compares dates to the second
 * @throws ProviderError `refused` for a value that would leave its place; UnknownParameter, which loading the catalogue rules out
 */
export function compile({ allow, outlives_revocation: lifted }: AwsGrant, parameters: Readonly<Record<string, string>>, until: Date): string {
  const statements = allow.map(({ actions, resources, conditions }) => ({
    Effect: 'Allow',
    Action: oneOrMore(actions),
    Resource: oneOrMore(resources.map((text) => filled(text, parameters, segment))),
    ...(conditions && { Condition: filledConditions(conditions, parameters) }),
  }))
  return policyText([
    ...statements,
    { Effect: 'Deny', Action: baseDeny(lifted), Resource: '*' },
    { ...everythingDenied, Condition: { DateGreaterThan: { 'aws:CurrentTime': toTheSecond(until) } } },
  ])
}

/** A list of one is written as what it holds: the room is short. */
const oneOrMore = (texts: readonly string[]): string | readonly string[] => (texts.length === 1 ? texts[0]! : texts)

function filledConditions(conditions: NonNullable<AwsGrant['allow'][number]['conditions']>, parameters: Readonly<Record<string, string>>): object {
  return Object.fromEntries(
    Object.entries(conditions).map(([operator, keys]) => [
      operator,
      Object.fromEntries(Object.entries(keys).map(([key, values]) => [key, oneOrMore(values.map((text) => filled(text, parameters, plain)))])),
    ]),
  )
}

/** In one pass: a value that looks like a placeholder stays what it is. */
const filled = (text: string, parameters: Readonly<Record<string, string>>, checked: (value: string) => string): string =>
  text.replace(placeholder, (_, name: string) => {
    if (!Object.hasOwn(parameters, name)) throw new UnknownParameter(name)
    return escaped(checked(parameters[name]!))
  })

/** What stands for something else in a resource or a condition stands for itself, as `${*}`, `${?}` and `${$}` (IAM User Guide, "Policy variables"). */
const escaped = (value: string): string => value.replace(/[*?$]/g, (character) => `\${${character}}`)

/** A value within a segment of an ARN: what separates segments would put it into another. */
function segment(value: string): string {
  if (/[:/]/.test(value))
    throw new ProviderError('refused', 'A parameter of this grant must not contain ":" or "/", because it is part of an ARN', 'no')
  return plain(value)
}

/** The characters that STS takes in a policy (STS API reference, AssumeRole, Policy), without those that nobody sees; an empty value would name nobody. */
function plain(value: string): string {
  if (/^[\x20-\x7e\xa0-\xff]+$/.test(value)) return value
  throw new ProviderError('refused', 'A parameter of this grant is empty, or has a character that AWS does not take in a policy', 'no')
}
