import { BlockList, isIP } from 'node:net'
import type { Condition } from './policy.ts'

/** What is known of a request, by lower-case key. A key that is not here is absent, which is not the same as empty. */
export type Context = ReadonlyMap<string, readonly string[]>

/** Whether a condition holds, by AWS's rules for keys that are absent. */
export function holds(condition: Condition, context: Context): boolean {
  const { operator, quantifier, ifExists } = condition
  const found = context.get(condition.key.toLowerCase())
  if (operator === 'Null') return condition.values.some((value) => (value.toLowerCase() === 'true') === (found === undefined))
  const negated = /Not(?=[A-Z])/.test(operator)
  if (!found || found.length === 0) return quantifier ? quantifier === 'ForAllValues' || ifExists : ifExists || negated

  const compare = comparisons[operator.replace(/Not(?=[A-Z])/, '')]!
  // A negated operator holds for a value that matches none of the list; a plain one for a value that matches any.
  const passes = (value: string) => condition.values.some((wanted) => compare(value, wanted, context)) !== negated
  return quantifier === 'ForAnyValue' || (!quantifier && !negated) ? found.some(passes) : found.every(passes)
}

type Compare = (value: string, wanted: string, context: Context) => boolean

const exact: Compare = (value, wanted, context) => fill(wanted, context) === value
const like: Compare = (value, wanted, context) => matches(wanted, value, context)
const dates =
  (compare: (a: number, b: number) => boolean): Compare =>
  (value, wanted) =>
    compare(moment(value), moment(wanted))
const numbers =
  (compare: (a: number, b: number) => boolean): Compare =>
  (value, wanted) =>
    compare(Number(value), Number(wanted))
const ordered = {
  Equals: (a: number, b: number) => a === b,
  LessThan: (a: number, b: number) => a < b,
  LessThanEquals: (a: number, b: number) => a <= b,
  GreaterThan: (a: number, b: number) => a > b,
  GreaterThanEquals: (a: number, b: number) => a >= b,
}

const comparisons: Readonly<Record<string, Compare>> = {
  StringEquals: exact,
  StringEqualsIgnoreCase: (value, wanted, context) => fill(wanted, context)?.toLowerCase() === value.toLowerCase(),
  StringLike: like,
  // Each of the six parts of an ARN is matched by itself, and both operators take wildcards.
  ArnEquals: (value, wanted, context) => arnMatches(wanted, value, context),
  ArnLike: (value, wanted, context) => arnMatches(wanted, value, context),
  Bool: (value, wanted) => value.toLowerCase() === wanted.toLowerCase(),
  IpAddress: (value, wanted) => within(value, wanted),
  ...Object.fromEntries(
    Object.entries(ordered).flatMap(([name, compare]) => [
      [`Date${name}`, dates(compare)],
      [`Numeric${name}`, numbers(compare)],
    ]),
  ),
}

/** ISO 8601 or seconds since the epoch, in milliseconds. */
const moment = (text: string) => (/^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text))

const partsOfArn = (arn: string) => [...arn.split(':').slice(0, 5), arn.split(':').slice(5).join(':')]

function arnMatches(pattern: string, arn: string, context: Context): boolean {
  const parts = partsOfArn(arn)
  return partsOfArn(pattern).every((part, at) => matches(part, parts[at] ?? '', context))
}

function within(address: string, range: string): boolean {
  const [network = '', bits] = range.split('/')
  const family = isIP(network) === 6 ? 'ipv6' : 'ipv4'
  const list = new BlockList()
  list.addSubnet(network, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
  return list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

const variable = /\$\{([^}]*)\}/g

/** A text with its policy variables filled in; undefined where one of them has no value, and so nothing can match. */
function fill(text: string, context: Context): string | undefined {
  let complete = true
  const filled = text.replace(variable, (_, name: string) => {
    const value = valueOf(name, context)
    if (value === undefined) complete = false
    return value ?? ''
  })
  return complete ? filled : undefined
}

function valueOf(name: string, context: Context): string | undefined {
  // Spelled so that they are meant literally.
  if (name === '*' || name === '?' || name === '$') return name
  const [, key = '', otherwise] = /^\s*([^,\s]+)\s*(?:,\s*'(.*)')?\s*$/.exec(name) ?? []
  const found = context.get(key.toLowerCase())
  return (found?.length === 1 ? found[0] : undefined) ?? otherwise
}

const compiled = new Map<string, RegExp>()
const literal = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
const wild = (text: string) =>
  literal(text)
    .replace(/(?:\\\*)+/g, '.*')
    .replaceAll('\\?', '.')

/** Whether a text matches a pattern with `*`, `?` and policy variables, whose values are meant literally. */
export function matches(pattern: string, text: string, context: Context, flags: 's' | 'si' = 's'): boolean {
  if (pattern === '*') return true
  if (!/[*?$]/.test(pattern)) return flags === 's' ? pattern === text : pattern.toLowerCase() === text.toLowerCase()
  const known = compiled.get(flags + pattern)
  if (known) return known.test(text)
  let expression = ''
  let from = 0
  for (const found of pattern.matchAll(variable)) {
    const value = valueOf(found[1]!, context)
    if (value === undefined) return false
    expression += wild(pattern.slice(from, found.index)) + literal(value)
    from = found.index + found[0].length
  }
  const regexp = new RegExp(`^${expression}${wild(pattern.slice(from))}$`, flags)
  if (from === 0) compiled.set(flags + pattern, regexp)
  return regexp.test(text)
}
