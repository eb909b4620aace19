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
  /** What gives each back, and whose it is. */
  const taken = new Map<() => void, string>()
  const refused = (detail: string) => new BrokerError('rate_limited', detail, { retryAfter: 30 })
  const isFull = (): boolean => taken.size >= most
  const hasShare = (whose: string): boolean => [...taken.values()].filter((one) => one === whose).length >= share

  function seat(whose: string): () => void {
    const giveBack = (): void => void taken.delete(giveBack)
    taken.set(giveBack, whose)
    return giveBack
  }

  return {
    get taken() {
      return taken.size
    },
    take(whose) {
      if (isFull()) throw refused(`This broker has as many ${what} as it keeps: ${most}`)
      if (hasShare(whose)) throw refused(`You have as many ${what} as one caller may: ${share}`)
      return seat(whose)
    },
    offer: (whose) => (isFull() || hasShare(whose) ? undefined : seat(whose)),
  }
}
