import { expect } from 'vitest'
import type { Count, Crossing } from './tripwire.ts'

/** What a deed comes to, in order: each commit, and each request to the lab by its method. In a list of their own what goes side by side. */
export const crossings = {
  declare: ['announce the task', 'PUT', 'confirm'],
  /** Whose backend mints and says that it failed. */
  declareUnknown: ['announce the task', 'PUT', 'close the task', ['let the key go', 'DELETE', 'record the end']],
  /** Whose answer was lost. */
  redeclare: [
    'announce the task',
    'take the key',
    'close the lease',
    'DELETE',
    'record the end',
    'announce anew',
    'PUT',
    'confirm',
    'let the key go',
  ],
  add: ['announce the lease', 'PUT', 'confirm'],
  refresh: ['refresh the lease'],
  renew: ['renew the task'],
  end: ['close the task', 'DELETE', 'record the end'],
  expire: ['close what is overdue', 'DELETE', 'record the end'],
} as const

/** On a busy machine an answer may come before what nobody waits for. */
const tries = 6

const wordsOf = ({ side, what }: Crossing): string => `${side} ${what}`

/** The first of this name. */
const first = (side: Crossing['side'], what: string): Crossing => ({ side, what, nth: 1 })

export const before = (crossed: readonly string[]): Crossing[] => crossed.map((what) => first('before', what))
export const after = (crossed: readonly string[]): Crossing[] => crossed.map((what) => first('after', what))

/**
 * Does something again and again, with a tripwire that strikes at one crossing after the other, until it is through without coming that far. What goes side
 * by side, and what else is under way, comes in another order each time: whichever of `expected` was missed is looked for by its name.
 *
 * @param counts which crossings are met one after the other
 * @param strikeAt does it once. @returns where the tripwire struck, in its words; undefined where it was through before
 * @param through how often it has to be through
 */
export async function atEachCrossing(
  expected: readonly Crossing[],
  counts: Count['counts'],
  strikeAt: (where: Crossing | Count, round: number) => Promise<string | undefined>,
  through = 1,
): Promise<void> {
  const struck = new Set<string | undefined>()
  let round = 0
  async function strike(where: Crossing | Count): Promise<boolean> {
    const came = await strikeAt(where, ++round)
    struck.add(came)
    return came !== undefined
  }
  for (let at = 1, vain = 0; vain < through;) {
    if (await strike({ at, counts })) at++
    else vain++
  }
  for (const crossing of expected) for (let each = 0; each < tries && !struck.has(wordsOf(crossing)); each++) await strike(crossing)
  expect(
    expected.map(wordsOf).filter((where) => !struck.has(where)),
    'it came to each of them',
  ).toEqual([])
}
