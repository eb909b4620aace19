/** Every place in a value, with those of its parts: keys and indexes from the top. */
export const placesIn = (value: unknown, at: readonly string[] = []): (readonly string[])[] =>
  typeof value === 'object' && value !== null ? [at, ...Object.entries(value).flatMap(([key, part]) => placesIn(part, [...at, key]))] : [at]

/** The same value with another one in this place. */
export function withAt(value: unknown, [key, ...rest]: readonly string[], other: unknown): unknown {
  if (key === undefined) return other
  if (Array.isArray(value)) return value.map((part, index) => (String(index) === key ? withAt(part, rest, other) : (part as unknown)))
  return { ...(value as object), [key]: withAt((value as Record<string, unknown>)[key], rest, other) }
}

/** What no fault may say: the words of the library that finds it, and what tells nobody what is wanted. */
export const emptyWords = /\b(invalid|expected|received|too (small|big)|unrecognized|another form|one of the forms)\b/i
