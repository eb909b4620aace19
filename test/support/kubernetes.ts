import { randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import type { Openbao } from './openbao.ts'

/** Seconds: the API server of Kubernetes makes no token for less (`MinTokenAgeSec`). */
const leastLife = 600

/** A service account, as the name of who shows a token of it. */
interface Account {
  readonly namespace: string
  readonly name: string
}

/** What the API was asked, without the tokens in it. */
export interface KubernetesRequest {
  readonly method: string
  readonly path: string
  readonly status: number
}

/** The API of a cluster on loopback, as far as OpenBao asks it for anything: reviews of tokens, accounts, roles, their bindings, and tokens. */
export interface Kubernetes {
  readonly address: string
  /** Who signed its certificate, PEM. */
  readonly ca: string
  /** Makes an account, as an administrator would. */
  account(account: Account): void
  /** Takes away what is there, as an administrator would. @param object as `objects` names it */
  remove(object: string): void
  /** A token of an account that is there, as the platform writes it into the file of a pod. @param audience whom it is meant for */
  issue(account: Account, audience: string): string
  /** From here on no review knows it. */
  withdraw(token: string): void
  /** Whether a review accepts it: issued here, its time not over, and its account still there. */
  accepts(token: string): boolean
  /** Makes no token for longer than so many seconds, whatever it is asked for. */
  limit(seconds: number): void
  /** What is there: `serviceaccounts/apps/deployer`, `roles/apps/…`, `rolebindings/apps/…`. */
  objects(): readonly string[]
  /** What has arrived since it was last forgotten, oldest first. */
  requests(): readonly KubernetesRequest[]
  forget(): void
  stop(): Promise<void>
}

interface Issued extends Account {
  readonly uid: string
  readonly audiences: readonly string[]
  /** Seconds since 1970. */
  readonly exp: number
}

type Answer = readonly [status: number, body: object]

/**
 * A stand-in: its tokens are JWTs that nobody could verify, since a review looks them up. What it refuses a real one refuses too: who asks without a token
 * of its own, an account that is not there, one that is there twice, and a token for less than ten minutes.
 *
 * @param bao has the engine pki with a role `service`, which signs the certificate
 */
export async function startKubernetes(bao: Pick<Openbao, 'root'>): Promise<Kubernetes> {
  const { data } = (await bao.root('POST', 'pki/issue/service', { common_name: 'kubernetes', ip_sans: '127.0.0.1' })).body
  /** The uid of what is there. One that was made anew under the same name has another. */
  const objects = new Map<string, string>()
  const tokens = new Map<string, Issued>()
  let longest = Number.POSITIVE_INFINITY
  let seen: KubernetesRequest[] = []

  const placeOf = ({ namespace, name }: Account): string => `serviceaccounts/${namespace}/${name}`
  const accepts = (token: string): boolean => {
    const issued = tokens.get(token)
    return issued !== undefined && issued.exp > Date.now() / 1_000 && objects.get(placeOf(issued)) === issued.uid
  }

  function issue(account: Account, audiences: readonly string[], seconds: number): string {
    const iat = Math.floor(Date.now() / 1_000)
    const exp = iat + Math.min(seconds, longest)
    const { namespace, name } = account
    const uid = objects.get(placeOf(account))!
    const claims = {
      iss: 'https://kubernetes.default.svc',
      sub: `system:serviceaccount:${namespace}:${name}`,
      aud: audiences,
      iat,
      nbf: iat,
      exp,
      'kubernetes.io': { namespace, serviceaccount: { name, uid } },
    }
    const parts = [{ alg: 'RS256' }, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    const token = [...parts, randomBytes(32).toString('base64url')].join('.')
    tokens.set(token, { ...account, uid, audiences, exp })
    return token
  }

  function review(body: Buffer): Answer {
    const { spec } = JSON.parse(body.toString()) as { spec: { token: string; audiences?: string[] } }
    const issued = accepts(spec.token) ? tokens.get(spec.token) : undefined
    const audiences = issued?.audiences.filter((audience) => spec.audiences?.includes(audience) ?? true) ?? []
    const user = issued && {
      username: `system:serviceaccount:${issued.namespace}:${issued.name}`,
      uid: issued.uid,
      groups: ['system:serviceaccounts'],
    }
    const status = audiences.length > 0 ? { authenticated: true, user, audiences } : { authenticated: false, error: 'invalid bearer token' }
    return [201, { kind: 'TokenReview', apiVersion: 'authentication.k8s.io/v1', status }]
  }

  function create(kind: string, namespace: string, body: Buffer): Answer {
    const name = textOf(messageOf(body), 'metadata', 'name')
    const place = `${kind}/${namespace}/${name}`
    if (objects.has(place)) return refusal(409, 'AlreadyExists')
    const uid = randomUUID()
    objects.set(place, uid)
    const { kind: called, apiVersion } = kinds[kind]!
    return [201, { kind: called, apiVersion, metadata: { name, namespace, uid } }]
  }

  function remove(place: string): Answer {
    return objects.delete(place) ? [200, { kind: 'Status', apiVersion: 'v1', status: 'Success' }] : refusal(404, 'NotFound')
  }

  function tokenFor(account: Account, body: Buffer): Answer {
    if (!objects.has(placeOf(account))) return refusal(404, 'NotFound')
    const seconds = numberOf(messageOf(body), 'spec', 'expirationSeconds')
    if (seconds < leastLife) return refusal(422, 'Invalid')
    const token = issue(account, ['https://kubernetes.default.svc'], seconds)
    const expirationTimestamp = new Date(tokens.get(token)!.exp * 1_000).toISOString()
    return [201, { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', metadata: {}, spec: {}, status: { token, expirationTimestamp } }]
  }

  function answer({ method, url, headers }: IncomingMessage, body: Buffer): Answer {
    if (!accepts(headers.authorization?.replace(/^Bearer /, '') ?? '')) return refusal(401, 'Unauthorized')
    const path = url!.replace(/\?.*$/, '')
    if (method === 'POST' && path === '/apis/authentication.k8s.io/v1/tokenreviews') return review(body)
    const [, namespace = '', kind = '', name = '', below] = /\/v1\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+)(?:\/(token))?)?$/.exec(path) ?? []
    if (!Object.hasOwn(kinds, kind)) return refusal(404, 'NotFound')
    if (method === 'POST' && below === 'token') return tokenFor({ namespace, name }, body)
    if (method === 'POST' && name === '') return create(kind, namespace, body)
    if (method === 'DELETE' && name !== '') return remove(`${kind}/${namespace}/${name}`)
    return refusal(405, 'MethodNotAllowed')
  }

  const server = createServer({ cert: data['certificate'], key: data['private_key'], keepAliveTimeout: 120_000 }, (request, response) => {
    buffer(request)
      .then((body) => {
        const [status, said] = answer(request, body)
        seen.push({ method: request.method!, path: request.url!, status })
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(said))
      })
      .catch(() => request.socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  return {
    address: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    ca: data['issuing_ca']!,
    account: (account) => void objects.set(placeOf(account), randomUUID()),
    remove: (object) => void objects.delete(object),
    issue: (account, audience) => issue(account, [audience], 3_600),
    withdraw: (token) => void tokens.delete(token),
    accepts,
    limit: (seconds) => void (longest = seconds),
    objects: () => [...objects.keys()],
    requests: () => seen,
    forget: () => void (seen = []),
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve))
      server.closeAllConnections()
      await closed
    },
  }
}

const kinds: Readonly<Record<string, { readonly kind: string; readonly apiVersion: string }>> = {
  serviceaccounts: { kind: 'ServiceAccount', apiVersion: 'v1' },
  roles: { kind: 'Role', apiVersion: 'rbac.authorization.k8s.io/v1' },
  rolebindings: { kind: 'RoleBinding', apiVersion: 'rbac.authorization.k8s.io/v1' },
}

const refusal = (code: number, reason: string): Answer => [
  code,
  { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, code, message: reason, details: {} },
]

/*
 * The engine writes its objects as protobuf (`application/vnd.kubernetes.protobuf`): four bytes, then a message whose field 2 is the object
 * (k8s.io/apimachinery/pkg/runtime/generated.proto). Read here as far as it is needed.
 */

/** The numbers of fields that are looked at, of whatever message they are in. */
const numbers = { metadata: 1, name: 1, spec: 2, expirationSeconds: 4 } as const
type Field = keyof typeof numbers

type Value = Buffer | number

function messageOf(body: Buffer): Buffer {
  return fieldOf(body.subarray(4), 2) as Buffer
}

const textOf = (message: Buffer, ...at: readonly Field[]): string => String(valueAt(message, at))
const numberOf = (message: Buffer, ...at: readonly Field[]): number => Number(valueAt(message, at))

const valueAt = (message: Buffer, at: readonly Field[]): Value =>
  at.reduce<Value>((inner, field) => fieldOf(inner as Buffer, numbers[field]), message)

/** The first field of this number. Numbers and bytes alone: nothing else is in these messages. */
function fieldOf(message: Buffer, wanted: number): Value {
  let at = 0
  function varint(): number {
    let [value, scale] = [0, 1]
    for (;;) {
      const byte = message[at++]!
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
      scale *= 0x80
    }
  }
  while (at < message.length) {
    const key = varint()
    const sizeOrNumber = varint()
    const isNumber = key % 8 === 0
    if (key >> 3 === wanted) return isNumber ? sizeOrNumber : message.subarray(at, at + sizeOrNumber)
    if (!isNumber) at += sizeOrNumber
  }
  throw new Error(`no field ${wanted}`)
}
