import { forgetOldest } from '../../base/forget-oldest.ts'
import type { Clock } from '../../base/time.ts'

/**
 * The order in which what could not be ended comes back, by what it fails at. Each would come back within two seconds, and a thousand that wait for one dead
 * database would take every place from those that wait for nothing.
 */
export interface Backlog {
  /** One more could not be ended there. @returns milliseconds until its turn, which is behind all that were put off before it */
  putOff(where: string): number
  /** It works there: nobody has to wait for a turn. */
  isBack(where: string): void
}

/** Milliseconds from one turn to the next at one place: twenty tries a second see at once that it is back, and are a small part of what a broker can ask. */
const pace = 50

/** Milliseconds that a turn is away at most: what is lost with a claim, where a broker dies that would have known that it is over. */
const longest = 30_000

/** Milliseconds of a backlog that is waited for when it is over, since what is due then has to be done within five seconds. */
const waitedFor = 2_000

/** Places that are remembered: Vault itself chooses their names, and could invent them without end. */
const mostRemembered = 256

/** @param over is called when something works again for which somebody waits for long: all that was put off is due then */
export function createBacklog(clock: Clock, over: () => void): Backlog {
  /** When the turn is of whoever was put off last. */
  const last = new Map<string, number>()
  return {
    putOff(where) {
      const now = clock()
      const turn = Math.min(Math.max(last.get(where) ?? now, now) + pace, now + longest)
      last.delete(where)
      last.set(where, turn)
      forgetOldest(last, mostRemembered)
      return turn - now
    },
    isBack(where) {
      const turn = last.get(where)
      last.delete(where)
      if (turn !== undefined && turn - clock() > waitedFor) over()
    },
  }
}
