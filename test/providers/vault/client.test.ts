import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import type { Ask } from '../../../src/providers/vault/client.ts'
import { vaultSettings } from '../../../src/providers/vault/settings.ts'

const patient = new AbortController().signal
/** Where nobody listens. */
const nowhere = 'http://127.0.0.1:9'

/** What somebody who works with Vault may have in their shell, and what leads HTTP of a whole machine elsewhere. */
const shell = {
  VAULT_ADDR: nowhere,
  VAULT_TOKEN: 'hvs.of-somebody',
  VAULT_NAMESPACE: 'of-somebody',
  VAULT_PREFIX: '/of-somebody',
  VAULT_SKIP_VERIFY: 'true',
  DEBUG: '*',
  ...Object.fromEntries(['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy'].map((name) => [name, nowhere])),
}

interface Heard {
  readonly question: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

let server: Server
let ask: Ask
let said = ''
let heard: Heard[] = []
let connections = 0

beforeAll(async () => {
  const hear = async (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
    heard.push({ question: `${incoming.method} ${incoming.url}`, headers: incoming.headers, body: (await buffer(incoming)).toString() })
    outgoing.writeHead(200, { 'content-type': 'application/json' }).end('{"data":{}}')
  }
  server = createServer((incoming, outgoing) => void hear(incoming, outgoing)).on('connection', () => connections++)
  await once(server.listen(0, '127.0.0.1'), 'listening')

  for (const [name, value] of Object.entries(shell)) vi.stubEnv(name, value)
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += String(text)
    return true
  })
  // Now and not before: the library reads its environment when it is loaded.
  const { createAsk } = await import('../../../src/providers/vault/client.ts')
  const settings = { address: addressOf(server), auth: { method: 'token', token_file: '/token' }, token_role: 'mayfly-task' }
  ask = createAsk(vaultSettings.parse(settings), () => {})
})
afterEach(() => {
  said = ''
  heard = []
})
afterAll(() => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
  server.close()
  server.closeAllConnections()
})

const addressOf = (listening: Server): string => `http://127.0.0.1:${(listening.address() as AddressInfo).port}`

/** What is ours in any question: the rest is of the connection. */
const ours = { accept: 'application/json', 'user-agent': 'mayfly', 'x-vault-request': 'true' }
const ofConnection = ['host', 'connection', 'content-type', 'content-length', 'transfer-encoding']
const headersOf = ({ headers }: Heard) => Object.fromEntries(Object.entries(headers).filter(([name]) => !ofConnection.includes(name)))

test.each([
  ['by nobody', { path: 'sys/health' }, 'GET /v1/sys/health', {}],
  ['with a token', { path: 'auth/token/lookup-self', token: 's.own' }, 'GET /v1/auth/token/lookup-self', { 'x-vault-token': 's.own' }],
  [
    'with a token in a namespace',
    { path: 'sys/leases/revoke', token: 's.own', namespace: 'team', body: { lease_id: 'a/b', sync: true } },
    'POST /v1/sys/leases/revoke',
    { 'x-vault-token': 's.own', 'x-vault-namespace': 'team' },
  ],
])(
  'what is asked %s goes to the configured address with the headers of the broker alone, whatever the environment says',
  async (_, question, line, own) => {
    expect(await ask(question, patient)).toMatchObject({ status: 200, body: { data: {} } })
    expect(heard.map(({ question: asked }) => asked)).toEqual([line])
    expect(headersOf(heard[0]!)).toEqual({ ...ours, ...own })
    expect(heard[0]!.body).toBe('body' in question ? JSON.stringify(question.body) : '')
  },
)

test('nothing that is asked is written to stderr, though the library under it is told to', async () => {
  const debug = createRequire(createRequire(import.meta.url).resolve('node-vault'))('debug') as (name: string) => { readonly enabled: boolean }
  expect(debug('node-vault').enabled).toBe(true)
  await ask({ path: 'auth/approle/login', body: { secret_id: 'a-secret' } }, patient)
  await ask({ path: 'secret/data/app', token: 's.own' }, patient)
  expect(said).toBe('')
})

test('questions that follow each other share one connection, reads and writes', async () => {
  const before = connections
  for (let count = 0; count < 4; count++) {
    await ask({ path: 'sys/health' }, patient)
    await ask({ path: 'sys/leases/renew', body: { increment: 1 }, token: 's.own' }, patient)
  }
  expect(heard).toHaveLength(8)
  expect(connections - before).toBeLessThanOrEqual(1)
})
