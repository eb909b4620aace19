import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { isSameSecret } from '../../base/equal.ts'

/** What the AWS SDKs read from a container's endpoint; all strings. */
export interface ContainerCredentials {
  readonly AccessKeyId: string
  readonly SecretAccessKey: string
  readonly Token: string
  /** RFC 3339. The SDKs ask again some minutes before it. */
  readonly Expiration: string
}

/** An endpoint of the container credentials protocol, which every AWS SDK speaks: a GET with a token in `Authorization`. */
export interface Container {
  /** For AWS_CONTAINER_CREDENTIALS_FULL_URI. */
  readonly uri: string
  /** What `Authorization` must hold, as it is: without a scheme, and without anything that a header cannot hold. */
  readonly token: string
  /** Connections are cut. */
  close(): Promise<void>
}

const path = '/credentials'

/**
 * Serves AWS credentials to the processes of this machine that hold the token.
 *
 * Answers come from memory at once: the SDKs wait one second, and nothing that is slow or away may stand in their path.
 *
 * @param current the credentials; where there are none any more, why
 * @param port on 127.0.0.1; 0 takes any free one
 * @throws Error when the port cannot be had
 */
export async function serveContainer(current: () => ContainerCredentials | string, port = 0): Promise<Container> {
  const token = randomBytes(32).toString('base64url')
  let hosts: readonly string[] = []

  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const { method, url, headers } = request
    // A page in a browser of this machine may reach the port under a name of its own, and never with this one.
    if (!hosts.includes(headers.host ?? '')) return refuse(response, 403, 'Forbidden', 'This endpoint is for its own address only')
    if (url !== path) return refuse(response, 404, 'NotFound', 'There is nothing here')
    if (method !== 'GET') return refuse(response.setHeader('allow', 'GET'), 405, 'MethodNotAllowed', 'Credentials are got with GET')
    if (!isSameSecret(headers.authorization ?? '', token)) return refuse(response, 401, 'Unauthorized', 'Authorization is not the token')
    const credentials = current()
    if (typeof credentials === 'string') return refuse(response, 403, 'CredentialsEnded', credentials)
    send(response, 200, credentials)
  }
  const server = createServer({ headersTimeout: 2_000, requestTimeout: 2_000, connectionsCheckingInterval: 500, maxHeaderSize: 4_096 }, answer)
  server.maxConnections = 64
  server.timeout = 5_000

  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const { port: taken } = server.address() as AddressInfo
  hosts = [`127.0.0.1:${taken}`, `localhost:${taken}`]
  return {
    uri: `http://127.0.0.1:${taken}${path}`,
    token,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

/** The SDKs show the code and the message to whoever asked. */
const refuse = (response: ServerResponse, status: number, code: string, message: string): void =>
  send(response, status, { Code: code, Message: message })

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', connection: 'close' }).end(JSON.stringify(body))
}
