import { setMaxListeners } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import { request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority } from '../providers/certificates.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { type OpenedStore, openEmbedded, stores } from '../support/stores.ts'
import { type Ground, type Opened, secondsAfter, startGround, until } from './ground.ts'

/** Long enough for a busy machine, and short enough to be waited for again and again where it hangs. */
const labTimeout = '5s'

/** Every call of a kind, for as long as a test may last. */
const always = { times: 10_000 }

interface Outage {
  readonly words: string
  /** What `mayfly_provider_call_seconds` calls it. */
  readonly outcome: string
  begin(): Promise<unknown>
  end(): Promise<unknown>
}

describe('an outage of a provider', () => {
  let folder: string
  let store: OpenedStore
  let ground: Ground
  let front: Server
  let port: number
  let authorities: { ours: Certificates; strangers: Certificates }

  interface Certificates {
    readonly cert: Buffer
    readonly key: Buffer
  }

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-front-'))
    const [ours, strangers] = await Promise.all([createAuthority(folder, 'ours'), createAuthority(folder, 'strangers')])
    const [good, bad] = await Promise.all([ours.issue('lab', 'IP:127.0.0.1'), strangers.issue('lab', 'IP:127.0.0.1')])
    const read = async (files: typeof good) => ({ cert: await readFile(files.cert), key: await readFile(files.key) })
    authorities = { ours: await read(good), strangers: await read(bad) }
    await writeFile(path.join(folder, 'token'), 'the-broker-token')
    store = await openEmbedded()
    ground = await startGround({
      store: store.settings,
      labTimeout,
      labSettings: `, ca: "${ours.ca}", token_file: "${path.join(folder, 'token')}"`,
      front: async (lab) => {
        front = behindTls(lab, authorities.ours)
        await listen(0)
        port = (front.address() as AddressInfo).port
        return `https://127.0.0.1:${port}`
      },
    })
  })
  afterEach(async () => {
    expect(await ground.lab.alive()).toEqual([])
  })
  afterAll(async () => {
    await ground.stop()
    front.closeAllConnections()
    front.close()
    await store.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  const listen = (at: number) => new Promise<void>((resolve) => front.listen(at, '127.0.0.1', resolve))
  const series = (call: string, outcome: string) => `mayfly_provider_call_seconds_count{provider="lab",call="${call}",outcome="${outcome}"}`
  const providerLine = async () => ((await ground.readyz()).body['providers'] as { name: string; state: string }[]).find(({ name }) => name === 'lab')
  const shown = async (task: Opened) => (await ground.call(task.token, 'GET', `/tasks/${task.id}`)).body['leases'] as Record<string, unknown>[]

  const outages: readonly Outage[] = [
    {
      words: 'refuses connections',
      outcome: 'unavailable',
      begin: async () => (front.close(), front.closeAllConnections()),
      end: () => listen(port),
    },
    {
      words: 'hangs for ever',
      outcome: 'timed_out',
      begin: () => Promise.all((['put', 'delete', 'get'] as const).map((call) => ground.lab.next(call, 'hangs', always))),
      end: async () => (await ground.lab.clear(), await ground.lab.release()),
    },
    {
      words: 'shows the certificate of somebody else',
      outcome: 'unavailable',
      begin: async () => (front.setSecureContext(authorities.strangers), front.closeAllConnections()),
      end: async () => front.setSecureContext(authorities.ours),
    },
  ]

  test.each(outages.map((outage) => [outage.words, outage] as const))(
    'that %s: new work is refused, what it holds stays revoking with its error, and dies within 5 s of recovery',
    async (_, outage) => {
      const tasks: Opened[] = []
      for (let each = 0; each < 12; each++) tasks.push(await ground.open('crm'))
      const late = await ground.open('crm', 'api')
      await outage.begin()

      // What agents get: a reason and a time to come back, and at once when it is known that asking would be in vain.
      const refused = { status: 503, retryAfter: '2', body: { code: 'provider_unavailable', retry: 'later' } }
      for (const answer of await Promise.all([1, 2, 3].map(() => ground.declare(['crm'])))) expect(answer).toMatchObject(refused)
      const asked = (await ground.lab.calls()).filter(({ call }) => call === 'put').length
      for (const answer of await Promise.all(Array.from({ length: 16 }, () => ground.declare(['crm'])))) expect(answer).toMatchObject(refused)
      if (outage.outcome === 'timed_out') expect((await ground.lab.calls()).filter(({ call }) => call === 'put').length).toBeLessThan(asked + 8)
      expect((await ground.declare(['api'])).status, 'what needs another provider goes on').toBe(201)

      // Completing and revoking are taken, and nothing is claimed.
      for (const task of tasks.slice(1))
        expect(await ground.complete(task)).toMatchObject({ status: 202, body: { ended: false, task: { state: 'closing' } } })
      expect(await ground.revoke(tasks[0]!)).toMatchObject({ status: 202, body: { ended: false } })
      expect(await ground.complete(late)).toMatchObject({ status: 202 })
      expect(await ground.introspect(late.secrets[1]!), 'what the broker signed itself is dead already').toMatchObject({ body: { active: false } })
      await until(async () =>
        (await Promise.all(tasks.map(shown))).every(([lease]) => lease!['error'] !== undefined || lease!['state'] !== 'revoking'),
      )
      for (const task of tasks) {
        const [lease] = await shown(task)
        expect(lease).toMatchObject({ state: 'revoking', error: expect.stringContaining('lab') as unknown })
        expect(lease).not.toHaveProperty('evidence')
        expect(await ground.lab.works(task.secrets[0]!)).toBe(true)
      }

      // The lines that say so.
      await until(async () => (await ground.metric('mayfly_provider_up{provider="lab"}')) === 0)
      expect(await ground.metric('mayfly_provider_up{provider="tokens"}')).toBe(1)
      expect(await ground.metric(series('mint', outage.outcome))).toBeGreaterThan(0)
      expect(await ground.metric(series('revoke', outage.outcome))).toBeGreaterThan(0)
      await until(async () => (await ground.metric('mayfly_leases{state="revoking"}'))! >= 13)
      expect(await ground.metric('mayfly_oldest_unfinished_revocation_seconds')).toBeGreaterThan(0)
      expect(await ground.readyz(), 'whoever has to complete must still get through').toMatchObject({ status: 200, body: { status: 'ready' } })
      expect(await providerLine()).toEqual({ name: 'lab', state: 'failing' })

      await secondsAfter(
        ground,
        `a provider that ${outage.words}`,
        async () => void (await outage.end()),
        async () => (await ground.metric('mayfly_leases{state="revoking"}')) === 0 && (await ground.lab.alive()).length === 0,
      )

      for (const task of [...tasks, late]) expect((await shown(task))[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
      expect(await ground.metric('mayfly_stuck_leases')).toBe(0)
      await until(async () => (await ground.declare(['crm'])).status === 201)
      expect(await ground.metric('mayfly_provider_up{provider="lab"}')).toBe(1)
      expect(await providerLine()).toEqual({ name: 'lab', state: 'ok' })
      await completeAll()
    },
    150_000,
  )

  /** Ends whatever a test left open. */
  async function completeAll(): Promise<void> {
    const ops = await ground.site.token('operator:ops')
    const { items } = (await ground.call(ops, 'GET', '/tasks?state=open')).body as { items: { id: string }[] }
    for (const { id } of items) await ground.revoke({ id })
    await until(async () => (await ground.lab.alive()).length === 0)
  }
})

/** The lab behind TLS. */
function behindTls(target: string, certificate: { cert: Buffer; key: Buffer }): Server {
  const server = createServer(certificate, (incoming, outgoing) => {
    const { method, headers, url } = incoming
    const onward = request(new URL(url!, target), { method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(outgoing)
    })
    onward.on('error', () => outgoing.destroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  })
  // A client that asks again after Node's five seconds would meet the connection as it closes.
  server.keepAliveTimeout = 120_000
  return server
}

describe('a provider that hangs for ever', () => {
  let store: OpenedStore
  let ground: Ground
  let other: Lab

  beforeAll(async () => {
    ;[store, other] = await Promise.all([stores.at(-1)!.open(), startLab()])
    ground = await startGround({
      store: store.settings,
      labTimeout,
      other: other.url,
      extra: 'limits: { requests_per_second: 10000, burst: 100000 }\n',
    })
  })
  afterAll(async () => {
    await ground.lab.clear()
    await ground.lab.release()
    await ground.stop()
    await other.stop()
    await store.dispose()
  })

  /** Milliseconds of so many declarations and completions with the healthy provider, one after the other. */
  async function measure(count: number): Promise<{ mint: number[]; end: number[] }> {
    const times = { mint: [] as number[], end: [] as number[] }
    for (let each = 0; each < count; each++) {
      const began = performance.now()
      const task = await ground.open('other')
      const minted = performance.now()
      expect(await ground.complete(task, 30)).toMatchObject({ status: 200, body: { ended: true } })
      times.mint.push(minted - began)
      times.end.push(performance.now() - minted)
    }
    return times
  }

  /** Agents that ask the hanging one, and ask again when they are told to. */
  async function askInVain(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const { status, retryAfter } = await ground.declare(['crm'])
      expect(status).toBe(503)
      await pause(Number(retryAfter) * 1_000, undefined, { signal: stop }).catch(() => {})
    }
  }

  const hang = () => Promise.all((['put', 'delete', 'get'] as const).map((call) => ground.lab.next(call, 'hangs', always)))

  /** Lets it answer again, until it has ended what it held and mints. */
  async function recover(): Promise<void> {
    await ground.lab.clear()
    await ground.lab.release()
    await until(async () => (await ground.metric('mayfly_leases{state="revoking"}')) === 0)
    await until(async () => {
      const { status, body } = await ground.declare(['crm'])
      if (status === 201) await ground.revoke(body['task'] as { id: string }, undefined, 30)
      return status === 201
    })
  }

  test('does not slow another one', async () => {
    await measure(30)
    const rounds = 30
    const alone = { mint: [] as number[], end: [] as number[] }
    const beside = { mint: [] as number[], end: [] as number[] }
    const add = (to: typeof alone, more: typeof alone) => (to.mint.push(...more.mint), to.end.push(...more.end))
    // In turns, so that what else the machine does falls on both.
    for (let turn = 0; turn < 4; turn++) {
      add(alone, await measure(rounds))
      const held = await Promise.all(Array.from({ length: 20 }, () => ground.open('crm')))
      await hang()
      for (const task of held) expect(await ground.complete(task)).toMatchObject({ status: 202 })
      const stop = new AbortController()
      setMaxListeners(0, stop.signal)
      const crowd = Array.from({ length: 20 }, () => askInVain(stop.signal))
      add(beside, await measure(rounds))
      stop.abort()
      await Promise.all(crowd)
      await recover()
    }
    for (const verb of ['mint', 'end'] as const) {
      const at = (times: readonly number[], share: number) => times.toSorted((one, another) => one - another)[Math.floor(times.length * share)]!
      const ratio = (share: number) => at(beside[verb], share) / at(alone[verb], share)
      const words = (share: number) => `${at(beside[verb], share).toFixed(1)} ms, ${ratio(share).toFixed(2)} of alone`
      console.log(`to ${verb} beside a provider that hangs: median ${words(0.5)}; p99 ${words(0.99)}`)
      expect(ratio(0.5), verb).toBeLessThan(5)
    }
  }, 400_000)
})
