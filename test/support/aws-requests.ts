/** What a broker asks of STS and IAM, by name: the action, and what only watches a kill list by what it is there for. */
const canaries = ['assume a canary', 'ask a canary'] as const

/** Actions that change nothing, and come whenever they like. */
const readings: ReadonlySet<string> = new Set(['GetCallerIdentity', 'GetRole', 'GetPolicy', 'GetPolicyVersion'])

/** What clears up behind a document, beside whatever goes on; where a document finds no room it waits for them. */
const tidying: ReadonlySet<string> = new Set(['ListPolicyVersions', 'DeletePolicyVersion'])

/** @param body the form that STS and IAM are asked with */
export function nameOfAwsRequest(_method: string, _path: string, body: string): string {
  const form = new URLSearchParams(body)
  const action = form.get('Action') ?? 'no action'
  if (action === 'DecodeAuthorizationMessage') return 'ask a canary'
  return action === 'AssumeRole' && form.get('RoleSessionName')!.startsWith('@') ? 'assume a canary' : action
}

const isCanary = (name: string): boolean => canaries.some((canary) => canary === name)

export const isAwsRequest = (name: string): boolean => isCanary(name) || /^([A-Z][a-z]+){2,}$/.test(name)

/** Whether it comes whenever it likes, and no task waits for that very one. */
export const isAwsLook = (name: string): boolean => isCanary(name) || readings.has(name) || tidying.has(name)
