import { lookup as resolve } from 'node:dns'
import { type ClientRequest, type IncomingMessage, request as plainRequest } from 'node:http'
import { request as secureRequest } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { type Json, parseJson } from '../base/json.ts'
import { mayConnect, withoutBrackets } from './address.ts'

/** Bytes of an answer. The largest key set in the wild (Azure's, with certificates) has about 20 KiB. */
const largest = 65_536

/** Milliseconds for a whole answer, name resolution included. Somebody may be waiting for it with a token. */
const patience = 2_000

/**
 * Gets one JSON document: no redirect, 64 KiB, two seconds, and no address inside of our own network unless that is allowed.
 *
 * A timer of our own, since Node 20 can collect the signal of AbortSignal.any before it fires (nodejs/node issue 57736).
 *
 * @throws Error that says what failed, in words for operators
 */
export function fetchJson(address: string, allowPrivate: boolean, stop: AbortSignal): Promise<Json> {
  const url = new URL(address)
  return new Promise((accept, reject) => {
    let request: ClientRequest | undefined
    const fail = (message: string): void => {
      settled()
      reject(new Error(message))
      request?.destroy()
    }
    const stopped = (): void => fail('the broker stops')
    const timer = setTimeout(() => fail(`no answer within ${patience} ms`), patience).unref()
    const settled = (): void => {
      clearTimeout(timer)
      stop.removeEventListener('abort', stopped)
    }
    if (stop.aborted) return stopped()
    stop.addEventListener('abort', stopped)

    // For an address there is no lookup in which it could be checked.
    const host = withoutBrackets(url.hostname)
    if (isIP(host) !== 0 && !mayConnect(host, url.hostname, allowPrivate)) return fail(refusedAddress)

    const open = url.protocol === 'https:' ? secureRequest : plainRequest
    // A connection for this one answer: it is asked for every few minutes, and each new one has its address checked.
    request = open(url, {
      agent: false,
      headers: { accept: 'application/json', 'user-agent': 'mayfly' },
      lookup: guarded(url.hostname, allowPrivate),
    })
    request.on('error', (error) => fail(error.message))
    request.on('response', (response) =>
      read(response, fail, (body) => {
        settled()
        accept(body)
      }),
    )
    request.end()
  })
}

const refusedAddress = 'its address is inside of a private network, which allow_private would permit'

/** Resolves a name, and answers only when all of its addresses may be connected to: the connection is made to the very addresses that were checked. */
function guarded(host: string, allowPrivate: boolean): LookupFunction {
  return (name, options, answer) => {
    resolve(name, { ...options, all: true }, (error, addresses) => {
      const [first] = addresses ?? []
      if (error || !first) return answer(error ?? new Error('the name has no address'), '')
      if (!addresses.every(({ address }) => mayConnect(address, host, allowPrivate))) return answer(new Error(refusedAddress), '')
      if (options.all) answer(null, addresses)
      else answer(null, first.address, first.family)
    })
  }
}

function read(response: IncomingMessage, fail: (message: string) => void, done: (body: Json) => void): void {
  if (response.statusCode !== 200) return fail(`the answer has status ${response.statusCode}`)
  const chunks: Buffer[] = []
  let size = 0
  response.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size > largest) return fail(`the answer is larger than ${largest} bytes`)
    chunks.push(chunk)
  })
  response.on('error', () => fail('the connection was lost'))
  response.on('end', () => {
    let body: Json
    try {
      body = parseJson(Buffer.concat(chunks).toString('utf8'))
    } catch {
      return fail('the answer is not JSON, or names a key twice')
    }
    done(body)
  })
}
