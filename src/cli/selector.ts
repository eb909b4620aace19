import type { Command } from 'commander'
import type { Selector } from '../http/contract.ts'
import { UsageError } from './failure.ts'
import { plain } from './output.ts'

const names = ['agent', 'owner', 'issuer', 'kind', 'grant', 'provider'] as const

/** What `--agent A --grant G` or `--everything` mean. */
export type SelectorOptions = { readonly [Name in (typeof names)[number]]?: string } & { readonly everything?: boolean }

/** The options that say what is meant; what is named has to agree all together. */
export const selecting = (command: Command): Command =>
  command
    .option('--agent <name>', 'of this agent')
    .option('--owner <owner>', 'of agents of this owner')
    .option('--issuer <name>', 'of whom this issuer vouched for')
    .option('--kind <name>', 'of this kind of task')
    .option('--grant <name>', 'single leases of this grant')
    .option('--provider <name>', 'single leases of this provider')
    .option('--everything', 'all there is')

/** @throws UsageError where nothing is named, or everything and something besides */
export function selectorOf(options: SelectorOptions): Selector {
  const named = Object.fromEntries(names.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]]))) as Selector
  const count = Object.keys(named).length
  if (options.everything === true && count > 0) throw new UsageError('--everything stands alone')
  if (options.everything === true) return { everything: true }
  if (count === 0) throw new UsageError('say what is meant: --agent, --owner, --issuer, --kind, --grant, --provider or --everything')
  return named
}

export const describeSelector = ({ everything, ...named }: Selector): string =>
  everything
    ? 'everything'
    : Object.entries(named)
        .map(([name, value]) => `${name} ${value}`)
        .join(', ')

/**
 * How much of what one selector means the other means as well, as far as names can tell: all of it; perhaps some of it, since which agent has which owner or
 * asks for which grant is not in them; or nothing, where one name is given two values.
 */
export function sharedBy(one: Selector, other: Selector): 'all' | 'some' | 'nothing' {
  const [of, within] = [namesIn(other), new Map(namesIn(one))]
  if (of.some(([name, value]) => within.has(name) && within.get(name) !== value)) return 'nothing'
  return of.every(([name]) => within.has(name)) ? 'all' : 'some'
}

/** One that says `everything` narrows nothing down. */
const namesIn = ({ everything: _everything, ...named }: Selector): [string, unknown][] => Object.entries(named)

/** What a person should look at twice, a line for each. */
export const askAboutUnknown = (unknown: readonly string[] = []): readonly string[] =>
  unknown.map((named) => `this broker knows no ${plain(named)}: is it spelled so?`)
