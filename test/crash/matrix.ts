import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isLook, isRequest } from '../support/statements.ts'
import { stores } from '../support/stores.ts'
import type { Count, Crossing } from '../support/tripwire.ts'
import type { Scene } from './scene.ts'
import type { Stage } from './stage.ts'

/** What is under way when the broker dies. */
export type Deed<Given = unknown, Answered = undefined, On extends Stage = Scene> = {
  /** As in: a broker that is killed while it … */
  readonly words: string
  /** Every commit and every request that it comes to, in order; in a list of their own what goes side by side. Each has two sides, and each side is a cell of the matrix. */
  readonly crosses: readonly (string | readonly string[])[]
  /** Whether this one is a cell, where others have been cells of a deed before; each is, where this is absent. */
  kills?(what: string, nth: number): boolean
  /** How many things `given` has to provide for: the cells and one undisturbed run. */
  prepare?(scene: On, count: number): Promise<void>
  given(scene: On): Promise<Given>
  /** What must hold after every kill, once the reaper has done its work and whoever lost an answer has asked again. */
  holds(scene: On, given: Given, answered: Answered): Promise<void>
} & (
  | {
      /** Somebody asks. A further cell is the kill right after the answer. @returns what was acknowledged; rejects where the answer was lost */
      ask(scene: On, given: Given): Promise<Answered>
    }
  | {
      /** Nobody asks: it becomes due while the broker stands still, and the reaper finds it. */
      due(scene: On, given: Given): Promise<unknown>
      through(scene: On, given: Given): Promise<boolean>
    }
)

/** Keeps the types of one deed together, and lets it stand in a list with others. */
export const deed = <Given, Answered = undefined, On extends Stage = Scene>(one: Deed<Given, Answered, On>): Deed<unknown, undefined, On> =>
  one as unknown as Deed<unknown, undefined, On>

/** Runs one deed with the tripwire armed, until it is through or the broker was struck. @returns undefined where an answer was lost */
async function run<On extends Stage>(scene: On, one: Deed<unknown, undefined, On>, given: unknown, where?: Crossing): Promise<undefined> {
  const { tripwire } = scene
  if ('ask' in one) {
    tripwire.arm(scene.strike, where && placeOf(one, where))
    const answered = await one.ask(scene, given).catch((error: unknown) => {
      if (!tripwire.struck()) throw error
      return undefined
    })
    if (where) await untilStruck(scene)
    return answered
  }
  await scene.whileFrozen(async () => {
    tripwire.arm(scene.strike, where && placeOf(one, where))
    await one.due(scene, given)
  })
  while (!tripwire.struck() && !(await one.through(scene, given)));
  if (where) await untilStruck(scene)
  return undefined
}

/** What was committed can be seen a moment before its answer crosses the wire: so many looks at the store take much longer than that. */
async function untilStruck({ tripwire, owner }: Stage): Promise<void> {
  for (let looks = 0; looks < 20_000 && !tripwire.struck(); looks++) await owner`select 1`
}

const cellsOf = ({ crosses, kills = () => true }: Pick<Deed, 'crosses' | 'kills'>): Crossing[] =>
  crosses.flat().flatMap((what, index, all) => {
    const nth = all.slice(0, index + 1).filter((name) => name === what).length
    if (!kills(what, nth)) return []
    return [{ side: 'before', what, nth } as const, { side: 'after', what, nth } as const]
  })

const claim = 'claim what is due'

/** Looks come whenever they like, and whether they found anything their answers do not say: but for the claim, which changes what it finds and nothing else. */
const isUncertain = (what: string): boolean => isLook(what) && what !== claim

/** Where to strike. Claims come whenever they like too: after one is after one that has found something, and before one is behind what it has to find. */
function placeOf({ crosses }: Pick<Deed, 'crosses'>, where: Crossing): Crossing | Count {
  if (where.what !== claim) return where
  if (where.side === 'after') return { at: where.nth, counts: (what, side, changed) => what === claim && side === 'after' && changed }
  const all = crosses.flat()
  const places = all.flatMap((what, at) => (what === claim ? [at] : []))
  const before = all.slice(0, places[where.nth - 1])
  const last = before.at(-1)
  let missing = before.filter((what) => what === last).length
  return {
    at: 1,
    counts(what, side) {
      if (what === last && side === 'after') missing--
      return missing <= 0 && what === claim && side === 'before'
    },
  }
}

/** What was seen, with what goes side by side in the order in which `crosses` names it. */
function inOrderOf(crosses: Deed['crosses'], seen: readonly string[]): string[] {
  const left = [...seen]
  const ordered = crosses.flatMap((step) => {
    if (typeof step === 'string') return isUncertain(step) ? [] : left.splice(0, 1)
    const together = left.splice(0, step.length)
    return together.toSorted((one, other) => step.indexOf(one) - step.indexOf(other))
  })
  return [...ordered, ...left]
}

const wordsOf = ({ side, what, nth }: Crossing): string => {
  const act = isRequest(what) ? `its ${what} at the backend` : `the commit to ${what}`
  return `${side} ${act}${again[nth - 1] ?? ` for the ${nth}th time`}`
}

const again = ['', ' once more', ' a third time']

/**
 * One kill a cell, each a test of its own; prints every cell with what the dead broker left, and the size of the whole.
 *
 * @param after further tests on the same scene, after all these deaths
 */
export function matrix<On extends Stage>(
  name: string,
  open: () => Promise<On>,
  deeds: readonly Deed<unknown, undefined, On>[],
  after?: (scene: () => On, tell: (line: string) => void) => void,
): void {
  describe.runIf(stores.some((store) => store.name === 'Postgres'))('a broker that is killed while it', () => {
    let scene: On
    const report: string[] = []
    let kills = 0

    beforeAll(async () => {
      scene = await open()
    })
    afterAll(async () => {
      const cells = deeds.reduce((sum, one) => sum + cellsOf(one).length + ('ask' in one ? 1 : 0), 0)
      console.log([`\nThe crash matrix of ${name}:`, ...report, `${kills} kills of ${cells} cells, ${deeds.length} deeds`].join('\n'))
      await scene.stop()
    })

    describe.each(deeds.map((one) => [one.words, one] as const))('%s', (_, one) => {
      const cells = cellsOf(one)
      beforeAll(async () => {
        report.push(`${one.words}: ${cells.length + ('ask' in one ? 1 : 0)} cells`)
        await one.prepare?.(scene, cells.length + 1)
      })

      test('crosses exactly what the matrix kills it at', async () => {
        const given = await one.given(scene)
        const answered = await run(scene, one, given)
        const seen = scene.tripwire.seen(isLook).filter((what) => !isUncertain(what))
        scene.tripwire.disarm()
        expect(inOrderOf(one.crosses, seen)).toEqual(one.crosses.flat().filter((what) => !isUncertain(what)))
        await one.holds(scene, given, answered)
        await scene.check()
      })

      test.each(cells.map((cell) => [wordsOf(cell), cell] as const))('%s', async (words, cell) => {
        const given = await one.given(scene)
        const answered = await run(scene, one, given, cell)
        expect(scene.tripwire.struck(), 'the broker was killed here').toBe(true)
        await judge(one, given, answered, words)
      })

      if ('ask' in one)
        test('after its answer', async () => {
          const given = await one.given(scene)
          const answered = await run(scene, one, given)
          scene.strike()
          await judge(one, given, answered, 'after its answer')
        })
    })

    after?.(
      () => scene,
      (line) => report.push(line),
    )

    async function judge(one: Deed<unknown, undefined, On>, given: unknown, answered: undefined, words: string): Promise<void> {
      kills++
      await scene.bury()
      report.push(`  ${words}: left ${await scene.left()}`)
      await scene.recover()
      await scene.check()
      // All that a client has to do whose answer was lost.
      const acknowledged = 'ask' in one && answered === undefined ? await one.ask(scene, given) : answered
      await one.holds(scene, given, acknowledged)
      await scene.check()
    }
  })
}
