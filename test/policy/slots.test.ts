import { describe, expect, test } from 'vitest'
import { decide, replay } from '../../src/policy/decide.ts'
import { type PolicySet, restorePolicySet } from '../../src/policy/document.ts'
import { evaluate, type CedarRequest } from '../../src/policy/engine.ts'
import { digestOf } from '../../src/proof/canonical.ts'
import { inquiry, noon, setOf } from './given.ts'

// The engine has three places for parsed sets; the sets here are more.

const namesItself = (index: number) =>
  setOf(`@id("set-${index}") permit(principal, action, resource == Grant::"invoices-api") when { context.now > datetime("2020-01-01") };`)

test('each of many sets answers for itself, in whatever order they are asked', async () => {
  const sets = await Promise.all(Array.from({ length: 8 }, (_, index) => namesItself(index)))
  const order = Array.from({ length: 200 }, (_, turn) => (turn * turn * 7 + turn * 3) % sets.length)
  expect(new Set(order).size).toBeGreaterThan(3)
  expect(order.map((index) => decide(sets[index]!, inquiry(), noon).policies)).toEqual(order.map((index) => [`set-${index}`]))
})

test('a decision replays equally after other sets came and went, from its archived document', async () => {
  const first = await namesItself(100)
  const { answers } = decide(first, inquiry(), noon)
  for (let index = 101; index < 106; index++) {
    const set = await namesItself(index)
    expect(decide(set, inquiry(), noon).policies).toEqual([`set-${index}`])
    expect(replay(set, answers)).toMatchObject([{ policies: [`set-${index}`] }])
  }
  expect(replay(restorePolicySet(JSON.parse(JSON.stringify(first.document))), answers)).toEqual(answers)
})

test('an archived set is parsed once for as long as no two others were asked for since', async () => {
  const [first, second, third] = await Promise.all([110, 111, 112].map(namesItself))
  const restore = ({ document }: PolicySet) => restorePolicySet(JSON.parse(JSON.stringify(document)))
  const [one, two] = [restore(first!), restore(second!)]
  expect([restore(second!), restore(first!)]).toEqual([two, one])
  expect(restore(first!)).toBe(one)
  restore(third!)
  expect(restore(first!)).toBe(one)
  expect(restore(second!)).not.toBe(two)
  expect(restore(second!)).toEqual(two)
})

describe('a set that the engine cannot take denies, and spoils no other', () => {
  const policies = { 'set-200': '@id("set-200") permit(principal, action, resource);' }
  const broken = {
    'because its schema is none': { schema: 'entity;', policies },
    // The engine takes this schema and only then refuses the policies: the slot is half of one set and half of another.
    'because its policies are none': { schema: 'entity Nothing;', policies: { 'set-200': 'nothing' } },
  }
  for (const [why, texts] of Object.entries(broken)) {
    test(why, async () => {
      const sound = await namesItself(200)
      const { answers } = decide(sound, inquiry(), noon)
      const question = JSON.parse(answers[0]!.input) as CedarRequest

      // As often as there are slots, so that the sound set's was taken too.
      for (let round = 0; round < 3; round++) expect(evaluate(texts, digestOf(texts), question)).toBeUndefined()

      expect(replay(sound, answers)).toEqual(answers)
      expect(evaluate(texts, digestOf(texts), question)).toBeUndefined()
      expect(replay(sound, answers)).toEqual(answers)
    })
  }
})
