import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { newId } from '../../src/base/ids.ts'
import { systemClock } from '../../src/base/time.ts'
import type { CredentialView, Declaration, DecisionView, IssuedLease, LeaseView, ReceiptView, TaskView } from '../../src/http/contract.ts'

/** A receipt of nothing. */
export const receiptOf = (kind: string): ReceiptView => ({ entry: newId('ent'), kind, leaf_hash: Buffer.alloc(32).toString('base64') })

/** What a client can ask of it. */
export type Action = 'open' | 'show' | 'refresh' | 'renew' | 'complete' | 'lease'

/** One request as it arrived. */
export interface Heard {
  readonly action: Action | 'unknown'
  readonly headers: IncomingMessage['headers']
  readonly body: unknown
}

/** What happens to one call in the place of its answer. `work` does what was asked, and gives what would have been answered. */
export type Fault = (response: ServerResponse, work: () => Answer) => void

type Answer = readonly [status: number, body: object]

export const problem =
  (status: number, code: string, retry: string, headers: Record<string, string> = {}, more: object = {}): Fault =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    response.end(JSON.stringify({ type: `urn:mayfly:problem:${code}`, title: 'No', status, detail: `The fake says ${code}`, code, retry, ...more }))
  }
export const resetBefore: Fault = (response) => response.destroy()
export const resetAfter: Fault = (response, work) => {
  work()
  response.destroy()
}
export const hang: Fault = () => undefined
export const garbage: Fault = (response) => response.writeHead(200).end('<html>welcome, mft_not-to-be-seen</html>')
export const redirect =
  (location: string): Fault =>
  (response) =>
    response.writeHead(307, { location }).end()

/**
 * A broker for tests of its clients: it speaks the contract on loopback, holds one task at a time, and fails as it is told. Nothing is decided or
 * kept; what a real broker does is shown by the journeys.
 */
export interface FakeBroker {
  readonly url: string
  readonly heard: readonly Heard[]
  task: TaskView
  /** Milliseconds that a task lives from its opening or renewal, and a lease from its issue. */
  life: { task: number; lease: number }
  /** Whether leases can be refreshed. */
  fresh: boolean
  /** What is minted for a grant; by default a bearer token with a number. */
  mint: (grant: string) => CredentialView
  count(action: Action): number
  /** The next calls of this kind meet these, one each. */
  fail(action: Action, ...faults: readonly Fault[]): void
  /** What was to go wrong with an action does not any more. */
  heal(action: Action): void
  /** Ends the leases that there are, for a reason; there is nothing fresh of them then. */
  endLeases(cause: string): void
  /** Ends the task as an operator would. */
  revoke(reason: string): void
  /** Away: connections are refused. */
  close(): Promise<void>
  /** Back, on the same port. */
  reopen(): Promise<void>
}

export async function startFakeBroker(): Promise<FakeBroker> {
  const heard: Heard[] = []
  const faults = new Map<Action | 'unknown', Fault[]>()
  const keys = new Map<string, TaskView>()
  let leases: LeaseView[] = []
  let minted = 0
  let server = await listening(0)
  const { port } = server.address() as AddressInfo

  const after = (ms: number): string => new Date(systemClock() + ms).toISOString()
  const decision = (action: DecisionView['action']): DecisionView => ({
    id: newId('dec'),
    action,
    outcome: 'permit',
    policies: ['everything'],
    policy_digest: `sha256:${'0'.repeat(64)}`,
    obligations: {},
    decided_at: after(0),
  })
  const issued = (lease: LeaseView): IssuedLease => ({
    ...lease,
    issued_at: after(0),
    expires_at: after(Math.min(broker.life.lease, Date.parse(broker.task.deadline) - systemClock())),
    credential: broker.mint(lease.grant),
  })
  const lease = (name: string, parameters: Record<string, string> = {}): LeaseView => ({
    id: newId('lease'),
    task: broker.task.id,
    agent: 'tester',
    owner: 'tester@example.com',
    grant: name,
    provider: 'tokens',
    state: 'active',
    revocation: 'provider',
    parameters,
    expires_at: after(0),
  })

  const work: Record<Action | 'unknown', (id: string, body: never, key: string | undefined) => Answer> = {
    open(_, { kind, purpose = '', grants = [] }: Declaration, key) {
      const known = key === undefined ? undefined : keys.get(key)
      broker.task = known ?? { ...broker.task, id: newId('task'), kind, purpose, opened_at: after(0), deadline: after(broker.life.task) }
      if (key !== undefined) keys.set(key, broker.task)
      const given = grants.map(({ name, parameters }) => issued(lease(name, parameters)))
      leases = given.map(({ credential: _credential, ...view }) => view)
      return [
        201,
        { task: broker.task, task_token: `mft_${broker.task.id}`, decision: decision('issue'), leases: given, receipts: [receiptOf('task.opened')] },
      ]
    },
    show: () => [200, { task: broker.task, leases, decisions: [] }],
    refresh(id) {
      const found = leases.find((one) => one.id === id)
      if (!found || !broker.fresh || found.state !== 'active')
        return [409, { status: 409, code: 'conflict', retry: 'no', detail: 'The provider tokens has no fresh credentials to give' }]
      return [200, { decision: decision('issue'), lease: issued(found), receipts: [receiptOf('lease.refreshed')] }]
    },
    renew() {
      broker.task = { ...broker.task, deadline: after(broker.life.task) }
      return [200, { task: broker.task, decision: decision('renew'), leases }]
    },
    complete() {
      broker.task = { ...broker.task, state: 'completed', cause: 'completed', ended_at: after(0) }
      return [200, { task: broker.task, leases: leases.map((one) => ({ ...one, state: 'revoked', ended_at: after(0) })), ended: true }]
    },
    lease(_, { name, parameters }: { name: string; parameters?: Record<string, string> }) {
      const { credential, ...view } = issued(lease(name, parameters))
      leases = [...leases, view]
      return [201, { decision: decision('issue'), lease: { ...view, credential } }]
    },
    unknown: () => [404, { status: 404, code: 'not_found', retry: 'no', detail: 'There is nothing here for you' }],
  }

  async function listening(at: number): Promise<Server> {
    const made = createServer((request, response) => void answer(request, response))
    // A client that asks again after Node's five seconds would meet the connection as it closes.
    made.keepAliveTimeout = 120_000
    made.listen(at, '127.0.0.1')
    await once(made, 'listening')
    return made
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [action, id] = actionOf(request)
    const body: unknown = JSON.parse((await text(request)) || '{}')
    heard.push({ action, headers: request.headers, body })
    const key = request.headers['idempotency-key'] as string | undefined
    const doIt = (): Answer => work[action](id, body as never, key)
    const fault = faults.get(action)?.shift()
    if (fault) return fault(response, doIt)
    const [status, answered] = doIt()
    const type = status < 400 ? 'application/json' : 'application/problem+json'
    response.writeHead(status, { 'content-type': type, 'x-request-id': 'req-1' }).end(JSON.stringify(answered))
  }

  const broker: FakeBroker = {
    url: `http://127.0.0.1:${port}`,
    heard,
    task: {
      id: newId('task'),
      state: 'open',
      kind: '',
      agent: 'tester',
      owner: 'owner@example.com',
      purpose: '',
      labels: {},
      opened_at: after(0),
      deadline: after(0),
    },
    life: { task: 60_000, lease: 60_000 },
    fresh: true,
    mint: (grant) => ({ type: 'bearer_token', token: `secret-of-${grant}-${++minted}` }),
    count: (action) => heard.filter((one) => one.action === action).length,
    heal: (action) => void faults.delete(action),
    fail: (action, ...more) => void faults.set(action, [...(faults.get(action) ?? []), ...more]),
    endLeases(cause) {
      leases = leases.map((one) => ({ ...one, state: 'expired', cause, ended_at: after(0) }))
    },
    revoke(reason) {
      broker.task = { ...broker.task, state: 'revoked', cause: 'revoked', reason, ended_at: after(0) }
    },
    async close() {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
    async reopen() {
      server = await listening(port)
    },
  }
  return broker
}

function actionOf({ method, url = '' }: IncomingMessage): [Action | 'unknown', string] {
  const [, noun, id = '', verb] = url.split('/')
  if (method === 'POST' && noun === 'tasks' && id === '') return ['open', '']
  if (method === 'GET' && noun === 'tasks') return ['show', id]
  if (noun === 'leases' && verb === 'refresh') return ['refresh', id]
  if (noun === 'tasks' && (verb === 'renew' || verb === 'complete')) return [verb, id]
  return noun === 'tasks' && verb === 'leases' ? ['lease', id] : ['unknown', id]
}
