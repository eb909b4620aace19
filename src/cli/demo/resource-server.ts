import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Introspection } from '../../http/contract.ts'

/** What stands behind a credential: a server that asks the broker about each token before it answers. */
export interface ResourceServer {
  /** Calls it with a bearer token. @returns the status of its answer */
  use(token: string): Promise<number>
  [Symbol.asyncDispose](): Promise<void>
}

/** Starts one on loopback: 200 for a living token with its scope, 401 for anything else. */
export async function startResourceServer(introspect: (token: string) => Promise<Introspection>): Promise<ResourceServer> {
  const server = createServer((request, response) => {
    const [, token = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? []
    introspect(token).then(
      (found) => response.writeHead(found.active && found.scope.split(' ').includes('invoices:read') ? 200 : 401).end(),
      () => response.writeHead(503).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    async use(token) {
      const answer = await fetch(`http://127.0.0.1:${port}/invoices`, { headers: { authorization: `Bearer ${token}` } })
      return answer.status
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
