import type { Reloads } from '../main.ts'

/** Fires at the first SIGTERM or SIGINT. A second one ends the process at once: whoever sends it has seen the first not suffice. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort())
  return stop.signal
}

/**
 * What SIGHUP asks for from now on. One that comes while the broker still starts is kept until then: without a listener the signal ends the process, in the
 * middle of whatever it does.
 */
export function reloadSignal(): Reloads {
  let asked = false
  let heed = (): void => void (asked = true)
  process.on('SIGHUP', () => heed())
  return {
    to(reload) {
      heed = reload
      if (asked) reload()
      asked = false
    },
  }
}
