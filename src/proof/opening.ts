import { fieldIn, type Json } from '../base/json.ts'

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
export const parseOpening = (body: Json): Opening | undefined => (isOpening(body) ? body : undefined)

function isOpening(body: Json): body is Opening {
  const closed = fieldIn(body, 'closed')
  const texts = [
    ...['origin', 'key'].map((name) => fieldIn(body, name)),
    ...['origin', 'key', 'root', 'checkpoint'].map((name) => fieldIn(closed, name)),
  ]
  return (
    Number.isSafeInteger(fieldIn(body, 'log')) && Number.isSafeInteger(fieldIn(closed, 'size')) && texts.every((text) => typeof text === 'string')
  )
}
