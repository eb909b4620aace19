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
  readonly taken: number
}

/** @param what stands in them, as those say who asked for it, such as `live pages` */
export function createPlaces(what: string, { most, share }: Room): Places {
  /** What gives each back, and whose it is. */
  const taken = new Map<() => void, string>()
  const refused = (detail: string) => new BrokerError('rate_limited', detail, { retryAfter: 30 })
  return {
    get taken() {
      return taken.size
    },
    take(whose) {
      if (taken.size >= most) throw refused(`This broker has as many ${what} as it keeps: ${most}`)
      const own = [...taken.values()].filter((one) => one === whose).length
      if (own >= share) throw refused(`You have as many ${what} as one caller may: ${share}`)
      const giveBack = (): void => void taken.delete(giveBack)
      taken.set(giveBack, whose)
      return giveBack
    },
  }
}
