import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseSpiffeId } from '../../src/identity/spiffe.ts'
import { corp, gateFor, goodClaims, signed, signingKey } from './given.ts'

const key = signingKey('k1')
const token = signed(key, goodClaims)
const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/** One change of a text: a character replaced, put in, taken out, two exchanged, or a piece copied elsewhere. */
const change = fc.record({
  kind: fc.constantFrom('replace', 'insert', 'remove', 'swap', 'copy'),
  at: fc.nat(token.length - 1),
  to: fc.nat(token.length - 1),
  character: fc.oneof(
    fc.constantFrom(...letters.split(''), '.', '=', '+', '/', ' ', '\n', '\0'),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 1 }),
  ),
})

function changed(text: string, { kind, at, to, character }: { kind: string; at: number; to: number; character: string }): string {
  if (kind === 'replace') return text.slice(0, at) + character + text.slice(at + 1)
  if (kind === 'insert') return text.slice(0, at) + character + text.slice(at)
  if (kind === 'remove') return text.slice(0, at) + text.slice(at + 1)
  if (kind === 'copy') return text.slice(0, to) + text.slice(at, at + 8) + text.slice(to)
  const [first, second] = [Math.min(at, to), Math.max(at, to)]
  return first === second ? text : text.slice(0, first) + text[second] + text.slice(first + 1, second) + text[first] + text.slice(second + 1)
}

test('No change of its text makes a good token say anything else, remembered or not', async () => {
  const remembering = gateFor(corp(key))
  await remembering.accept(token)
  const gates = [remembering, gateFor(corp(key, { replay: 'single-use' }))]
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const other = changes.reduce(changed, token)
      fc.pre(other !== token)
      for (const gate of gates) expect((await gate.refusal(other))?.reason).toBeDefined()
    }),
    { numRuns: 1_000 },
  )
  expect((await remembering.accept(token)).subject).toBe('invoice-bot')
})

test('No bit of a good token can be turned over', async () => {
  const { refusal } = gateFor(corp(key))
  const segments = token.split('.').map((segment) => Buffer.from(segment, 'base64url'))
  const sizes = segments.map(({ length }) => length * 8)
  await fc.assert(
    fc.asyncProperty(fc.nat(sizes.reduce((sum, size) => sum + size) - 1), async (bit) => {
      const copies = segments.map((bytes) => Buffer.from(bytes))
      const segment = bit < sizes[0]! ? 0 : bit < sizes[0]! + sizes[1]! ? 1 : 2
      const within = bit - sizes.slice(0, segment).reduce((sum, size) => sum + size, 0)
      copies[segment]![within >> 3]! ^= 1 << (within & 7)
      expect((await refusal(copies.map((bytes) => bytes.toString('base64url')).join('.')))?.reason).toBeDefined()
    }),
    { numRuns: 800 },
  )
})

test('Whatever is presented gets the one refusal, and never another error', async () => {
  const { refusal } = gateFor(corp(key))
  const anything = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc
      .array(
        fc.json().map((json) => Buffer.from(json).toString('base64url')),
        { minLength: 3, maxLength: 3 },
      )
      .map((parts) => parts.join('.')),
    fc.json().map((payload) => signed(key, payload)),
    fc.json().map((header) => signed(key, goodClaims, header)),
    // Every claim of a type of its own, under a good signature.
    fc
      .dictionary(fc.constantFrom('iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti'), fc.jsonValue(), { minKeys: 1 })
      .map((claims) => signed(key, { ...goodClaims, aud: 'x', ...claims })),
  )
  await fc.assert(
    fc.asyncProperty(anything, async (text) => {
      expect((await refusal(text))?.reason).toBeDefined()
    }),
    { numRuns: 800 },
  )
})

test('A SPIFFE ID that is read is the text of its parts, and nothing is normalised', () => {
  const domain = fc.string({ unit: fc.constantFrom('a', 'b', '0', '.', '-', 'X', ':'), minLength: 1, maxLength: 4 })
  const segment = fc.oneof(fc.constantFrom('a', 'B.c', '..', '.', '...', '', '%61', 'a?b', 'a#b', 'a b'), fc.string({ maxLength: 3 }))
  const path = fc.array(segment, { maxLength: 2 }).map((segments) => segments.join('/'))
  fc.assert(
    fc.property(domain, path, (domain, path) => {
      const text = `spiffe://${domain}/${path}`
      const id = parseSpiffeId(text)
      fc.pre(id !== undefined)
      expect(`spiffe://${id.trustDomain}${id.path}`).toBe(text)
      expect(id.path.split('/').slice(1)).not.toContain('')
      expect(id.path.split('/')).not.toContain('..')
      expect(new URL(text).href).toBe(text)
    }),
    { numRuns: 1_000 },
  )
})
