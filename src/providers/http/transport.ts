import { createConnection } from '../connection.ts'
import { type Answer, exchange, unlessUnreadable } from '../exchange.ts'
import { freshToken } from '../files.ts'
import type { HttpSettings } from './settings.ts'

export type Method = 'PUT' | 'DELETE' | 'GET'

/** Asks one backend. No redirects, no retries. @throws NoAnswer */
export type Transport = (method: Method, path: string, body: string | undefined, signal: AbortSignal) => Promise<Answer>

export function createTransport(settings: HttpSettings): Transport {
  const connection = createConnection(settings)
  const token = settings.token_file === undefined ? undefined : freshToken(settings.token_file)
  const base = settings.url.replace(/\/+$/, '')

  return async (method, path, body, signal) => {
    const [open, bearer] = await unlessUnreadable(() => Promise.all([connection(), token?.()]))
    const headers = {
      accept: 'application/json, application/problem+json',
      'user-agent': 'mayfly',
      ...(bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    }
    return exchange(() => open(new URL(base + path), { method, headers }), body, signal)
  }
}
