import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** Where a client may find its server: what postgres.js has made of the URL. */
interface Addresses {
  readonly host: readonly string[]
  readonly port: readonly number[]
  /** Of a socket in the file system, instead of host and port. */
  readonly path: string | false | undefined
}

/** Milliseconds until one place has to accept. A recovered database has to be found again within seconds. */
const patience = 2_000

/**
 * The sockets of one client of postgres.js (3.4.9): one for each place of its URL, tried in their order, and none after that. Left to itself the driver
 * connects again in the same turn of the event loop when a server accepts and hangs up before it has answered, as a proxy does that has nothing behind it,
 * and goes on so for as long as that lasts.
 *
 * @param lost called when there is none left: the driver does not always tell whoever waits for the client
 * @returns options for the driver, whose types do not know of it; rejects with why the last place could not be reached
 */
export function socketsOf(lost: () => void): { readonly socket: (addresses: Addresses) => Promise<Socket> } {
  let tried = 0
  async function socket({ host, port, path }: Addresses): Promise<Socket> {
    let reason: unknown = new Error('the server hung up before it answered')
    while (tried < host.length) {
      const place = { host: host[tried]!, port: port[tried]! }
      tried++
      try {
        // The driver reads the name of the host from the socket, and holds the certificate of the server against it.
        return Object.assign(await dial(path ? { path } : place), place)
      } catch (error) {
        reason = error
      }
    }
    lost()
    throw reason
  }
  return { socket }
}

/** A connected socket. @throws Error */
async function dial(place: { readonly path: string } | { readonly host: string; readonly port: number }): Promise<Socket> {
  const socket = connect({ ...place, noDelay: true })
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(patience) })
    return socket
  } catch (error) {
    socket.destroy()
    throw error instanceof Error && error.name === 'AbortError'
      ? Object.assign(new Error('nobody accepted in time'), { code: 'CONNECT_TIMEOUT' })
      : error
  }
}
