import { randomUUID } from 'node:crypto'
import { z, type ZodType } from 'zod'
import { isLoopback } from '../base/address.ts'
import type * as contract from '../http/contract.ts'
import { held, type HeldLease } from './credential.ts'
import { type ClientCertificate, type Fetch, fetchShowing } from './mutual-tls.ts'
import { BrokerUnreachable, MayflyProblem, receiptsIn } from './problem.ts'
import { type Answer, type Call, send, type TransportOptions, usual } from './transport.ts'
import { type OpenTask, openTask } from './task.ts'

export { Credential, type HeldLease } from './credential.ts'
export { certificateFault, type ClientCertificate } from './mutual-tls.ts'
export { BrokerUnreachable, MayflyProblem } from './problem.ts'
export type { OpenTask } from './task.ts'

export interface ClientOptions {
  /** Where the broker is. Plain http only on loopback, or with `allowHttp`. */
  readonly url: string
  /** The workload token, or how to get it: a function is called at each use, so that a rotated token is found. */
  readonly token: string | (() => Promise<string>)
  /** The client certificate, if the broker requires one. Called at each use, so that a rotated one is found. Needs an https URL. */
  readonly certificate?: () => Promise<ClientCertificate>
  /** Milliseconds for one try; 15,000 where absent, 35,000 of what mints, and 35,000 more of what starts a revocation or a stop, longer than a broker works at a request by its default. Less: what it opens after that, nobody receives. */
  readonly timeout?: number
  /** Milliseconds for all tries of a call, the longest of them not counted; 10,000 where absent. */
  readonly patience?: number
  /** Tokens and secrets in clear text over a network: for a mesh that encrypts by itself, and nothing else. */
  readonly allowHttp?: boolean
  /**
   * Told of the receipts of each answer as it comes, of refusals too: keep them where the broker cannot reach, and a reviewer can hold it to what it said.
   * Called before the answer is given back; what it throws is thrown.
   */
  readonly keep?: (receipts: readonly contract.ReceiptView[]) => void
}

/** A lease that was issued, or issued anew. */
export type AddedLease = Omit<contract.AddedLease, 'lease'> & { readonly lease: HeldLease }

export type Filter = Readonly<Record<string, string | number | boolean | undefined>>

/**
 * The broker's API. Every call throws MayflyProblem (the broker said no) or BrokerUnreachable (it said nothing), after the retries that make sense.
 *
 * Answers are typed as a broker of this version gives them. One of another version may leave out what is not needed to go on, and say more.
 */
export interface Client {
  readonly url: string
  /**
   * Declares a task. The key is made here and kept over retries, so that a lost answer costs nothing. Where it throws, the key stands in `idempotencyKey` of the
   * error: give it to the next `open` of the same, and a task whose answer was lost is that one's. Bring a key of your own where `signal` may fire, or `keep` throw.
   */
  open(declaration: contract.Declaration, options?: { key?: string; signal?: AbortSignal }): Promise<OpenTask>
  showTask(id: string, token?: string, signal?: AbortSignal): Promise<contract.ShownTask>
  addLease(id: string, grant: contract.GrantRequest, token?: string, signal?: AbortSignal): Promise<AddedLease>
  refreshLease(id: string, token?: string, signal?: AbortSignal): Promise<AddedLease>
  renewTask(id: string, asked: contract.RenewRequest, signal?: AbortSignal): Promise<contract.RenewedTask>
  /** @param wait seconds, at most 30 */
  completeTask(id: string, options?: { wait?: number; token?: string; signal?: AbortSignal }): Promise<contract.ClosedTask>
  revokeTask(id: string, reason: string, wait?: number): Promise<contract.ClosedTask>
  showLease(id: string, token?: string): Promise<contract.LeaseView>
  revokeLease(id: string, reason?: string, wait?: number, token?: string): Promise<contract.ClosedLease>
  listTasks(filter?: Filter): Promise<contract.Page<contract.TaskView>>
  listLeases(filter?: Filter): Promise<contract.Page<contract.LeaseView>>
  listEntries(filter?: Filter): Promise<contract.Page<contract.EntryView>>
  /** One page of the ledger as text, and the cursor of the next. */
  exportEntries(form: 'application/x-ndjson' | 'text/csv', filter?: Filter): Promise<{ text: string; next: string | undefined }>
  /** Decisions that said no. */
  listDenials(filter?: Filter): Promise<contract.Page<contract.DenialView>>
  /** The logs that the history was signed into, oldest first, each with its newest or final checkpoint. None: nothing was signed yet. */
  listLogs(): Promise<contract.Logs>
  /** Lines of the log behind the entry with this number, or from the beginning: what `proof/lines` reads. Empty behind the end. */
  readLog(after: number | undefined): Promise<string>
  /** What proves that an entry is in the log (C2SP tlog-proof). An entry gets its place a second or two after it was written; before, it is `not_found`. */
  showProof(entry: string): Promise<string>
  showPolicySet(digest: string): Promise<contract.PolicySetView>
  showDecision(id: string): Promise<contract.DecisionDetail>
  replayDecision(id: string): Promise<contract.ReplayView>
  /** Shows what a bulk revocation would end. */
  planRevocation(selector: contract.Selector): Promise<contract.RevocationPlan>
  /** Starts it; it goes on by itself. Without an answer it may have started all the same: look at `listRevocations` before asking again. */
  startRevocation(request: contract.RevocationRequest): Promise<contract.StartedRevocation>
  showRevocation(id: string): Promise<contract.RevocationView>
  listRevocations(filter?: Filter): Promise<contract.Page<contract.RevocationView>>
  /** Where no answer came it may have been put: look at `listStops` before asking again. */
  stopIssuing(request: contract.StopRequest): Promise<contract.ChangedStop>
  listStops(filter?: Filter): Promise<contract.Page<contract.StopView>>
  resumeIssuing(stop: string, reason: string): Promise<contract.ChangedStop>
  introspect(token: string): Promise<contract.Introspection>
}

/** @throws TypeError for a URL over which tokens must not travel, and for one over which a client certificate cannot be shown */
export function createClient({ token, certificate, keep = () => {}, ...options }: ClientOptions): Client {
  const url = checkedUrl(options.url, options.allowHttp ?? false)
  if (certificate !== undefined && !url.startsWith('https:')) throw new TypeError('a client certificate needs a URL of https')
  const transport: TransportOptions = {
    url,
    timeout: options.timeout ?? usual.timeout,
    mintTimeout: options.timeout ?? usual.mintTimeout,
    patience: options.patience ?? usual.patience,
    token: typeof token === 'string' ? async () => token : token,
    fetch: certificate === undefined ? async () => plainFetch : fetchShowing(certificate),
  }

  async function ask<Shape>(call: Call, shape: ZodType): Promise<Shape> {
    try {
      const answer = parse(url, call, await send(transport, call), shape)
      keepAll(keep, answer)
      return answer as Shape
    } catch (error) {
      if (error instanceof MayflyProblem) keepAll(keep, error)
      throw error
    }
  }
  /**
   * A further credential of a task, for which its token speaks. Where policies see more of the workload by now than was kept with the task, the broker asks for
   * the workload token, and gets it.
   */
  async function askForMore(call: Call, bearer: string | undefined): Promise<contract.AddedLease> {
    try {
      return await ask({ ...call, ...withToken(bearer) }, issuing)
    } catch (error) {
      if (bearer === undefined || !(error instanceof MayflyProblem) || error.code !== 'forbidden') throw error
      return await ask(call, issuing)
    }
  }
  const get = <Shape>(path: string, shape: ZodType, bearer?: string, signal?: AbortSignal): Promise<Shape> =>
    ask<Shape>({ method: 'GET', path, repeatable: true, ...withToken(bearer), signal }, shape)
  const post = (path: string, body: object, repeatable: boolean, more: Partial<Call> = {}): Call => ({
    method: 'POST',
    path,
    body,
    repeatable,
    ...more,
  })

  const client: Client = {
    url,
    async open(declaration, { key: idempotencyKey = randomUUID(), signal } = {}) {
      return openTask(client, await ask<contract.OpenedTask>(post('/tasks', declaration, true, { idempotencyKey, signal, mints: true }), opening))
    },
    showTask: (id, bearer, signal) => get(`/tasks/${encodeURIComponent(id)}`, shownTask, bearer, signal),
    async addLease(id, grant, bearer, signal) {
      const { lease, ...added } = await askForMore(post(`/tasks/${encodeURIComponent(id)}/leases`, grant, false, { signal, mints: true }), bearer)
      return { ...added, lease: held(lease) }
    },
    async refreshLease(id, bearer, signal) {
      const { lease, ...refreshed } = await askForMore(post(`/leases/${encodeURIComponent(id)}/refresh`, {}, true, { signal, mints: true }), bearer)
      return { ...refreshed, lease: held(lease) }
    },
    renewTask: (id, asked, signal) => ask(post(`/tasks/${encodeURIComponent(id)}/renew`, asked, true, { signal }), renewed),
    completeTask: (id, { wait = 5, token: bearer, signal } = {}) =>
      ask(post(`/tasks/${encodeURIComponent(id)}/complete`, {}, true, { ...waiting(wait), ...withToken(bearer), signal }), closedTask),
    revokeTask: (id, reason, wait = 5) => ask(post(`/tasks/${encodeURIComponent(id)}/revoke`, { reason }, true, waiting(wait)), closedTask),
    showLease: (id, bearer) => get(`/leases/${encodeURIComponent(id)}`, stated, bearer),
    revokeLease: (id, reason, wait = 5, bearer) =>
      ask(
        post(`/leases/${encodeURIComponent(id)}/revoke`, reason === undefined ? {} : { reason }, true, { ...waiting(wait), ...withToken(bearer) }),
        closedLease,
      ),
    listTasks: (filter = {}) => get(`/tasks${queryOf(filter)}`, page),
    listLeases: (filter = {}) => get(`/leases${queryOf(filter)}`, page),
    listEntries: (filter = {}) => get(`/ledger${queryOf(filter)}`, page),
    async exportEntries(form, filter = {}) {
      const answer = await send(transport, { method: 'GET', path: `/ledger${queryOf(filter)}`, headers: { accept: form }, repeatable: true })
      // The page of a proxy that asks who one is would be kept as what the ledger says.
      if (answer.headers.get('content-type')?.split(';', 1)[0]!.trim().toLowerCase() !== form) throw new BrokerUnreachable(url, notABroker)
      return { text: answer.text, next: nextCursor(answer) }
    },
    listDenials: (filter = {}) => get(`/denials${queryOf(filter)}`, denials),
    listLogs: () => get('/ledger/logs', logs),
    readLog: async (after) => (await send(transport, { method: 'GET', path: `/ledger/log${queryOf({ after })}`, repeatable: true })).text,
    showProof: async (entry) => (await send(transport, { method: 'GET', path: `/ledger/${encodeURIComponent(entry)}/proof`, repeatable: true })).text,
    showPolicySet: (digest) => get(`/policies/${encodeURIComponent(digest)}`, policySet),
    showDecision: (id) => get(`/decisions/${encodeURIComponent(id)}`, decided),
    replayDecision: (id) => get(`/decisions/${encodeURIComponent(id)}/replay`, replayed),
    planRevocation: (selector) => ask(post('/revocations', { selector, dry_run: true }, true), plan),
    startRevocation: (request) => ask(post('/revocations', request, false, starting), stated),
    showRevocation: (id) => get(`/revocations/${encodeURIComponent(id)}`, stated),
    listRevocations: (filter = {}) => get(`/revocations${queryOf(filter)}`, page),
    stopIssuing: (request) => ask(post('/stops', request, false, starting), stop),
    listStops: (filter = {}) => get(`/stops${queryOf(filter)}`, page),
    resumeIssuing: (id, reason) => ask(post(`/stops/${encodeURIComponent(id)}/lift`, { reason }, false), stop),
    introspect: (subject) => ask({ method: 'POST', path: '/introspect', form: { token: subject }, repeatable: true }, introspection),
  }
  return client
}

// What an answer must have for whoever asked to go on, and to be told from what is no broker at all. Everything else may be absent, as with a broker of an older
// version, or be of a kind that is not known here, as with one of a newer: it is let through as it came.
const receipts = z.unknown().transform(receiptsIn)
const anObject = z.looseObject({ receipts: receipts.optional() })
const stated = anObject.extend({ id: z.string(), state: z.string() })
const closed = anObject.extend({ task: stated, leases: z.array(stated) })
const shownTask = closed.extend({ decisions: z.array(anObject).default([]) })
// Of a decision that permitted, what was permitted is needed, and nothing of why.
const decision = anObject.extend({ policies: z.array(z.string()).default([]) }).prefault({})
const renewed = anObject.extend({ task: z.looseObject({ id: z.string(), deadline: z.string() }), decision })
const closedTask = closed.extend({ ended: z.boolean() })
const closedLease = anObject.extend({ lease: stated, ended: z.boolean() })
// Absent where a broker has no more to give, as null is.
const page = anObject.extend({ items: z.array(anObject), next: z.string().nullable().default(null) })
const logs = anObject.extend({ items: z.array(z.looseObject({ origin: z.string(), first: z.number(), checkpoint: z.string() })) })
const policySet = anObject.extend({ digest: z.string() })
const judged = anObject.extend({ denied: z.array(anObject).default([]) })
const denials = page.extend({ items: z.array(judged) })
const decided = anObject.extend({ id: z.string(), outcome: z.string(), answers: z.array(anObject).default([]) })
const replayed = anObject.extend({ decision: decided, archived: judged, current: judged })
// What a person has to read before they confirm. `confirm` is needed by nobody who confirms the count.
const plan = anObject.extend({ tasks: z.number(), leases: z.array(anObject), count: z.number() })
const stop = anObject.extend({ id: z.string(), selector: anObject })
const introspection = z.looseObject({ active: z.boolean() })
const leased = z.looseObject({ id: z.string(), grant: z.string(), expires_at: z.string(), credential: z.looseObject({ type: z.string() }) })
const opening = anObject.extend({
  task: z.looseObject({ id: z.string(), deadline: z.string() }),
  task_token: z.string(),
  decision,
  leases: z.array(leased),
})
const issuing = anObject.extend({ decision, lease: leased })

const notABroker = 'what answered is not a broker'

/** A broker that is older gives none. */
function keepAll(keep: NonNullable<ClientOptions['keep']>, { receipts }: { readonly receipts?: readonly contract.ReceiptView[] }): void {
  if (receipts !== undefined && receipts.length > 0) keep(receipts)
}

function parse(url: string, { idempotencyKey }: Call, { text }: Answer, shape: ZodType): { readonly receipts?: readonly contract.ReceiptView[] } {
  try {
    return shape.parse(JSON.parse(text)) as ReturnType<typeof parse>
  } catch {
    // Without the cause: the text may hold a secret.
    throw new BrokerUnreachable(url, notABroker, { idempotencyKey })
  }
}

/** Not followed anywhere, since the token would travel along. */
const plainFetch: Fetch = async (url, how) => {
  const { status, headers, body } = await fetch(url, { ...how, redirect: 'manual' })
  return { status, headers, body: body as AsyncIterable<Uint8Array> | null }
}

const withToken = (token: string | undefined): { token?: string } => (token === undefined ? {} : { token })

const starting: Partial<Call> = { extraTime: usual.startTimeout - usual.timeout }

const waiting = (seconds: number): Partial<Call> => ({ headers: { prefer: `wait=${seconds}` }, extraTime: seconds * 1_000 })

function queryOf(filter: Filter): string {
  const set = Object.entries(filter).filter(([, value]) => value !== undefined)
  return set.length === 0 ? '' : `?${new URLSearchParams(set.map(([name, value]): [string, string] => [name, String(value)])).toString()}`
}

function nextCursor({ headers }: Answer): string | undefined {
  const [, target] = /^<([^>]+)>; rel="next"$/.exec(headers.get('link') ?? '') ?? []
  return target === undefined ? undefined : (new URL(target, 'http://broker.invalid').searchParams.get('cursor') ?? undefined)
}

function checkedUrl(text: string, allowHttp: boolean): string {
  if (!URL.canParse(text)) throw new TypeError('the URL of the broker is not a URL')
  const { protocol, hostname, href, username, password, search, hash } = new URL(text)
  // What is asked for stands behind it.
  if (search || hash || /[?#]$/.test(text)) throw new TypeError('the URL of the broker must end with its path, without ? or #')
  if (username || password) throw new TypeError('the URL of the broker must not hold a name or a password')
  if (protocol !== 'https:' && !(protocol === 'http:' && (isLoopback(hostname) || allowHttp))) {
    throw new TypeError('tokens travel to the broker: its URL must be https, or http on loopback')
  }
  return href.replace(/\/+$/, '')
}
