import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { openDatabase, openEmbedded, type OpenedStore, stores } from '../support/stores.ts'
import { type Backstage, backstageOf, type Ground, secondsAfter, type ShiftedClock, shiftedClock, startGround } from './ground.ts'

const minutes = 60_000
describe.runIf(stores.some(({ name }) => name === 'Postgres'))("a broker's clock that jumps while it runs", () => {
  let clock: ShiftedClock
  let store: OpenedStore
  let ground: Ground
  let backstage: Backstage

  beforeAll(async () => {
    store = await openDatabase()
    clock = await shiftedClock()
    ground = await startGround({ store: store.settings, environment: clock.environment })
    backstage = await backstageOf(store, ground)
  })
  afterEach(async () => {
    await jump(0)
    expect(await backstage.audit()).toEqual([])
  })
  afterAll(async () => {
    await ground.stop()
    await clock.remove()
    await backstage.stop()
    await store.dispose()
  })

  const jump = (ms: number) => clock.set(ms)
  const nothingOwed = async () => (await ground.lab.alive()).length === 0 && (await backstage.owed()) === 0

  describe.each([
    { words: 'five minutes ahead', ahead: 5 * minutes },
    { words: 'five minutes back', ahead: -5 * minutes },
  ])('$words', ({ words, ahead }) => {
    test('shows in metric and readiness, and the broker stays ready: tasks still have to be ended', async () => {
      await jump(ahead)
      const { status, body } = await ground.readyz()
      expect({ status, body }).toMatchObject({ status: 200, body: { status: 'ready', store: 'ok', reaper: { state: 'ok' } } })
      expect(body['clock']).toMatchObject({ state: 'failing' })
      // Where the machine stands still between the looks at the two clocks, that stands between them too.
      const off = (apart: number) => Math.abs(apart + ahead / 1_000)
      await expect.poll(async () => off(((await ground.readyz()).body['clock'] as { seconds_apart: number }).seconds_apart)).toBeLessThan(2)
      await expect.poll(async () => off((await ground.metric('mayfly_clock_apart_seconds'))!)).toBeLessThan(2)
      await jump(0)
      await expect.poll(async () => (await ground.readyz()).body['clock']).toMatchObject({ state: 'ok' })
    })

    test('moves no deadline: what is alive stays alive, and completing and revoking go on', async () => {
      const [first, second, third] = [await ground.open('api', 'crm'), await ground.open('api', 'crm'), await ground.open('api', 'crm')]
      await jump(ahead)
      // The reaper has come round meanwhile.
      const lap = async () => ((await ground.readyz()).body['reaper'] as { last_lap_seconds: number }).last_lap_seconds
      for (let before = await lap(), after = before; after >= before; after = await lap()) before = after
      const api = await ground.site.token('resource:api', ahead)
      for (const task of [first, second, third]) {
        expect(await ground.lab.works(task.secrets[1]!)).toBe(true)
        expect(await ground.introspect(task.secrets[0]!, api)).toMatchObject({ body: { active: true } })
      }

      expect(await ground.complete(first, 30)).toMatchObject({ status: 200, body: { ended: true } })
      const ops = await ground.site.token('operator:ops', ahead)
      expect(await ground.revoke(second, ops, 30)).toMatchObject({ status: 200, body: { ended: true, task: { state: 'revoked' } } })
      for (const task of [first, second]) {
        expect(await ground.lab.works(task.secrets[1]!)).toBe(false)
        expect(await ground.introspect(task.secrets[0]!, api)).toMatchObject({ body: { active: false } })
      }
      await backstage.age('301 seconds')
      await secondsAfter(ground, `a clock that went ${words}`, async () => {}, nothingOwed)
    })

    test('gives no token a second more than its task has, by the clock of the database', async () => {
      await jump(ahead)
      const as = await ground.site.token('agent:bot', ahead)
      const { status, body } = await ground.declare(['api'], as)
      expect(status, 'a token of an issuer whose clock went along').toBe(201)
      const task = body as { task: { id: string; deadline: string }; task_token: string; leases: { credential: { token: string } }[] }
      const claims = JSON.parse(Buffer.from(task.leases[0]!.credential.token.split('.')[1]!, 'base64url').toString()) as { iat: number; exp: number }
      const [row] = await backstage.sql<{ deadline: number; now: number }[]>`
        select extract(epoch from deadline)::float8 as deadline, extract(epoch from now())::float8 as now from tasks where id = ${task.task.id}`
      expect(claims.exp).toBeLessThanOrEqual(row!.deadline)
      expect(Math.abs(claims.iat - row!.now)).toBeLessThan(30)
      await ground.call(task.task_token, 'POST', `/tasks/${task.task.id}/complete`, {})
    })

    test('is what workload tokens are held against', async () => {
      await jump(ahead)
      const good = await ground.declare(['api'], await ground.site.token('agent:bot', 1_000))
      if (ahead > 0) {
        // Ten minutes of life, five of them already gone.
        expect(good.status).toBe(201)
        const short = await ground.site.token('agent:bot', -6 * minutes, 600)
        expect(await ground.declare(['api'], short)).toMatchObject({ status: 401, body: { code: 'invalid_token', retry: 'new_token' } })
        expect(await ground.metric('mayfly_tokens_refused_total{issuer="local",reason="expired"}')).toBeGreaterThan(0)
        const { task, task_token } = good.body as { task: { id: string }; task_token: string }
        expect((await ground.call(task_token, 'POST', `/tasks/${task.id}/complete`, {})).status).toBe(200)
      } else {
        expect(good).toMatchObject({ status: 401, body: { code: 'invalid_token', retry: 'new_token' } })
        expect(await ground.metric('mayfly_tokens_refused_total{issuer="local",reason="issued_in_future"}')).toBeGreaterThan(0)
        const old = await ground.declare(['api'], await ground.site.token('agent:bot', -13 * minutes, 600))
        expect(old.status, 'over for three minutes, but not by this clock').toBe(201)
        const { task, task_token } = old.body as { task: { id: string }; task_token: string }
        const fresh = await ground.site.token('operator:ops', 1_000)
        expect(await ground.revoke(task, fresh)).toMatchObject({ status: 401, body: { code: 'invalid_token', retry: 'new_token' } })
        expect((await ground.call(task_token, 'POST', `/tasks/${task.id}/complete`, {})).status).toBe(200)
      }
    })
  })
})

describe('the clock of the machine under broker and embedded store', () => {
  let clock: ShiftedClock
  let store: OpenedStore
  let ground: Ground

  beforeAll(async () => {
    store = await openEmbedded()
    clock = await shiftedClock()
    ground = await startGround({ store: store.settings, environment: clock.environment })
  })
  afterAll(async () => {
    await ground.stop()
    await clock.remove()
    await store.dispose()
  })

  /** There is one clock, which cannot be apart from itself. */
  async function seesOneClock(): Promise<void> {
    await expect.poll(() => ground.metric('mayfly_clock_apart_seconds')).toBeCloseTo(0, 0)
    expect(await ground.readyz()).toMatchObject({ status: 200, body: { status: 'ready', clock: { state: 'ok' } } })
  }

  test('jumps ahead: what has less time left than that ends at once, and is never late', async () => {
    const task = await ground.open('api', 'crm')
    await secondsAfter(
      ground,
      'a store whose clock went six minutes ahead',
      () => clock.set(6 * minutes),
      async () => (await ground.lab.alive()).length === 0,
    )
    expect(await ground.introspect(task.secrets[0]!)).toMatchObject({ status: 200, body: { active: false } })
    await seesOneClock()
    expect(await ground.complete(await ground.open('crm'), 30)).toMatchObject({ status: 200, body: { ended: true } })
  })

  test('jumps back: what is alive lives as much longer, and can be ended as ever', async () => {
    await clock.set(0)
    const task = await ground.open('api', 'crm')
    await clock.set(-6 * minutes)
    expect(await ground.introspect(task.secrets[0]!)).toMatchObject({ status: 401 })
    await seesOneClock()
    // Half a minute after its deadline, had the clock been left alone.
    await clock.set(-0.5 * minutes)
    expect(await ground.introspect(task.secrets[0]!, await ground.site.token('resource:api', -6 * minutes))).toMatchObject({ body: { active: true } })
    expect(await ground.lab.works(task.secrets[1]!)).toBe(true)
    expect(await ground.complete(task, 30)).toMatchObject({ status: 200, body: { ended: true } })
    expect(await ground.lab.alive()).toEqual([])
    await clock.set(0)
    expect(await ground.introspect(task.secrets[0]!)).toMatchObject({ body: { active: false } })
  })
})
