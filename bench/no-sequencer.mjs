/*
 * Loaded into a broker with NODE_OPTIONS=--import=…: the program as it is built, but nobody gives the entries of its history their place in the log. What
 * the sequencer costs is measured beside it.
 */
import { register } from 'node:module'
import { isMainThread } from 'node:worker_threads'

// Node runs the hooks of a file on a thread of their own, where this one is loaded once more.
if (isMainThread) register(import.meta.url)

const begins = 'export function startSequencer('

export async function load(url, context, next) {
  const loaded = await next(url, context)
  if (!url.endsWith('/dist/ledger/sequencer.js')) return loaded
  const source = String(loaded.source)
  if (!source.includes(begins)) throw new Error('the sequencer does not begin where it is looked for')
  const idle = `${begins}) { return { refusal: () => undefined, hasStrays: () => false, stop: async () => {}, [Symbol.asyncDispose]: async () => {} } }`
  return { ...loaded, source: `${source.replace(begins, 'function neverStarted(')}\n${idle}\n` }
}
