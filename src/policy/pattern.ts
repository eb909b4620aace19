/** Longest value of a parameter, in UTF-16 units. With it, the work of matching one is bounded. */
const longestValue = 256
/** Longest pattern of a parameter, in UTF-16 units. */
const longestPattern = 512
/**
 * In how many ways a pattern may be tried on one value. A backtracking matcher tries them all before it says no. At this limit that took at most
 * 50 ms, for patterns written to be slow, and 0.01 ms for `[a-z0-9-]{1,32}` (measured on values of 256 characters, Node 20).
 */
const mostWays = 100_000

/** Control, format (also those that reorder text), separator and lone surrogate characters: nothing that belongs in a name of anything. */
const unprintable = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

/** `longest`: the most characters that a value can have. */
export type ReadPattern = { readonly ok: true; readonly value: RegExp; readonly longest: number } | { readonly ok: false; readonly fault: string }

/**
 * Reads the pattern of a parameter: a regular expression without lookarounds, back references, named groups and anchors of its own, whose
 * work on any value is bounded. It is anchored here, so the whole value must match.
 */
export function readPattern(text: string): ReadPattern {
  if (text.length > longestPattern) return { ok: false, fault: `must be at most ${longestPattern} characters` }
  try {
    // By itself first: `a)|(?:b` compiles inside our anchored group, and would be anchored on one side of each alternative only.
    void new RegExp(text, 'u')
    const { ways, most } = measure(Array.from(text))
    if (ways > mostWays) return { ok: false, fault: `can be tried in more than ${mostWays} ways: bound what it repeats, such as {1,32}` }
    return { ok: true, value: new RegExp(`^(?:${text})$`, 'u'), longest: Math.min(most, longestValue) }
  } catch (error) {
    if (error instanceof SyntaxError) return { ok: false, fault: `is not a pattern: ${error.message}` }
    throw error
  }
}

/** What is wrong with a value, in words that do not repeat it; undefined if nothing is. */
export function valueFault(pattern: RegExp, value: string): string | undefined {
  if (value.length > longestValue) return `must be at most ${longestValue} characters`
  if (unprintable.test(value)) return 'must not contain control or invisible characters'
  if (!pattern.test(value)) return 'must match the pattern that the catalogue gives for it'
  return undefined
}

/** How much a part of a pattern can cost: in how many ways it can be tried, and the fewest and the most characters that it consumes. */
interface Cost {
  readonly ways: number
  readonly least: number
  readonly most: number
}

const single: Cost = { ways: 1, least: 1, most: 1 }

/** The cost of a whole pattern. @throws SyntaxError for what is not allowed in one */
function measure(pattern: readonly string[]): Cost {
  let at = 0
  const cost = alternatives()
  if (at < pattern.length) throw new SyntaxError('a parenthesis is closed that was not opened')
  return cost

  function alternatives(): Cost {
    let { ways, least, most } = sequence()
    while (pattern[at] === '|') {
      at++
      const next = sequence()
      ways += next.ways
      least = Math.min(least, next.least)
      most = Math.max(most, next.most)
    }
    return { ways, least, most }
  }

  function sequence(): Cost {
    let ways = 1
    let least = 0
    let most = 0
    while (at < pattern.length && pattern[at] !== '|' && pattern[at] !== ')') {
      const part = repeated(atom())
      ways *= part.ways
      least += part.least
      most += part.most
    }
    return { ways, least, most }
  }

  function atom(): Cost {
    const character = pattern[at++]
    if (character === '(') return group()
    if (character === '[') return characterClass()
    if (character === '\\') return escaped()
    if (character === '^' || character === '$') throw new SyntaxError('it is anchored already, ^ and $ are not wanted')
    return single
  }

  function group(): Cost {
    if (pattern[at] === '?') {
      if (pattern[at + 1] !== ':') throw new SyntaxError('of the groups with (? only (?: is allowed')
      at += 2
    }
    const inside = alternatives()
    at++
    return inside
  }

  function characterClass(): Cost {
    while (pattern[at] !== ']') at += pattern[at] === '\\' ? 2 : 1
    at++
    return single
  }

  function escaped(): Cost {
    const character = pattern[at++] ?? ''
    if (/[pP]/.test(character)) at = pattern.indexOf('}', at) + 1
    else if (/[a-zA-Z0-9]/.test(character) && !/[dDwWsS]/.test(character)) throw new SyntaxError(`\\${character} is not allowed`)
    return single
  }

  function repeated(once: Cost): Cost {
    const counts = quantifier()
    if (counts === undefined) return once
    const [min, max] = counts
    if (min > longestValue || (max > longestValue && max !== Number.POSITIVE_INFINITY)) {
      throw new SyntaxError(`no value is longer than ${longestValue} characters, so nothing can be repeated more often`)
    }
    if (once.least === 0 && max > 1) throw new SyntaxError('what is repeated must match at least one character')
    let ways = 0
    for (let times = min; times <= Math.min(max, longestValue); times++) ways += once.ways ** times
    return { ways, least: once.least * min, most: once.most * Math.min(max, longestValue) }
  }

  /** The least and the greatest count of the quantifier that stands here, lazy or not. */
  function quantifier(): readonly [number, number] | undefined {
    const [whole, braces] = /^(?:[*+?]|\{([\d,]+)\})\??/.exec(pattern.slice(at).join('')) ?? []
    if (whole === undefined) return undefined
    at += whole.length
    if (whole.startsWith('*')) return [0, Number.POSITIVE_INFINITY]
    if (whole.startsWith('+')) return [1, Number.POSITIVE_INFINITY]
    if (braces === undefined) return [0, 1]
    const [min = '', max] = braces.split(',')
    return [Number(min), max === undefined ? Number(min) : max === '' ? Number.POSITIVE_INFINITY : Number(max)]
  }
}
