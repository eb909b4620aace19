import { describe, expect, test } from 'vitest'
import { sessionTags } from '../../../src/providers/aws-sts/tags.ts'
import { reservationOf } from '../reservation.ts'

describe('the tags of a session', () => {
  const facts = { lease: 'lease_1', task: 'task_1', agent: 'invoice-bot', owner: 'finance@example.com', kind: 'invoice-sync', grant: 'bucket' }
  const valuesOf = (changes: object) => Object.fromEntries(sessionTags({ ...facts, ...changes }).tags.map(({ Key, Value }) => [Key, Value]))

  test('are these and no others, whatever else is known of its lease', () => {
    const { tags, transitive } = sessionTags(reservationOf({}, { parameters: { 'mayfly:agent': 'x', team: 'y' } }))
    expect(tags.map(({ Key }) => Key)).toEqual(['mayfly:lease', 'mayfly:task', 'mayfly:agent', 'mayfly:owner', 'mayfly:kind', 'mayfly:grant'])
    expect(transitive).toEqual(['mayfly:lease', 'mayfly:task'])
  })

  test('say a text as it is where AWS takes it', () => {
    expect(valuesOf({})).toMatchObject({ 'mayfly:lease': 'lease_1', 'mayfly:owner': 'finance@example.com' })
    expect(valuesOf({ owner: 'a'.repeat(256) })['mayfly:owner']).toBe('a'.repeat(256))
  })

  test.each(['a'.repeat(257), 'Zoë', 'a;b', 'a\nb', 'a*', 'AWS:somebody', '${aws:userid}'])('say a digest of what AWS does not take: %j', (owner) => {
    expect(valuesOf({ owner })['mayfly:owner']).toMatch(/^sha256:[0-9a-f]{32}$/)
    expect(valuesOf({ owner })).not.toEqual(valuesOf({ owner: `${owner}x` }))
  })
})
