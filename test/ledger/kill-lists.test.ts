import { sql } from 'drizzle-orm'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { HeldList, Intent, KillLists } from '../../src/base/kill-lists.ts'
import type { RoleSessions } from '../../src/base/role-sessions.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { closeLease } from '../../src/ledger/endings.ts'
import { killLists } from '../../src/ledger/kill-lists.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { claimDue } from '../../src/ledger/queue.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import { roleSessions } from '../../src/ledger/role-sessions.ts'
import { settle } from '../../src/ledger/settlement.ts'
import { audit } from '../support/audit.ts'
import { announceMint, confirmMint, passFor, preparePolicy } from '../support/minting.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('kill lists on $name', ({ name: storeName, open }) => {
  let store: OpenedStore
  let ledger: Ledger
  let sessions: RoleSessions
  let lists: KillLists
  let role: string
  let roles = 0

  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
    sessions = roleSessions(ledger)
    lists = killLists(ledger)
    await preparePolicy(ledger)
  })
  beforeEach(() => {
    // A role that no other test has.
    role = `/mayfly/role-${++roles}`
  })
  afterEach(async () => {
    expect(await audit(ledger)).toEqual([])
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  async function mint(confirmed = true): Promise<{ lease: Lease; name: string }> {
    const lease = await announceMint(ledger)
    const answer = await sessions.reserve('aws', lease.id, [role])
    if (answer.outcome !== 'reserved') throw new Error(answer.outcome)
    if (confirmed) await confirmMint(ledger, lease)
    return { lease, name: answer.session.name }
  }

  async function mintDenied(): Promise<{ lease: Lease; name: string }> {
    const minted = await mint()
    await closeLease(ledger, minted.lease, { cause: 'revoked', by: 'operator:ops' })
    await sessions.deny('aws', minted.lease.id)
    return minted
  }

  async function take(holder = 'one', pause = 0): Promise<HeldList> {
    const held = await lists.take('aws', role, holder, pause)
    if (typeof held === 'number') throw new Error(`held for ${held} ms`)
    return held
  }

  const documentOf = (generation: number, rest: Partial<Intent> = {}): Intent => ({
    generation,
    digest: `sha256:${generation}`,
    killed: [],
    cutoff: undefined,
    rung: 1,
    sacrificed: [],
    ...rest,
  })

  /** A document that was written, by a holder that has let go. */
  async function write(generation: number, denied: readonly string[] = [], rest: Partial<Intent> = {}): Promise<void> {
    await take()
    expect(await lists.intend('aws', role, 'one', documentOf(generation, rest))).toBe(true)
    expect(await lists.wrote('aws', role, 'one', generation, denied)).toBe(true)
    await lists.release('aws', role, 'one')
  }

  /** Lets so many seconds pass for the list, but not for its sessions. */
  const pass = (seconds: number) => {
    const by = sql`make_interval(secs => ${seconds})`
    return ledger.run(sql`
      update kill_lists set held_until = held_until - ${by}, intended_at = intended_at - ${by}, written_at = written_at - ${by}, check_at = check_at - ${by}, disturbed_at = disturbed_at - ${by}
      where role = ${role}`)
  }

  const isDue = async () => (await lists.due('aws')).includes(role)
  const told = async (lease: Lease) => (await sessions.deny('aws', lease.id))[0]!

  describe('taking', () => {
    test('reads all that the list depends on', async () => {
      const living = await mint()
      const underWay = await mint(false)
      const denied = await mintDenied()

      const held = await take()

      expect(held).toMatchObject({ generation: 0, digest: null, written: true, confirmed: 0, killed: [], cutoff: undefined, checkDue: false })
      expect(living.name.startsWith(held.open)).toBe(true)
      const reservedAt = (lease: Lease) =>
        ledger.run<{ at: string }>(sql`select to_json(reserved_at) #>> '{}' as at from role_sessions where lease_id = ${lease.id}`)
      const expected = await Promise.all(
        [living, underWay, denied].map(async ({ lease, name }) => {
          const { issuedAt } = (await findLease(ledger, lease.id))!.lease
          const [row] = await reservedAt(lease)
          return {
            name,
            denied: name === denied.name,
            generation: undefined,
            earliest: new Date(row!.at),
            latest: issuedAt ?? undefined,
          }
        }),
      )
      expect(held.sessions).toEqual(expected.toSorted((a, b) => (a.name < b.name ? -1 : 1)))
    })

    test('has a salt that no other list has, and keeps it', async () => {
      await mint()
      const { salt } = await take()
      expect(salt).toMatch(/^[0-9a-f]{8}$/)
      expect((await take()).salt).toBe(salt)
      role = `${role}-other`
      await mint()
      expect((await take()).salt).not.toBe(salt)
    })

    test('opens a cohort where the role has none yet', async () => {
      expect(await lists.take('aws', role, 'one', 0)).toEqual(expect.any(Number))
      expect((await take()).open).toMatch(/^[0-9a-z]{3}$/)
    })

    test('keeps a session for two minutes past its end, and one that never came to be not at all', async () => {
      const denied = await mintDenied()
      const { id, taskId } = (await mint(false)).lease
      await settle(ledger, { lease: { id, taskId }, settlement: { to: 'failed', error: 'refused' } })
      const listed = async () => (await take()).sessions.map(({ name }) => name)

      await passFor(ledger, denied.lease, 700)
      expect(await listed()).toEqual([denied.name])
      await passFor(ledger, denied.lease, 21)
      expect(await listed()).toEqual([])
    })

    test('leaves out a session that ended by itself and that nobody asked to deny: its own policy denies it', async () => {
      const minted = await mint()
      const asked = await mint()
      await sessions.deny('aws', asked.lease.id)
      for (const { lease } of [minted, asked]) {
        await passFor(ledger, lease, 601)
        const closed = await closeLease(ledger, lease, { cause: 'lease_expired', by: 'broker' })
        await settle(ledger, {
          lease: closed!,
          settlement: { to: 'expired', evidence: { by: 'time', statement: 'its end has passed', at: new Date().toISOString() } },
        })
      }
      expect((await take()).sessions).toMatchObject([{ name: asked.name, denied: true }])
    })

    test('lists a session as denied whose lease is being ended, whoever has asked for that yet', async () => {
      const { lease, name } = await mint()
      await closeLease(ledger, lease, { cause: 'revoked', by: 'operator:ops' })
      expect((await take()).sessions).toMatchObject([{ name, denied: true }])
      // Once it is named in a document it is denied for good.
      await write(1, [name])
      await lists.confirm('aws', role, 1)
      expect(await told(lease)).toMatchObject({ generation: 1, confirmedAt: expect.any(Date) as unknown })
    })

    test('gives it to one holder at a time, until it is released or its claim has run out', async () => {
      await mint()
      const before = Date.now()
      await take('one')
      const wait = Number(await lists.take('aws', role, 'other', 0))
      expect(Date.now() + wait - before, 'so long from when it was taken').toBeGreaterThan(29_000)
      expect(wait).toBeLessThanOrEqual(30_000)
      await take('one')

      await lists.release('aws', role, 'other')
      expect(await lists.take('aws', role, 'other', 0)).toEqual(expect.any(Number))
      await lists.release('aws', role, 'one')
      await take('other')

      await pass(15)
      expect(await lists.take('aws', role, 'one', 0)).toEqual(expect.any(Number))
      await pass(15)
      await take('one')
    })

    test('waits until so much time has passed since it was taken for its last document, however long that took to draw and to write', async () => {
      await mint()
      await take()
      await pass(5)
      await lists.intend('aws', role, 'one', documentOf(1))
      await pass(10)
      await lists.wrote('aws', role, 'one', 1, [])
      await lists.release('aws', role, 'one')
      const wait = await lists.take('aws', role, 'one', 30_000)
      expect(wait).toBeGreaterThan(0)
      expect(wait).toBeLessThanOrEqual(15_000)
      await pass(15)
      await take('one', 30_000)
    })
  })

  describe('a holder that was overtaken', () => {
    test('may neither mean to write, nor close a cohort, nor say that it wrote', async () => {
      await mint()
      await take('one')
      expect(await lists.intend('aws', role, 'one', documentOf(1))).toBe(true)
      await pass(30)
      await take('other')

      const open = (await take('other')).open
      expect(await lists.intend('aws', role, 'one', documentOf(2))).toBe(false)
      expect(await lists.closeCohort('aws', role, 'one')).toBe(false)
      expect(await lists.wrote('aws', role, 'one', 1, [])).toBe(false)
      await lists.checked('aws', role, 'one', 1)
      await lists.release('aws', role, 'one')
      expect(await take('other')).toMatchObject({ generation: 1, written: false, open })
    })

    test('may not mean to write once its claim has run out, though nobody has come', async () => {
      const { lease } = await mint()
      await take('one')
      await pass(30)
      expect(await lists.intend('aws', role, 'one', documentOf(1, { sacrificed: [(await take('one')).sessions[0]!.name] }))).toBe(true)
      await pass(30)
      expect(await lists.intend('aws', role, 'one', documentOf(2))).toBe(false)
      expect(await lists.closeCohort('aws', role, 'one')).toBe(false)
      expect((await findLease(ledger, lease.id))!.lease.state).toBe('revoking')
    })

    test('sacrifices nobody', async () => {
      const { lease, name } = await mint()
      await take('one')
      await pass(30)
      await take('other')

      expect(await lists.intend('aws', role, 'one', documentOf(1, { sacrificed: [name] }))).toBe(false)

      expect((await findLease(ledger, lease.id))!.lease.state).toBe('active')
      expect(await take('other')).toMatchObject({ generation: 0, sessions: [{ name, denied: false }] })
    })
  })

  describe('writing', () => {
    test('what was meant is known before it is written, and may be meant again only under a later number once it was', async () => {
      await mint()
      await take()
      const cutoff = new Date('2026-11-26T12:00:00Z')
      const intent = documentOf(1, { killed: ['abc'], cutoff, rung: 5 })
      expect(await lists.intend('aws', role, 'one', intent)).toBe(true)
      expect(await lists.intend('aws', role, 'one', intent), 'the answer was lost').toBe(true)
      expect(await take()).toMatchObject({ generation: 1, digest: 'sha256:1', written: false, killed: ['abc'], cutoff })

      expect(await lists.wrote('aws', role, 'one', 1, [])).toBe(true)
      expect(await lists.wrote('aws', role, 'one', 1, []), 'the answer was lost').toBe(true)
      expect(await take()).toMatchObject({ generation: 1, written: true })
      expect(await lists.intend('aws', role, 'one', documentOf(1))).toBe(false)
      expect(await lists.wrote('aws', role, 'one', 2, []), 'nobody meant to').toBe(false)
    })

    test('a session has the first generation that names it, and is dead with that or any later one', async () => {
      const [first, second, third] = [await mintDenied(), await mintDenied(), await mintDenied()]
      await write(1, [first.name])
      await write(2, [first.name, second.name])
      expect(await told(first.lease)).toMatchObject({ generation: 1, writtenAt: expect.any(Date) as unknown, confirmedAt: undefined })
      expect(await told(second.lease)).toMatchObject({ generation: 2, confirmedAt: undefined })
      expect(await told(third.lease)).toMatchObject({ generation: undefined, writtenAt: undefined, confirmedAt: undefined })

      await lists.confirm('aws', role, 1)
      const { confirmedAt } = await told(first.lease)
      expect(confirmedAt).toBeInstanceOf(Date)
      expect(await told(second.lease)).toMatchObject({ confirmedAt: undefined })

      await lists.confirm('aws', role, 2)
      await lists.confirm('aws', role, 1)
      expect(await told(first.lease)).toMatchObject({ generation: 1, confirmedAt })
      expect(await told(second.lease)).toMatchObject({ confirmedAt: expect.any(Date) as unknown })
      expect(await told(third.lease)).toMatchObject({ confirmedAt: undefined })
      expect(await take()).toMatchObject({ confirmed: 2 })
    })

    test('a generation that was seen in force before its holder said that it wrote it leaves nobody unconfirmed', async () => {
      const { lease, name } = await mintDenied()
      await take()
      await lists.intend('aws', role, 'one', documentOf(1))
      await lists.confirm('aws', role, 1)
      expect(await told(lease)).toMatchObject({ generation: undefined, confirmedAt: undefined })

      await lists.wrote('aws', role, 'one', 1, [name])

      expect(await told(lease)).toMatchObject({ generation: 1, confirmedAt: expect.any(Date) as unknown })
    })

    test('nobody is confirmed by a generation that nobody meant to write', async () => {
      const { lease, name } = await mintDenied()
      await write(1, [name])
      await lists.confirm('aws', role, 2)
      expect(await told(lease)).toMatchObject({ confirmedAt: undefined })
      expect(await take()).toMatchObject({ confirmed: 0 })
    })

    test('the history has one entry for each document, with what it gave up', async () => {
      await mint()
      await write(1, ['abcdefgh'])
      await take()
      await lists.intend('aws', role, 'one', documentOf(2, { rung: 5, killed: ['abc'], cutoff: new Date('2026-11-26T12:00:00Z') }))
      for (let count = 0; count < 2; count++) await lists.wrote('aws', role, 'one', 2, [])

      const { items } = await listEntries(ledger, { kind: 'kill_list.written' }, { limit: 100 })
      const own = items.map(({ body }) => body as Record<string, unknown>).filter((body) => body['role'] === role)
      expect(own).toEqual([
        { provider: 'aws', role, generation: 2, digest: 'sha256:2', rung: 5, names: 0, killed: ['abc'], cutoff: '2026-11-26T12:00:00.000Z' },
        { provider: 'aws', role, generation: 1, digest: 'sha256:1', rung: 1, names: 1 },
      ])
    })
  })

  describe('sacrificing', () => {
    test('ends the leases in the same commit, for the reaper to take at once, and leaves the others alone', async () => {
      const [active, reserved, other, ending] = [await mint(), await mint(false), await mint(), await mintDenied()]
      const before = (await findLease(ledger, ending.lease.id))!.lease
      await take()

      const sacrificed = [active, reserved, ending].map(({ name }) => name)
      expect(await lists.intend('aws', role, 'one', documentOf(1, { rung: 4, sacrificed }))).toBe(true)

      for (const { lease } of [active, reserved]) {
        expect((await findLease(ledger, lease.id))!).toMatchObject({
          task: { state: 'open' },
          lease: { state: 'revoking', cause: 'limit', endedBy: 'broker', attempts: 0 },
        })
        const { items } = await listEntries(ledger, { lease: lease.id, kind: 'lease.revoking' }, { limit: 10 })
        expect(items).toMatchObject([{ body: { cause: 'limit', by: 'broker' } }])
      }
      expect((await findLease(ledger, other.lease.id))!.lease.state).toBe('active')
      expect((await findLease(ledger, ending.lease.id))!.lease).toEqual(before)
      const { sessions: listed } = await take()
      expect(Object.fromEntries(listed.map(({ name, denied }) => [name, denied]))).toEqual({
        [active.name]: true,
        [reserved.name]: true,
        [ending.name]: true,
        [other.name]: false,
      })
      const claimed = await claimDue(ledger, [{ name: 'aws', kind: 'aws', free: 1_000 }])
      expect(claimed.map(({ id }) => id)).toEqual(expect.arrayContaining([active.lease.id, reserved.lease.id]))
      expect((await ledger.run(sql`select from role_sessions where lease_id = ${active.lease.id} and denied_at is not null`)).length).toBe(1)
    })

    test('shuts the role at the last step, until a document of a lower one', async () => {
      await mint()
      await take()
      await lists.intend('aws', role, 'one', documentOf(1, { rung: 6 }))
      const lease = await announceMint(ledger)
      expect(await sessions.reserve('aws', lease.id, [role])).toEqual({ outcome: 'full' })
      await lists.intend('aws', role, 'one', documentOf(2, { rung: 2 }))
      expect(await sessions.reserve('aws', lease.id, [role])).toMatchObject({ outcome: 'reserved' })
    })
  })

  describe('a role is due', () => {
    test('from the denial of a session that may be alive until it is confirmed', async () => {
      await mint()
      expect(await isDue()).toBe(false)
      const { name } = await mintDenied()
      expect(await isDue()).toBe(true)
      await write(1, [name])
      expect(await isDue()).toBe(true)
      await lists.confirm('aws', role, 1)
      expect(await isDue()).toBe(false)
    })

    test('no more for a session that has ended by itself', async () => {
      const { lease } = await mintDenied()
      await passFor(ledger, lease, 580)
      expect(await isDue()).toBe(true)
      await passFor(ledger, lease, 20)
      expect(await isDue()).toBe(false)
    })

    test('while nobody knows whether what was meant was written', async () => {
      await mint()
      await take()
      await lists.intend('aws', role, 'one', documentOf(1))
      expect(await isDue()).toBe(true)
      await lists.wrote('aws', role, 'one', 1, [])
      expect(await isDue()).toBe(false)
    })

    test('a minute after it was shut, for there may be room again', async () => {
      await mint()
      await write(1, [], { rung: 6 })
      expect(await isDue()).toBe(false)
      await pass(60)
      expect(await isDue()).toBe(true)
    })

    test('for its own provider alone', async () => {
      await mintDenied()
      expect(await lists.due('elsewhere')).toEqual([])
    })
  })

  describe('a comparison', () => {
    test('is due an hour after the first document, and when whoever compared said', async () => {
      await mint()
      await write(1)
      await pass(3_580)
      expect(await isDue()).toBe(false)
      await pass(20)
      expect(await isDue()).toBe(true)
      expect(await take()).toMatchObject({ checkDue: true })

      await lists.checked('aws', role, 'one', 600_000)
      expect(await take()).toMatchObject({ checkDue: false })
      await pass(600)
      expect(await take()).toMatchObject({ checkDue: true })
    })

    test('is due at once where somebody else may have written, and again when none of its calls can arrive any more', async () => {
      await mint()
      await write(1)
      await take()
      await lists.disturbed('aws', role)
      expect(await isDue()).toBe(true)
      expect(await take()).toMatchObject({ checkDue: true })

      await lists.checked('aws', role, 'one', 3_600_000)
      expect(await take()).toMatchObject({ checkDue: false })
      await pass(15)
      expect(await take()).toMatchObject({ checkDue: true })
      await lists.checked('aws', role, 'one', 3_600_000)
      await pass(3_580)
      expect(await take()).toMatchObject({ checkDue: false })
    })

    test('is due at once of all that was written for a provider, where whoever starts does not know what stands', async () => {
      await mint()
      await lists.doubt('aws')
      expect(await isDue(), 'nothing was').toBe(false)
      await write(1)
      await lists.doubt('elsewhere')
      expect(await isDue()).toBe(false)
      await lists.doubt('aws')
      expect(await isDue()).toBe(true)
      expect(await take()).toMatchObject({ checkDue: true })
    })

    test('is due no more for a role under a path that it had before names were given out under another', async () => {
      const former = role
      await mint()
      await write(1)
      await pass(3_600)
      expect(await isDue()).toBe(true)
      role = `/elsewhere${former}`
      await mint()
      await write(1)
      await pass(3_600)
      expect(await isDue()).toBe(true)
      expect(await lists.due('aws')).not.toContain(former)
    })

    test('is due 15 s after a list was taken over, or taken with what nobody knows to be written', async () => {
      await mint()
      await write(1)
      await take('one')
      await pass(30)
      await take('other')
      await lists.release('aws', role, 'other')
      expect(await isDue()).toBe(false)
      await pass(15)
      expect(await take('other')).toMatchObject({ checkDue: true })

      await lists.checked('aws', role, 'other', 3_600_000)
      await lists.intend('aws', role, 'other', documentOf(2))
      await lists.release('aws', role, 'other')
      expect(await take('one')).toMatchObject({ written: false, checkDue: false })
      await lists.intend('aws', role, 'one', documentOf(3))
      await lists.wrote('aws', role, 'one', 3, [])
      await pass(15)
      expect(await take('one')).toMatchObject({ written: true, checkDue: true })
    })
  })

  describe('a closed cohort', () => {
    test('gives no names any more', async () => {
      const { name } = await mint()
      const before = (await take()).open
      expect(await lists.closeCohort('aws', role, 'one')).toBe(true)
      const { open } = await take()
      expect(open).not.toBe(before)
      expect(name.startsWith(before)).toBe(true)
      expect((await mint()).name.startsWith(open)).toBe(true)
    })

    if (storeName === 'Postgres')
      test('is complete: whoever takes the list after closing has every name in it', { timeout: 120_000 }, async () => {
        const other = await connect(store.settings)
        const names: string[] = []
        const [mine, theirs] = [roleSessions(ledger), roleSessions(other)]
        const leases = await Promise.all(Array.from({ length: 400 }, () => announceMint(ledger)))
        const closed = new Map<string, readonly string[]>()
        let misses = 0
        for (let round = 0; round < 200; round++) {
          const reserving = [mine, theirs].map(async (port, index) => {
            await patience((round * 7 + index * 3) % 5)
            const answer = await port.reserve('aws', leases[2 * round + index]!.id, [role])
            if (answer.outcome === 'reserved') names.push(answer.session.name)
          })
          const announcing = (async () => {
            await patience((round * 5) % 7)
            const { handles } = await announceMint(round % 2 === 0 ? ledger : other, 600_000, [role])
            names.push(...handles.map((handle) => String(handle['session_name'])))
          })()
          const holder = `holder-${round % 2}`
          const listing = (async () => {
            const port = round % 2 === 0 ? lists : killLists(other)
            await patience(round % 4)
            // In every other round the cohort is closed by its age.
            const before = await port.take('aws', role, holder, 0)
            if (typeof before === 'number') return
            if (round % 3 === 0) await ledger.run(sql`update kill_lists set cohort_since = now() - interval '1 hour' where role = ${role}`)
            else await port.closeCohort('aws', role, holder)
            const held = await port.take('aws', role, holder, 0)
            await port.release('aws', role, holder)
            if (typeof held === 'number') return void misses++
            for (const { name } of held.sessions) {
              const cohort = name.slice(0, 3)
              if (cohort !== held.open && !closed.has(cohort))
                closed.set(
                  cohort,
                  held.sessions.map((session) => session.name).filter((listed) => listed.startsWith(cohort)),
                )
            }
          })()
          await Promise.all([...reserving, announcing, listing])
        }
        expect(names.length, 'two that ask for a name each round, and many with their announcement').toBeGreaterThan(450)
        expect(misses).toBeLessThan(100)
        expect(closed.size).toBeGreaterThan(30)
        for (const [cohort, listed] of closed) expect(names.filter((name) => name.startsWith(cohort)).toSorted()).toEqual(listed)
        const [row] = await ledger.run<{ deadlocks: string }>(sql`select deadlocks::text from pg_stat_database where datname = current_database()`)
        expect(row).toEqual({ deadlocks: '0' })
        await other.close()
      })
  })

  if (storeName === 'Postgres')
    describe('what was read before a statement waited for the list', () => {
      let owner: postgres.Sql

      beforeAll(() => {
        owner = postgres((store.settings as { url: string }).url, { max: 2 })
      })
      afterAll(() => owner.end())

      /** Until so many statements wait for a lock. */
      async function waiting(count: number): Promise<void> {
        const look = () => owner`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
        while ((await look()).length < count);
      }

      test('is not taken for the names of a cohort that was closed meanwhile', async () => {
        const { open } = await mint().then(() => take('one'))
        const { lease } = await mint()
        const [closing, taking] = await owner.begin(async (name) => {
          await name`select from kill_lists where role = ${role} for share`
          await name`insert into role_sessions (provider, role, name, lease_id, forget_at) values ('aws', ${role}, ${`${open}zzzzz`}, ${lease.id}, now())`
          await name`update leases set handles = handles || ${name.json([{ role, session_name: `${open}zzzzz` }])} where id = ${lease.id}`
          const first = lists.closeCohort('aws', role, 'one')
          await waiting(1)
          const second = lists.take('aws', role, 'one', 0)
          await waiting(2)
          return [first, second].map((answer) => ({ answer }))
        })
        expect(await closing!.answer).toBe(true)

        const held = (await taking!.answer) as HeldList | number

        if (typeof held !== 'number') expect(held.sessions.map(({ name }) => name)).toContain(`${open}zzzzz`)
        const after = await take('one')
        expect(after.open).not.toBe(open)
        expect(after.sessions.map(({ name }) => name)).toContain(`${open}zzzzz`)
      })

      test('does not keep a session unconfirmed that was named meanwhile', async () => {
        const { lease, name } = await mintDenied()
        await take('one')
        await lists.intend('aws', role, 'one', documentOf(1))
        const answers = await owner.begin(async (held) => {
          await held`select from kill_lists where role = ${role} for update`
          const first = lists.wrote('aws', role, 'one', 1, [name])
          await waiting(1)
          const second = lists.confirm('aws', role, 1)
          await waiting(2)
          return [first, second].map((answer) => ({ answer }))
        })
        await Promise.all(answers.map(({ answer }) => answer))

        expect(await told(lease)).toMatchObject({ generation: 1, confirmedAt: expect.any(Date) as unknown })
      })
    })

  if (storeName === 'Postgres')
    test('one of many holders has it', async () => {
      await mint()
      const taken = await Promise.all(Array.from({ length: 20 }, (_, index) => lists.take('aws', role, `holder-${index}`, 0)))
      expect(taken.filter((held) => typeof held !== 'number')).toHaveLength(1)
    })
})

/** So many turns of the event loop. */
async function patience(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve))
}
