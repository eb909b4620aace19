import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

/** The answer of the load generator to one order. */
export interface Load {
  readonly seconds: number
  /** Milliseconds, one a request. */
  readonly latencies: readonly number[]
  readonly statuses: Readonly<Record<string, number>>
  readonly bodies: readonly string[]
}

export interface Order {
  /** URLs; requests in flight are dealt out to them in turn. */
  readonly targets: readonly string[]
  readonly inFlight: number
  /** Heads and bodies; used in a circle until `count` were sent, else each once. */
  readonly requests: readonly string[]
  readonly count?: number
  /** Whether the bodies of the answers are wanted. */
  readonly keep?: boolean
}

/** Load from processes of their own, as many as there are orders at a time. */
export interface Generators {
  run(order: Order): Promise<Load>
  stop(): void
}

export function startGenerators(): Generators {
  const idle: ChildProcess[] = []
  const all: ChildProcess[] = []
  const another = (): ChildProcess => {
    const child = fork(path.join(import.meta.dirname, 'generator.mjs'), { execArgv: [], serialization: 'advanced' })
    all.push(child)
    return child
  }
  return {
    async run(order) {
      const generator = idle.pop() ?? another()
      const targets = order.targets.map((url) => ({ host: new URL(url).hostname, port: Number(new URL(url).port) }))
      generator.send({ ...order, targets })
      const [result] = (await once(generator, 'message')) as [Load & { error?: string }]
      if (result.error !== undefined) throw new Error(result.error)
      idle.push(generator)
      return result
    },
    stop: () => all.forEach((child) => child.kill()),
  }
}

const head = (method: string, route: string, token: string): string =>
  `${method} ${route} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${token}\r\n`

/** A POST as it goes over the wire. */
export const post = (route: string, body: string, token: string, type = 'application/json'): string =>
  `${head('POST', route, token)}content-type: ${type}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

export const get = (route: string, token: string): string => `${head('GET', route, token)}\r\n`

/** A page as the browser of somebody asks for it who has signed in. */
export const visit = (route: string, cookie: string): string => `GET ${route} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: ${cookie}\r\n\r\n`

/** What a declaration is answered with, as far as the bench needs it. */
export interface Opened {
  readonly task: { readonly id: string }
  readonly task_token: string
  readonly leases: readonly { readonly credential: { readonly token: string } }[]
}

export const openedOf = (run: Load): Opened[] => run.bodies.map((body) => JSON.parse(body) as Opened)

export const declaration = (grant: string, duration = '30m'): string =>
  JSON.stringify({ kind: 'work', purpose: 'the bench', duration, grants: [{ name: grant }] })

/** One declaration for each agent. */
export const issues = (bots: readonly string[], grant = 'api', duration?: string): string[] =>
  bots.map((bot) => post('/tasks', declaration(grant, duration), bot))

export const completes = (opened: readonly Opened[]): string[] =>
  opened.map(({ task, task_token }) => post(`/tasks/${task.id}/complete`, '{}', task_token))

export const introspects = (opened: readonly Opened[], resource: string): string[] =>
  opened.map(({ leases }) => post('/introspect', `token=${leases[0]!.credential.token}`, resource, 'application/x-www-form-urlencoded'))

/** Does it for each of them, so many at a time. */
export async function timed<T, R>(inFlight: number, each: readonly T[], work: (one: T) => Promise<R>): Promise<{ seconds: number; results: R[] }> {
  const started = performance.now()
  const left = [...each]
  const results: R[] = []
  await Promise.all(
    Array.from({ length: inFlight }, async () => {
      while (left.length > 0) results.push(await work(left.shift()!))
    }),
  )
  return { seconds: (performance.now() - started) / 1_000, results }
}
