import { stopwatch } from '../base/time.ts'
import { isUnlawful, type Ledger } from './connect.ts'
import { type Rank, tooMuch } from './turns.ts'

/** Instead of a result: what of an item has to be asked for in a statement of its own. */
export class Alone<Item> {
  readonly item: Item

  constructor(item: Item) {
    this.item = item
  }
}

/** Does something for many at once: one statement, one commit. Results in the order of the items. */
export type Verb<Item, Result> = (ledger: Ledger, items: readonly Item[]) => Promise<readonly (Result | Alone<Item>)[]>

/** Statements of one verb under way at once: while one waits for its commit, the next is worked on. More would only make each of them smaller. */
const lanes = 2

/** Items of one statement at most: bounds its parameters (some 4 KB an item) and how long it holds its locks. */
const most = 32

/** Milliseconds after which new work that still waits is refused: whoever asked for it has been told so, or is about to be. As in turns.ts. */
const patience = 5_000

interface Waiting<Item, Result> {
  readonly item: Item
  /** Milliseconds that it has waited. */
  readonly waited: () => number
  resolve(result: Result): void
  reject(error: unknown): void
}

/**
 * Makes a verb for many the verb for one: whatever comes while two statements of it are under way waits for the next, and goes with it. A single
 * caller is not kept waiting. What waits is bounded by the requests that the door lets in.
 *
 * Commits are what a busy ledger runs out of, and most of a small statement's cost is there before its first row; a statement a request, over as
 * many connections as the pool has, was a third as fast, and left none for those who want to end something.
 *
 * A statement that fails has failed for all its items. Where it was refused because of what one of them says, the others must not suffer: then
 * each is asked for alone. So are those for which the verb answers `Alone`; the others of their statement have their results by then.
 *
 * @param rank `later` for new work: what has waited too long for its statement is refused with `store_unavailable`, and was never begun
 */
export function together<Item, Result>(verb: Verb<Item, Result>, rank: Rank): (ledger: Ledger, item: Item) => Promise<Result> {
  const queues = new WeakMap<Ledger, (item: Item) => Promise<Result>>()
  return (ledger, item) => {
    const queue = queues.get(ledger) ?? queueOf((items) => verb(ledger, items), rank === 'later' ? patience : Number.POSITIVE_INFINITY)
    queues.set(ledger, queue)
    return queue(item)
  }
}

function queueOf<Item, Result>(
  run: (items: readonly Item[]) => Promise<readonly (Result | Alone<Item>)[]>,
  longest: number,
): (item: Item) => Promise<Result> {
  const waiting: Waiting<Item, Result>[] = []
  let underWay = 0
  let scheduled = false

  /**
   * Once a turn of the event loop, behind whatever this one still reads: requests that came together go together. And never within a turn, for the
   * embedded store answers in that same turn: nobody else would have theirs while a line is left.
   */
  function schedule(): void {
    if (scheduled) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      while (underWay < lanes && waiting.length > 0) depart()
    })
  }

  function depart(): void {
    const batch = next()
    if (batch.length === 0) return
    underWay++
    void runAll(batch).finally(() => {
      underWay--
      schedule()
    })
  }

  function next(): readonly Waiting<Item, Result>[] {
    const stillWanted = waiting.findIndex(({ waited }) => waited() <= longest)
    for (const { reject } of waiting.splice(0, stillWanted === -1 ? waiting.length : stillWanted)) reject(tooMuch())
    return waiting.splice(0, most)
  }

  async function runAll(batch: readonly Waiting<Item, Result>[]): Promise<void> {
    let alone: Waiting<Item, Result>[] = []
    try {
      const results = await run(batch.map(({ item }) => item))
      for (const [index, one] of batch.entries()) {
        const result = results[index]!
        if (result instanceof Alone) alone.push({ ...one, item: result.item })
        else one.resolve(result)
      }
    } catch (error) {
      if (batch.length > 1 && isUnlawful(error)) alone = [...batch]
      else for (const { reject } of batch) reject(error)
    }
    // A store that cannot be reached keeps each of them waiting: together they wait no longer than one.
    for (const one of alone) {
      if (one.waited() > longest) one.reject(tooMuch())
      else await runAll([one])
    }
  }

  return (item) =>
    new Promise((resolve, reject) => {
      waiting.push({ item, waited: stopwatch(), resolve, reject })
      schedule()
    })
}
