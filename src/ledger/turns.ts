import { BrokerError } from '../base/errors.ts'

/**
 * `later` is new work: what opens, adds, extends or only looks through. Everything else is `first`: what ends, confirms or proves something, and what
 * has to be known for that.
 */
export type Rank = 'first' | 'later'

/** Gives statements their turn at the store. */
export interface Turns {
  /** Runs a statement in its turn. @throws BrokerError `store_unavailable` for new work whose turn does not come: it was never begun */
  take<Result>(rank: Rank, statement: () => Promise<Result>): Promise<Result>
}

/** Milliseconds that new work waits for its turn. A store that serves anybody serves a whole door full of requests in less. */
const usualPatience = 5_000

/** What new work is told that was never begun. */
export const tooMuch = (): BrokerError => new BrokerError('store_unavailable', 'The ledger has as much to do as it can', { retryAfter: 1 })

/** Of a pool of any size, these connections are never held by new work: a lock or a disk that stops all of it does not stop an ending. */
const keptFree = (connections: number): number => (connections > 4 ? 2 : connections > 1 ? 1 : 0)

/**
 * Lets as many statements through as the store runs at once, and keeps the others in line here: what is `first` goes before all that is `later`.
 *
 * The drivers have lines of their own, but each is one line for all: postgres.js sends a statement down a busy connection, behind whatever waits
 * for a lock there, and PGlite runs one after the other. A complete would wait for every declaration that came before it.
 *
 * @param patience milliseconds that new work waits
 */
export function createTurns(connections: number, patience = usualPatience): Turns {
  const most: Record<Rank, number> = { first: connections, later: connections - keptFree(connections) }
  const line: Record<Rank, Set<() => void>> = { first: new Set(), later: new Set() }
  const running: Record<Rank, number> = { first: 0, later: 0 }

  const isFree = (rank: Rank): boolean => running.first + running.later < connections && running[rank] < most[rank]

  function next(): void {
    for (const rank of ['first', 'later'] as const) {
      for (const go of line[rank]) {
        if (!isFree(rank)) break
        line[rank].delete(go)
        running[rank]++
        go()
      }
    }
  }

  /** Resolves when it is this statement's turn, which is counted by then. */
  async function turn(rank: Rank): Promise<void> {
    if (line[rank].size === 0 && isFree(rank)) {
      running[rank]++
      return
    }
    await new Promise<void>((resolve, reject) => {
      const go = (): void => {
        clearTimeout(timer)
        resolve()
      }
      const giveUp = (): void => {
        line[rank].delete(go)
        reject(tooMuch())
      }
      const timer = rank === 'later' ? setTimeout(giveUp, patience) : undefined
      line[rank].add(go)
    })
  }

  return {
    async take(rank, statement) {
      await turn(rank)
      try {
        return await statement()
      } finally {
        running[rank]--
        next()
      }
    },
  }
}
