import { forgetOldest } from '../base/forget-oldest.ts'
import type { Clock } from '../base/time.ts'

/** How often something may be asked for: `burst` at once, then `perSecond`. */
export interface Rate {
  readonly burst: number
  readonly perSecond: number
}

/** So many callers are remembered; the one not seen for longest is forgotten first, which only ever gives it a fresh burst. */
const mostCallers = 10_000

interface Bucket {
  tokens: number
  /** Milliseconds, by the clock. */
  at: number
}

/** One token bucket a caller, in memory: a limit for one broker, against loops. The limit that security rests on is counted in the store. */
export interface Buckets {
  /** Takes one token. @returns 0, or the whole seconds after which there is one again */
  take(caller: string): number
}

export function createBuckets(rate: Rate, clock: Clock): Buckets {
  const buckets = new Map<string, Bucket>()

  return {
    take(caller) {
      const now = clock()
      const bucket = buckets.get(caller) ?? { tokens: rate.burst, at: now }
      // A clock that is set back must not take tokens away.
      const earned = (Math.max(0, now - bucket.at) / 1_000) * rate.perSecond
      bucket.tokens = Math.min(rate.burst, bucket.tokens + earned)
      bucket.at = now

      // Behind the others again, so that the oldest is the one not seen for longest.
      buckets.delete(caller)
      buckets.set(caller, bucket)
      forgetOldest(buckets, mostCallers)

      if (bucket.tokens < 1) return Math.max(1, Math.ceil((1 - bucket.tokens) / rate.perSecond))
      bucket.tokens -= 1
      return 0
    },
  }
}
