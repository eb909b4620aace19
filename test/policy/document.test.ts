import { describe, expect, test } from 'vitest'
import { loadPolicySet, restorePolicySet } from '../../src/policy/document.ts'
import { validatePolicies } from '../../src/policy/engine.ts'
import { schemaText, schemaVersion } from '../../src/policy/schema.ts'
import { faultsOf, folderWith, setOf } from './given.ts'

const sound = '@id("all")\npermit(principal, action, resource);\n'
const faults = async (files: Readonly<Record<string, string | Uint8Array>>) => faultsOf(loadPolicySet(await folderWith(files)))

describe('a set of policies', () => {
  test('keeps each policy under its id with its own text, and the schema with its version', async () => {
    const set = await loadPolicySet(
      await folderWith({
        'b.cedar': `// a comment\n${sound}\n@id("short") @max_ttl("2m") permit(principal, action, resource);`,
        'a.cedar': '@id("none")\n@description("Nobody.")\nforbid(principal, action, resource);',
        'notes.txt': 'not a policy',
      }),
    )
    expect(set.document).toEqual({
      schema: schemaText,
      policies: {
        all: '@id("all")\npermit(principal, action, resource);',
        none: '@id("none")\n@description("Nobody.")\nforbid(principal, action, resource);',
        short: '@id("short") @max_ttl("2m") permit(principal, action, resource);',
      },
    })
    expect([...set.maxTtl]).toEqual([['short', 120_000]])
    expect(schemaText).toContain(`version ${schemaVersion}`)
  })

  test('has a digest over its content: not over file names, order or comments between policies', async () => {
    const other = '@id("none")\nforbid(principal, action, resource);'
    const together = await loadPolicySet(await folderWith({ 'x.cedar': `${sound}${other}` }))
    const apart = await loadPolicySet(await folderWith({ 'y.cedar': `// first\n${other}`, 'z.cedar': `\n\n${sound}` }))
    expect(together.digest).toMatch(/^sha256:[0-9a-f]{64}$/)
    expect(apart.digest).toBe(together.digest)
    expect((await setOf(sound)).digest).not.toBe(together.digest)
    expect((await setOf(sound, other.replace('forbid', 'permit'))).digest).not.toBe(together.digest)
  })

  test('is restored from its document as it was', async () => {
    const set = await setOf(sound, '@id("short") @max_ttl("2m") permit(principal, action, resource) when { context.now > datetime("2026-01-01") };')
    const restored = restorePolicySet(JSON.parse(JSON.stringify(set.document)))
    expect(restored).toEqual(set)
    expect(restored.digest).toBe(set.digest)
  })

  test('is not restored from what is no set, or asks for a duty that this version cannot perform', () => {
    expect(() => restorePolicySet({ schema: schemaText })).toThrow('policies')
    const policies = { asks: '@id("asks") @approval("two") permit(principal, action, resource);' }
    expect(() => restorePolicySet({ schema: schemaText, policies })).toThrow('policy asks: @approval is an obligation that the broker cannot perform')
  })
})

test('a schema that does not parse is not called a fault of the policies', () => {
  const policies = { all: 'permit(principal, action, resource);' }
  expect(() => validatePolicies({ schema: 'entity Group', policies })).toThrow('the schema does not parse')
  expect(validatePolicies({ schema: schemaText, policies: { half: 'permit(principal' } })).toMatchObject([
    { message: expect.stringContaining('unexpected end of input') },
  ])
})

describe('a folder of policies is refused', () => {
  test('with every fault of every file at once, each with its line', async () => {
    expect(
      await faults({
        'a.cedar':
          '// ünïcödé counts in characters\npermit(principal, action, resource);\n\n@id("b")\npermit(principal, action, resource)\nwhen { context.ttl > 3 };',
        'b.cedar': '\n@id("b")\n@approval("two")\nforbid(principal, action, resource);',
        'c.cedar': 'permit(principal, action, resource);\n\npermit(principal acton, resource);',
      }),
    ).toEqual([
      'a.cedar:2: the policy has no @id("…")',
      expect.stringMatching(/^a\.cedar:6: .*type/),
      'b.cedar:2: @approval is an obligation that the broker cannot perform; known are @id, @description and @max_ttl',
      expect.stringMatching(/^b\.cedar:2: the id "b" is taken by .*a\.cedar:4$/),
      expect.stringMatching(/^c\.cedar:3: unexpected token `acton`/),
    ])
  })

  const faulty: readonly (readonly [string, string, string | RegExp])[] = [
    ['an id that is not usable', '@id("A b") permit(principal, action, resource);', /^p\.cedar:1: @id must be/],
    ['an id that is the engine itself', '@id("engine") permit(principal, action, resource);', /^p\.cedar:1: @id must be/],
    ['an id without a value', '@id permit(principal, action, resource);', 'p.cedar:1: the policy has no @id("…")'],
    ['an annotation that stands twice', '@id("a")\n@id("b")\npermit(principal, action, resource);', /^p\.cedar:2: duplicate annotation: @id/],
    ['@notify', '@id("a") @notify("x") permit(principal, action, resource);', /^p\.cedar:1: @notify is an obligation/],
    ['@control', '@id("a") @control("x") permit(principal, action, resource);', /^p\.cedar:1: @control is an obligation/],
    ['a @max_ttl that is no duration', '@id("a") @max_ttl("ten") permit(principal, action, resource);', /^p\.cedar:1: @max_ttl must be a duration/],
    ['a @max_ttl without a value', '@id("a") @max_ttl permit(principal, action, resource);', /^p\.cedar:1: @max_ttl must be a duration/],
    ['a @max_ttl on a forbid', '@id("a") @max_ttl("1m") forbid(principal, action, resource);', /^p\.cedar:1: @max_ttl on a forbid/],
    ['a template', '@id("a")\npermit(principal == ?principal, action, resource);', /^p\.cedar:1: a template cannot be used/],
    ['an attribute that is unknown', '@id("a")\npermit(principal, action, resource)\nwhen { context.purpose == "x" };', /^p\.cedar:3: .*purpose/],
    [
      'an attribute that may be absent and is not asked for first',
      '@id("a")\npermit(principal, action, resource)\nwhen { principal.trust_domain == "x" };',
      /^p\.cedar:3: .*optional attribute `trust_domain`/,
    ],
    [
      'an entity of an unknown type',
      '@id("a")\npermit(principal, action,\n  resource == Grnt::"x");',
      /^p\.cedar:3: .*unrecognized entity type `Grnt`/,
    ],
    ['a policy that can never apply', '@id("a")\npermit(principal, action, resource) when { false };', /^p\.cedar:1: .*policy is impossible/],
    [
      'a policy that stands there twice',
      '@id("a") permit(principal, action, resource);\n@id("a") permit(principal, action, resource);',
      /^p\.cedar:2: the id "a" is taken by .*p\.cedar:1$/,
    ],
    ['a text that only looks like another', '@id("a")\npermit(principal, action, resource)\nwhen { context.pop == "n\u043Ene" };', /^p\.cedar:\d: /],
  ]
  for (const [what, text, fault] of faulty) {
    test(`for ${what}`, async () => {
      expect(await faults({ 'p.cedar': text })).toContainEqual(typeof fault === 'string' ? fault : expect.stringMatching(fault))
    })
  }

  test('when it holds no policy, too much, or cannot be read', async () => {
    expect(await faults({ 'notes.txt': '' })).toEqual([': holds no policy, so nothing could ever be permitted'])
    expect(await faults({ 'p.cedar': `// ${'x'.repeat(256 * 1024)}` })).toEqual(['p.cedar: has more than 262144 bytes'])
    expect(await faults({ 'p.cedar': Buffer.from('// caf\u00E9', 'latin1') })).toEqual(['p.cedar: is not UTF-8 text'])
    expect(await faultsOf(loadPolicySet('/nowhere'))).toEqual([expect.stringContaining('/nowhere: cannot be read: ENOENT')])
    const many = Array.from({ length: 1_001 }, (_, index) => `@id("p${index}") permit(principal, action, resource);`).join('\n')
    expect(await faults({ 'p.cedar': many })).toEqual([': holds more than 1000 policies'])
  })
})
