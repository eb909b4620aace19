import type { Context } from 'hono'
import { readUpTo } from '../base/bytes.ts'
import { BrokerError, requestRefused } from '../base/errors.ts'
import { JsonFault, parseJson } from '../base/json.ts'
import { pointerIn } from './problem.ts'

/** 64 KiB: sixteen grants with every parameter filled take a fifth of it. */
const longestBody = 65_536

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * Reads the body once, within its limit, and refuses what the framework's own reading would let through: bytes that are not UTF-8 (they would
 * become question marks), keys named twice, nesting without end, and the one key that its validators drop unseen. What the validators parse afterwards is this very text.
 *
 * @throws BrokerError `too_large`, `invalid_request`
 */
export async function readBody(c: Context): Promise<void> {
  const text = decode(await bytesOf(c))
  tidyType(c, text)
  if (/^application\/([\w.-]+\+)?json(;|$)/i.test(c.req.header('content-type') ?? '')) refuseLooseJson(text)
  // hono (4.13) keeps promises here, and types them as what they resolve to.
  c.req.bodyCache.text = Promise.resolve(text) as unknown as string
}

/** What the framework (@hono/zod-openapi 1.6) goes by: it looks at the type before it looks whether there is a body, and knows no space before a parameter. */
function tidyType(c: Context, text: string): void {
  const { headers } = c.req.raw
  // Some clients always send one, with nothing behind it: that is no body for calls that need none, and one without its fields for the rest.
  if (text === '') return headers.delete('content-type')
  const type = headers.get('content-type') ?? ''
  if (!/\s;/.test(type)) return
  const parts = type.split(';').map((part) => part.trim())
  headers.set('content-type', parts.join(';'))
}

export const hasBody = ({ req: { method } }: Context): boolean => method !== 'GET' && method !== 'HEAD'

/** zod (4) leaves `__proto__` out of a record without a word, where an unknown key is a fault everywhere else. */
const isKnown = (key: string): boolean => key !== '__proto__'

function refuseLooseJson(text: string): void {
  try {
    parseJson(text, isKnown)
  } catch (error) {
    if (error instanceof JsonFault) throw requestRefused([{ pointer: pointerIn(error.path), message: error.message }])
    throw error
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw requestRefused([{ pointer: '', message: 'is not valid UTF-8' }])
  }
}

const tooLarge = () => new BrokerError('too_large', `The body may have ${longestBody} bytes`)

async function bytesOf(c: Context): Promise<Uint8Array> {
  const declared = c.req.header('content-length')
  // Node itself holds a body to its declared length, so this one can be taken in a piece: half the cost of a stream.
  if (declared !== undefined && c.req.header('transfer-encoding') === undefined) {
    if (Number(declared) > longestBody) throw tooLarge()
    return new Uint8Array(await c.req.raw.arrayBuffer())
  }
  const body = await readUpTo(c.req.raw.body ?? [], longestBody)
  if (!body) throw tooLarge()
  return body
}
