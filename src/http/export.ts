import type { EntryView } from './contract.ts'

/** One JSON text a line. */
export const asLines = (entries: readonly EntryView[]): string => entries.map((entry) => `${JSON.stringify(entry)}\n`).join('')

const columns = ['id', 'at', 'kind', 'agent', 'task', 'lease', 'decision', 'body'] as const satisfies readonly (keyof EntryView)[]

/** RFC 4180, with a header line; the body as JSON in its last column. */
export const asCsv = (entries: readonly EntryView[]): string => csvHeader + csvRows(entries)

export const csvHeader = `${columns.join(',')}\r\n`

export const csvRows = (entries: readonly EntryView[]): string =>
  entries
    .map((entry) => columns.map((column) => cell(column === 'body' ? JSON.stringify(entry.body) : (entry[column] ?? ''))))
    .map((row) => `${row.join(',')}\r\n`)
    .join('')

/**
 * A quoted cell that no spreadsheet takes for a formula: names come from agents' requests too, and the reviewer who opens the file is the one
 * with the rights. An apostrophe in front is what makes Excel, Calc and Sheets show the text (OWASP, "CSV Injection").
 */
export function cell(value: string): string {
  const harmless = /^[=+\-@\t\r\n＝＋－＠]/.test(value) ? `'${value}` : value
  return `"${harmless.replaceAll('"', '""')}"`
}
