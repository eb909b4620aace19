import { createPrivateKey, createPublicKey, sign } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { parseCheckpoint } from '../../src/proof/checkpoint.ts'
import { cosignedMessage, parseWitnessKey, type WitnessKey } from '../../src/proof/cosignature.ts'
import { type Hash, type Head, verifyConsistency } from '../../src/proof/merkle.ts'
import { openNote, parseNote, type VerifierKey, verifierKeyOf } from '../../src/proof/note.ts'

/** What a witness answers. */
export interface Answer {
  readonly status: number
  readonly text: string
}

/** A witness as C2SP tlog-witness describes it: it cosigns one history of each log that it knows. */
export interface TestWitness {
  readonly key: WitnessKey
  /** What it has seen, by the origin of each log. */
  readonly seen: Map<string, Head>
  /** What it was asked, oldest first. */
  readonly asked: string[]
  add(body: string): Answer
  /** The line of its cosignature. */
  line(text: string): string
}

/** When it says that it has seen everything, in seconds since 1970. */
export const witnessedAt = 1_679_315_147

export function createTestWitness(name: string, logs: readonly VerifierKey[] | 'any', seed = 5): TestWitness {
  const pkcs8 = Buffer.from(`302e020100300506032b657004220420${Buffer.alloc(32, seed).toString('hex')}`, 'hex')
  const privateKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
  const key = parseWitnessKey(
    verifierKeyOf(name, createPublicKey(privateKey).export({ format: 'der', type: 'spki' }).subarray(12), 'cosignature').text,
  )!
  const seen = new Map<string, Head>()
  const asked: string[] = []

  function line(text: string): string {
    const time = Buffer.alloc(8)
    time.writeBigUInt64BE(BigInt(witnessedAt))
    const signature = sign(null, cosignedMessage(text, BigInt(witnessedAt)), privateKey)
    return `— ${name} ${Buffer.concat([Buffer.from(key.id, 'hex'), time, signature]).toString('base64')}\n`
  }

  function add(body: string): Answer {
    asked.push(body)
    const [, decimal = '', proof = '', note = ''] = /^old (0|[1-9]\d*)\n((?:[A-Za-z0-9+/=]{44}\n){0,63})\n(.*)$/s.exec(body) ?? []
    const text = parseNote(note)?.text
    const next = text === undefined ? undefined : parseCheckpoint(text)
    if (decimal === '' || text === undefined || !next) return { status: 400, text: '' }
    const ofLog = logs === 'any' ? [] : logs.filter((known) => known.name === next.origin)
    if (logs !== 'any' && ofLog.length === 0) return { status: 404, text: '' }
    if (logs !== 'any' && !openNote(note, ofLog).ok) return { status: 403, text: '' }
    const old = Number(decimal)
    if (old > next.size) return { status: 400, text: '' }
    const last = seen.get(next.origin)
    if (old !== (last?.size ?? 0)) return { status: 409, text: `${last?.size ?? 0}\n` }
    const hashes: Hash[] = proof
      .split('\n')
      .slice(0, -1)
      .map((each) => Buffer.from(each, 'base64'))
    const isOneHistory =
      last === undefined ? hashes.length === 0 : last.size === next.size ? last.root.equals(next.root) : verifyConsistency(last, next, hashes)
    if (!isOneHistory) return { status: 422, text: '' }
    seen.set(next.origin, { size: next.size, root: next.root })
    return { status: 200, text: line(text) }
  }

  return { key, seen, asked, add, line }
}

/** The same behind a port of its own, on loopback. */
export async function serveWitness(witness: TestWitness): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer(
    { keepAliveTimeout: 120_000 },
    (request, response) =>
      void (async () => {
        let body = ''
        for await (const chunk of request) body += String(chunk)
        if (request.url !== '/prefix/add-checkpoint') return response.writeHead(405).end()
        const { status, text } = witness.add(body)
        return response.writeHead(status, status === 409 ? { 'content-type': 'text/x.tlog.size' } : {}).end(text)
      })(),
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/prefix`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
