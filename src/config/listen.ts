import { createPrivateKey, X509Certificate } from 'node:crypto'
import { resolve } from 'node:path'
import type { YamlFile } from '../base/yaml-file.ts'
import { Listen } from './shapes.ts'
import { readText } from './text.ts'

export interface ListenSettings {
  readonly host: string
  readonly port: number
  /** PEM, not paths. */
  readonly tls?: Certificates
}

interface Certificates {
  readonly cert: string
  readonly key: string
  /** With it, nobody connects without a certificate of these authorities. */
  readonly clientCa?: string
}

/** Where to listen, with the certificates already read: a broker that starts with ones that cannot work would refuse everybody. */
export async function readListen(yaml: YamlFile, value: unknown, folder: string): Promise<ListenSettings | undefined> {
  const listen = yaml.parse(Listen.prefault({}), value, ['listen'])
  if (!listen) return undefined
  const { host, port, tls } = listen
  if (!tls) return { host, port }
  const fault = (name: keyof typeof tls, message: string): void => yaml.fault(['listen', 'tls', name], message)

  const [cert, key, clientCa] = await Promise.all([pem('cert'), pem('key'), pem('client_ca')])
  if (cert !== undefined && key !== undefined && !belongTogether(cert, key)) fault('key', 'is not the private key of cert')
  if (cert === undefined || key === undefined) return undefined
  return { host, port, tls: { cert, key, ...(clientCa !== undefined && { clientCa }) } }

  async function pem(name: 'cert' | 'key' | 'client_ca'): Promise<string | undefined> {
    const path = tls?.[name]
    if (path === undefined) return undefined
    const text = await readText(resolve(folder, path))
    if ('fault' in text) fault(name, text.fault)
    else if (isPem(name, text.found)) return text.found
    else fault(name, name === 'key' ? 'is not a private key without passphrase, in PEM' : 'is not a certificate in PEM')
    return undefined
  }
}

function isPem(name: 'cert' | 'key' | 'client_ca', text: string): boolean {
  try {
    if (name === 'key') createPrivateKey(text)
    else void new X509Certificate(text)
    return true
  } catch {
    // Without OpenSSL's words: they are about its own reading, and the text may be a key.
    return false
  }
}

const belongTogether = (cert: string, key: string): boolean => new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
