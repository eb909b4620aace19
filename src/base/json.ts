/** What parsed JSON can be. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** A field of an object; undefined if it is missing or the value is no object. */
export function fieldIn(value: Json | undefined, name: string): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Readonly<Record<string, Json>>)[name] : undefined
}

/** The same as text; empty if there is none. */
export function textIn(value: Json | undefined, name: string): string {
  const found = fieldIn(value, name)
  return typeof found === 'string' || typeof found === 'number' ? String(found) : ''
}

/** The texts of a list; none where there is no list. */
export function textsIn(value: Json | undefined, name: string): readonly string[] {
  const found = fieldIn(value, name)
  return Array.isArray(found) ? (found as readonly Json[]).filter((each) => typeof each === 'string') : []
}

/** How deep arrays and objects may nest. A task declaration needs four levels. */
const deepest = 16

/** What is wrong with a text, said of what stands at its place. The message never repeats the text, which may hold a secret. */
export class JsonFault extends SyntaxError {
  /** Keys and indexes from the top; empty where it is the whole text. */
  readonly path: readonly (string | number)[]

  constructor(message: string, path: JsonFault['path'] = []) {
    super(message)
    this.name = 'JsonFault'
    this.path = path
  }
}

/**
 * Parses JSON and refuses what `JSON.parse` lets through: an object that names a key twice (the last one would win silently, so two readers
 * of one text could see different values: RFC 8725bis, RFC 8259 section 4) and nesting deeper than 16 levels.
 *
 * @param isKnown whether a key may stand anywhere in it
 * @throws JsonFault
 */
export function parseJson(text: string, isKnown?: (key: string) => boolean): Json {
  let value: Json
  try {
    value = JSON.parse(text) as Json
  } catch {
    throw new JsonFault('is not valid JSON')
  }
  refuseKeysAndDepth(text, isKnown)
  return value
}

/** The result of `parseJson`, or undefined if the text is no such JSON. The error is dropped because the text may hold a key. */
export function ifJson(text: string): Json | undefined {
  try {
    return parseJson(text)
  } catch {
    return undefined
  }
}

/** Walks text that `JSON.parse` has accepted, so strings and brackets are known to be balanced; only keys and depth are looked at. */
function refuseKeysAndDepth(text: string, isKnown: (key: string) => boolean = () => true): void {
  /** What is open, from the top: the keys so far, where it is an object, and the key or index at which the walk is. */
  const open: { readonly keys: Set<string> | undefined; at: string | number }[] = []
  const fault = (message: string) =>
    new JsonFault(
      message,
      open.map(({ at }) => at),
    )
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '"') {
      const end = endOfString(text, at)
      const within = open.at(-1)
      if (within?.keys && firstAfter(text, end) === ':') {
        // Escapes are undone first: "\u0061" and "a" are the same key.
        within.at = JSON.parse(text.slice(at, end + 1)) as string
        if (within.keys.has(within.at)) throw fault('is named twice')
        if (!isKnown(within.at)) throw fault('is not a known key')
        within.keys.add(within.at)
      }
      at = end
    } else if (character === '{' || character === '[') {
      if (open.length === deepest) throw fault(`is nested deeper than ${deepest} levels`)
      open.push(character === '{' ? { keys: new Set(), at: '' } : { keys: undefined, at: 0 })
    } else if (character === ',') {
      const within = open.at(-1)
      if (typeof within?.at === 'number') within.at++
    } else if (character === '}' || character === ']') {
      open.pop()
    }
  }
}

function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at
}

/** The first character behind a string that is not white space. */
function firstAfter(text: string, end: number): string | undefined {
  let at = end + 1
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at++
  return text[at]
}
