/** Fires at the first SIGTERM or SIGINT. A second one ends the process at once: whoever sends it has seen the first not suffice. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort())
  return stop.signal
}
