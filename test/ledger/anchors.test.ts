import { createServer, type IncomingMessage, type Server } from 'node:http'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Anchors, type AnchorSettings, startAnchors } from '../../src/ledger/anchors.ts'
import type { ProveGrowth } from '../../src/ledger/witness.ts'
import { signCheckpoint } from '../../src/proof/checkpoint.ts'
import { cosignedAt } from '../../src/proof/cosignature.ts'
import { createSigner } from '../../src/proof/note.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { naiveConsistency, naiveRoot } from '../proof/naive.ts'
import { createTestWitness, serveWitness, witnessedAt } from '../support/witness.ts'

let folder: string
let server: Server
let url: string
let logged = ''
const got: { body: string; authorization: string | undefined }[] = []
/** What the receiver answers next; it takes everything where nothing is said. `silence`: nothing at all. */
const answers: (number | 'silence')[] = []

async function receive(request: IncomingMessage): Promise<void> {
  let body = ''
  for await (const chunk of request) body += String(chunk)
  got.push({ body, authorization: request.headers.authorization })
}

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'mayfly-anchors-'))
  server = createServer((request, response) => {
    const answer = answers.shift() ?? 204
    void receive(request).then(() => answer !== 'silence' && response.writeHead(answer, answer === 302 ? { location: '/elsewhere' } : {}).end())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  got.length = answers.length = 0
  logged = ''
})
afterEach(async () => {
  vi.useRealTimers()
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

/** Milliseconds for an answer. Nobody waits for them: on a busy machine one takes long, and where none comes a test moves the clock. */
const timeout = 20_000

const signer = createSigner('broker.example.com', new Uint8Array(32).fill(7))
const noteOf = (start: number, count: number, by = signer) => signCheckpoint(by, { size: count, root: naiveRoot({ start, count }) })

/** @param stored how many entries the log of the store has */
function start(settings: AnchorSettings, stored = 1_000): { anchors: Anchors; counted(outcome: string): Promise<number> } {
  const telemetry = createTelemetry({
    level: 'info',
    destination: new Writable({ write: (chunk: Buffer, _, done) => ((logged += chunk.toString()), done()) }),
  })
  const prove: ProveGrowth = async ({ size }, from) => (size > stored ? undefined : naiveConsistency(from, size))
  const anchors = startAnchors([settings], prove, telemetry, { timeout, tries: 3, pause: 1 })
  return {
    anchors,
    async counted(outcome) {
      const { values } = await telemetry.metrics.anchors.get()
      return values.find(({ labels }) => labels.outcome === outcome)?.value ?? 0
    },
  }
}

test('a file always holds a whole checkpoint, the newest', async () => {
  const file = path.join(folder, 'checkpoint')
  const { anchors, counted } = start({ file })
  anchors.write(noteOf(0, 3))
  await expect.poll(() => counted('kept')).toBe(1)
  anchors.write(noteOf(0, 300))
  await expect.poll(() => readFile(file, 'utf8')).toBe(noteOf(0, 300))
  expect(await readdir(folder)).toEqual(['checkpoint'])
  await anchors.stop()
})

test('a file that another broker has put a newer checkpoint into keeps that one', async () => {
  const file = path.join(folder, 'checkpoint')
  await writeFile(file, noteOf(0, 300))
  const { anchors, counted } = start({ file })
  anchors.write(noteOf(0, 200))
  await expect.poll(() => counted('kept')).toBe(1)
  expect(await readFile(file, 'utf8')).toBe(noteOf(0, 300))
  await anchors.stop()
  expect(logged).toBe('')
})

test.each([
  ['was cut', noteOf(0, 200), 200],
  ['was cut, and went on as another', noteOf(1, 400), 400],
  ['was written anew', noteOf(1, 300), 300],
])('a file keeps its checkpoint where the log %s, which counts as a failure and is said', async (_, note, stored) => {
  const file = path.join(folder, 'checkpoint')
  await writeFile(file, noteOf(0, 300))
  const { anchors, counted } = start({ file }, stored)
  anchors.write(note)
  await expect.poll(() => counted('failed')).toBe(3)
  await expect.poll(() => logged).toContain('the file holds a checkpoint over 300 entries of another history of the log')
  expect(await readFile(file, 'utf8')).toBe(noteOf(0, 300))
  await anchors.stop()
})

test.each([
  ['is empty', ''],
  ['holds something else', 'hello\n'],
  ['is of a log whose key was rotated', noteOf(0, 300, createSigner('broker.example.com/log/1', new Uint8Array(32).fill(8)))],
])('a file that %s takes the next checkpoint', async (_, text) => {
  const file = path.join(folder, 'checkpoint')
  await writeFile(file, text)
  const { anchors, counted } = start({ file })
  anchors.write(noteOf(0, 1))
  await expect.poll(() => counted('kept')).toBe(1)
  expect(await readFile(file, 'utf8')).toBe(noteOf(0, 1))
  await anchors.stop()
})

test('a file that several brokers write at once is written by each of them, though they have the same process id, as in containers', async () => {
  const file = path.join(folder, 'checkpoint')
  const brokers = Array.from({ length: 20 }, () => start({ file }))
  for (const { anchors } of brokers) anchors.write(noteOf(0, 300))
  for (const { counted } of brokers) await expect.poll(async () => (await counted('kept')) + (await counted('failed'))).toBeGreaterThan(0)
  for (const { anchors, counted } of brokers) {
    await anchors.stop()
    expect(await counted('failed')).toBe(0)
  }
  expect(await readFile(file, 'utf8')).toBe(noteOf(0, 300))
  expect(await readdir(folder)).toEqual(['checkpoint'])
})

test('a receiver is told with its token, which is read at each use', async () => {
  const tokenFile = path.join(folder, 'token')
  await writeFile(tokenFile, 'first\n')
  const { anchors, counted } = start({ url, tokenFile })
  anchors.write('one\n')
  await expect.poll(() => counted('kept')).toBe(1)
  await writeFile(tokenFile, 'second\n')
  anchors.write('two\n')
  await expect.poll(() => counted('kept')).toBe(2)
  expect(got).toEqual([
    { body: 'one\n', authorization: 'Bearer first' },
    { body: 'two\n', authorization: 'Bearer second' },
  ])
  await anchors.stop()
})

test.each([
  ['refuses', 500],
  ['sends it elsewhere', 302],
  ['says nothing', 'silence'],
] as const)('a receiver that %s is asked again, and then left alone until the next checkpoint', async (_, answer) => {
  answers.push(answer, answer, answer)
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const { anchors, counted } = start({ url })
  anchors.write('one\n')
  for (let tried = 1; tried <= 3; tried++) {
    await expect.poll(() => got.length).toBeGreaterThanOrEqual(tried)
    if (answer === 'silence') vi.advanceTimersByTime(timeout)
    await expect.poll(() => counted('failed')).toBeGreaterThanOrEqual(tried)
  }
  await expect.poll(() => counted('failed')).toBe(3)
  await expect.poll(() => logged).toContain('could not be anchored')
  anchors.write('two\n')
  await expect.poll(() => counted('kept')).toBe(1)
  expect(got.map(({ body }) => body)).toEqual(['one\n', 'one\n', 'one\n', 'two\n'])
  await anchors.stop()
})

test('of many checkpoints that come while one is under way, the newest is told', async () => {
  const { anchors, counted } = start({ url })
  for (let at = 0; at < 50; at++) anchors.write(`${at}\n`)
  await expect.poll(() => counted('kept')).toBeGreaterThan(0)
  await anchors.stop()
  expect(got.length).toBeLessThan(3)
  expect(got.at(-1)?.body).toBe('49\n')
})

test('stopping does not wait for a receiver that says nothing', async () => {
  answers.push('silence')
  const { anchors } = start({ url })
  anchors.write('one\n')
  await expect.poll(() => got.length).toBe(1)
  await anchors.stop()
  expect(logged).toBe('')
})

test('stopping does not wait for what was still to be read when it began, and nothing is sent any more', async () => {
  const tokenFile = path.join(folder, 'token')
  await writeFile(tokenFile, 'first')
  answers.push('silence')
  const { anchors } = start({ url, tokenFile })
  anchors.write('one\n')
  await anchors.stop()
  expect([got, logged]).toEqual([[], ''])
})

test('a file holds the newest checkpoint that a witness has cosigned, and no other', async () => {
  const witness = createTestWitness('witness.example', [signer.key])
  await using served = await serveWitness(witness)
  const file = path.join(folder, 'cosigned')
  const { anchors, counted } = start({ witness: `${served.url}/`, key: witness.key, file })
  for (const size of [3, 300]) {
    anchors.write(noteOf(0, size))
    await expect.poll(() => readFile(file, 'utf8').catch(() => '')).toContain(noteOf(0, size))
  }
  const cosigned = await readFile(file, 'utf8')
  expect(cosignedAt(cosigned, witness.key)).toBe(witnessedAt)

  anchors.write(noteOf(1, 400))
  await expect.poll(() => counted('failed')).toBe(3)
  await expect.poll(() => logged).toContain('has seen another history of the log')
  expect(await readFile(file, 'utf8')).toBe(cosigned)
  await anchors.stop()
})

test('what cannot be put in its place leaves nothing beside it', async () => {
  const witness = createTestWitness('witness.example', [signer.key])
  await using served = await serveWitness(witness)
  const file = path.join(folder, 'cosigned')
  await mkdir(file)
  const { anchors, counted } = start({ witness: served.url, key: witness.key, file })
  anchors.write(noteOf(0, 3))
  await expect.poll(() => counted('failed')).toBe(3)
  await anchors.stop()
  expect(await readdir(folder)).toEqual(['cosigned'])
})
