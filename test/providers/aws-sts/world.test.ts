import { expect, test } from 'vitest'
import type { HeldList } from '../../../src/base/kill-lists.ts'
import { draw } from '../../../src/providers/aws-sts/kill-list/world.ts'

const noon = Date.UTC(2026, 10, 25, 12)

/** Ended sessions of as many cohorts, so that only their age can shorten the list. */
const crowd = (count: number): HeldList => ({
  salt: '0a1b2c3d',
  generation: 1,
  digest: null,
  written: true,
  confirmed: 1,
  open: 'zzz',
  killed: [],
  cutoff: undefined,
  sessions: Array.from({ length: count }, (_, at) => ({
    name: `${at.toString(36).padStart(3, '0')}00000`,
    denied: true,
    generation: 1,
    earliest: new Date(noon - 600_000),
    latest: new Date(noon),
  })),
  checkDue: false,
})

test('a cutoff denies the sessions of a refresh that took as long as a call may, by whichever clock', () => {
  const longestCall = 25_000
  const clocks = 60_000
  const { rung, cutoff } = draw('aws', crowd(40), 2, { base: [] }, 600)
  expect(rung).toBe(5)
  expect(cutoff!.getTime()).toBe(noon + longestCall + clocks + 1_000)
})
