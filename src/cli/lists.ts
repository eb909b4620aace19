import { type Command, Option } from 'commander'

export const limitOption = (): Option => new Option('--limit <count>', 'at most').default('50')

export const cursorOption = (): Option => new Option('--cursor <cursor>', 'from the page before')

/** The options of a list as the API names them, without commander's own. */
export const filterOf = ({ json: _json, ...filter }: Record<string, string | boolean>): Record<string, string | boolean> =>
  Object.fromEntries(Object.entries(filter).map(([name, value]) => [name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]))

/** The time that a list is about. */
export const timed = (command: Command, words: string): Command =>
  command.option('--from <time>', `RFC 3339: ${words} from then on`).option('--to <time>', `RFC 3339: ${words} before then`)

/** The page, and how to see the following one. */
export const paged = (shown: string, { next }: { readonly next: string | null }): string =>
  [shown, ...(next === null ? [] : [`more: --cursor ${next}`])].join('\n')
