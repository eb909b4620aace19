import { createServer as createHttpServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { nameOfStatement } from './statements.ts'

/** One side of one thing that a broker asks of a peer. */
export interface Crossing {
  /** `before`: the peer never hears of it. `after`: the peer has done it, and its answer is lost. */
  readonly side: 'before' | 'after'
  readonly what: string
  /** Which one of this name, from 1. */
  readonly nth: number
}

/** The crossing that is the `at`th, from 1, of all that count. */
export interface Count {
  readonly at: number
  /** @param changed whether its answer says that it has changed something; false where it has none yet */
  counts(what: string, side: Crossing['side'], changed: boolean): boolean
}

/** Sees what crosses the wires of a broker, and strikes at one crossing: that one and whatever follows is never passed on, until it is disarmed. */
export interface Tripwire {
  /**
   * From here on it sees what sets out, and strikes at `where` if it ever comes to that.
   *
   * @param strike what happens there; where it answers `passes`, everything is passed on all the same
   * @param until of what only sets out: whoever sends it is cut off at once, and it reaches its peer when this resolves. Everything else is passed on
   */
  arm(strike: () => unknown, where?: Crossing | Count, until?: Promise<unknown>): void
  /** What has set out since, in order. @param ifChanging counts only where it has been answered, and has changed something */
  seen(ifChanging?: (what: string) => boolean): readonly string[]
  /** Where it struck, in words; undefined if it did not. */
  where(): string | undefined
  struck(): boolean
  /** Lets everything pass again. */
  disarm(): void
  /** Whether nothing is on its way between the broker and its peers. */
  quiet(): boolean
  /** Something sets out. Undefined: it may not be passed on. */
  send(what: string): Passage | undefined
}

/** What has set out and waits for its answer. */
export interface Passage {
  /** It may be passed on only when this resolves, and whoever sent it is cut off at once. */
  readonly until: Promise<unknown> | undefined
  /** The answer is there. @param changed whether it has changed something @returns whether it may be passed on */
  answered(changed: boolean): boolean
  /** Nobody waits for the answer any more. */
  lost(): void
}

interface Sent {
  readonly what: string
  changed: boolean
}

export function createTripwire(): Tripwire {
  interface Arming {
    readonly strike: () => unknown
    readonly where: Crossing | Count | undefined
    readonly until: Promise<unknown> | undefined
    readonly seen: Sent[]
    /** Crossings that counted. */
    crossed: number
    struck: string | undefined
    over: boolean
  }
  let arming: Arming | undefined
  const underWay = new Set<Passage>()
  const blocked = (): boolean => arming?.struck !== undefined && !arming.over
  const disarm = (): void => {
    if (arming) arming.over = true
  }

  /** Strikes if this is where. What set out under another arming is none of this one's business, its answer neither. */
  function strikes(under: Arming | undefined, side: Crossing['side'], sent: Sent, nth: number): boolean {
    if (!under || under.over || under.struck !== undefined || !isThere(under, side, sent, nth)) return false
    under.struck = `${under.until ? 'during' : side} ${sent.what}`
    const passes = under.strike() === 'passes'
    if (passes) under.over = true
    return !passes
  }

  function isThere(under: Arming, side: Crossing['side'], { what, changed }: Sent, nth: number): boolean {
    const { where } = under
    if (where === undefined || (under.until && side === 'after')) return false
    if ('side' in where) return where.side === side && where.what === what && where.nth === nth
    if (!where.counts(what, side, changed)) return false
    return ++under.crossed === where.at
  }

  function send(what: string): Passage | undefined {
    if (blocked()) return undefined
    const under = arming
    const sent = { what, changed: false }
    under?.seen.push(sent)
    const nth = under?.seen.filter((other) => other.what === what).length ?? 0
    const isHere = strikes(under, 'before', sent, nth)
    const until = isHere ? under?.until : undefined
    if (isHere && !until) return undefined
    if (until) disarm()
    const passage: Passage = {
      until,
      answered(changed) {
        underWay.delete(passage)
        sent.changed = changed
        return !blocked() && !strikes(under, 'after', sent, nth)
      },
      lost: () => void underWay.delete(passage),
    }
    underWay.add(passage)
    return passage
  }

  return {
    arm(strike, where, until) {
      disarm()
      arming = { strike, where, until, seen: [], crossed: 0, struck: undefined, over: false }
    },
    seen: (ifChanging = () => false) => (arming?.seen ?? []).filter(({ what, changed }) => changed || !ifChanging(what)).map(({ what }) => what),
    where: () => arming?.struck,
    struck: () => arming?.struck !== undefined,
    disarm,
    quiet: () => underWay.size === 0,
    send,
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
    const pending: Passage[] = []
    let held: Buffer[] = []
    /** What the last statement says of itself. */
    let changed = true
    /** A statement whose sender is gone, up to where it is whole. */
    let kept: { readonly passage: Passage; readonly messages: Buffer[] } | undefined
    const cut = () => {
      client.destroy()
      store.destroy()
      for (const passage of pending.splice(0)) passage.lost()
    }
    const gone = () => {
      if (!kept) cut()
    }
    client.on('error', gone).on('close', gone)
    store.on('error', cut).on('close', cut)

    /** Cuts its sender off once all of it is there, and passes it on when its time has come. */
    function keep(type: string, message: Buffer): void {
      const { passage, messages } = kept!
      messages.push(message)
      if (type !== 'S' && type !== 'Q') return
      client.destroy()
      void passage.until!.then(() => store.write(Buffer.concat(messages)))
    }

    client.on(
      'data',
      eachMessage(true, (type, message) => {
        if (client.destroyed) return undefined
        if (kept) return keep(type, message)
        if (type === 'P') statements.set(textAt(message, 5), textAt(message, 6 + textAt(message, 5).length))
        if (type === 'B' || type === 'Q') {
          const text = type === 'Q' ? textAt(message, 5) : (statements.get(textAt(message, 6 + textAt(message, 5).length)) ?? '')
          const passage = tripwire.send(nameOfStatement(text))
          if (!passage) return cut()
          pending.push(passage)
          if (passage.until) {
            kept = { passage, messages: [] }
            return keep(type, message)
          }
        }
        return store.write(message)
      }),
    )
    store.on(
      'data',
      eachMessage(false, (type, message) => {
        if (kept) {
          // Nobody is there to be answered, about what was sent before it neither.
          if (type === 'Z') pending.shift()?.answered(true)
          return pending.length === 0 ? store.destroy() : undefined
        }
        if (pending.length === 0) return client.write(message)
        held.push(message)
        if (type === 'C') changed = !/^(INSERT 0|UPDATE|DELETE) 0$/.test(textAt(message, 5))
        if (type !== 'Z') return undefined
        // Postgres says that it is ready only after the commit: an answer that is held until then says nothing too early.
        if (!pending.shift()!.answered(changed)) return cut()
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

/**
 * A backend behind the tripwire.
 *
 * @param nameOf what a request is called, by its method, the path that it asks for and its body; the method, where this is absent
 */
export async function wireHttp(
  target: string,
  tripwire: Tripwire,
  nameOf = (method: string, _path: string, _body: string): string => method,
): Promise<Wire> {
  const server = createHttpServer((incoming, outgoing) => {
    // Whoever dies in the middle of a request has asked for nothing.
    buffer(incoming).then(
      (body) => pass(incoming, outgoing, body),
      () => incoming.socket.destroy(),
    )
  })

  function pass(incoming: IncomingMessage, outgoing: ServerResponse, body: Buffer): void {
    const passage = tripwire.send(nameOf(incoming.method!, incoming.url!, body.toString()))
    if (!passage) return void incoming.socket.destroy()
    const { method, headers } = incoming
    const onward = request(new URL(incoming.url!, target), { method, headers }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        if (!passage.answered(true)) return void incoming.socket.destroy()
        outgoing.writeHead(answer.statusCode!, answer.headers).end(Buffer.concat(chunks))
      })
    })
    onward.on('error', () => incoming.socket.destroy())
    outgoing.on('close', () => {
      passage.lost()
      // Whoever is gone here is gone there too.
      onward.destroy()
    })
    onward.end(body)
  }
  // A client that asks again after Node's five seconds would meet the connection as it closes.
  server.keepAliveTimeout = 120_000
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

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

const closed = (server: Server): Promise<void> => new Promise((resolve) => server.close(() => resolve()))
