import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { Account, identifier, secretKey, type Undocumented } from './account.ts'
import { Faults } from './faults.ts'
import { type GivenSession, givenSession } from './given.ts'
import { callIam } from './iam.ts'
import { Form, queryAnswer, queryRefusal } from './query.ts'
import { Refusal } from './refusal.ts'
import { callS3, type S3Answer } from './s3.ts'
import { type ServiceName, serviceOf, type SignedRequest, signer } from './sigv4.ts'
import { callSts } from './sts.ts'
import { assumeRoleWithWebIdentity } from './web-identity.ts'
import { xml, type Xml } from './xml.ts'

/** A request that arrived, without anything secret that was in it. */
export interface SeenCall {
  readonly service: ServiceName
  /** The action of STS and IAM; method and path of S3. */
  readonly action: string
  /** The id of the key that signed; undefined where nothing did. */
  readonly key: string | undefined
}

/** STS, IAM and a little S3 of one account, at one address of the loopback. It refuses what AWS documents to be refused. */
export interface AwsPeer extends AsyncDisposable {
  /** For `endpoint`, or AWS_ENDPOINT_URL; of S3 with `forcePathStyle`. */
  readonly url: string
  readonly region: string
  readonly account: string
  /** Of the account's root user, who may do everything but assume roles that do not trust the account. */
  readonly root: { readonly accessKeyId: string; readonly secretAccessKey: string }
  readonly faults: Faults
  readonly undocumented: Undocumented
  /** What has arrived, oldest first. */
  readonly calls: readonly SeenCall[]
  /** Every session that it gave, oldest first. */
  given(): readonly GivenSession[]
  /** The default version of a managed policy, as it was last written. */
  document(arn: string): string
  /** Moves this AWS's clock, by which sessions end and policies are heeded. Milliseconds. */
  advance(milliseconds: number): void
  /** Milliseconds since the epoch, as this AWS has it. */
  now(): number
  stop(): Promise<void>
}

/** @param about `clock` is the machine's in milliseconds since the epoch unless it is given; `port` is any that is free unless it is given */
export async function startAwsPeer(about: { readonly clock?: () => number; readonly port?: number } = {}): Promise<AwsPeer> {
  let ahead = 0
  const now = () => (about.clock ?? Date.now)() + ahead
  const faults = new Faults(now)
  const account = new Account(now, () => faults.delay)
  const root = { id: identifier('AKIA'), secret: secretKey(), owner: 'root' as const }
  account.keys.set(root.id, root)
  const calls: SeenCall[] = []

  const server = createServer((incoming, response) => {
    // Who hangs up in the middle of a request is owed nothing.
    answer({ account, faults, calls }, incoming, response).catch(() => response.destroy())
  })
  // A client that asks again after Node's five seconds would meet the connection as it closes.
  server.keepAliveTimeout = 120_000
  await new Promise<void>((resolve) => server.listen(about.port ?? 0, '127.0.0.1', resolve))

  function at<Seen>(moment: number, look: () => Seen): Seen {
    const before = ahead
    ahead += moment - now()
    const seen = look()
    ahead = before
    return seen
  }

  async function stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => (server.listening ? server.close(() => resolve()) : resolve()))
    server.closeAllConnections()
    await closed
  }
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'us-east-1',
    account: account.id,
    root: { accessKeyId: root.id, secretAccessKey: root.secret },
    faults,
    undocumented: account.undocumented,
    calls,
    given: () => [...account.sessions.values()].map((session) => givenSession(account, session, at)),
    document: (arn) => account.policies.get(arn)!.current.latest.policy.text,
    advance(milliseconds) {
      ahead += milliseconds
    },
    now,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

interface House {
  readonly account: Account
  readonly faults: Faults
  readonly calls: SeenCall[]
}

async function answer(house: House, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const request: SignedRequest = {
    method: incoming.method ?? '',
    target: incoming.url ?? '/',
    headers: incoming.headers,
    body: await buffer(incoming),
  }
  // What nobody signed goes to STS, which is the only one to have actions for nobody.
  const service = serviceOf(request) ?? (request.target === '/' && request.method === 'POST' ? 'sts' : 's3')
  const action = service === 's3' ? `${request.method} ${request.target.replace(/\?.*/s, '')}` : new Form(request.body.toString()).action
  const key = /Credential=([^/]+)/.exec(request.headers.authorization ?? '')?.[1]
  house.calls.push({ service, action, key })
  try {
    const fault = house.faults.meet(service, action)
    if (fault === 'hangs') return
    if (fault === 'resets') return void incoming.socket.resetAndDestroy()
    const answered = await serve(house, service, request)
    if (fault === 'keeps the answer') return
    if (fault === 'loses the answer') return void incoming.socket.resetAndDestroy()
    send(house, response, fault === 'pads the answer' ? padded(answered) : answered)
  } catch (error) {
    send(house, response, refused(service, error instanceof Refusal ? error : new Refusal('InternalFailure', String(error), 500)))
  }
}

const namespaces = { sts: 'https://sts.amazonaws.com/doc/2011-06-15/', iam: 'https://iam.amazonaws.com/doc/2010-05-08/' }

async function serve({ account, faults }: House, service: ServiceName, request: SignedRequest): Promise<S3Answer> {
  const form = new Form(service === 's3' ? '' : request.body.toString())
  if (form.action === 'AssumeRoleWithWebIdentity') return queried(service, form.action, await assumeRoleWithWebIdentity(account, form))
  const caller = await signer(account, request, Date.now() + faults.skew)
  if (service === 's3') return callS3(account, caller, request)
  const result = service === 'iam' ? callIam(account, caller, form) : callSts(account, caller, form)
  return queried(service, form.action, result)
}

function queried(service: ServiceName, action: string, result: Xml): S3Answer {
  return {
    status: 200,
    headers: { 'content-type': 'text/xml' },
    body: queryAnswer(action, service === 'iam' ? namespaces.iam : namespaces.sts, result),
  }
}

/** White space, which is no part of what XML says. */
const padded = (answer: S3Answer): S3Answer => ({ ...answer, body: `${String(answer.body)}${' '.repeat(1_048_576)}` })

function refused(service: ServiceName, refusal: Refusal): S3Answer {
  const { code: Code, message: Message, status } = refusal
  const body = service === 's3' ? xml('Error', { Code, Message }) : queryRefusal(refusal)
  return { status, headers: { 'content-type': service === 's3' ? 'application/xml' : 'text/xml' }, body }
}

function send({ faults }: House, response: ServerResponse, { status, headers, body }: S3Answer): void {
  const date = new Date(Date.now() + faults.skew).toUTCString()
  response.writeHead(status, { ...headers, date, 'content-length': String(Buffer.byteLength(body ?? '')) }).end(body)
}
