import { createHash, createHmac, type Hash, type Hmac, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { SignatureV4 } from '@smithy/signature-v4'
import type { Account } from './account.ts'
import type { Caller } from './caller.ts'
import { Refusal } from './refusal.ts'

export type ServiceName = 'sts' | 'iam' | 's3'

export interface SignedRequest {
  readonly method: string
  /** Path and query as they came over the wire. */
  readonly target: string
  readonly headers: IncomingHttpHeaders
  readonly body: Buffer
}

const form = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/(sts|iam|s3)\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/

/** The service for which a request was signed; undefined where it was not signed at all. */
export const serviceOf = (request: SignedRequest) => form.exec(request.headers.authorization ?? '')?.[4] as ServiceName | undefined

/**
 * Who signed a request. The end of a session is a matter of the account's clock.
 * @param now milliseconds since the epoch, by which the age of a signature is measured: the machine's clock, as whoever signs goes by that
 * @throws Refusal as STS and IAM, or as S3 would
 */
export async function signer(account: Account, request: SignedRequest, now: number): Promise<Caller> {
  const [, keyId = '', , region = '', service = '', signed = '', signature = ''] = form.exec(request.headers.authorization ?? '') ?? []
  const ofS3 = service === 's3'
  const known = account.keys.get(keyId)
  const session = account.sessions.get(keyId)
  const token = request.headers['x-amz-security-token']
  const key = known ?? session
  // A session's key is unknown without its token.
  if (!key || (session && token === undefined))
    throw ofS3
      ? new Refusal('InvalidAccessKeyId', 'The AWS Access Key Id you provided does not exist in our records.', 403)
      : new Refusal('InvalidClientTokenId', 'The security token included in the request is invalid.', 403)
  if (token !== session?.token)
    throw ofS3
      ? new Refusal('InvalidToken', 'The provided token is malformed or otherwise invalid.', 400)
      : new Refusal('InvalidClientTokenId', 'The security token included in the request is invalid.', 403)

  const date = dateOf(request)
  await checkSignature(request, { keyId, secret: key.secret, region, service, signed: signed.split(';'), signature, date })
  if (Math.abs(now - date.getTime()) > (ofS3 ? 15 : 5) * 60_000)
    throw ofS3
      ? new Refusal('RequestTimeTooSkewed', "The difference between the request time and the server's time is too large.", 403)
      : new Refusal('SignatureDoesNotMatch', `Signature expired: ${date.toISOString()}`, 403)
  if (!session) return known!.owner === 'root' ? { kind: 'root' } : { kind: 'user', user: known!.owner }
  if (session.expiresAt <= account.now())
    throw ofS3
      ? new Refusal('ExpiredToken', 'The provided token has expired.', 400)
      : new Refusal('ExpiredToken', 'The security token included in the request is expired', 403)
  return { kind: 'session', session }
}

function dateOf(request: SignedRequest): Date {
  const [, year, month, day, hour, minute, second] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(request.headers['x-amz-date'])) ?? []
  if (!year) throw new Refusal('IncompleteSignature', "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
}

interface Claim {
  readonly keyId: string
  readonly secret: string
  readonly region: string
  readonly service: string
  readonly signed: readonly string[]
  readonly signature: string
  readonly date: Date
}

/** Signs the request anew with the key that is on record, and compares. */
async function checkSignature(request: SignedRequest, claim: Claim): Promise<void> {
  const mismatch = () =>
    new Refusal('SignatureDoesNotMatch', 'The request signature we calculated does not match the signature you provided. Check your key.', 403)
  if (!claim.signed.includes('host')) throw mismatch()
  const declared = request.headers['x-amz-content-sha256']
  if (/^[0-9a-f]{64}$/.test(String(declared)) && declared !== createHash('sha256').update(request.body).digest('hex')) throw mismatch()

  const [path = '/', search = ''] = request.target.split(/\?(.*)/s)
  const signatures = new SignatureV4({
    credentials: {
      accessKeyId: claim.keyId,
      secretAccessKey: claim.secret,
      ...(claim.signed.includes('x-amz-security-token') && { sessionToken: String(request.headers['x-amz-security-token']) }),
    },
    region: claim.region,
    service: claim.service,
    sha256: Sha256,
    uriEscapePath: claim.service !== 's3',
    applyChecksum: false,
  })
  // Whatever was not signed is left out: the signer would sign more of them than who sent this did.
  const headers = Object.fromEntries(claim.signed.map((name) => [name, String(request.headers[name])]))
  const again = await signatures.sign(
    { method: request.method, protocol: 'http:', hostname: '127.0.0.1', path, query: queryOf(search), headers, body: request.body },
    { signingDate: claim.date, signableHeaders: new Set(claim.signed) },
  )
  const [, , , , , , expected = ''] = form.exec(again.headers.authorization ?? '') ?? []
  if (expected.length !== 64 || !timingSafeEqual(Buffer.from(expected), Buffer.from(claim.signature))) throw mismatch()
}

/** A `+` is a plus sign here: it is not a form. */
function queryOf(search: string): Record<string, string | string[]> {
  const found: Record<string, string | string[]> = {}
  for (const part of search.split('&').filter(Boolean)) {
    const [name = '', value = ''] = part.split(/=(.*)/s).map(decodeURIComponent)
    found[name] = name in found ? [found[name]!, value].flat() : value
  }
  return found
}

class Sha256 {
  #state: Hash | Hmac
  readonly #start: () => Hash | Hmac

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#start = () => (secret === undefined ? createHash('sha256') : createHmac('sha256', secret as string | NodeJS.ArrayBufferView))
    this.#state = this.#start()
  }
  update(data: Uint8Array | string): void {
    this.#state.update(data)
  }
  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#state.digest())
  }
  reset(): void {
    this.#state = this.#start()
  }
}
