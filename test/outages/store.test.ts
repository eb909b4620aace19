import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { stopwatch } from '../../src/base/time.ts'
import { after, atEachCrossing, before, crossings } from '../support/crossings.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { isCommit } from '../support/statements.ts'
import { createTripwire, type Wire, wirePostgres } from '../support/tripwire.ts'
import { type Backstage, backstageOf, type Ground, type Opened, secondsAfter, startGround, until } from './ground.ts'
import { type FaultyWire, faultyWire } from '../support/wire.ts'

const unavailable = { status: 503, retryAfter: '1', body: { code: 'store_unavailable', retry: 'later' } }

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('an outage of the store', () => {
  let store: OpenedStore
  let wire: FaultyWire
  let ground: Ground
  let backstage: Backstage
  /** Of the test: its deadline passes during the outage; its agent asks to complete it then; an operator revokes it then. */
  let tasks: { late: Opened; completed: Opened; revoked: Opened }

  beforeAll(async () => {
    store = await openDatabase()
    const { url } = store.settings as { url: string }
    wire = await faultyWire(url)
    // Few connections, so that those which stay dead are missed.
    ground = await startGround({ store: { url: wire.url, pool: 2 } })
    backstage = await backstageOf(store, ground)
  })
  beforeEach(async () => {
    tasks = { late: await ground.open('api', 'crm'), completed: await ground.open('crm'), revoked: await ground.open('crm') }
  })
  afterEach(async () => {
    await wire.mend()
    expect(await ground.lab.alive()).toEqual([])
    expect(await backstage.audit()).toEqual([])
  })
  afterAll(async () => {
    await ground.stop()
    await Promise.all([backstage.stop(), wire.stop()])
    await store.dispose()
  })

  const alive = async () => (await ground.lab.alive()).length
  const stateOf = async ({ id }: Opened) => (await backstage.sql`select state, cause from tasks where id = ${id}`)[0]
  const nothingOwed = async () => (await alive()) === 0 && (await backstage.owed()) === 0

  /** What agents, operators and probes see while nothing can be written. */
  async function seesTheOutage({ readable }: { readable: boolean }): Promise<void> {
    const minted = (await ground.lab.minted()).length
    const [declared, completed, revoked, introspected] = await Promise.all([
      ground.declare(['crm']),
      ground.complete(tasks.completed),
      ground.revoke(tasks.revoked),
      ground.introspect(tasks.late.secrets[0]!),
    ])
    expect(declared).toMatchObject(unavailable)
    expect(completed).toMatchObject(unavailable)
    expect(revoked).toMatchObject(unavailable)
    expect(introspected).toMatchObject(readable ? { status: 200, body: { active: true } } : unavailable)

    await until(async () => (await ground.readyz()).status === 503)
    expect(await ground.readyz()).toMatchObject({ status: 503, body: { status: 'not_ready', store: 'failing' } })
    expect((await fetch(`${ground.broker.url}/healthz`)).status).toBe(200)
    expect(await ground.metric('mayfly_store_up')).toBe(0)
    const unfinished = await ground.metric('mayfly_oldest_unfinished_revocation_seconds')
    if (!readable) expect(unfinished, 'no number is better than an old one').toBeNaN()
    await until(() => ground.broker.log().includes('the reaper could not look at the store'))

    expect((await ground.lab.minted()).length, 'nothing was issued').toBe(minted)
    expect(await alive(), 'nothing was ended that nobody could write down').toBe(3)
  }

  /** Milliseconds until a completion is told that there is no store. */
  async function untilRefused(): Promise<number> {
    const elapsed = stopwatch()
    expect(await ground.complete(tasks.completed)).toMatchObject(unavailable)
    return elapsed()
  }

  /** The outage ends, ten minutes after it began: every deadline has passed meanwhile. */
  async function recovers(what: string, mend: () => Promise<void>): Promise<void> {
    await backstage.age('10 minutes')
    const known = (await backstage.sql`select id from leases`).length
    await secondsAfter(ground, what, mend, nothingOwed)

    for (const task of Object.values(tasks)) expect(await stateOf(task), 'nothing was forgotten').toEqual({ state: 'expired', cause: 'deadline' })
    expect((await backstage.sql`select id from leases`).length, 'and nothing was invented').toBe(known)
    const atTheLab = await backstage.sql`
      select state, evidence ->> 'by' as by, count(*)::int from leases
      where provider = 'lab' and task_id in ${backstage.sql(Object.values(tasks).map(({ id }) => id))} group by 1, 2`
    expect([...atTheLab], 'past their own end, and asked for all the same').toEqual([{ state: 'revoked', by: 'provider', count: 3 }])
    expect(await ground.complete(tasks.completed), 'asked again, it tells how the task ended').toMatchObject({ status: 200, body: { ended: true } })
    await until(async () => (await ground.readyz()).status === 200)
    expect(await ground.metric('mayfly_store_up')).toBe(1)
    await until(async () => (await ground.metric('mayfly_oldest_unfinished_revocation_seconds')) === 0)
    await ground.complete(await ground.open('crm', 'api'), 30)
  }

  test('that refuses connections for ten minutes: no issuance, nothing forgotten, everything due done within 5 s of recovery', async () => {
    await wire.cut()
    await seesTheOutage({ readable: false })
    await recovers('a store that refused connections', () => wire.mend())
  })

  test('that accepts connections and answers nothing for ten minutes: the same, though the connections of before stay silent for ever', async () => {
    wire.hang()
    // Waits for the answer to a statement, which is waited for longest; a probe has its own patience, and what comes later a new connection.
    const underWay = untilRefused()
    const first = await Promise.race([
      until(async () => (await ground.readyz()).status === 503).then(() => 'the probe'),
      underWay.then(() => 'the call'),
    ])
    expect(first).toBe('the probe')
    await seesTheOutage({ readable: false })
    expect(await untilRefused()).toBeLessThan(await underWay)
    await recovers('a store that hung', () => wire.mend())
  })

  test('that can only be read for ten minutes: introspection goes on, nothing is issued or ended, and the broker finds out that it can write again', async () => {
    const database = new URL((store.settings as { url: string }).url).pathname.slice(1)
    await backstage.sql.unsafe(`alter database ${database} set default_transaction_read_only = on`)
    await wire.cut()
    await wire.mend()
    await until(async () => (await ground.readyz()).status === 503)
    await seesTheOutage({ readable: true })
    // Sessions that were opened while it was read only stay so: these are the ones that the broker has now.
    await recovers('a store that could only be read', async () => {
      await backstage.sql.unsafe(`alter database ${database} reset default_transaction_read_only`)
    })
  })

  test('in which catalogue and policies are reloaded: what was loaded is in force once it is over, without another SIGHUP', async () => {
    const file = path.join(ground.site.folder, 'policies/site.cedar')
    const before = await readFile(file, 'utf8')
    const reloads = (outcome: string) => ground.metric(`mayfly_policy_reloads_total{outcome="${outcome}"}`)
    await wire.cut()
    await ground.site.write('policies/site.cedar', before.replaceAll('permit(', 'forbid('))
    ground.broker.process.kill('SIGHUP')
    await until(async () => (await reloads('waiting')) === 1)
    expect([await reloads('activated'), await reloads('refused')]).toEqual([0, 0])

    await wire.mend()

    await until(async () => (await reloads('activated')) === 1)
    expect(await ground.declare(['crm'])).toMatchObject({ status: 403, body: { code: 'denied' } })
    for (const task of Object.values(tasks)) await ground.complete(task, 30)
    await ground.site.write('policies/site.cedar', before)
    ground.broker.process.kill('SIGHUP')
    await until(async () => (await reloads('activated')) === 2)
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a store that is lost at any commit that somebody waits for', () => {
  const tripwire = createTripwire()
  let store: OpenedStore
  let wire: Wire
  let ground: Ground
  let backstage: Backstage

  beforeAll(async () => {
    store = await openDatabase()
    wire = await wirePostgres((store.settings as { url: string }).url, tripwire)
    ground = await startGround({ store: { url: wire.url } })
    backstage = await backstageOf(store, ground)
  })
  afterAll(async () => {
    await ground.stop()
    await Promise.all([backstage.stop(), wire.stop()])
    await store.dispose()
  })

  const nothingOwed = async () => (await ground.lab.alive()).length === 0 && (await backstage.owed()) === 0

  /** Loses the store at one crossing after the other, before and after each commit, until the deed is through without coming that far. */
  async function atEachCommit<Given>(
    crosses: readonly string[],
    prepare: () => Promise<Given>,
    deed: (given: Given) => Promise<void>,
  ): Promise<void> {
    const commits = crosses.filter(isCommit)
    await atEachCrossing([...before(commits), ...after(commits)], isCommit, async (where) => {
      const given = await prepare()
      tripwire.arm(() => {}, where)
      await deed(given)
      const struck = tripwire.where()
      tripwire.disarm()
      expect(await backstage.audit()).toEqual([])
      expect(await ground.lab.alive()).toEqual([])
      console.log(struck === undefined ? 'not lost' : `lost ${struck}`)
      return struck
    })
  }

  test('of a declaration gives no credential away: what was not confirmed ends when its mint is looked after, a minute later, and the rest with its task', async () => {
    const nothing = async () => {}
    await atEachCommit(crossings.declare, nothing, async () => {
      const { status, body } = await ground.declare(['crm'])
      if (status !== 201) expect({ status, body }).toMatchObject({ status: 503, body: { code: 'store_unavailable' } })
      else await ground.complete({ id: (body['task'] as { id: string }).id, token: body['task_token'] as string, leases: [], secrets: [] }, 30)
      tripwire.disarm()
      await backstage.age('61 seconds')
      await secondsAfter(ground, 'a store that was lost while a task was declared', nothing, async () => (await backstage.owed()) === 0)
      const confirmed = await backstage.sql<{ id: string }[]>`select id from leases where state = 'active'`
      expect((await ground.lab.alive()).map(({ lease }) => lease)).toEqual(confirmed.map(({ id }) => id))

      // The task lasts five minutes.
      await backstage.age('240 seconds')
      await secondsAfter(ground, 'the deadline of what was confirmed', nothing, nothingOwed)
    })
  }, 300_000)

  test('of a completion: what was asked for is done within 5 s of recovery, also where the answer to a commit was lost', async () => {
    const prepare = () => ground.open('api', 'crm')
    await atEachCommit(crossings.end, prepare, async (task) => {
      const { status } = await ground.complete(task, 1)
      await secondsAfter(
        ground,
        'a store that was lost while a task was completed',
        async () => tripwire.disarm(),
        async () => {
          if (status === 503) expect((await ground.complete(task)).status, 'asking again is enough').toBeLessThan(500)
          return await nothingOwed()
        },
      )
    })
  }, 300_000)
})
