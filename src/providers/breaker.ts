import type { Clock } from '../base/time.ts'

/** How one guarded call ended: the backend answered (a refusal is an answer), it did not, or nobody waited long enough to know. */
export type Heard = 'answered' | 'nothing' | 'unknown'

/** Keeps a dead backend from being hammered: after a few failures in a row only one call at a time, now and then, finds out whether it is back. */
export interface Breaker {
  readonly open: boolean
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
/** Milliseconds without calls after it opened; doubled by a probe that failed. Two seconds at most: revoking must resume soon after the backend did. */
const firstPause = 1_000
const longestPause = 2_000

/**
 * A circuit breaker. Our own and not cockatiel's, which cannot say beforehand whether it would let a call through: the reaper has to know, or
 * it claims work that it then may not do.
 */
export function createBreaker(clock: Clock): Breaker {
  let failures = 0
  let pause = 0
  let openedAt = 0
  let probing = false

  // The distance, not the order: a clock that was set back must not keep the breaker open for as long.
  const paused = (): boolean => Math.abs(clock() - openedAt) < pause
  const close = (): void => {
    failures = 0
    pause = 0
  }
  const open = (milliseconds: number): void => {
    pause = milliseconds
    openedAt = clock()
  }

  const ordinary: Pass = {
    leave(heard) {
      if (heard === 'answered') close()
      if (heard === 'nothing' && pause === 0 && ++failures >= failuresThatOpen) open(firstPause)
    },
  }
  const probe: Pass = {
    leave(heard) {
      probing = false
      if (heard === 'answered') close()
      if (heard === 'nothing') open(Math.min(pause * 2, longestPause))
    },
  }

  return {
    get open() {
      return pause > 0
    },
    room: () => (pause === 0 ? Number.POSITIVE_INFINITY : probing || paused() ? 0 : 1),
    enter() {
      if (pause === 0) return ordinary
      if (probing || paused()) return undefined
      probing = true
      return probe
    },
  }
}
