import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { idFrom, isId, madeAt, newId } from '../../src/base/ids.ts'
import { parseJson } from '../../src/base/json.ts'
import { Secret } from '../../src/base/secret.ts'
import { formatDuration, parseDuration } from '../../src/base/time.ts'
import { canonical } from '../../src/proof/canonical.ts'

describe('strict JSON', () => {
  test('is what JSON.parse reads, for everything that was serialized', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(undefined, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent)
        expect(parseJson(text)).toEqual(JSON.parse(text))
      }),
    )
  })

  test('never lets an object name a key twice, however the key is written and wherever it stands', () => {
    const key = fc.string({ minLength: 1, maxLength: 6 })
    /** One character, written as an escape. */
    const escaped = (text: string) => `\\u${text.charCodeAt(0).toString(16).padStart(4, '0')}`
    fc.assert(
      fc.property(key, fc.jsonValue({ maxDepth: 2 }), fc.boolean(), (name, value, deep) => {
        const [plain, other] = [JSON.stringify(name), /^[\0-\uffff]$/u.test(name) ? `"${escaped(name)}"` : JSON.stringify(name)]
        const twice = `{${plain}: ${JSON.stringify(value)} , "x\\"{y": [1], ${other}:1}`
        expect(() => parseJson(deep ? `[{"a": ${twice}}]` : twice)).toThrow('is named twice')
      }),
    )
  })

  test.each([
    ['braces and quotes inside of text', '{"a":"{\\"a\\":1}","b":"}"}'],
    ['one key in two objects', '[{"a":1},{"a":{"a":2}}]'],
    ['a text that is the same as a key', '{"a":"a","b":["a","a"]}'],
  ])('reads %s', (_, text) => {
    expect(parseJson(text)).toEqual(JSON.parse(text))
  })

  test.each([
    ['nested too deeply', '['.repeat(17) + ']'.repeat(17), 'is nested deeper than 16 levels'],
    ['not JSON', '{"secret":"hunter2"', 'is not valid JSON'],
    ['empty', '', 'is not valid JSON'],
  ])('refuses what is %s, without repeating it', (_, text, words) => {
    expect(() => parseJson(text)).toThrow(words)
    expect(() => parseJson(text)).not.toThrow('hunter2')
  })
})

describe('durations', () => {
  test('are read back as they were written, to the second', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 99_999 }), fc.constantFrom('s', 'm', 'h'), (count, unit) => {
        const ms = parseDuration(`${count}${unit}`)!
        expect(parseDuration(formatDuration(ms))).toBe(ms)
        expect(ms).toBe(count * { s: 1_000, m: 60_000, h: 3_600_000 }[unit])
      }),
    )
  })

  test('are nothing else', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(parseDuration(text) === undefined).toBe(!/^[1-9]\d{0,4}[smh]$/.test(text))
      }),
    )
    for (const text of ['0s', '-5m', '1.5h', ' 5m', '5m ', '5M', '999999s', '1e3s', '', '5']) expect(parseDuration(text), text).toBeUndefined()
  })
})

describe('ids', () => {
  test('an id sorts behind the moment in which it was made, and before the next', () => {
    const before = Date.now()
    const id = newId('task')
    expect(idFrom('task', before) <= id && id < idFrom('task', Date.now() + 1)).toBe(true)
    // The example of RFC 9562, appendix A.6: 0x017F22E279B0.
    expect(idFrom('ent', 1_645_557_742_000)).toBe('ent_01fwhe4ydg')
    expect([idFrom('ent', -1), idFrom('ent', Infinity)]).toEqual(['ent_0000000000', 'ent_7zzzzzzzzz'])
    expect(madeAt(`${idFrom('ent', 1_645_557_742_000)}abcdefghjkmnpqrs`)).toBe(1_645_557_742_000)
  })

  test('carry their noun and sort by time', () => {
    const ids = Array.from({ length: 200 }, () => newId('task'))
    expect(new Set(ids).size).toBe(200)
    for (const id of ids) expect(isId('task', id) && !isId('lease', id)).toBe(true)
    expect([...ids].map((id) => id.slice(0, 14)).toSorted()).toEqual(ids.map((id) => id.slice(0, 14)))
  })

  test('are nothing else', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(isId('task', text)).toBe(false)
      }),
    )
    const id = newId('dec')
    for (const text of [id.toUpperCase(), `${id}0`, id.slice(0, -1), ` ${id}`, id.replace('dec_', '')]) expect(isId('dec', text), text).toBe(false)
  })
})

describe('a secret', () => {
  test('is opened once, and never shows itself', () => {
    const secret = new Secret('hunter2')
    const shown = [String(secret), JSON.stringify({ secret }), inspect({ deep: { secret } }, { depth: 9, showHidden: true })]
    for (const text of shown) expect(text).not.toContain('hunter2')
    expect(secret.open()).toBe('hunter2')
    expect(() => secret.open()).toThrow('already opened')
  })

  test('has a digest that differs by key', () => {
    const [one, other] = [new Uint8Array(32).fill(1), new Uint8Array(32).fill(2)]
    const secret = new Secret('hunter2')
    expect(secret.digest(one)).toBe(new Secret('hunter2').digest(one))
    expect(secret.digest(one)).not.toBe(secret.digest(other))
    expect(secret.digest(one)).not.toContain('hunter2')
  })
})

test('canonical JSON is one text for one value, whatever the order of its keys', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })), (value) => {
      const turned = Object.fromEntries(Object.entries(value).toReversed())
      expect(canonical(turned)).toBe(canonical(value))
      expect(JSON.parse(canonical(value))).toEqual(JSON.parse(JSON.stringify(value)))
    }),
  )
})
