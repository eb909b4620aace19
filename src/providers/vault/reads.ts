/** Reads of secrets under way at this broker, some of them behind mints that no longer wait, with the end of what those bring. */
export interface Reads {
  /** Counts one under each of these names until it is settled. */
  counted<T>(names: readonly string[], read: Promise<T>): Promise<T>
  /** How many of a name there are. */
  of(name: string): number
}

export function createReads(): Reads {
  const counts = new Map<string, number>()
  const of = (name: string): number => counts.get(name) ?? 0
  function count(names: readonly string[], by: 1 | -1): void {
    for (const name of names) {
      if (of(name) + by === 0) counts.delete(name)
      else counts.set(name, of(name) + by)
    }
  }
  return {
    of,
    counted(names, read) {
      count(names, 1)
      return read.finally(() => count(names, -1))
    },
  }
}
