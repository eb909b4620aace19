import { randomBytes } from 'node:crypto'
import { Agent, createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { FaultDetails, LabFault } from './lab.ts'
import { createFaults, type FaultAnswer, send } from './lab/faults.mjs'
import { nameOfVaultRequest, type VaultRequest } from './vault-requests.ts'

/** What happens instead of an answer: what can happen at the lab, and what is Vault's own. `refuses` is a denial of its policies. */
export type VaultFault =
  | Extract<LabFault, 'refuses' | 'fails' | 'resets' | 'hangs' | 'held' | 'slow' | 'garbage' | 'another media type' | 'half' | 'floods' | 'redirects'>
  | 'answers nothing'
  | 'does not know the token'
  | 'has a quota'
  | 'is sealed'
  | 'only queues it'
  | 'gives another signature'
  | 'gives a token of more policies'
  | 'says it lives for long'

const hows: readonly VaultFault[] = [
  'refuses',
  'does not know the token',
  'fails',
  'resets',
  'hangs',
  'garbage',
  'half',
  'answers nothing',
  'floods',
  'redirects',
  'has a quota',
  'is sealed',
  'only queues it',
]
/** What can happen to any question, in pairs: nothing was done, and it was done and the answer was lost. */
export const pairs: readonly { readonly how: VaultFault; readonly done: boolean }[] = hows.flatMap((how) => [
  { how, done: false },
  { how, done: true },
])

const says = (status: number, error: string, headers?: Readonly<Record<string, string>>) => (response: ServerResponse) =>
  send(response, { status, body: { errors: [error] }, ...(headers && { headers }) })

const faultsOfVault: Record<Exclude<VaultFault, LabFault> | 'refuses' | 'fails', (response: ServerResponse, done?: FaultAnswer) => unknown> = {
  refuses: says(403, '1 error occurred:\n\t* permission denied\n\n'),
  'does not know the token': says(403, 'permission denied'),
  fails: says(500, '1 error occurred:\n\t* the backend failed\n\n'),
  'answers nothing': (response) => send(response, { status: 200 }),
  'has a quota': says(429, 'request path: rate limit quota exceeded', { 'retry-after': '7' }),
  'is sealed': says(503, 'Vault is sealed'),
  'only queues it': (response) => send(response, { status: 202 }),
  'gives another signature': (response, done) =>
    send(response, { status: 200, body: { ...(done?.body as object), data: { signature: `vault:v1:${randomBytes(64).toString('base64')}` } } }),
  'gives a token of more policies': (response, done) => {
    const body = done?.body as { auth: { policies: string[] } }
    return send(response, { status: 200, body: { ...body, auth: { ...body.auth, policies: [...body.auth.policies, 'default'] } } })
  },
  'says it lives for long': (response, done) => {
    const body = done?.body as { data: object }
    return send(response, { status: 200, body: { ...body, data: { ...body.data, expiration: Math.floor(Date.now() / 1_000) + 86_400 } } })
  },
}

/** A request that arrived, without anything secret that was in it. */
export interface SeenRequest {
  readonly what: VaultRequest
  readonly method: string
  readonly path: string
  /** Where it was asked; undefined outside of namespaces. */
  readonly namespace: string | undefined
  /** How long it asked that what it makes may live, such as `599s`; undefined where it did not say. */
  readonly ttl: string | undefined
  /** How OpenBao answered, whatever was passed on; undefined where it never heard of it, or has not answered yet. */
  readonly status: number | undefined
  /** Whether who asked hung up before there was an answer. */
  readonly hungUp: boolean
}

/** Stands before an OpenBao, and lets each request pass, or fail as it is told. Who hangs up here hangs up there. */
export interface VaultFront {
  readonly address: string
  /**
   * Orders what happens to the next request of this name. With `done` OpenBao has acted before the answer goes wrong; `held` then holds its answer
   * back, and without it the request.
   */
  next(what: VaultRequest, how: VaultFault, details?: FaultDetails): void
  /** Forgets faults that were ordered and have not happened. */
  clear(): void
  /** Resolves once a request of this name hangs or is held, with OpenBao having acted where that was ordered. */
  hanging(what: VaultRequest): Promise<void>
  /** Lets every held request or answer go on, and cuts those that hang. Resolves when OpenBao has answered them. */
  release(): Promise<void>
  /** What has arrived since it was last forgotten, oldest first. */
  requests(): readonly SeenRequest[]
  forget(): void
  stop(): Promise<void>
}

/** @param target the address of an OpenBao */
export async function frontVault(target: string): Promise<VaultFront> {
  const faults = createFaults(faultsOfVault)
  const agent = new Agent({ keepAlive: true })
  let seen: { -readonly [Field in keyof SeenRequest]: SeenRequest[Field] }[] = []

  async function take(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const [method, path] = [incoming.method!, incoming.url!]
    const namespace = incoming.headers['x-vault-namespace'] as string | undefined
    const body = await buffer(incoming)
    const { ttl } = (body.length > 0 ? JSON.parse(body.toString()) : {}) as { ttl?: string }
    const one = { what: nameOfVaultRequest(method, path), method, path, namespace, ttl, status: undefined as number | undefined, hungUp: false }
    seen.push(one)
    const hangUp = new AbortController()
    onHangUp(incoming, outgoing, () => {
      one.hungUp = true
      hangUp.abort()
    })
    await faults.answer(one.what, outgoing, async () => {
      const answer = await passOn(incoming, body, hangUp.signal)
      one.status = answer?.status
      // As if there were nothing in between: a peer that is not there is one that cuts the line.
      if (answer === undefined) incoming.socket.destroy()
      return answer
    })
  }
  const server = createServer((incoming, outgoing) => {
    take(incoming, outgoing).catch(() => incoming.socket.destroy())
  })

  /** @returns undefined where there was no answer */
  function passOn({ method, url, headers }: IncomingMessage, body: Buffer, signal: AbortSignal): Promise<FaultAnswer | undefined> {
    return new Promise((resolve) => {
      const onward = request(
        new URL(url!, target),
        { method: method!, headers: { ...headers, host: new URL(target).host }, agent, signal },
        (answer) => {
          const passed = Object.entries(answer.headers).filter(([name]) => name === 'retry-after' || name === 'location')
          buffer(answer)
            .then((bytes) => ({
              status: answer.statusCode!,
              ...(bytes.length > 0 && { body: JSON.parse(bytes.toString()) as unknown }),
              headers: Object.fromEntries(passed) as Record<string, string>,
            }))
            .then(resolve, () => resolve(undefined))
        },
      )
      onward.on('error', () => resolve(undefined)).end(body)
    })
  }

  // A client that asks again after Node's five seconds would meet the connection as it closes.
  server.keepAliveTimeout = 120_000

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    next: (what, how, details) => faults.order({ call: what, how, ...details }),
    clear: () => faults.clear(),
    hanging: (what) => faults.untilHanging(what),
    release: async () => void (await faults.release()),
    requests: () => seen,
    forget: () => void (seen = []),
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      agent.destroy()
      await closed
    },
  }
}

/** Calls back where the other side ends its line before the answer is complete. What is cut here does not count. */
function onHangUp({ socket }: IncomingMessage, outgoing: ServerResponse, gone: () => void): void {
  const ended = (): void => {
    if (!outgoing.writableEnded) gone()
  }
  socket.on('end', ended).on('error', ended)
  outgoing.on('close', () => socket.off('end', ended).off('error', ended))
}
