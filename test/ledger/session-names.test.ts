import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import type { RoleSessions } from '../../src/base/role-sessions.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { sweep } from '../../src/ledger/queue.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import { roleSessions } from '../../src/ledger/role-sessions.ts'
import { settle } from '../../src/ledger/settlement.ts'
import { audit } from '../support/audit.ts'
import { announceFurther, announceMint, passFor, preparePolicy } from '../support/minting.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('a lease that is announced with a pool of roles, on $name', ({ name: storeName, open }) => {
  let store: OpenedStore
  let ledger: Ledger
  let sessions: RoleSessions
  let pools = 0

  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
    sessions = roleSessions(ledger)
    await preparePolicy(ledger)
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    syncBuiltinESMExports()
    expect(await audit(ledger)).toEqual([])
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  /** Roles that no other test has, each with a cohort that names are given out in. */
  async function newPool(size: number): Promise<string[]> {
    const pool = ++pools
    const roles = Array.from({ length: size }, (_, index) => `/mayfly/named-${pool}-${index}`)
    for (const role of roles) expect(await sessions.reserve('aws', (await announceMint(ledger)).id, [role])).toMatchObject({ outcome: 'reserved' })
    return roles
  }

  const announce = (...pool: readonly string[]): Promise<Lease> => announceMint(ledger, 600_000, pool)
  const namesOf = (lease: Lease) => ledger.run<{ role: string; name: string }>(sql`select role, name from role_sessions where lease_id = ${lease.id}`)

  /** Its name, which stands among its handles from the start, and nowhere else. */
  async function named(lease: Lease): Promise<{ role: string; name: string }> {
    const names = await namesOf(lease)
    expect(names).toHaveLength(1)
    const [{ role, name }] = names as [{ role: string; name: string }]
    expect(lease.handles).toEqual([{ kind: 'session', role, session_name: name }])
    expect((await findLease(ledger, lease.id))!.lease.handles).toEqual(lease.handles)
    return { role, name }
  }

  test('has the name of its session with it, in the cohort that is open', async () => {
    const roles = await newPool(1)
    const { role, name } = await named(await announce(...roles))
    expect(role).toBe(roles[0])
    expect(name).toMatch(/^[0-9a-z]{8}$/)
    expect((await named(await announce(...roles))).name.slice(0, 3)).toBe(name.slice(0, 3))
  })

  test('has it in an open task too, each of several leases its own', async () => {
    const [one, other] = await newPool(2)
    const further = await announceFurther(ledger, await announce(), [one!], [], [other!])
    const byPool = [one, undefined, other].map((role) => further.find(({ handles }) => handles[0]?.['role'] === role)!)
    expect(byPool[1]!.handles).toEqual([])
    expect(await namesOf(byPool[1]!)).toEqual([])
    expect([(await named(byPool[0]!)).role, (await named(byPool[2]!)).role]).toEqual([one, other])
  })

  test('shares a name with none of many that are announced at once, whether these have a pool or not', async () => {
    const roles = await newPool(3)
    const leases = await Promise.all(Array.from({ length: 90 }, (_, index) => announce(...(index % 3 === 0 ? [] : roles))))
    const taken = await Promise.all(leases.filter((_, index) => index % 3 > 0).map(named))
    expect(new Set(taken.map(({ role, name }) => `${role} ${name}`)).size).toBe(60)
    expect(new Set(taken.map(({ role }) => role)).size).toBe(3)
    for (const lease of leases.filter((_, index) => index % 3 === 0)) expect(lease.handles).toEqual([])
  })

  test('is named in the role with the fewest denied sessions that is not shut', async () => {
    const roles = await newPool(3)
    const [busy, quiet, shut] = roles as [string, string, string]
    await sessions.deny('aws', (await announce(busy)).id)
    await ledger.run(sql`update kill_lists set rung = 6 where role = ${shut}`)
    for (let count = 0; count < 8; count++) expect((await named(await announce(...roles))).role).toBe(quiet)
  })

  describe('is announced without a name, and can be given one before it is minted,', () => {
    async function isNamedLater(lease: Lease, roles: readonly string[]): Promise<void> {
      expect([lease.handles, await namesOf(lease)]).toEqual([[], []])
      expect(await sessions.reserve('aws', lease.id, roles)).toMatchObject({ outcome: 'reserved' })
    }

    test('where its role has no cohort yet', async () => {
      const roles = [`/mayfly/unnamed-${++pools}`]
      await isNamedLater(await announce(...roles), roles)
    })

    test('where the cohort is older than five minutes', async () => {
      const roles = await newPool(1)
      await ledger.run(sql`update kill_lists set cohort_since = cohort_since - interval '5 minutes' where role = ${roles[0]}`)
      await isNamedLater(await announce(...roles), roles)
    })

    test('where somebody else drew its number', async () => {
      const roles = await newPool(1)
      const draws = vi.spyOn(crypto, 'randomInt') as unknown as { mockReturnValueOnce(value: number): void }
      for (const draw of [7, 7]) draws.mockReturnValueOnce(draw)
      syncBuiltinESMExports()
      expect((await named(await announce(...roles))).name.slice(3)).toBe('00007')
      await isNamedLater(await announce(...roles), roles)
    })

    test('once its role is not shut any more', async () => {
      const roles = await newPool(1)
      const shut = (rung: number) => ledger.run(sql`update kill_lists set rung = ${rung} where role = ${roles[0]}`)
      await shut(6)
      const lease = await announce(...roles)
      expect(await sessions.reserve('aws', lease.id, roles)).toEqual({ outcome: 'full' })
      await shut(1)
      await isNamedLater(lease, roles)
    })
  })

  test('takes no name where it is not announced', async () => {
    const roles = await newPool(1)
    const lease = await announce()
    const claim = { key: `key-${pools}`, requestDigest: '', holder: newId('dec'), from: undefined }
    await named(await announceMint(ledger, 600_000, roles, claim))
    const count = () => ledger.run(sql`select name from role_sessions where role = ${roles[0]}`)
    const before = await count()
    await expect(announceMint(ledger, 600_000, roles, { ...claim, holder: newId('dec') })).rejects.toThrow('key_taken')
    const fill = (by: number) => ledger.run(sql`update agents set live_leases = live_leases + ${by} where name = 'bot'`)
    await fill(10_000)
    await expect(announce(...roles)).rejects.toThrow('limit')
    await expect(announceFurther(ledger, lease, roles)).rejects.toThrow('limit')
    await fill(-10_000)
    await passFor(ledger, lease, 3_601)
    await expect(announceFurther(ledger, lease, roles)).rejects.toThrow('not_open')
    expect(await count()).toEqual(before)
  })

  test('that comes to nothing leaves a name that is forgotten two minutes past its end', async () => {
    const lease = await announce(...(await newPool(1)))
    await settle(ledger, { lease, settlement: { to: 'failed', error: 'refused' } })
    await passFor(ledger, lease, 700)
    await sweep(ledger, 10)
    expect(await namesOf(lease)).toHaveLength(1)
    await passFor(ledger, lease, 21)
    await sweep(ledger, 10)
    expect(await namesOf(lease)).toEqual([])
  })

  if (storeName === 'Postgres')
    test('waits for a kill list before it locks its task, as whoever holds the list waits for the task', async () => {
      const roles = await newPool(1)
      const lease = await announce()
      const owner = postgres((store.settings as { url: string }).url, { max: 2 })
      const { announcing } = await owner.begin(async (holder) => {
        await holder`select from kill_lists where role = ${roles[0]!} for update`
        const announcing = announceFurther(ledger, lease, roles)
        const waiting = () => owner`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
        while ((await waiting()).length === 0);
        await holder`select from tasks where id = ${lease.taskId} for update nowait`
        return { announcing }
      })
      await named((await announcing)[0]!)
      await owner.end()
    })
})
