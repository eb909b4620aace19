import type { Json } from '../base/json.ts'

/** The kind of the entry with which a log begins that goes on from another. It has no place in the order of the history: it stands where the other was closed. */
export const openingKind = 'log.opened'

/** What that entry says. */
export type Opening = {
  /** The log that it opens: its number, its name and its verifier key. */
  readonly log: number
  readonly origin: string
  readonly key: string
  /** The log that was closed: its verifier key, and its final checkpoint, in words and as it was signed. */
  readonly closed: { readonly origin: string; readonly key: string; readonly size: number; readonly root: string; readonly checkpoint: string }
}

/** Reads the body of an opening. Undefined where it is not one. What it says is judged by `verify`. */
export function parseOpening(body: Json): Opening | undefined {
  const { log, origin, key, closed } = objectOf(body)
  const { size, root, checkpoint, ...other } = objectOf(closed)
  const texts = [origin, key, root, checkpoint, other['origin'], other['key']]
  const isOne = Number.isSafeInteger(log) && Number.isSafeInteger(size) && texts.every((text) => typeof text === 'string')
  return isOne ? (body as unknown as Opening) : undefined
}

const objectOf = (value: Json | undefined): Readonly<Record<string, Json>> => (isObject(value) ? value : {})

const isObject = (value: Json | undefined): value is { readonly [name: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
