import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Introspection } from '../../http/contract.ts'

/** What stands behind a credential: a server that asks the broker about each token before it answers. */
export interface ResourceServer {
  /** Reads its invoices with a bearer token. @returns the status of its answer */
  read(token: string): Promise<number>
  /** Exports those of one customer. @returns the status of its answer */
  export(token: string, customer: string): Promise<number>
  [Symbol.asyncDispose](): Promise<void>
}

/** Starts one on loopback: 200 for a living token that is for what is asked, 403 for another living one, 401 for anything else. */
export async function startResourceServer(introspect: (token: string) => Promise<Introspection>): Promise<ResourceServer> {
  const server = createServer((request, response) => {
    const [, token = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? []
    introspect(token).then(
      (found) => response.writeHead(!found.active ? 401 : isFor(request.url ?? '', found) ? 200 : 403).end(),
      () => response.writeHead(503).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const use = async (token: string, path: string): Promise<number> =>
    (await fetch(`http://127.0.0.1:${port}${path}`, { headers: { authorization: `Bearer ${token}` } })).status
  return {
    read: (token) => use(token, '/invoices'),
    export: (token, customer) => use(token, `/exports/${encodeURIComponent(customer)}`),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** By its scope alone a token for one customer would do for all of them: what it is narrowed to stands in `authorization_details`, and one that lacks these is for nobody. */
function isFor(path: string, { scope, authorization_details: details = [] }: Extract<Introspection, { active: true }>): boolean {
  const scopes = scope.split(' ')
  const [, customer] = /^\/exports\/([a-z0-9-]+)$/.exec(path) ?? []
  if (customer === undefined) return scopes.includes('invoices:read')
  return scopes.includes('invoices:export') && details.some(({ parameters }) => parameters['customer'] === customer)
}
