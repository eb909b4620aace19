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

/** What work comes to, or nothing once the signal fires: then it goes on, and nobody here waits for it. */
export async function unlessFired<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  let forget = (): void => {}
  const fired = new Promise<undefined>((resolve) => (forget = whenFired(signal, () => resolve(undefined))))
  return await Promise.race([work, fired]).finally(forget)
}

/** What work comes to, or what `late` gives or throws after so many milliseconds: then it goes on, and nobody here waits for it. */
export async function inTime<T, Late>(milliseconds: number, work: PromiseLike<T>, late: () => Late): Promise<T | Late> {
  let timer: NodeJS.Timeout | undefined
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, milliseconds))).then(late)
  return await Promise.race([work, over]).finally(() => clearTimeout(timer))
}

/**
 * Does its work under a signal that fires with the caller's, and with `late` after so many milliseconds.
 *
 * A timer of our own: on Node 20 a timeout inside `AbortSignal.any` can be collected before it fires (nodejs/node issue 57736).
 */
export async function within<T>(
  milliseconds: number,
  caller: AbortSignal | undefined,
  late: () => Error,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stop = new AbortController()
  const forget = caller && whenFired(caller, () => stop.abort(caller.reason))
  const timer = setTimeout(() => stop.abort(late()), milliseconds)
  try {
    return await work(stop.signal)
  } finally {
    clearTimeout(timer)
    forget?.()
  }
}
