/*
 * The test lab: a backend of kind `http` in its own process, which really holds what it minted and fails as it is told.
 *
 *   node server.mjs [--token TOKEN] [--upstream URL]
 *
 * Prints {"url": …, "control": …} when it listens on two ports of loopback; ends when its standard input ends, so that it never outlives a test.
 * The first port speaks the contract and can go down; the second is for the test and never fails.
 */
import { createServer } from 'node:http'
import { parseArgs } from 'node:util'
import { createBackend } from './backend.mjs'
import { createFaults, send } from './faults.mjs'
import { createUpstream } from './upstream.mjs'

const { values: options } = parseArgs({ options: { token: { type: 'string' }, upstream: { type: 'string' } } })
let offset = 0
const backend = options.upstream ? createUpstream(options.upstream, options.token) : createBackend({ now: () => Date.now() + offset })
const faults = createFaults()
const calls = []

const contract = createServer(async (request, response) => {
  const body = await textOf(request)
  const [, noun, lease] = request.url.split('/')
  const call = noun === 'check' ? 'check' : request.method.toLowerCase()
  calls.push({ call, lease: lease ?? null, at: new Date().toISOString() })
  if (options.token && request.headers.authorization !== `Bearer ${options.token}`) return send(response, { status: 401 })
  return faults.answer(call, response, () => backend.answer({ call, lease, path: request.url, body }))
})

/** What a test may ask and order. Each takes the body of its POST and returns what is answered. */
const orders = {
  next: async (fault) => faults.order(fault),
  clear: async () => faults.clear(),
  hanging: async ({ call }) => faults.untilHanging(call),
  release: async () => void (await faults.release()),
  clock: async (asked) => void (offset = asked.offset),
  use: async ({ secret }) => ({ works: await backend.works(secret) }),
  alive: () => backend.alive(),
  minted: async () => backend.minted(),
  calls: async () => calls,
  down: () => new Promise((resolve) => (contract.close(() => resolve()), contract.closeAllConnections())),
  up: () => listen(contract, port).then(() => undefined),
}

const control = createServer(async (request, response) => {
  const order = orders[request.url.replace('/lab/', '')]
  if (!order) return send(response, { status: 404 })
  try {
    send(response, { status: 200, body: (await order(JSON.parse((await textOf(request)) || '{}'))) ?? null })
  } catch (error) {
    send(response, { status: 400, body: { error: error.message } })
  }
})

// A client that asks again after Node's five seconds would meet the connection as it closes.
contract.keepAliveTimeout = control.keepAliveTimeout = 120_000

const textOf = async (request) => Buffer.concat(await request.toArray()).toString()

const listen = (server, at) =>
  new Promise((resolve, reject) => server.once('error', reject).listen(at, '127.0.0.1', () => resolve(server.address().port)))

const port = await listen(contract, 0)
const controlPort = await listen(control, 0)
process.stdin.resume().on('end', () => process.exit(0))
console.log(JSON.stringify({ url: `http://127.0.0.1:${port}`, control: `http://127.0.0.1:${controlPort}` }))
