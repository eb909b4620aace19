import type { core } from 'zod'

/** Where a value stands in a file or a request: keys and indexes from the top. */
export type Path = readonly PropertyKey[]

/** What a value of each sort is called by whoever writes one into a file or a request. */
const sorts: Readonly<Record<string, string>> = {
  string: 'text',
  int: 'a whole number',
  number: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping',
  record: 'a mapping',
}

/** What is counted in a value of each sort. */
const counted: Readonly<Record<string, string>> = { string: ' characters', array: ' entries', record: ' entries' }

/**
 * What is wanted of a value that has another shape, where its shape says nothing of that itself. Never what it is instead, which may be a secret.
 *
 * Undefined where the shape does say it, or whoever reads the faults does, and for what no shape of ours asks.
 */
export function faultOfShape(issue: core.$ZodRawIssue): string | undefined {
  if (issue.input === undefined) return 'is missing'
  switch (issue.code) {
    case 'invalid_type':
      // A parameter of a query that is there twice arrives as a list.
      if (issue.expected === 'string' && Array.isArray(issue.input)) return 'must be text, given once'
      return `must be ${sorts[issue.expected] ?? issue.expected}`
    case 'invalid_value':
      return oneOf(issue.values)
    case 'too_small':
      if (issue.minimum === 1 && issue.origin in counted) return 'must not be empty'
      return `must ${quantity(issue.origin, issue.minimum)} at least`
    case 'too_big':
      return `must ${quantity(issue.origin, issue.maximum)} at most`
    case 'invalid_union':
      return 'options' in issue && Array.isArray(issue.options) ? oneOf(issue.options) : 'must have one of the forms that are possible here'
    case 'invalid_format':
      return 'must have another form'
    case 'custom':
    case 'invalid_element':
    case 'invalid_key':
    case 'not_multiple_of':
    case 'unrecognized_keys':
      return undefined
  }
}

const oneOf = (values: readonly unknown[]): string => `must be ${values.length > 1 ? 'one of ' : ''}${values.map(String).join(', ')}`

const quantity = (origin: string, limit: number | bigint): string => (origin in counted ? `have ${limit}${counted[origin]}` : `be ${limit}`)

/** One issue of zod as faults: one for each unknown key, and the words of the key's own shape where a key is malformed. */
export function faultsOf(issue: core.$ZodIssue): readonly { readonly path: Path; readonly message: string }[] {
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => ({ path: [...issue.path, key], message: 'is not a known key' }))
  const message = issue.code === 'invalid_key' ? issue.issues.map((one) => one.message).join(', ') : issue.message
  return [{ path: issue.path, message }]
}
