import { constants, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Actor } from '../../src/identity/actor.ts'
import type { Issuer } from '../../src/identity/issuer.ts'
import { createVerifier, type Verifier } from '../../src/identity/verify.ts'

export const audience = 'https://broker.example.com'
/** Milliseconds. */
export const start = Date.parse('2026-11-24T09:30:00Z')
/** The same in seconds. */
export const now = start / 1_000

export type TestAlgorithm = 'ES256' | 'ES384' | 'RS256' | 'PS256' | 'EdDSA'

export interface SigningKey {
  readonly kid: string
  readonly alg: TestAlgorithm
  readonly jwk: Readonly<Record<string, unknown>>
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

/** A new key, with its public part as an issuer would publish it. */
export function signingKey(kid: string, alg: TestAlgorithm = 'ES256', bits = 2_048): SigningKey {
  const { publicKey, privateKey } = pair(alg, bits)
  return { kid, alg, jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }, publicKey, privateKey }
}

function pair(alg: TestAlgorithm, bits: number) {
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' })
  if (alg === 'ES384') return generateKeyPairSync('ec', { namedCurve: 'P-384' })
  return alg === 'EdDSA' ? generateKeyPairSync('ed25519') : generateKeyPairSync('rsa', { modulusLength: bits })
}

/** A token of any header and payload, well-formed or not: text is taken as it is. */
export function signed(key: SigningKey, payload: object | string, header: object | string = { alg: key.alg, kid: key.kid, typ: 'JWT' }): string {
  const input = `${encoded(header)}.${encoded(payload)}`
  return `${input}.${signature(key, input).toString('base64url')}`
}

export const encoded = (part: object | string): string => Buffer.from(typeof part === 'string' ? part : JSON.stringify(part)).toString('base64url')

function signature({ alg, privateKey }: SigningKey, input: string): Buffer {
  const bytes = Buffer.from(input)
  if (alg === 'EdDSA') return sign(null, bytes, privateKey)
  const digest = alg === 'ES384' ? 'sha384' : 'sha256'
  if (alg.startsWith('ES')) return sign(digest, bytes, { key: privateKey, dsaEncoding: 'ieee-p1363' })
  return alg === 'PS256'
    ? sign(digest, bytes, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
    : sign(digest, bytes, privateKey)
}

/** Claims of a good token of the issuer `https://login.example.com`. */
export const goodClaims = { iss: 'https://login.example.com', sub: 'invoice-bot', aud: audience, iat: now - 60, exp: now + 600, jti: 'one' }

export function corp(key: SigningKey, more: Partial<Issuer> = {}): Issuer {
  return { name: 'corp', profile: 'oidc', issuer: goodClaims.iss, keys: { jwks: { keys: [key.jwk] } }, ...more }
}

/** A verifier with a clock to drive, that remembers what it was told and what was spent. */
export interface Gate {
  readonly verifier: Verifier
  readonly refusals: { readonly reason: string; readonly issuer: string }[]
  readonly spent: Map<string, Date>
  readonly fetches: { readonly issuer: string; readonly outcome: string }[]
  /** Milliseconds since 1970. */
  now: number
  readonly accept: (token: string) => Promise<Actor>
  /** The reason inside. Fails unless it is, outside, the one refusal that all tokens get. */
  readonly refusal: (token: string) => Promise<{ readonly reason: string; readonly issuer: string } | undefined>
}

export const patient = new AbortController().signal

export function gateFor(...issuers: readonly Issuer[]): Gate {
  const refusals: Gate['refusals'] = []
  const fetches: Gate['fetches'] = []
  const spent: Gate['spent'] = new Map()
  const time = { now: start }
  const verifier = createVerifier(issuers, {
    audience,
    clock: () => time.now,
    async spend(key, expiresAt) {
      if (spent.has(key)) return false
      spent.set(key, expiresAt)
      return true
    },
    refused: (reason, issuer) => refusals.push({ reason, issuer }),
    keysFetched: (issuer, outcome) => fetches.push({ issuer, outcome }),
  })
  onTestFinished(() => verifier.close())
  return {
    verifier,
    refusals,
    spent,
    fetches,
    get now() {
      return time.now
    },
    set now(ms) {
      time.now = ms
    },
    accept: (token) => verifier.verify(token, new AbortController().signal),
    async refusal(token) {
      const told = refusals.length
      const error: unknown = await verifier.verify(token, new AbortController().signal).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      expect(error).toBeInstanceOf(BrokerError)
      const { code, detail, message, cause, errors, retryAfter } = error as BrokerError
      expect({ code, detail, message, cause, errors, retryAfter }).toEqual(theOneRefusal)
      expect(refusals.length).toBe(told + 1)
      return refusals.at(-1)
    },
  }
}

const theOneRefusal = {
  code: 'invalid_token',
  detail: 'The workload token was not accepted',
  message: 'invalid_token: The workload token was not accepted',
  cause: undefined,
  errors: [],
  retryAfter: undefined,
}

/** Somebody on loopback who publishes keys, and counts how often it is asked. */
export interface Publisher {
  readonly url: string
  readonly asked: Map<string, number>
  /** What is answered at a path, from now on. */
  answers(path: string, answer: object | string | ((response: ServerResponse) => void)): void
  /** Resolves once a path has been asked for so often. */
  askedFor(path: string, times: number): Promise<void>
  close(): Promise<void>
}

export async function publisher(host = '127.0.0.1'): Promise<Publisher> {
  const answers = new Map<string, object | string | ((response: ServerResponse) => void)>()
  const asked = new Map<string, number>()
  const waiting: (() => void)[] = []
  const server: Server = createServer((request, response) => {
    const path = request.url ?? ''
    asked.set(path, (asked.get(path) ?? 0) + 1)
    waiting.slice().forEach((look) => look())
    const answer = answers.get(path)
    if (typeof answer === 'function') return answer(response)
    if (answer === undefined) return void response.writeHead(404).end()
    response.writeHead(200, { 'content-type': 'application/json' }).end(typeof answer === 'string' ? answer : JSON.stringify(answer))
  })
  await new Promise<void>((resolve) => server.listen(0, host, resolve))
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.closeAllConnections()
      server.close(() => resolve())
    })
  onTestFinished(close)
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    answers: (path, answer) => void answers.set(path, answer),
    askedFor: (path, times) =>
      new Promise((resolve) => {
        const look = (): void => {
          if ((asked.get(path) ?? 0) < times) return
          waiting.splice(waiting.indexOf(look), 1)
          resolve()
        }
        waiting.push(look)
        look()
      }),
    close,
  }
}
