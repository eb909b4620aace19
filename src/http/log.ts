import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context, MiddlewareHandler } from 'hono'
import { accepts } from 'hono/accepts'
import { BrokerError, requestRefused } from '../base/errors.ts'
import type { LogKey } from '../ledger/log-key.ts'
import { readLogLines } from '../ledger/log-lines.ts'
import { latestCheckpoint, listLogs } from '../ledger/checkpoints.ts'
import { placeless, proveEntry, readTile } from '../ledger/proofs.ts'
import { openCheckpoint } from '../proof/checkpoint.ts'
import { type LogLine, lineText } from '../proof/lines.ts'
import { proofText } from '../proof/entry-proof.ts'
import { parseTilePath, tileWidth } from '../proof/tiles.ts'
import type { Broker } from '../tasks/task.ts'
import { json, problems } from './answers.ts'
import type { Env } from './app.ts'
import { callableBy, readers } from './callable.ts'
import { type Following, formats, forms } from './follow.ts'
import { subjectOf } from './gate.ts'
import { fieldFaults } from './problem.ts'
import { viewLog } from './views.ts'
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
    .openapi(checkpoint, async (c) => await serveCheckpoint(c, ledger, 1))
    .openapi(checkpointOf, async (c) => await serveCheckpoint(c, ledger, Number(c.req.valid('param').log)))
    .openapi(logs, async (c) => c.json({ items: (await listLogs(ledger)).map(viewLog) }, 200))
    .openapi(key, async (c) => {
      const open = (await listLogs(ledger)).at(-1)
      // A log that has begun keeps its name, whatever the broker is called now. One that was signed with another key has that one.
      const own = (await log.key.signerFor(open?.origin ?? log.origin, c.var.signal))?.key
      const found = open && !(own && openCheckpoint(open.note, [own]).ok) ? open.key : own?.text
      if (found === undefined) throw new BrokerError('internal', 'The log has a name that no key can have, or a key that nobody here knows')
      return c.body(`${found}\n`, 200, { 'content-type': text, 'cache-control': 'private, no-cache' })
    })
    .openapi(proof, async (c) => {
      const proven = await proveEntry(ledger, c.req.valid('param').entry)
      if (proven === undefined) throw new BrokerError('not_found', 'There is no such entry')
      if (typeof proven === 'string') throw new BrokerError('not_found', placeless[proven])
      return c.body(proofText(proven), 200, { 'content-type': text })
    })
    .openapi(lines, async (c) => {
      const { after, limit } = c.req.valid('query')
      const found = await readLogLines(ledger, after === undefined ? 0 : Number(after) + 1, limit === undefined ? mostLines : Number(limit))
      // The framework (1.6) has no type for answers of this media type that stand alone.
      return c.body(asPage(found), 200, { 'content-type': 'application/x-ndjson' }) as never
    })
  // Described by hand: the place of a tile is several segments of its path, for which OpenAPI has no word.
  for (const each of [tile, tileOf]) routes.openAPIRegistry.registerPath({ ...each, path: each.path })
  const [authenticate] = callableBy(readers).middleware
  routes.get('/ledger', whereFollowed(authenticate), async (c, next) => {
    if (!isFollowed(c)) return await next()
    return followFrom(c, following)
  })
  routes.get('/tile/:path{.+}', ...tile.middleware, async (c) => await serveTile(c, ledger, 1, '/'))
  routes.get('/log/:log/tile/:path{.+}', ...tile.middleware, async (c) => {
    const asked = contract.LogPath.safeParse({ log: c.req.param('log') })
    if (!asked.success) throw noSuchLog()
    return await serveTile(c, ledger, Number(asked.data.log), `/log/${asked.data.log}/`)
  })
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
  if (!parsed.success) throw requestRefused(fieldFaults(parsed.error, 'query'))
  const { after, format = 'ledger' } = parsed.data
  const form = accepts(c, { header: 'Accept', supports: [...formNames], default: formNames[0] }) as keyof typeof forms
  const stream = following.open(after === undefined ? 0 : Number(after) + 1, forms[form], formats[format], subjectOf(c.var.caller))
  // nginx and its like would hold back what streams.
  return c.body(stream, 200, { 'content-type': form, 'x-accel-buffering': 'no' })
}

const formNames = ['application/x-ndjson', 'text/event-stream'] as const

const text = 'text/plain; charset=utf-8'

/** Lines of one page at most: some hundred kilobytes. */
const mostLines = 500

const noSuchLog = () =>
  new BrokerError('not_found', 'There is no such log, or nothing of it was signed yet: the first one begins with the first entry')

async function serveCheckpoint(c: Context<Env>, ledger: Broker['ledger'], number: number) {
  const head = await latestCheckpoint(ledger, number)
  if (!head) throw noSuchLog()
  return c.body(head.note, 200, { 'content-type': text, 'cache-control': 'private, no-cache' })
}

/** @param prefix of the log's address */
async function serveTile(c: Context<Env>, ledger: Broker['ledger'], log: number, prefix: string): Promise<Response> {
  const path = new URL(c.req.url).pathname.slice(prefix.length)
  const asked = parseTilePath(path)
  if (!asked) {
    const errors = [{ pointer: 'path', message: 'must be a tile such as tile/0/x001/234 or tile/entries/000.p/17 (C2SP tlog-tiles)' }]
    throw new BrokerError('invalid_request', 'This is not the path of a tile', { errors })
  }
  const bytes = await readTile(ledger, log, asked)
  if (!bytes) throw new BrokerError('not_found', 'The log has no such tile, or not of this width')
  // The bytes of a path never change. One that is partial is soon asked for no more, and need not be kept for long.
  const age = asked.width === tileWidth ? 'max-age=31536000, immutable' : 'max-age=3600'
  return c.body(new Uint8Array(bytes), 200, { 'content-type': 'application/octet-stream', 'cache-control': `private, ${age}`, vary: 'authorization' })
}

const plain = (description: string, type: string) => ({ 200: { description, content: { [type]: { schema: z.string() } } }, ...problems })

const checkpoint = createRoute({
  method: 'get',
  path: '/checkpoint',
  summary: 'The newest signed checkpoint of the first log (C2SP tlog-checkpoint); the final one where it was closed: the others are in /ledger/logs',
  ...callableBy(readers),
  responses: plain('A signed note', 'text/plain'),
})

const checkpointOf = createRoute({
  method: 'get',
  path: '/log/{log}/checkpoint',
  summary: 'The same of a later log, from the second on',
  ...callableBy(readers),
  request: { params: contract.LogPath },
  responses: plain('A signed note', 'text/plain'),
})

const logs = createRoute({
  method: 'get',
  path: '/ledger/logs',
  summary: 'The logs that the history was signed into, oldest first. The last one is open; each other one was closed when its key was rotated',
  ...callableBy(readers),
  responses: { 200: json('All of them', contract.Logs), ...problems },
})

const key = createRoute({
  method: 'get',
  path: '/ledger/key',
  summary:
    'The verifier key of the open log, `name+id+key` (C2SP signed-note). Get it from somebody else too: this is the broker speaking for itself',
  ...callableBy(readers),
  responses: plain('One line', 'text/plain'),
})

const proof = createRoute({
  method: 'get',
  path: '/ledger/{entry}/proof',
  summary:
    'What proves offline that an entry is in the log (C2SP tlog-proof), with its leaf as the extra data. 404 while it has no place yet, which is a second or two',
  ...callableBy(readers),
  request: { params: contract.EntryPath },
  responses: plain('A proof', 'text/plain'),
})

const lines = createRoute({
  method: 'get',
  path: '/ledger/log',
  summary: 'The log from its beginning on, oldest first, with all that is needed to verify it: one JSON text a line',
  ...callableBy(readers),
  request: { query: contract.LogQuery },
  responses: {
    200: { description: 'Up to `limit` lines; none behind the end', content: { 'application/x-ndjson': { schema: contract.LogLines } } },
    ...problems,
  },
})

/** Of a tile in its log, whatever log that is. */
const tilePlace = { level: z.string(), place: z.string() }

const tile = createRoute({
  method: 'get',
  path: '/tile/{level}/{place}',
  summary: 'A tile of hashes of the first log, or with `entries` as its level a bundle of entries (C2SP tlog-tiles), such as /tile/0/x001/234.p/17',
  ...callableBy(readers),
  request: { params: z.object(tilePlace) },
  responses: plain('Hashes of 32 bytes, or entries, each behind its length', 'application/octet-stream'),
})

const tileOf = createRoute({
  ...tile,
  path: '/log/{log}/tile/{level}/{place}',
  summary: 'The same of a later log, from the second on',
  request: { params: contract.LogPath.extend(tilePlace) },
})
