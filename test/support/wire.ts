import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** A wire of TCP between a broker and what it depends on, that can be cut, and that can go silent. */
export interface FaultyWire {
  /** The address of the far end, with this wire's port. */
  readonly url: string
  /** Nobody listens any more, and every connection is reset. */
  cut(): Promise<void>
  /** Connections stand and new ones are accepted, and whatever is sent is lost without a word. */
  hang(): void
  /** Every connection is closed, and new ones are accepted and closed at once, as by a proxy that has nothing behind it. */
  hangUp(): void
  /** New connections pass again. Those that hung stay silent for ever, as behind a firewall that has lost track of them. */
  mend(): Promise<void>
  /** How many connections were accepted so far. */
  accepted(): number
  stop(): Promise<void>
}

/** @param target URL of the far end */
export async function faultyWire(target: string): Promise<FaultyWire> {
  const { hostname, port } = new URL(target)
  const ends = new Set<Socket>()
  let hangs = false
  let hangsUp = false
  let accepted = 0

  function hold(end: Socket, close: () => void): void {
    ends.add(end)
    end
      .on('error', () => {})
      .on('close', () => {
        ends.delete(end)
        close()
      })
  }
  const server = createServer((near) => {
    // It was accepted while the wire was being cut, which waits for every connection to be gone.
    if (!server.listening) return void near.resetAndDestroy()
    accepted++
    if (hangs || hangsUp) {
      hold(near.resume(), () => {})
      if (hangsUp) near.end()
      return
    }
    const far = connect(Number(port), hostname)
    // Else each small message waits up to 40 ms for the acknowledgement of the one before it.
    near.setNoDelay(true)
    far.setNoDelay(true)
    hold(near, () => far.destroy())
    hold(far, () => near.destroy())
    near.pipe(far).pipe(near)
  })
  const listen = (at: number) => new Promise<void>((resolve) => server.listen(at, '127.0.0.1', resolve))
  async function cut(): Promise<void> {
    const closed = new Promise<void>((resolve) => (server.listening ? server.close(() => resolve()) : resolve()))
    for (const end of ends) end.resetAndDestroy()
    await closed
  }

  await listen(0)
  const url = new URL(target)
  const own = (server.address() as AddressInfo).port
  url.port = String(own)
  return {
    url: url.href.replace(/\/$/, ''),
    cut,
    hang() {
      hangs = true
      for (const end of ends) end.unpipe().resume()
    },
    hangUp() {
      hangsUp = true
      for (const end of ends) end.end()
    },
    accepted: () => accepted,
    async mend() {
      hangs = hangsUp = false
      if (!server.listening) await listen(own)
    },
    stop: cut,
  }
}
