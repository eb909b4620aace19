import type { Json } from '../base/json.ts'
import type { EntryFields } from './leaf.ts'

/** What an export begins with, so that a reader knows what it has. The checkpoint that the whole file is held against. */
export interface ExportHead {
  readonly export: 'mayfly-ledger@v1'
  readonly checkpoint: string
  /** Oldest first, where the history was signed into several logs: the last is that of the checkpoint. Absent: one log. */
  readonly logs?: readonly LogStart[]
}

/** A log by its name, and the number of the entry that it begins with. */
export interface LogStart {
  readonly origin: string
  readonly first: number
}

/** A policy set that decided, as it was archived. It stands before the first decision that rests on it. */
export interface PolicyLine {
  readonly policy: { readonly digest: string; readonly document: Json }
}

/** A place of the log, and what the history and the archive have for it. */
export interface LogLine {
  /** From 0, without a gap. */
  readonly number: number
  /** What the log has as its leaf, base64. */
  readonly leaf_hash: string
  readonly entry?: EntryFields
  /** In the place of the entry: the id of one that the history does not have any more. */
  readonly missing?: string
  /** Of a decision: what the policy was asked about each grant, and what it said. */
  readonly answers?: readonly Json[]
  /** The signed checkpoint of the log that ended here, where one was signed. */
  readonly checkpoint?: string
  /** The id of an entry that the history has right before this one, and the log nowhere. */
  readonly stray?: string
}

export type ExportLine = ExportHead | PolicyLine | LogLine

/** As it stands in a file: one JSON text a line. */
export const lineText = (line: ExportLine): string => `${JSON.stringify(line)}\n`

/** Reads a line. Undefined where it is none: what it holds is judged by `verify`, not here. */
export function parseLine(text: string): ExportLine | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (!isObject(value)) return undefined
  if (value['export'] === 'mayfly-ledger@v1') return isHead(value) ? value : undefined
  if ('policy' in value) return isPolicy(value) ? value : undefined
  return isLogLine(value) ? value : undefined
}

type Fields = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value)

const isHead = (value: Fields): value is Fields & ExportHead => {
  const { checkpoint, logs } = value
  return typeof checkpoint === 'string' && (logs === undefined || (Array.isArray(logs) && logs.length > 0 && logs.every(beginsBehind)))
}

/** The first at 0, each other one behind the one before it. */
const beginsBehind = (log: unknown, at: number, logs: readonly unknown[]): boolean => {
  if (!isObject(log) || typeof log['origin'] !== 'string' || !Number.isSafeInteger(log['first'])) return false
  return at === 0 ? log['first'] === 0 : Number(log['first']) > (logs[at - 1] as LogStart).first
}

const isPolicy = (value: Fields): value is Fields & PolicyLine => {
  const { policy } = value
  return isObject(policy) && typeof policy['digest'] === 'string' && isObject(policy['document'])
}

const optionalText = (value: unknown): boolean => value === undefined || typeof value === 'string'

const isLogLine = (value: Fields): value is Fields & LogLine => {
  const { number, leaf_hash: hash, entry, missing, answers, checkpoint, stray } = value
  return (
    Number.isSafeInteger(number) &&
    typeof hash === 'string' &&
    (entry === undefined ? typeof missing === 'string' : isEntry(entry)) &&
    (answers === undefined || Array.isArray(answers)) &&
    optionalText(checkpoint) &&
    optionalText(stray)
  )
}

const isEntry = (value: unknown): boolean =>
  isObject(value) &&
  ['id', 'at', 'kind'].every((name) => typeof value[name] === 'string') &&
  typeof value['xid'] === 'string' &&
  /^\d{1,20}$/.test(value['xid']) &&
  ['agent', 'task', 'lease', 'decision'].every((name) => optionalText(value[name])) &&
  'body' in value
