import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createClient } from '../../src/client/client.ts'
import { listen, type Listening } from '../../src/http/listen.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { canMakeCertificates, createAuthority } from '../providers/certificates.ts'
import { mayfly } from '../support/program.ts'

describe.skipIf(!canMakeCertificates())('a broker that lets nobody in without a client certificate', () => {
  let folder: string
  let broker: Listening
  let environment: Record<string, string>
  let authority: string
  const files: Record<string, { readonly cert: string; readonly key: string }> = {}

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-mutual-'))
    const [house, other] = await Promise.all([createAuthority(folder, 'house'), createAuthority(folder, 'other')])
    authority = house.ca
    const server = await house.issue('broker', 'IP:127.0.0.1')
    files['client'] = await house.issue('client', 'DNS:client')
    files['stranger'] = await other.issue('stranger', 'DNS:stranger')
    const [cert, key, clientCa] = await Promise.all([server.cert, server.key, house.ca].map((file) => readFile(file, 'utf8')))
    const tls = { cert: cert!, key: key!, clientCa: clientCa! }
    broker = await listen(() => Response.json({ items: [], next: null }), { host: '127.0.0.1', port: 0, tls }, createTelemetry({ level: 'silent' }))
    environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: 'the-token', NODE_EXTRA_CA_CERTS: authority }
  })
  afterAll(async () => {
    await broker.stop()
    await rm(folder, { recursive: true })
  })

  const showing = (cert: string, key: string) => ({ ...environment, MAYFLY_CLIENT_CERT_FILE: cert, MAYFLY_CLIENT_KEY_FILE: key })

  test('answers whoever shows one of its authority', async () => {
    const { cert, key } = files['client']!
    expect(await mayfly(['task', 'list', '--json'], showing(cert, key))).toMatchObject({ status: 0, stderr: '' })
  })

  test('hangs up on everybody else, who are told what that may mean', async () => {
    const { cert, key } = files['stranger']!
    for (const shown of [environment, showing(cert, key)]) {
      // What may not be sent twice is tried once.
      const refused = await mayfly(['issuing', 'stop', '--everything', '--reason', 'why', '--for', '1h'], shown)
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining('asks for a client certificate') as string })
    }
  })

  test('is shown another certificate once that has taken the place of the first', async () => {
    const script = `
      import { readFileSync } from 'node:fs'
      import { createClient } from '${path.join(import.meta.dirname, '../../dist/client/client.js')}'
      const [url, ...files] = process.argv.slice(1)
      const read = async () => ({ certificate: readFileSync(files.shift(), 'utf8'), key: readFileSync(files.shift(), 'utf8') })
      const client = createClient({ url, token: 'the-token', patience: 0, certificate: read })
      const outcome = () => client.listTasks().then(() => 'let in', (error) => error.name)
      console.log(await outcome(), await outcome(), await outcome())`
    const shown = ['client', 'stranger', 'client'].flatMap((name) => [files[name]!.cert, files[name]!.key])
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script, broker.url, ...shown], {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: authority },
    })
    expect(stdout).toBe('let in BrokerUnreachable let in\n')
  })

  test.each([
    ['a certificate without its key', () => showing(files['client']!.cert, ''), 'go together'],
    ['a file that is not there', () => showing(files['client']!.cert, '/nowhere/key'), 'MAYFLY_CLIENT_KEY_FILE cannot be read (ENOENT)'],
    ['the key of another', () => showing(files['client']!.cert, files['stranger']!.key), 'is that of another one'],
    ['what is no key', () => showing(files['client']!.cert, files['client']!.cert), 'is not a private key without passphrase, in PEM'],
    ['a key in the place of the certificate', () => showing(files['client']!.key, files['client']!.key), 'is not a certificate in PEM'],
    [
      'a broker of http',
      () => ({ ...showing(files['client']!.cert, files['client']!.key), MAYFLY_URL: 'http://127.0.0.1:1' }),
      'needs a URL of https',
    ],
  ])('is not asked with %s, which is a mistake of whoever asks', async (_, shown, words) => {
    const { status, stderr } = await mayfly(['task', 'list'], shown())
    expect([status, stderr]).toEqual([2, expect.stringContaining(words)])
    expect(stderr).not.toContain('BEGIN')
  })

  test('is not asked by a program whose certificate is none, which is said without it', async () => {
    const secret = path.join(folder, 'secret')
    await writeFile(secret, 'not-to-be-seen')
    const read = async () => ({ certificate: await readFile(files['client']!.cert, 'utf8'), key: await readFile(secret, 'utf8') })
    const call = createClient({ url: broker.url, token: 'x', certificate: read }).listTasks()
    await expect(call).rejects.toThrow(new TypeError('the key of the client certificate is not a private key without passphrase, in PEM'))
  })
})
