import { describe, expect, test } from 'vitest'
import { readPattern, valueFault } from '../../src/policy/pattern.ts'

/** What is wrong with a pattern; undefined if it is accepted. */
const faultOf = (text: string): string | undefined => {
  const pattern = readPattern(text)
  return pattern.ok ? undefined : pattern.fault
}

describe('the pattern of a parameter', () => {
  for (const text of [
    '[a-z0-9-]{1,32}',
    'eu|us',
    '[a-z]+-[a-z]+',
    '[a-z]{1,8}(?:-[a-z]{1,8}){0,4}',
    '(v)\\d{1,3}\\.\\d{1,3}',
    '\\p{Lu}\\p{Ll}{0,20}?',
    'a[\\]]b',
    '.{3}',
    '\u{1F41F}?',
    '',
  ]) {
    test(`may be ${JSON.stringify(text)}`, () => {
      expect(faultOf(text)).toBeUndefined()
    })
  }

  const refused: readonly (readonly [string, string])[] = [
    ['(a+)+', 'can be tried in more than 100000 ways'],
    ['(?:a|a)*', 'can be tried in more than 100000 ways'],
    ['(?:a|b|ab){1,20}', 'can be tried in more than 100000 ways'],
    ['a*a*a*', 'can be tried in more than 100000 ways'],
    ['(a|a)'.repeat(17), 'can be tried in more than 100000 ways'],
    // Zeros in front are part of a count, however many there are.
    ['(?:a{0000000000000001,}){0000000000000001,}', 'can be tried in more than 100000 ways'],
    ['a{000000000000000257}', 'nothing can be repeated more often'],
    ['(?:a?)*', 'what is repeated must match at least one character'],
    ['(?:){200}', 'what is repeated must match at least one character'],
    ['a{257}', 'nothing can be repeated more often'],
    ['a{99999999999}', 'nothing can be repeated more often'],
    ['(a)\\1', '\\1 is not allowed'],
    ['(?<x>a)', 'only (?: is allowed'],
    ['(?=a)a', 'only (?: is allowed'],
    ['(?!a)b', 'only (?: is allowed'],
    ['(?<=a)b', 'only (?: is allowed'],
    ['(?<!a)b', 'only (?: is allowed'],
    ['^a$', '^ and $ are not wanted'],
    ['\\ba', '\\b is not allowed'],
    ['a)|(?:b', 'is not a pattern'],
    ['a)', 'is not a pattern'],
    ['(a', 'is not a pattern'],
    ['[z-a]', 'is not a pattern'],
    ['[a', 'is not a pattern'],
    ['*', 'is not a pattern'],
    ['a**', 'is not a pattern'],
    ['a{2,1}', 'is not a pattern'],
    ['\\', 'is not a pattern'],
    ['\\p{Nothing}', 'is not a pattern'],
    ['a'.repeat(513), 'must be at most 512 characters'],
  ]
  for (const [text, fault] of refused) {
    test(`may not be ${text.length > 80 ? `${text.slice(0, 20)}… (${text.length} characters)` : text}`, () => {
      expect(faultOf(text)).toContain(fault)
    })
  }

  test('never keeps the broker busy, not even the most expensive one that is accepted', () => {
    const worst = [
      ['[a-z]*[a-z]*!', 'a'.repeat(256)],
      ['[a-z]{0,45}[a-z]{0,45}[a-z]{0,45}!', 'a'.repeat(256)],
      ['(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)(?:a|a)!', 'a'.repeat(17)],
      ['(?:a|a){1,15}!', 'a'.repeat(256)],
      ['(?:a{1,8}){1,5}!', 'a'.repeat(256)],
      ['(?:a|a){15}[a-z]{200}!', 'a'.repeat(256)],
    ] as const
    for (const [text, value] of worst) {
      const pattern = readPattern(text)
      if (!pattern.ok) throw new Error(`${text} ${pattern.fault}`)
      const started = process.cpuUsage()
      expect(valueFault(pattern.value, value)).toBeDefined()
      // Of the processor, in microseconds: what is not accepted takes minutes.
      expect(process.cpuUsage(started).user).toBeLessThan(10_000_000)
    }
  })
})

describe('the value of a parameter', () => {
  const anything = readPattern('[^a]{0,256}')
  if (!anything.ok) throw new Error(anything.fault)

  test('has at most 256 characters, whatever the pattern', () => {
    expect(valueFault(anything.value, 'b'.repeat(256))).toBeUndefined()
    expect(valueFault(anything.value, 'b'.repeat(257))).toBe('must be at most 256 characters')
  })

  for (const [name, character] of Object.entries({
    nul: '\0',
    newline: '\n',
    escape: '\u001B',
    'right-to-left override': '\u202E',
    'line separator': '\u2028',
  })) {
    test(`never contains a ${name}, whatever the pattern`, () => {
      expect(valueFault(anything.value, `b${character}`)).toBe('must not contain control or invisible characters')
    })
  }
})
