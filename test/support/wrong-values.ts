import { expect } from 'vitest'

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

/** Values of every sort. In each place of a file most of them are wrong. */
const wrong = {
  number: -7.5,
  'empty text': '',
  'long text': 'x'.repeat(5_000),
  list: [[]],
  mapping: { 'a b': { c: 1 } },
  nothing: null,
  truth: true,
}

/**
 * Puts values of every sort into each place of a file in which every field stands. The place is named, by one fault at most, and none has empty words.
 *
 * @param faultsWith the faults of a file with this in it, each as `path: message`
 * @param referring keys whose value may have the wrong sort, and lead nowhere besides
 */
export async function expectEachPlaceNamed(
  whole: unknown,
  faultsWith: (file: unknown) => Promise<readonly string[]>,
  referring: readonly string[] = [],
) {
  const usual = new Set(await faultsWith(whole))
  for (const place of placesIn(whole)) {
    const named = place.join('.')
    const told: string[] = []
    for (const [sort, value] of Object.entries(wrong)) {
      const faults = (await faultsWith(withAt(whole, place, value))).filter((fault) => !usual.has(fault))
      for (const fault of faults) expect(fault, `${named} with ${sort}`).not.toMatch(emptyWords)
      const here = faults.filter((fault) => fault.startsWith(`${named}: `))
      if (!referring.includes(place.at(-1)!)) expect(here.length, `faults of ${named} with ${sort}`).toBeLessThan(2)
      told.push(...faults.filter((fault) => fault.startsWith(named)))
    }
    expect(told.length, `faults of ${named}`).toBeGreaterThan(0)
  }
}
