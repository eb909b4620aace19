import { createServer as createHttpServer, request } from 'node:http'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'

/**
 * Counts what crosses the wires of a broker, there and back, and strikes at one crossing: that one and whatever follows is never passed on, until
 * it is disarmed.
 */
export interface Tripwire {
  /**
   * From here on those crossings count that `counts` says.
   *
   * @param strike what happens there; where it answers `passes`, everything is passed on all the same
   * @param at the crossing at which to strike, from 1
   */
  arm(strike: () => unknown, at: number, counts: (what: string) => boolean): void
  /** What has crossed since, in order. The last is where it struck, if it did. */
  crossings(): readonly string[]
  struck(): boolean
  /** Lets everything pass again. */
  disarm(): void
  /** Whether this crossing may be passed on. */
  cross(what: string): boolean
}

export function createTripwire(): Tripwire {
  let armed: { strike: () => unknown; at: number; counts: (what: string) => boolean } | undefined
  let seen: string[] = []
  let struck = false
  return {
    arm(strike, at, counts) {
      armed = { strike, at, counts }
      seen = []
      struck = false
    },
    crossings: () => seen,
    struck: () => struck,
    disarm: () => void (armed = undefined),
    cross(what) {
      if (!armed) return true
      if (struck) return false
      if (!armed.counts(what)) return true
      seen.push(what)
      if (seen.length < armed.at) return true
      struck = true
      if (armed.strike() !== 'passes') return false
      armed = undefined
      return true
    },
  }
}

/** A wire that a broker speaks over instead of to its peer. */
export interface Wire {
  readonly url: string
  stop(): Promise<void>
}

/** A Postgres behind the tripwire: each statement crosses when it is sent, and again when it is committed and its answer is on its way. */
export async function wirePostgres(target: string, tripwire: Tripwire): Promise<Wire> {
  const url = new URL(target)
  const server = createServer((client) => {
    const store = connect(Number(url.port), url.hostname)
    const statements = new Map<string, string>()
    /** Statements that were sent and have not been answered. */
    const pending: string[] = []
    let held: Buffer[] = []
    const cut = () => {
      client.destroy()
      store.destroy()
    }
    client.on('error', cut).on('close', cut)
    store.on('error', cut).on('close', cut)

    client.on(
      'data',
      eachMessage(true, (type, message) => {
        if (type === 'P') statements.set(textAt(message, 5), textAt(message, 6 + textAt(message, 5).length))
        if (type === 'B' || type === 'Q') {
          const text = type === 'Q' ? textAt(message, 5) : (statements.get(textAt(message, 6 + textAt(message, 5).length)) ?? '')
          if (!tripwire.cross(`before ${labelOf(text)}`)) return cut()
          pending.push(labelOf(text))
        }
        return store.write(message)
      }),
    )
    store.on(
      'data',
      eachMessage(false, (type, message) => {
        if (pending.length === 0) return client.write(message)
        held.push(message)
        if (type !== 'Z') return undefined
        // Postgres says that it is ready only after the commit: an answer that is held until then says nothing too early.
        if (!tripwire.cross(`after ${pending.shift()}`)) return cut()
        const answer = Buffer.concat(held)
        held = []
        return client.write(answer)
      }),
    )
  })
  const wired = new URL(target)
  wired.port = String(await portOf(server))
  return { url: wired.href, stop: () => closed(server) }
}

/** A backend of kind http behind the tripwire. */
export async function wireHttp(target: string, tripwire: Tripwire): Promise<Wire> {
  const server = createHttpServer((incoming, outgoing) => {
    const label = `${incoming.method} at the backend`
    if (!tripwire.cross(`before ${label}`)) return void incoming.destroy()
    const { method, headers } = incoming
    const onward = request(new URL(incoming.url!, target), { method, headers }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        if (!tripwire.cross(`after ${label}`)) return void incoming.destroy()
        outgoing.writeHead(answer.statusCode!, answer.headers).end(Buffer.concat(chunks))
      })
    })
    onward.on('error', () => incoming.destroy())
    incoming.pipe(onward)
  })
  return {
    url: `http://127.0.0.1:${await portOf(server)}`,
    async stop() {
      server.closeAllConnections()
      await closed(server)
    },
  }
}

/** Calls back with each whole message of the Postgres protocol. The very first of a client has no type. */
function eachMessage(startsUntyped: boolean, take: (type: string, message: Buffer) => unknown): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0)
  let untyped = startsUntyped
  return (chunk) => {
    rest = Buffer.concat([rest, chunk])
    for (;;) {
      const head = untyped ? 0 : 1
      if (rest.length < head + 4) return
      const length = head + rest.readInt32BE(head)
      if (rest.length < length) return
      const message = rest.subarray(0, length)
      const type = untyped ? '' : String.fromCharCode(message[0]!)
      untyped = false
      rest = rest.subarray(length)
      take(type, message)
    }
  }
}

const textAt = (message: Buffer, start: number): string => message.toString('utf8', start, message.indexOf(0, start))

/** What a statement does, from the tables that it writes and the history that it tells. */
function labelOf(text: string): string {
  const writes = [...text.matchAll(/(insert into|(?<!for )update|delete from) (\w+)/g)]
    .map(([, , table]) => table!)
    .filter((table) => table !== 'set')
  const facts = [...text.matchAll(/'((?:task|lease)\.\w+)'/g)].map(([, fact]) => fact!)
  if (writes.length === 0) return 'a read'
  // Only the loop takes what nobody else holds.
  const who = text.includes('skip locked') ? 'a look of the reaper' : 'a commit'
  return `${who} to ${[...new Set([...writes, ...facts])].join(', ')}`
}

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

const closed = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))
