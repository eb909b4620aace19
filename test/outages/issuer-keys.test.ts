import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { openLocalIssuer } from '../../src/identity/local-issuer.ts'
import { audience } from '../support/program.ts'
import { type OpenedStore, openEmbedded } from '../support/stores.ts'
import { type Ground, type Opened, secondsAfter, type ShiftedClock, shiftedClock, startGround, until } from './ground.ts'

const minutes = 60_000
const refused = { status: 401, body: { code: 'invalid_token', retry: 'new_token' } }

/** What becomes of a request for the issuer's keys. */
const faults: readonly (readonly [string, (response: ServerResponse) => void])[] = [
  ['resets connections', (response) => void response.socket?.resetAndDestroy()],
  ['never answers', () => undefined],
  ['answers an error', (response) => void response.writeHead(503).end()],
  ['answers garbage', (response) => void response.end('<html>')],
  ['breaks off', (response) => void response.writeHead(200, { 'content-length': 5_000 }).write('{"keys":', () => response.destroy())],
]

describe('an outage of the keys of an issuer', () => {
  let store: OpenedStore
  let ground: Ground
  let clock: ShiftedClock
  let server: Server
  let answer: (response: ServerResponse) => void = (response) => void response.writeHead(503).end()
  let now = 0

  beforeAll(async () => {
    server = createServer((_, response) => answer(response))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    clock = await shiftedClock()
    store = await openEmbedded()
    ground = await startGround({
      store: store.settings,
      keys: `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`,
      environment: clock.environment,
    })
  })
  beforeEach(async () => {
    await publish()
    await until(async () => (await ask()).status === 201)
  })
  afterAll(async () => {
    await ground.stop()
    await clock.remove()
    server.closeAllConnections()
    server.close()
    await store.dispose()
  })

  const publish = async () => void (answer = (response) => void response.end(JSON.stringify(ground.site.jwks)))
  /** Sets the clock of broker and store, and with it that of whoever signs. */
  const at = async (ms: number) => clock.set((now = ms))
  const token = (sub: string) => ground.site.token(sub, now)
  const ask = async () => await ground.declare(['api'], await token('agent:bot'))
  const issuerLine = async () => ((await ground.readyz()).body['issuers'] as { name: string; state: string }[])[0]
  const fetches = (outcome: 'changed' | 'failed') => ground.metric(`mayfly_issuer_key_fetches_total{issuer="local",outcome="${outcome}"}`)
  const refusedForWantOfKeys = () => ground.metric('mayfly_tokens_refused_total{issuer="local",reason="keys_unavailable"}')

  async function open(): Promise<Opened> {
    const { body } = await ground.declare(['api', 'crm'], await token('agent:bot'))
    const { task, task_token, leases } = body as { task: { id: string }; task_token: string; leases: { id: string; credential: { token: string } }[] }
    return { id: task.id, token: task_token, leases: leases.map(({ id }) => id), secrets: leases.map(({ credential }) => credential.token) }
  }

  test.each(faults)(
    'that %s: its last keys are good for an hour after they were due; then its agents get 401, and completing still works',
    async (words, fault) => {
      const failed = (await fetches('failed'))!
      const start = now
      answer = fault
      await at(start + 12 * minutes)
      expect((await ask()).status, 'keys that are due').toBe(201)
      await until(async () => (await fetches('failed'))! > failed)
      await at(start + 69 * minutes)
      expect((await ask()).status, 'keys that are old').toBe(201)
      expect(await issuerLine()).toEqual({ name: 'local', state: 'ok' })
      const task = await open()

      await at(start + 71 * minutes)
      expect(await ask()).toMatchObject(refused)
      expect(await ground.revoke(task, await token('operator:ops')), 'an operator has a workload token, too').toMatchObject(refused)
      expect(await refusedForWantOfKeys()).toBeGreaterThan(0)
      const readiness = await ground.readyz()
      expect(readiness, 'whoever has to complete must still get through').toMatchObject({ status: 200, body: { status: 'ready' } })
      expect(await issuerLine()).toEqual({ name: 'local', state: 'failing' })
      expect(await ground.complete(task, 30), 'with the token of the task').toMatchObject({ status: 200, body: { ended: true } })
      expect(await ground.lab.alive()).toEqual([])

      await secondsAfter(ground, `an issuer that ${words}`, publish, async () => (await ask()).status === 201)
      expect(await issuerLine()).toEqual({ name: 'local', state: 'ok' })
    },
    120_000,
  )

  test('that is down when the broker starts: the broker is ready, ends what it finds, and lets agents in when the keys are there', async () => {
    const task = await open()
    answer = faults[2]![1]
    await ground.restart()
    expect(await ask()).toMatchObject(refused)
    expect(await fetches('failed')).toBeGreaterThan(0)
    expect(await refusedForWantOfKeys()).toBeGreaterThan(0)
    expect(await ground.readyz()).toMatchObject({ status: 200, body: { status: 'ready' } })
    expect(await issuerLine()).toEqual({ name: 'local', state: 'failing' })
    expect(await ground.complete(task, 30)).toMatchObject({ status: 200, body: { ended: true } })
    expect(await ground.lab.alive()).toEqual([])
    await secondsAfter(ground, 'an issuer that was down when the broker started', publish, async () => (await ask()).status === 201)
    expect(await issuerLine()).toEqual({ name: 'local', state: 'ok' })
  })

  test('that has other keys: the old ones are out with their set, and a token of the old is refused', async () => {
    // Not due yet, so that these are let in by the old ones.
    await at(now + 8 * minutes)
    const [completed, revoked] = [await open(), await open()]
    const [before, operator] = [await token('agent:bot'), await token('operator:ops')]
    const changed = (await fetches('changed'))!
    const next = await openLocalIssuer(path.join(ground.site.folder, 'next.json'))
    answer = (response) => void response.end(JSON.stringify(next.jwks))
    await at(now + 3 * minutes)
    await until(async () => (await ask()).status === 401)

    expect(await ground.declare(['api'], before)).toMatchObject(refused)
    expect(await ground.revoke(revoked, operator)).toMatchObject(refused)
    expect(await fetches('changed')).toBe(changed + 1)
    expect(await ground.readyz()).toMatchObject({ status: 200, body: { status: 'ready' } })
    expect(await issuerLine()).toEqual({ name: 'local', state: 'ok' })
    const ofTheNext = (sub: string) => next.sign({ sub, aud: audience, lifetimeSeconds: 3_000 }, Date.now() + now)
    expect((await ground.declare(['api'], await ofTheNext('agent:bot'))).status).toBe(201)
    expect(await ground.complete(completed, 30)).toMatchObject({ status: 200, body: { ended: true } })
    expect((await ground.revoke(revoked, await ofTheNext('operator:ops'))).status).toBeLessThan(300)
    await until(async () => (await ground.lab.alive()).length === 0)
  })
})
