import { BrokerError } from '../base/errors.ts'

/** How many there are at once, on this broker, and how many of them one caller may have: nobody shuts the others out. */
export interface Room {
  readonly most: number
  readonly share: number
}

/** Places for what a broker is busy with until it is over. */
export interface Places {
  /**
   * @param whose the caller's name, the same whenever they come
   * @returns gives the place back, whatever the number of times it is called
   * @throws BrokerError `rate_limited` where all are taken, or the caller's share
   */
  take(whose: string): () => void
  /** The same where nobody is refused for want of a place. Undefined: there is none. */
  offer(whose: string): (() => void) | undefined
  readonly taken: number
}

/** @param what stands in them, as those say who asked for it, such as `live pages` */
export function createPlaces(what: string, { most, share }: Room): Places {
  let taken = 0
  /** Of those who have any. */
  const shares = new Map<string, number>()
  const refused = (detail: string) => new BrokerError('rate_limited', detail, { retryAfter: 30 })
  const isFull = (): boolean => taken >= most
  const hasShare = (whose: string): boolean => (shares.get(whose) ?? 0) >= share

  function count(whose: string, by: 1 | -1): void {
    taken += by
    const left = (shares.get(whose) ?? 0) + by
    if (left > 0) shares.set(whose, left)
    else shares.delete(whose)
  }

  function seat(whose: string): () => void {
    let isTaken = true
    count(whose, 1)
    return () => {
      if (isTaken) count(whose, -1)
      isTaken = false
    }
  }

  return {
    get taken() {
      return taken
    },
    take(whose) {
      if (isFull()) throw refused(`This broker has as many ${what} as it keeps: ${most}`)
      if (hasShare(whose)) throw refused(`You have as many ${what} as one caller may: ${share}`)
      return seat(whose)
    },
    offer: (whose) => (isFull() || hasShare(whose) ? undefined : seat(whose)),
  }
}
