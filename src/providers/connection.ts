import { Agent as PlainAgent, type ClientRequest, request as plainRequest, type RequestOptions } from 'node:http'
import { Agent as SecureAgent, request as secureRequest } from 'node:https'
import { longestIdle } from '../base/keep-alive.ts'
import { isLoopback } from '../base/address.ts'
import { type FileText, freshFile } from './files.ts'

/** Where a backend listens, and the files with which it and the broker know each other, PEM; read again when they change. */
export interface Connection {
  readonly url: string
  /** Who may sign the backend's certificate; the system's where absent. */
  readonly ca?: string | undefined
  /** The broker's client certificate. */
  readonly mtls?: { readonly cert: string; readonly key: string } | undefined
}

/** What is wrong with an address to which secrets travel; undefined if nothing is. Of what follows the host it says nothing. */
export function addressFault(text: string, allowHttp: boolean): string | undefined {
  if (!URL.canParse(text)) return 'must be an absolute URL'
  const { protocol, hostname } = new URL(text)
  if (protocol !== 'https:' && protocol !== 'http:') return 'must be an https URL'
  const clear = protocol === 'http:' && !isLoopback(hostname) && !allowHttp
  return clear ? 'must be https, because secrets travel over it; http only on loopback' : undefined
}

/** Opens one request on a kept connection or a new one. */
export type Open = (url: URL, options: RequestOptions) => ClientRequest

/**
 * Connections to a backend, with the broker's client certificate where one is configured. A changed certificate file opens new connections; the
 * old ones idle out. @throws whatever reading the files throws
 */
export function createConnection(settings: Connection): () => Promise<Open> {
  if (new URL(settings.url).protocol === 'http:') {
    const agent = new PlainAgent({ keepAlive: true, timeout: longestIdle })
    return async () => (url, options) => plainRequest(url, { ...options, agent })
  }
  const read = readers(settings)
  let last: { readonly version: string; readonly open: Open } | undefined
  return async () => {
    const { version, pem } = await read()
    if (last?.version !== version) {
      const agent = new SecureAgent({ keepAlive: true, timeout: longestIdle, minVersion: 'TLSv1.2', ...pem })
      last = { version, open: (url, options) => secureRequest(url, { ...options, agent }) }
    }
    return last.open
  }
}

/** The configured certificate files, and a mark that changes with any of them. */
function readers(settings: Connection): () => Promise<{ readonly version: string; readonly pem: Readonly<Record<string, string>> }> {
  const paths = { ca: settings.ca, cert: settings.mtls?.cert, key: settings.mtls?.key }
  const files = Object.entries(paths).flatMap(([name, path]) => (path === undefined ? [] : [{ name, read: freshFile(path, 262_144) }]))
  return async () => {
    const texts: [string, FileText][] = await Promise.all(files.map(async ({ name, read }) => [name, await read()]))
    return {
      version: texts.map(([, file]) => file.version).join(),
      pem: Object.fromEntries(texts.map(([name, file]) => [name, file.text])),
    }
  }
}
