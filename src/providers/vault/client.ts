import createNodeVault from 'node-vault'
import { type Json, parseJson } from '../../base/json.ts'
import { stopwatch } from '../../base/time.ts'
import { createConnection } from '../connection.ts'
import { type Answer, exchange, NoAnswer, unlessUnreadable } from '../exchange.ts'
import type { VaultSettings } from './settings.ts'

/** One question to Vault. `path` is built by this folder from checked parts, without a leading slash. */
export interface Question {
  readonly path: string
  /** Written where there is one, read otherwise. */
  readonly body?: Readonly<Record<string, unknown>>
  /** Absent: asked by nobody, such as the health of a node. */
  readonly token?: string | undefined
  readonly namespace?: string | undefined
  /** What it is counted as, where its path does not tell. */
  readonly request?: string
}

/** What Vault answered, whatever the status. */
export interface VaultAnswer {
  readonly status: number
  /** Undefined where there is none, or none that is JSON. */
  readonly body: Json | undefined
  /** Milliseconds for which it does not want to be asked again, where it says so. */
  readonly pointlessFor?: number
}

/** Asks once, without retries. @throws NoAnswer */
export type Ask = (question: Question, signal: AbortSignal) => Promise<VaultAnswer>

/** What node-vault hands down to a transport: its own fields, and what was given with the call. */
interface Handed {
  readonly method: string
  readonly uri: string
  readonly headers: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly signal: AbortSignal
}

/**
 * node-vault as the surface of calls, with a transport of our own under it. Left to itself it has no time limits, forgets headers and statuses, opens
 * a TLS connection for each call, follows a redirect to any host with the token, takes its address, token and namespace from the environment, and
 * its errors carry the token. So only `read` and `write` are used, each with its own headers, and nothing that it calls an error comes from it.
 */
export function createAsk(settings: VaultSettings, asked: (request: string, outcome: string, seconds: number) => void): Ask {
  const connection = createConnection({ url: settings.address, ca: settings.ca, mtls: settings.mtls })
  const nodes = new Set([settings.address, ...settings.nodes].map((node) => new URL(node).origin))

  async function transport({ method, uri, headers, json, signal }: Handed): Promise<VaultAnswer> {
    const open = await unlessUnreadable(connection)
    const body = json === undefined ? undefined : JSON.stringify(json)
    const sent = { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': `${Buffer.byteLength(body)}` }) }
    const asked = new URL(uri)
    const answer = await exchange(() => open(asked, { method, headers: sent }), body, signal)
    const elsewhere = redirectOf(answer, asked)
    if (!elsewhere) return read(answer)
    if (!nodes.has(elsewhere.origin)) throw new NoAnswer('unavailable', true, 'it redirects to an address that is not configured')
    const second = await exchange(() => open(elsewhere, { method, headers: sent }), body, signal)
    if (redirectOf(second, elsewhere)) throw new NoAnswer('unavailable', true, 'its nodes redirect to each other')
    return read(second)
  }

  const client = createNodeVault({
    endpoint: settings.address.replace(/\/+$/, ''),
    apiVersion: 'v1',
    'request-promise': { defaults: () => transport },
    // Its debug output holds bodies, and its generated commands overwrite the token of every other call.
    debug: () => {},
    commands: {},
  })
  // What the environment put there: a token, a namespace or a prefix of somebody's shell.
  Object.assign(client, { token: '', namespace: '', pathPrefix: '', handleVaultResponse: (answer: VaultAnswer) => Promise.resolve(answer) })

  return async ({ path, body, token, namespace, request }, signal) => {
    const headers = {
      accept: 'application/json',
      'user-agent': 'mayfly',
      'X-Vault-Request': 'true',
      ...(token === undefined ? {} : { 'X-Vault-Token': token }),
      ...(namespace === undefined ? {} : { 'X-Vault-Namespace': namespace }),
    }
    const options = { headers, signal }
    const elapsed = stopwatch()
    let outcome = 'failed'
    try {
      const answer = (await (body === undefined ? client.read(path, options) : client.write(path, body, options))) as VaultAnswer
      outcome = String(answer.status)
      return answer
    } catch (error) {
      if (error instanceof NoAnswer) outcome = error.fault
      throw error
    } finally {
      asked(request ?? requestOf(path), outcome, elapsed() / 1_000)
    }
  }
}

/** What a request is for, by its path: names that can be counted. */
function requestOf(path: string): string {
  if (path.startsWith('auth/token/create/')) return 'auth/token/create'
  if (/^(auth\/token|sys\/leases)\/[a-z-]+$/.test(path) || path === 'sys/health') return path
  if (path.startsWith('auth/')) return 'login'
  return path.startsWith('sys/') ? 'sys' : 'secret'
}

/** Where a standby sends whoever asks it: the active node, for the same path. */
function redirectOf({ status, location }: Answer, asked: URL): URL | undefined {
  if (status !== 307 && status !== 308 && status !== 301 && status !== 302) return undefined
  const there = location !== undefined && URL.canParse(location, asked.href) ? new URL(location, asked) : undefined
  if (!there || there.pathname !== asked.pathname || there.search !== asked.search)
    throw new NoAnswer('garbage', true, 'it redirects to another path')
  return there
}

function read({ status, body, pointlessFor }: Answer): VaultAnswer {
  if (body.trim() === '') return { status, body: undefined, pointlessFor }
  try {
    return { status, body: parseJson(body), pointlessFor }
  } catch {
    // What is not JSON is told by its status; what a good status promised is missed by whoever reads it.
    return { status, body: undefined, pointlessFor }
  }
}
