import { once } from 'node:events'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { systemClock } from '../../src/base/time.ts'
import { httpKind } from '../../src/providers/http/http.ts'
import { createAsk } from '../../src/providers/vault/client.ts'
import { vaultSettings } from '../../src/providers/vault/settings.ts'
import { canMakeCertificates, createAuthority } from './certificates.ts'
import { reservationOf } from './reservation.ts'

const patient = new AbortController().signal

describe.skipIf(!canMakeCertificates())('a backend behind TLS', () => {
  let folder: string
  let house: Awaited<ReturnType<typeof createAuthority>>
  let strangers: Awaited<ReturnType<typeof createAuthority>>
  let server: Server
  /** Who asked, by the common name of the certificate. */
  let askers: string[] = []

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mayfly-tls-'))
    house = await createAuthority(folder, 'house')
    strangers = await createAuthority(folder, 'strangers')
    await writeFile(join(folder, 'token'), 'the-broker-token')
  })
  afterAll(() => rm(folder, { recursive: true }))
  beforeEach(() => {
    askers = []
  })
  afterEach(() => {
    server.close()
    server.closeAllConnections()
  })

  async function listen(address: string, options: object = {}): Promise<string> {
    const { cert, key } = await house.issue('server', address)
    const tls = { cert: await readFile(cert), key: await readFile(key), ca: await readFile(house.ca), ...options }
    server = createServer(tls, (request, response) => {
      askers.push(String((request.socket as TLSSocket).getPeerCertificate().subject?.CN))
      response.writeHead(204).end()
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
    return `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  const connect = (url: string, settings: object) =>
    httpKind.connect('crm', httpKind.settings.parse({ url, revocation: 'provider', ...settings }), {
      publicUrl: url,
      keys: folder,
      clock: systemClock,
    })

  test('is asked once its certificate was accepted', async () => {
    const crm = await connect(await listen('IP:127.0.0.1'), { ca: house.ca, token_file: join(folder, 'token') })
    await expect(crm.check(patient)).resolves.toBeUndefined()
  })

  test.each([
    ['an authority that is not trusted', 'IP:127.0.0.1', () => strangers.ca],
    ['another name', 'DNS:elsewhere.example.com', () => house.ca],
  ])('hears nothing where its certificate is of %s', async (_, address, ca) => {
    const crm = await connect(await listen(address), { ca: ca(), token_file: join(folder, 'token') })
    const minting = crm.mint(reservationOf({ settings: {} }), async () => {}, patient)
    await expect(minting).rejects.toMatchObject({ fault: 'unavailable', minted: 'no' })
    expect(askers).toEqual([])
  })

  test('hears nothing from a broker that does not trust it, as its Vault, though the environment says not to verify', async () => {
    vi.stubEnv('VAULT_SKIP_VERIFY', 'true')
    const auth = { method: 'token', token_file: join(folder, 'token') }
    const settings = vaultSettings.parse({ address: await listen('IP:127.0.0.1'), ca: strangers.ca, auth, token_role: 'mayfly-task' })
    const asking = createAsk(settings, () => {})({ path: 'sys/health', token: 's.own' }, patient)
    await expect(asking).rejects.toMatchObject({ fault: 'unavailable', sent: false })
    expect(askers).toEqual([])
    vi.unstubAllEnvs()
  })

  test('knows the broker by its client certificate, and by the new one as soon as the file changes', async () => {
    const url = await listen('IP:127.0.0.1', { requestCert: true, rejectUnauthorized: true })
    const [first, second] = [await house.issue('broker-1', 'DNS:broker'), await house.issue('broker-2', 'DNS:broker')]
    const current = { cert: join(folder, 'current.pem'), key: join(folder, 'current.key') }
    const use = async (files: typeof first) => {
      await copyFile(files.cert, current.cert)
      await copyFile(files.key, current.key)
    }
    await use(first)
    const crm = await connect(url, { ca: house.ca, mtls: current })
    await crm.check(patient)
    await use(second)
    await crm.check(patient)
    expect(askers).toEqual(['broker-1', 'broker-2'])
  })

  test('refuses a broker whose client certificate a stranger signed', async () => {
    const url = await listen('IP:127.0.0.1', { requestCert: true, rejectUnauthorized: true })
    const crm = await connect(url, { ca: house.ca, mtls: await strangers.issue('broker', 'DNS:broker') })
    await expect(crm.check(patient)).rejects.toMatchObject({ fault: 'unavailable' })
    expect(askers).toEqual([])
  })
})
