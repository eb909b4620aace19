/** Those who want to be called when something happens. */
export interface Listeners {
  /** @returns what ends it */
  add(listener: () => void): () => void
  call(): void
}

export function createListeners(): Listeners {
  const listeners = new Set<() => void>()
  return {
    add(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
    call: () => listeners.forEach((listener) => listener()),
  }
}
