/** How many ends may be under way at one backend behind Vault, such as a database. */
export interface Slots {
  /** Asks to end something there; undefined is no. Whoever got in must leave, and say whether there was an answer. */
  enter(backend: string): ((answered: boolean) => void) | undefined
}

/**
 * A database that does not answer holds each end for its whole time, so it may hold some of the broker's slots and never all: the others behind the same
 * Vault go on. Once it kept one waiting in vain it gets one at a time until it answers.
 *
 * @param most at one backend
 */
export function createSlots(most: number): Slots {
  const underWay = new Map<string, number>()
  const silent = new Set<string>()
  return {
    enter(backend) {
      const count = underWay.get(backend) ?? 0
      if (count >= (silent.has(backend) ? 1 : most)) return undefined
      underWay.set(backend, count + 1)
      return (answered) => {
        const left = underWay.get(backend)! - 1
        if (left > 0) underWay.set(backend, left)
        else underWay.delete(backend)
        if (answered) silent.delete(backend)
        else silent.add(backend)
      }
    },
  }
}
