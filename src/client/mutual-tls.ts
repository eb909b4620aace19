import { createPrivateKey, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { Agent, request } from 'node:https'
import { longestIdle } from '../base/keep-alive.ts'

/** The client certificate for a broker that requires one (`listen.tls.client_ca`). PEM. */
export interface ClientCertificate {
  /** The certificate, and those between it and the authority that the broker trusts. */
  readonly certificate: string
  /** Without passphrase. */
  readonly key: string
}

/** `fetch`, as far as the client uses it. */
export type Fetch = (
  url: string,
  how: { readonly method: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string; readonly signal: AbortSignal },
) => Promise<{ readonly status: number; readonly headers: Headers; readonly body: AsyncIterable<Uint8Array> | null }>

/**
 * `fetch` with a client certificate, for which Node's own has no option. A changed certificate opens new connections; the old ones idle out.
 * @param read is called at each use. @returns what throws what `read` throws, and TypeError for what is no certificate with its key
 */
export function fetchShowing(read: () => Promise<ClientCertificate>): () => Promise<Fetch> {
  let last: (ClientCertificate & { readonly fetch: Fetch }) | undefined
  return async () => {
    const { certificate, key } = await read()
    if (last?.certificate === certificate && last.key === key) return last.fetch
    const fault = certificateFault({ certificate, key })
    if (fault !== undefined) throw new TypeError(fault)
    const agent = new Agent({ keepAlive: true, timeout: longestIdle, minVersion: 'TLSv1.2', cert: certificate, key })
    last = { certificate, key, fetch: fetchThrough(agent) }
    return last.fetch
  }
}

/** The fault of a client certificate, in words that repeat nothing of it; undefined if there is none. */
export function certificateFault({ certificate, key }: ClientCertificate): string | undefined {
  const [shown, secret] = [parsed(() => new X509Certificate(certificate)), parsed(() => createPrivateKey(key))]
  if (!shown) return 'the client certificate is not a certificate in PEM'
  if (!secret) return 'the key of the client certificate is not a private key without passphrase, in PEM'
  return shown.checkPrivateKey(secret) ? undefined : 'the key of the client certificate is that of another one'
}

/** Undefined where it is none. Without OpenSSL's words: they are about its own reading, and the text may be a key. */
function parsed<Parsed>(parse: () => Parsed): Parsed | undefined {
  try {
    return parse()
  } catch {
    return undefined
  }
}

function fetchThrough(agent: Agent): Fetch {
  return async (url, { method, headers, body, signal }) => {
    const asking = request(url, { agent, method, headers, signal }).end(body)
    // Whoever gives up while the answer is read is told by that.
    const answered = once(asking, 'response') as Promise<[IncomingMessage]>
    asking.on('error', () => {})
    const [answer] = await answered
    return { status: answer.statusCode!, headers: new Headers(pairs(answer.rawHeaders)), body: answer }
  }
}

const pairs = (raw: readonly string[]): [string, string][] => raw.flatMap((name, at) => (at % 2 === 0 ? [[name, raw[at + 1]!]] : []))
