import { readFile } from 'node:fs/promises'
import { isBearerToken } from '../base/bearer.ts'
import { type Client, createClient } from '../client/client.ts'
import { clientSettings } from '../config/environment.ts'
import { UsageError } from './failure.ts'

/** Milliseconds for which a broker that is away is waited for by what goes on working meanwhile. */
export const longPatience = 60_000

/** A client for the broker that the environment names, or this URL. The token file is read at each use, since whoever wrote it renews it there. */
export function connect({ url: named, ...options }: { patience?: number; url?: string | undefined } = {}): Client {
  const { url: usual, token, tokenFile } = clientSettings()
  const url = named ?? usual
  const read = async (): Promise<string> => {
    if (tokenFile !== undefined) {
      const text = await readFile(tokenFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
        throw new UsageError(`MAYFLY_TOKEN_FILE cannot be read (${error.code ?? 'unknown'})`)
      })
      return tokenIn('MAYFLY_TOKEN_FILE', text.trim())
    }
    if (token !== undefined) return tokenIn('MAYFLY_TOKEN', token)
    throw new UsageError('no workload token: set MAYFLY_TOKEN or MAYFLY_TOKEN_FILE; for a development broker: mayfly dev token --agent NAME')
  }
  try {
    return createClient({ url, token: read, ...options })
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(`${named === undefined ? 'MAYFLY_URL' : '--url'}: ${error.message}`)
    throw error
  }
}

/** @throws UsageError that says where it stands and nothing of it */
function tokenIn(variable: string, text: string): string {
  if (!isBearerToken(text))
    throw new UsageError(`${variable} ${text === '' ? 'is empty' : 'holds no token: there is something in it that no token has'}`)
  return text
}
