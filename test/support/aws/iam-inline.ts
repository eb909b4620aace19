import type { Account, User } from './account.ts'
import { type Policy, parsePolicy } from './policy.ts'
import type { Form } from './query.ts'
import { absent, tooMany } from './refusal.ts'

/** Whose policies stand in itself. */
type Bearer = Pick<User, 'name' | 'inline'>

/** @param most characters that all of them may have together */
export function putInline(account: Account, form: Form, bearer: Bearer, kind: 'user' | 'role', most: number): undefined {
  const policies = new Map(bearer.inline.latest).set(form.text('PolicyName'), parsePolicy(form.text('PolicyDocument'), 'identity'))
  limitInline(policies, most, `${kind} ${bearer.name}`)
  account.write(bearer.inline, policies)
  return undefined
}

export function deleteInline(account: Account, form: Form, bearer: Bearer, kind: 'user' | 'role'): undefined {
  const policies = new Map(bearer.inline.latest)
  const name = form.text('PolicyName')
  if (!policies.delete(name)) throw absent(`${kind} policy with name ${name}`)
  account.write(bearer.inline, policies)
  return undefined
}

/** All inline policies together. @throws LimitExceeded */
function limitInline(policies: ReadonlyMap<string, Policy>, most: number, whose: string): void {
  const size = [...policies.values()].reduce((sum, policy) => sum + sizeOfPolicy(policy.text), 0)
  if (size > most) throw tooMany(`Maximum policy size of ${most} bytes exceeded for ${whose}`)
}

/** Counts as IAM does, without white space. */
export const sizeOfPolicy = (text: string) => text.replace(/\s/g, '').length
