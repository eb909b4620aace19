/**
 * Calls once a signal fires, at once where it has: a listener that is added later would never hear of it.
 *
 * @returns takes the call back
 */
export function whenFired(signal: AbortSignal, call: () => void): () => void {
  if (signal.aborted) {
    call()
    return () => {}
  }
  signal.addEventListener('abort', call, { once: true })
  return () => signal.removeEventListener('abort', call)
}
