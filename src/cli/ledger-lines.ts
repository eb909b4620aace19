import { createReadStream } from 'node:fs'
import type { Json } from '../base/json.ts'
import { type Client, MayflyProblem } from '../client/client.ts'
import { type ExportHead, type ExportLine, type LogLine, parseLine } from '../proof/lines.ts'
import { fromDecimal } from '../proof/spelling.ts'
import { UsageError } from './failure.ts'

/** A ledger as it is exported, line by line: the checkpoint first, each policy set before the first decision that rests on it. */
export type Lines = AsyncIterable<ExportLine>

/**
 * What a broker has, up to the checkpoint that it gives now. Never more than a page in memory. It may give less, which is for whoever reads to say.
 * @throws Error where nothing was signed yet
 */
export async function* linesOf(client: Client): Lines {
  const { items: logs } = await client.listLogs()
  const newest = logs.at(-1)
  if (!newest) throw new Error('the log of this broker has not begun: it does with its first entry')
  const starts = logs.map(({ origin, first }) => ({ origin, first }))
  const head: ExportHead = { export: 'mayfly-ledger@v1', checkpoint: newest.checkpoint, ...(starts.length > 1 && { logs: starts }) }
  yield head
  const size = sizeOf(head)
  const told = new Set<string>()
  for (let after: number | undefined; ;) {
    const page = await client.readLog(after)
    let last = after
    for (const text of page.split('\n')) {
      const line = text === '' ? undefined : parseLine(text)
      if (text === '') continue
      if (!line || !('number' in line)) throw new Error('the broker answers with something that is no line of a log')
      last = line.number
      if (last >= size) return
      const digest = policyOf(line)
      if (digest !== undefined && !told.has(digest)) {
        told.add(digest)
        const document = await archived(client, digest)
        if (document !== undefined) yield { policy: { digest, document } }
      }
      yield line
    }
    if (last === undefined || last === after || last + 1 >= size) return
    after = last
  }
}

/** Of the first line, also where the rest of it was cut off. */
const beginning = '{"export":"mayfly-ledger'

/** The lines of a file that `mayfly ledger export` wrote. @throws UsageError where it is none, Error with the line at fault where it was cut or damaged */
export async function* linesIn(file: string): Lines {
  let at = 0
  for await (const text of textLinesIn(file)) {
    at++
    const line = parseLine(text)
    if (!line) {
      const fault = `--export ${file}: line ${at} is not one of a ledger's export`
      if (at > 1 || text.startsWith(beginning)) throw new Error(`${fault}: the file was cut there, or damaged`)
      throw new UsageError(`${fault}: only what \`mayfly ledger export\` writes without a filter, as NDJSON, can be verified`)
    }
    yield line
  }
}

/** Characters. A line with the longest entry and sixteen answers stays far below. */
const longestLine = 16 * 1024 * 1024

/** By hand: Node's readline does not say that a file cannot be read. */
async function* textLinesIn(file: string): AsyncIterable<string> {
  let rest = ''
  try {
    for await (const chunk of createReadStream(file, { encoding: 'utf8', highWaterMark: 1024 * 1024 })) {
      const parts = (rest + String(chunk)).split('\n')
      rest = parts.pop()!
      if (rest.length > longestLine) throw new UsageError(`--export ${file}: has a line that is too long`)
      yield* parts
    }
  } catch (error) {
    if (error instanceof UsageError) throw error
    throw new UsageError(`--export ${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown'})`)
  }
  if (rest !== '') yield rest
}

/** How many entries there are up to the checkpoint, by what it says its log's size is: how far to read, and nothing that is believed. */
export const sizeOf = ({ checkpoint, logs }: ExportHead): number =>
  (logs?.at(-1)?.first ?? 0) + (fromDecimal(checkpoint.split('\n', 2)[1] ?? '') ?? Number.MAX_SAFE_INTEGER)

function policyOf({ entry }: LogLine): string | undefined {
  if (entry?.kind !== 'decision.made') return undefined
  const digest = (entry.body as { readonly policy_digest?: unknown } | null)?.policy_digest
  return typeof digest === 'string' ? digest : undefined
}

/** Undefined where the archive does not have it, which is for `verify` to say. */
async function archived(client: Client, digest: string): Promise<Json | undefined> {
  try {
    return (await client.showPolicySet(digest)).document
  } catch (error) {
    if (error instanceof MayflyProblem && error.code === 'not_found') return undefined
    throw error
  }
}
