import { createServer, type IncomingMessage, type Server } from 'node:http'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Anchors, type AnchorSettings, startAnchors } from '../../src/ledger/anchors.ts'
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

function start(settings: AnchorSettings): { anchors: Anchors; counted(outcome: string): Promise<number> } {
  const telemetry = createTelemetry({
    level: 'info',
    destination: new Writable({ write: (chunk: Buffer, _, done) => ((logged += chunk.toString()), done()) }),
  })
  const anchors = startAnchors([settings], async ({ size }, from) => naiveConsistency(from, size), telemetry, { timeout, tries: 3, pause: 1 })
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
  anchors.write('one\n')
  await expect.poll(() => counted('kept')).toBe(1)
  anchors.write('two\n')
  await expect.poll(() => readFile(file, 'utf8')).toBe('two\n')
  expect(await readdir(folder)).toEqual(['checkpoint'])
  await anchors.stop()
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
  const signer = createSigner('broker.example.com', new Uint8Array(32).fill(7))
  const noteOf = (start: number, count: number) => signCheckpoint(signer, { size: count, root: naiveRoot({ start, count }) })
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
