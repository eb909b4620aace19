import type { Account } from './account.ts'
import { parsePolicy, type Policy } from './policy.ts'
import type { Form } from './query.ts'
import { invalid, Refusal } from './refusal.ts'

/** What the name of a session and a source identity are made of. */
export const named = /^[\w+=,.@-]*$/

/** @throws ValidationError beyond 2,048 characters, MalformedPolicyDocument */
export function readSessionPolicy(text: string): Policy {
  if (text.length > 2048)
    throw invalid("1 validation error detected: Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048")
  return parsePolicy(text, 'identity')
}

/** The policies that narrow a session from its start, as one layer of them or none. @throws ValidationError, MalformedPolicyDocument */
export function sessionPolicies(account: Account, form: Form): { layers: Policy[][]; texts: string[] } {
  const text = form.optional('Policy')
  const arns = form.list('PolicyArns', 'arn')
  if (arns.length > 10)
    throw invalid("1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to 10")
  const inline = text === undefined ? [] : [readSessionPolicy(text)]
  const managed = arns.map((arn) => {
    const policy = account.policies.get(arn)
    if (!policy) throw invalid(`PolicyArns: ${arn} does not exist.`)
    return policy.current.at(account.now()).policy
  })
  const all = [...inline, ...managed]
  return { layers: all.length > 0 ? [all] : [], texts: [...(text ? [text] : []), ...arns] }
}

/** Keys of tags are the same in whatever case. */
export const hasKey = (tags: ReadonlyMap<string, string>, key: string) => [...tags.keys()].some((other) => other.toLowerCase() === key.toLowerCase())

export function sessionTags(form: Form): Map<string, string> {
  const values = form.list('Tags', 'Value')
  return checkedTags(form.list('Tags', 'Key').map((key, at) => [key, values[at] ?? '']))
}

/** @throws ValidationError, InvalidParameterValue for keys that differ only in their case */
export function checkedTags(given: readonly (readonly [string, string])[]): Map<string, string> {
  if (given.length > 50)
    throw invalid("1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less than or equal to 50")
  const tags = new Map<string, string>()
  for (const [key, value] of given) {
    if (key.length < 1 || key.length > 128 || value.length > 256 || !/^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u.test(key + value))
      throw invalid(`Tag '${key}' is not valid.`)
    if (hasKey(tags, key)) throw new Refusal('InvalidParameterValue', 'Duplicate tag keys found. Please note that Tag keys are case insensitive.')
    tags.set(key, value)
  }
  return tags
}
