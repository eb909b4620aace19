/** What is done behind mints that no longer wait: about reads that go on, and about task tokens. */
export interface Late {
  /** Lets something that never fails go on. */
  goOn(work: Promise<void>): void
  /** Resolves when nothing of it is left. */
  settled(): Promise<void>
}

export function createLate(): Late {
  const works = new Set<Promise<void>>()
  return {
    goOn(work) {
      const done: Promise<void> = work.finally(() => works.delete(done))
      works.add(done)
    },
    async settled() {
      while (works.size > 0) await Promise.all(works)
    },
  }
}
