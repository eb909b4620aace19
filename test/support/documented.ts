import { readFileSync } from 'node:fs'
import path from 'node:path'

const page = readFileSync(path.join(import.meta.dirname, '../../docs/entries.md'), 'utf8')

/** The fields that docs/entries.md gives the body of a kind. */
export interface DocumentedBody {
  readonly always: readonly string[]
  readonly whereItApplies: readonly string[]
}

/** Each kind of entry that docs/entries.md has a line for. */
export const documentedBodies: ReadonlyMap<string, DocumentedBody> = new Map(
  rowsOf('## Each kind').map(([kind, , , always, whereItApplies]) => [
    namesIn(kind)[0]!,
    { always: namesIn(always), whereItApplies: namesIn(whereItApplies) },
  ]),
)

/** Each field whose meaning the page tells. */
export const documentedFields: ReadonlySet<string> = new Set(rowsOf('## Each field').flatMap(([fields]) => namesIn(fields)))

/** The rows of the table below a heading, without its head. */
function rowsOf(heading: string): string[][] {
  const [, below = ''] = page.split(`${heading}\n`)
  const lines = (below.split('\n## ')[0] ?? '').split('\n').filter((line) => line.startsWith('|'))
  return lines.slice(2).map((line) => line.split('|').slice(1, -1))
}

function namesIn(cell: string | undefined): string[] {
  return [...(cell ?? '').matchAll(/`([\w.]+)`/g)].map(([, name]) => name!)
}
