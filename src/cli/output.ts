import { inspect, styleText } from 'node:util'

/** Where a command writes: results to stdout, everything else to stderr. */
export interface Output {
  readonly json: boolean
  readonly colour: boolean
  /** The result of a command, for people or, with `--json`, for programs. */
  result(value: unknown, forPeople: () => string): void
  /** The same, and done when it is written. @throws the stream's error, `EPIPE` where nobody reads */
  handOver(value: unknown, forPeople: () => string): Promise<void>
  /** Something that a person should know while it goes on. */
  note(line: string): void
}

/** @param answered is told when the result is written */
export function createOutput(options: { json: boolean; colour: boolean }, answered: () => void): Output {
  const textOf = (value: unknown, forPeople: () => string): string =>
    `${options.json ? JSON.stringify(value, null, 2) : onScreen(forPeople(), options)}\n`
  return {
    ...options,
    result(value, forPeople) {
      answered()
      // Not `console`, which says nothing where it could not write: what nobody got would look handed over.
      process.stdout.write(textOf(value, forPeople))
    },
    async handOver(value, forPeople) {
      answered()
      await write(textOf(value, forPeople))
    },
    note: say,
  }
}

/** Writes to stdout at the reader's pace, so that a long export stays small in memory. @throws the stream's error, `EPIPE` where nobody reads on */
export async function write(text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    process.stdout.write(text, (error) => (error ? reject(error) : resolve()))
  })
}

/** Writes to stderr. */
export const say = (text: string): void => console.error(onScreen(text, { colour: false }))

const colours = ['green', 'yellow', 'red', 'gray'] as const

/** Coloured where the terminal wants it. */
export const paint = ({ colour }: Pick<Output, 'colour'>, style: (typeof colours)[number], text: string): string =>
  colour ? styleText(style, text, { validateStream: false }) : text

/** A line's end, a sequence of `paint`, or anything else that a terminal obeys. */
const obeyed = new RegExp(`(\n)|(\\u001b\\[(?:${colours.flatMap((name) => inspect.colors[name]!).join('|')})m)|[\\p{Cc}\\p{Cf}]`, 'gu')

/** Lines of text and what `paint` made of them: some of it was written by whatever stands at the address of the broker, and a terminal does what it is told. */
const onScreen = (text: string, { colour }: Pick<Output, 'colour'>): string =>
  text.replaceAll(obeyed, (_, end?: string, painted?: string) => end ?? (colour ? painted : undefined) ?? '\u{fffd}')

/** Columns as wide as their widest cell. What came from elsewhere is shown without control characters, so that it cannot move the cursor. */
export function table(heads: readonly string[], rows: readonly (readonly (string | undefined)[])[]): string {
  const cells = [heads, ...rows].map((row) => row.map((cell) => plain(cell ?? '')))
  const widths = heads.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? '').length)))
  return cells
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Text without control and format characters. */
export const plain = (text: string): string => text.replaceAll(/[\p{Cc}\p{Cf}]/gu, '\u{fffd}')

/** `1 lease`, `2 leases`. */
export const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

/** `2026-11-24 12:34:56Z`; empty where there is none. */
export const moment = (text: string | undefined): string => (text === undefined ? '' : `${text.slice(0, 10)} ${text.slice(11, 19)}Z`)
