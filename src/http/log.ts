import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context, MiddlewareHandler } from 'hono'
import { accepts } from 'hono/accepts'
import { BrokerError } from '../base/errors.ts'
import type { LogKey } from '../ledger/log-key.ts'
import { readLogLines } from '../ledger/log-lines.ts'
import { latestCheckpoint } from '../ledger/log.ts'
import { proveEntry, readTile } from '../ledger/proofs.ts'
import { type LogLine, lineText } from '../proof/lines.ts'
import { proofText } from '../proof/entry-proof.ts'
import { parseTilePath, tileWidth } from '../proof/tiles.ts'
import type { Broker } from '../tasks/task.ts'
import { problems } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy } from './authenticate.ts'
import { type Following, formats, forms } from './follow.ts'
import { fieldFaults } from './problem.ts'
import * as contract from './contract.ts'

/** With what the log of this broker is signed, and what it is called if it begins now. */
export interface LogName {
  readonly key: LogKey
  readonly origin: string
}

/** The log as tlog-tiles (C2SP), and what reviewers need besides to check the history behind it. All of it is read by bearer, so it is `private`. */
export function logRoutes(broker: Broker, log: LogName, following: Following) {
  const { ledger } = broker
  const routes = new OpenAPIHono<Env>()
    .openapi(checkpoint, async (c) => {
      const head = await latestCheckpoint(ledger)
      if (!head) throw new BrokerError('not_found', 'Nothing was signed yet: the log begins with the first entry')
      return c.body(head.note, 200, { 'content-type': text, 'cache-control': 'private, no-cache' })
    })
    .openapi(key, async (c) => {
      const head = await latestCheckpoint(ledger)
      // A log that has begun keeps its name, whatever the broker is called now.
      const signer = await log.key.signerFor(head ? head.note.slice(0, head.note.indexOf('\n')) : log.origin, c.var.signal)
      if (!signer) throw new BrokerError('internal', 'The log has a name that no key can have')
      return c.body(`${signer.key.text}\n`, 200, { 'content-type': text, 'cache-control': 'private, no-cache' })
    })
    .openapi(proof, async (c) => {
      const proven = await proveEntry(ledger, c.req.valid('param').entry)
      if (proven === undefined) throw new BrokerError('not_found', 'There is no such entry')
      if (proven === 'waiting') throw new BrokerError('not_found', 'The entry has no place in the log yet: it gets one within seconds')
      return c.body(proofText(proven), 200, { 'content-type': text })
    })
    .openapi(lines, async (c) => {
      const { after, limit } = c.req.valid('query')
      const found = await readLogLines(ledger, after === undefined ? 0 : Number(after) + 1, limit === undefined ? mostLines : Number(limit))
      // The framework (1.6) has no type for answers of this media type that stand alone.
      return c.body(asPage(found), 200, { 'content-type': 'application/x-ndjson' }) as never
    })
  // Described by hand: the place of a tile is several segments of its path, for which OpenAPI has no word.
  routes.openAPIRegistry.registerPath({ ...tile, path: '/tile/{level}/{place}' })
  const [authenticate] = callableBy(reader).middleware
  routes.get('/ledger', whereFollowed(authenticate), async (c, next) => {
    if (!isFollowed(c)) return await next()
    return followFrom(c, following)
  })
  routes.get('/tile/:path{.+}', ...tile.middleware, async (c) => await serveTile(c, ledger))
  return routes
}

/** Bytes of a page, about: a client that reads pages of some hundred kilobytes must not be sent one of fifty megabytes. */
const longestPage = 4 * 1024 * 1024

/** As many lines as fit, and one at least. */
function asPage(lines: readonly LogLine[]): string {
  let page = ''
  for (const line of lines) {
    const text = lineText(line)
    if (page !== '' && page.length + text.length > longestPage) break
    page += text
  }
  return page
}

const isFollowed = (c: Context): boolean => c.req.query('follow') !== undefined

/** The list of entries has the same path, and lets its callers in itself. */
const whereFollowed =
  (middleware: MiddlewareHandler<Env>): MiddlewareHandler<Env> =>
  async (c, next) =>
    await (isFollowed(c) ? middleware(c, next) : next())

/** Behind `after`, or, where an event stream comes back, behind the last event that it had (WHATWG HTML, section 9.2.4). */
function followFrom(c: Context<Env>, following: Following): Response {
  const { after: asked, ...rest } = c.req.query()
  const parsed = contract.FollowQuery.safeParse({ ...rest, after: c.req.header('last-event-id') ?? asked })
  if (!parsed.success)
    throw new BrokerError('invalid_request', 'The request is not valid: see `errors`', { errors: fieldFaults(parsed.error, 'query') })
  const { after, format = 'ledger' } = parsed.data
  const form = accepts(c, { header: 'Accept', supports: [...formNames], default: formNames[0] }) as keyof typeof forms
  const stream = following.open(after === undefined ? 0 : Number(after) + 1, forms[form], formats[format])
  if (!stream) throw new BrokerError('rate_limited', 'As many follow the ledger as may', { retryAfter: 30 })
  // nginx and its like would hold back what streams.
  return c.body(stream, 200, { 'content-type': form, 'x-accel-buffering': 'no' })
}

const formNames = ['application/x-ndjson', 'text/event-stream'] as const

const text = 'text/plain; charset=utf-8'

/** Lines of one page at most: some hundred kilobytes. */
const mostLines = 500

async function serveTile(c: Context<Env>, ledger: Broker['ledger']): Promise<Response> {
  const path = new URL(c.req.url).pathname.slice(1)
  const asked = parseTilePath(path)
  if (!asked) {
    const errors = [{ pointer: 'path', message: 'must be a tile such as tile/0/x001/234 or tile/entries/000.p/17 (C2SP tlog-tiles)' }]
    throw new BrokerError('invalid_request', 'This is not the path of a tile', { errors })
  }
  const bytes = await readTile(ledger, asked)
  if (!bytes) throw new BrokerError('not_found', 'The log has no such tile, or not of this width')
  // The bytes of a path never change. One that is partial is soon asked for no more, and need not be kept for long.
  const age = asked.width === tileWidth ? 'max-age=31536000, immutable' : 'max-age=3600'
  return c.body(new Uint8Array(bytes), 200, { 'content-type': 'application/octet-stream', 'cache-control': `private, ${age}`, vary: 'authorization' })
}

const reader = ['operator', 'reviewer'] as const

const plain = (description: string, type: string) => ({ 200: { description, content: { [type]: { schema: z.string() } } }, ...problems })

const checkpoint = createRoute({
  method: 'get',
  path: '/checkpoint',
  summary: 'The newest signed checkpoint of the log (C2SP tlog-checkpoint)',
  ...callableBy(reader),
  responses: plain('A signed note', 'text/plain'),
})

const key = createRoute({
  method: 'get',
  path: '/ledger/key',
  summary: 'The verifier key of the log, `name+id+key` (C2SP signed-note). Get it from somebody else too: this is the broker speaking for itself',
  ...callableBy(reader),
  responses: plain('One line', 'text/plain'),
})

const proof = createRoute({
  method: 'get',
  path: '/ledger/{entry}/proof',
  summary: 'What proves offline that an entry is in the log (C2SP tlog-proof). 404 while it has no place yet, which is a second or two',
  ...callableBy(reader),
  request: { params: contract.EntryPath },
  responses: plain('A proof', 'text/plain'),
})

const lines = createRoute({
  method: 'get',
  path: '/ledger/log',
  summary: 'The log from its beginning on, oldest first, with all that is needed to verify it: one JSON text a line',
  ...callableBy(reader),
  request: { query: contract.LogQuery },
  responses: {
    200: { description: 'Up to `limit` lines; none behind the end', content: { 'application/x-ndjson': { schema: contract.LogLines } } },
    ...problems,
  },
})

const tile = createRoute({
  method: 'get',
  path: '/tile/{level}/{place}',
  summary: 'A tile of hashes, or with `entries` as its level a bundle of entries (C2SP tlog-tiles), such as /tile/0/x001/234.p/17',
  ...callableBy(reader),
  request: { params: z.object({ level: z.string(), place: z.string() }) },
  responses: plain('Hashes of 32 bytes, or entries, each behind its length', 'application/octet-stream'),
})
