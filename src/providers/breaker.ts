import { ageOf, type Clock } from '../base/time.ts'

/** How one guarded call ended: the backend answered (a refusal is an answer), it did not, or nobody waited long enough to know. */
export type Heard = 'answered' | 'nothing' | 'unknown'

/** Keeps a dead backend from being hammered: after a few failures in a row only one call now and then finds out whether it is back. */
export interface Breaker {
  /** Whether the last calls came to nothing, the very last not long ago: what nobody has tried since may work again. */
  readonly failing: boolean
  /** How many calls it would let through now. */
  room(): number
  /** Asks to make a call: undefined is no. Whoever got a pass must give it back. */
  enter(): Pass | undefined
}

/** The right to make one call. */
export interface Pass {
  leave(heard: Heard): void
}

/** Three, so that one lost connection or one slow answer stops nothing. */
const failuresThatOpen = 3
/** Milliseconds from one call to the next after it opened; doubled by a probe that failed. Two seconds at most: revoking must resume soon after the backend did. */
const firstPause = 1_000
const longestPause = 2_000
/** Milliseconds for which failures count as news. Longer than a call may take and the pause after it. */
const memory = 65_000

/**
 * A circuit breaker. Our own and not cockatiel's, which cannot say beforehand whether it would let a call through: the reaper has to know, or
 * it claims work that it then may not do.
 */
export function createBreaker(clock: Clock): Breaker {
  let failures = 0
  let pause = 0
  /** When it opened, or let the last probe through. From its beginning and not its end: one that hangs must not keep the next from finding the backend well. */
  let triedAt = 0

  const since = (): number => ageOf(triedAt, clock)
  const paused = (): boolean => since() < pause
  const close = (): void => {
    failures = 0
    pause = 0
  }

  const ordinary: Pass = {
    leave(heard) {
      if (heard === 'answered') close()
      if (heard !== 'nothing' || pause > 0 || ++failures < failuresThatOpen) return
      pause = firstPause
      triedAt = clock()
    },
  }
  const probe: Pass = {
    leave(heard) {
      if (heard === 'answered') close()
      if (heard === 'nothing') pause = Math.min(pause * 2, longestPause)
    },
  }

  return {
    get failing() {
      return pause > 0 && since() < memory
    },
    room: () => (pause === 0 ? Number.POSITIVE_INFINITY : paused() ? 0 : 1),
    enter() {
      if (pause === 0) return ordinary
      if (paused()) return undefined
      triedAt = clock()
      return probe
    },
  }
}
