import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { canonical, digestOfText } from '../../src/proof/canonical.ts'
import { signCheckpoint } from '../../src/proof/checkpoint.ts'
import { emptyTree, grow, headOf } from '../../src/proof/compact.ts'
import { type EntryFields, leafOf } from '../../src/proof/leaf.ts'
import { lineText } from '../../src/proof/lines.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { createSigner } from '../../src/proof/note.ts'
import { command } from '../support/program.ts'

/** Entries of the log that is made up: as JSON some 60 MB, in memory three times as much. */
const size = 102_000

/** Megabytes of JavaScript's heap that the command may have. It needs less than half for itself, and ends where it wants more. */
const heap = 64

const policy = { policies: { 'robots-work': 'permit(principal, action, resource);' } }
const digest = digestOfText(canonical(policy))
const input = JSON.stringify({
  context: { ttl: { __extn: { fn: 'duration', arg: '600000ms' } } },
  entities: [{ uid: { type: 'Ask', id: 'ask' }, attrs: {}, parents: [], tags: {} }],
  principal: { type: 'Agent', id: 'x'.repeat(50) },
})
const answers = [{ action: 'issue', resource: 'api', outcome: 'permit', policies: ['robots-work'], input }]
const decided = {
  action: 'issue',
  outcome: 'permit',
  policies: ['robots-work'],
  policy_digest: digest,
  obligations: {},
  answers_digest: digestOfText(canonical(answers)),
}
const start = Date.UTC(2026, 10, 26)

/** What is told of each task, one a second: kind, transaction, and body. */
const life: readonly (readonly [string, number, (moment: (seconds: number) => string) => EntryFields['body']])[] = [
  ['task.opened', 0, (moment) => ({ kind: 'work', purpose: 'x'.repeat(100), deadline: moment(600) })],
  ['decision.made', 0, () => decided],
  ['lease.issued', 0, (moment) => ({ grant: 'api', provider: 'tokens', revocation: 'provider', parameters: {}, expires_at: moment(600) })],
  ['task.closing', 1, () => ({ cause: 'completed', by: 'agent:bot' })],
  ['lease.revoked', 1, (moment) => ({ cause: 'completed', evidence: { by: 'broker', statement: 'dead', at: moment(1) } })],
  ['task.ended', 1, () => ({ state: 'completed', cause: 'completed' })],
]

const idOf = (noun: string, number: number): string => `${noun}_${String(number).padStart(26, '0')}`

function entryAt(number: number): EntryFields {
  const task = Math.floor(number / life.length)
  const [kind, later, body] = life[number % life.length]!
  const moment = (seconds: number): string => new Date(start + (task + seconds) * 1_000).toISOString()
  const isOfLease = kind.startsWith('lease.')
  return {
    id: idOf('ent', number),
    at: moment(later),
    xid: String(1_000 + task * 2 + later),
    kind,
    agent: 'bot',
    task: idOf('task', task),
    ...(isOfLease && { lease: idOf('lease', task) }),
    ...((isOfLease || kind === 'decision.made') && { decision: idOf('dec', task) }),
    body: body(moment),
  }
}

const signer = createSigner('broker.example.com', new Uint8Array(32).fill(7))
const hashes: string[] = []
let checkpoint: string
let broker: Server
let folder: string
/** Entries that the broker has of those it signed. */
let given = size

/** A broker with nothing but a log. */
function answer(at: URL): string | undefined {
  if (at.pathname === '/ledger/logs')
    return JSON.stringify({ items: [{ number: 1, origin: signer.key.name, key: signer.key.text, first: 0, size, closed: false, checkpoint }] })
  if (at.pathname.startsWith('/policies/')) return JSON.stringify({ digest, document: policy })
  if (at.pathname !== '/ledger/log') return undefined
  const first = Number(at.searchParams.get('after') ?? -1) + 1
  const numbers = Array.from({ length: Math.max(0, Math.min(500, given - first)) }, (_, index) => first + index)
  return numbers
    .map((number) => {
      const entry = entryAt(number)
      return lineText({ number, leaf_hash: hashes[number]!, entry, ...(entry.kind === 'decision.made' && { answers }) })
    })
    .join('')
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'mayfly-memory-'))
  let tree = emptyTree
  for (let number = 0; number < size; number++) {
    const hash = leafHash(leafOf(entryAt(number)))
    hashes.push(hash.toString('base64'))
    tree = grow(tree, [hash], () => {})
  }
  checkpoint = signCheckpoint(signer, headOf(tree))
  broker = createServer((request, response) => {
    const text = answer(new URL(request.url!, 'http://broker'))
    response
      .writeHead(text === undefined ? 404 : 200, { 'content-type': /^\{"(digest|items)/.test(text ?? '') ? 'application/json' : 'text/plain' })
      .end(text)
  }).listen(0, '127.0.0.1')
  await once(broker, 'listening')
})
afterAll(async () => {
  broker.close()
  await rm(folder, { recursive: true })
})

/** Runs the built command in a heap that has room for no log. Its result goes into a file. */
async function inLittle(args: readonly string[], file: string): Promise<{ status: number | null; stderr: string }> {
  const out = await open(path.join(folder, file), 'w')
  const url = `http://127.0.0.1:${(broker.address() as AddressInfo).port}`
  const child = spawn(process.execPath, [`--max-old-space-size=${heap}`, command, 'ledger', ...args], {
    env: { ...process.env, MAYFLY_URL: url, MAYFLY_TOKEN: 'reviewer', NO_COLOR: '1' },
    stdio: ['ignore', out.fd, 'pipe'],
  })
  let stderr = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  const [status] = (await once(child, 'close')) as [number | null]
  await out.close()
  return { status, stderr }
}

test('a log that is larger than the memory is exported, and its export verified', { timeout: 300_000 }, async () => {
  expect(await inLittle(['export'], 'export')).toEqual({
    status: 0,
    stderr: `mayfly: up to entry ${size - 1} of ${entryAt(size - 1).at}; what is younger than a second or two is not in it\n`,
  })
  expect(await inLittle(['verify', '--export', path.join(folder, 'export'), '--key', signer.key.text], 'verdict')).toEqual({ status: 0, stderr: '' })
  const said = await readFile(path.join(folder, 'verdict'), 'utf8')
  expect(said).toContain(`${size} entries, ${size / life.length} decisions`)
  expect(said).toContain(`${size / life.length} leases, 0 of them alive`)
})

test.each([0, 700])('an export of which the broker gives only %i entries is no success', async (few) => {
  given = few
  const { status, stderr } = await inLittle(['export'], 'short')
  given = size
  expect([status, stderr]).toEqual([1, expect.stringContaining(`the broker gave ${few} entries and signed ${size}: what was written was cut short`)])
  const text = await readFile(path.join(folder, 'short'), 'utf8')
  expect(text.split('\n').filter((line) => line.startsWith('{"number"'))).toHaveLength(few)
})
