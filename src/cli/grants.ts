import { InvalidArgumentError, Option } from 'commander'
import { durationPattern } from '../base/time.ts'
import { UsageError } from './failure.ts'

/** What `--grant G --param k=v` asks for. */
export interface AskedGrants {
  readonly grant?: readonly string[]
  readonly param?: Readonly<Record<string, string>>
}

/** The grants of a declaration. A parameter belongs to the grant that it names (`G.k=v`), or to the only grant there is. */
export function grantsOf({ grant = [], param = {} }: AskedGrants): { name: string; parameters: Record<string, string> }[] {
  const asked = grant.map((name) => ({ name, parameters: {} as Record<string, string> }))
  for (const [key, value] of Object.entries(param)) {
    const named = asked.find(({ name }) => key.startsWith(`${name}.`))
    const target = named ?? (asked.length === 1 ? asked[0] : undefined)
    if (!target) throw new UsageError(`--param ${key}: say which grant it is for: GRANT.${key}=…`)
    target.parameters[named ? key.slice(named.name.length + 1) : key] = value
  }
  return asked
}

const append = (value: string, before: readonly string[] = []): string[] => [...before, value]

/** `k=v`, gathered. */
export const pair = (text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> => {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('must be name=value')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

export const duration = (text: string): string => {
  if (!durationPattern.test(text)) throw new InvalidArgumentError('must be such as 90s, 15m or 2h')
  return text
}

export const seconds =
  (most: number) =>
  (text: string): number => {
    const count = Number(text)
    if (!Number.isInteger(count) || count < 0 || count > most) throw new InvalidArgumentError(`must be whole seconds, at most ${most}`)
    return count
  }

export const grantOption = (): Option => new Option('--grant <name>', 'a grant of the kind; may be repeated').argParser(append)
export const paramOption = (): Option =>
  new Option('--param <name=value>', 'a parameter of the grant; GRANT.name=value where there are several').argParser(pair)
export const durationOption = (what: string): Option => new Option('--duration <duration>', what).argParser(duration)
export const waitOption = (): Option => new Option('--wait <seconds>', 'how long to wait for providers to confirm').argParser(seconds(30)).default(5)

/** Without the keys that were not given. */
export const some = <Values extends Readonly<Record<string, unknown>>>(values: Values): { [Name in keyof Values]?: NonNullable<Values[Name]> } =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [Name in keyof Values]?: NonNullable<Values[Name]> }
