import { readFile } from 'node:fs/promises'
import { isBearerToken } from '../base/bearer.ts'
import { certificateFault, type Client, type ClientCertificate, createClient } from '../client/client.ts'
import { clientSettings, type ClientSettings } from '../config/environment.ts'
import { UsageError } from './failure.ts'

/** Milliseconds for which a broker that is away is waited for by what goes on working meanwhile. */
export const longPatience = 60_000

/** A client for the broker that the environment names, or this URL. The token file is read at each use, since whoever wrote it renews it there. */
export function connect({ url: named, ...options }: { patience?: number; url?: string | undefined } = {}): Client {
  const settings = clientSettings()
  const { url: usual, token, tokenFile } = settings
  const url = named ?? usual
  const read = async (): Promise<string> => {
    if (tokenFile !== undefined) return tokenIn('MAYFLY_TOKEN_FILE', (await textOf('MAYFLY_TOKEN_FILE', tokenFile)).trim())
    if (token !== undefined) return tokenIn('MAYFLY_TOKEN', token)
    throw new UsageError('no workload token: set MAYFLY_TOKEN or MAYFLY_TOKEN_FILE; for a development broker: mayfly dev token --agent NAME')
  }
  try {
    const certificate = certificateOf(settings)
    return createClient({ url, token: read, ...(certificate && { certificate }), ...options })
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(`${named === undefined ? 'MAYFLY_URL' : '--url'}: ${error.message}`)
    throw error
  }
}

/**
 * The client certificate that the environment names, if it does.
 * @throws UsageError where one of its files is not named; and what is returned, for files that are not what they should be
 */
function certificateOf({ certificateFile, keyFile }: ClientSettings): (() => Promise<ClientCertificate>) | undefined {
  if (certificateFile === undefined && keyFile === undefined) return undefined
  if (certificateFile === undefined || keyFile === undefined) throw new UsageError('MAYFLY_CLIENT_CERT_FILE and MAYFLY_CLIENT_KEY_FILE go together')
  return async () => {
    const [certificate, key] = await Promise.all([textOf('MAYFLY_CLIENT_CERT_FILE', certificateFile), textOf('MAYFLY_CLIENT_KEY_FILE', keyFile)])
    const fault = certificateFault({ certificate, key })
    if (fault !== undefined) throw new UsageError(`MAYFLY_CLIENT_CERT_FILE, MAYFLY_CLIENT_KEY_FILE: ${fault}`)
    return { certificate, key }
  }
}

/** @throws UsageError */
const textOf = (variable: string, file: string): Promise<string> =>
  readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`${variable} cannot be read (${error.code ?? 'unknown'})`)
  })

/** @throws UsageError that says where it stands and nothing of it */
function tokenIn(variable: string, text: string): string {
  if (!isBearerToken(text))
    throw new UsageError(`${variable} ${text === '' ? 'is empty' : 'holds no token: there is something in it that no token has'}`)
  return text
}
