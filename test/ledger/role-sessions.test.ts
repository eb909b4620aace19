import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { RoleSessions } from '../../src/base/role-sessions.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { closeLease } from '../../src/ledger/endings.ts'
import { sweep } from '../../src/ledger/queue.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import { roleSessions } from '../../src/ledger/role-sessions.ts'
import { settle } from '../../src/ledger/settlement.ts'
import { audit } from '../support/audit.ts'
import { announceMint, confirmMint, passFor, preparePolicy } from '../support/minting.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('names of sessions on $name', ({ open }) => {
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

  /** Roles that no other test has. */
  const newPool = (size: number): string[] => {
    const pool = ++pools
    return Array.from({ length: size }, (_, index) => `/mayfly/pool-${pool}-${index}`)
  }

  async function reserve(roles: readonly string[], lease?: Lease) {
    const minted = lease ?? (await announceMint(ledger))
    const answer = await sessions.reserve('aws', minted.id, roles)
    if (answer.outcome !== 'reserved') throw new Error(answer.outcome)
    return { lease: minted, ...answer.session }
  }

  const handlesOf = async (lease: Lease) => (await findLease(ledger, lease.id))!.lease.handles
  const rowsOf = (lease: Lease) =>
    ledger.run<{ name: string; denied: string | null; version: string }>(sql`
    select name, denied_at::text as denied, xmin::text as version from role_sessions where lease_id = ${lease.id}`)

  test('a name is taken in the open cohort of a role, and journaled as a handle of its lease', async () => {
    const roles = newPool(1)
    const one = await reserve(roles)
    const other = await reserve(roles)

    expect(one).toMatchObject({ role: roles[0], name: expect.stringMatching(/^[0-9a-z]{8}$/) as unknown })
    expect(other.name.slice(0, 3)).toBe(one.name.slice(0, 3))
    expect(await handlesOf(one.lease)).toEqual([{ kind: 'session', role: one.role, session_name: one.name }])
  })

  test('no two sessions of a role have one name, however many are taken at once', async () => {
    const roles = newPool(3)
    const leases = await Promise.all(Array.from({ length: 60 }, () => announceMint(ledger)))
    const taken = await Promise.all(leases.map((lease) => reserve(roles, lease)))

    expect(new Set(taken.map(({ role, name }) => `${role} ${name}`)).size).toBe(60)
    expect(new Set(taken.map(({ role }) => role)).size).toBe(3)
    expect(new Set(taken.map(({ role, name }) => `${role} ${name.slice(0, 3)}`)).size, 'one cohort a role').toBe(3)
  })

  test('a number that somebody else drew is drawn again', async () => {
    const roles = newPool(1)
    const draws = vi.spyOn(crypto, 'randomInt') as unknown as { mockReturnValueOnce(value: number): void }
    for (const draw of [7, 7, 7, 36 ** 5 - 1]) draws.mockReturnValueOnce(draw)
    syncBuiltinESMExports()

    // The first draw finds a role without a cohort.
    const [one, other] = [await reserve(roles), await reserve(roles)]

    expect([one.name.slice(3), other.name.slice(3)]).toEqual(['00007', 'zzzzz'])
    expect(await handlesOf(other.lease)).toHaveLength(1)
  })

  test('a lease that is not being minted any more gets no name, and no handle', async () => {
    const roles = newPool(1)
    await reserve(roles)
    const confirmed = await announceMint(ledger)
    await confirmMint(ledger, confirmed)
    const ending = await announceMint(ledger)
    await closeLease(ledger, ending, { cause: 'revoked', by: 'operator:ops' })

    for (const lease of [confirmed, ending]) {
      expect(await sessions.reserve('aws', lease.id, roles)).toEqual({ outcome: 'ended' })
      expect(await handlesOf(lease)).toEqual([])
      expect(await rowsOf(lease)).toEqual([])
    }
  })

  test('the role with the fewest denied sessions is taken', async () => {
    const roles = newPool(2)
    const [busy, quiet] = roles as [string, string]
    await reserve([quiet])
    for (let count = 0; count < 3; count++) {
      const { lease } = await reserve([busy])
      if (count > 0) await sessions.deny('aws', lease.id)
    }
    const { lease } = await reserve([quiet])
    await sessions.deny('aws', lease.id)

    for (let count = 0; count < 8; count++) expect((await reserve(roles)).role).toBe(quiet)
  })

  test('a role that is shut is left out, and a pool of such roles is full', async () => {
    const roles = newPool(2)
    const [shut, left] = roles as [string, string]
    for (const role of roles) await reserve([role])
    await ledger.run(sql`update kill_lists set rung = 6 where role = ${shut}`)
    for (let count = 0; count < 8; count++) expect((await reserve(roles)).role).toBe(left)
    await ledger.run(sql`update kill_lists set rung = 6 where role = ${left}`)
    const lease = await announceMint(ledger)

    expect(await sessions.reserve('aws', lease.id, roles)).toEqual({ outcome: 'full' })
    expect(await sessions.reserve('aws', lease.id, [])).toEqual({ outcome: 'full' })
    expect(await rowsOf(lease)).toEqual([])
  })

  test('a role whose cutoff lies ahead, or less than a minute back, is left out: a session of it would be dead at birth', async () => {
    const roles = newPool(1)
    await reserve(roles)
    const cutOff = (seconds: number) =>
      ledger.run(sql`update kill_lists set cutoff = now() + make_interval(secs => ${seconds}) where role = ${roles[0]!}`)
    for (const seconds of [90, 1, -55]) {
      await cutOff(seconds)
      const lease = await announceMint(ledger)
      expect(await sessions.reserve('aws', lease.id, roles), `${seconds} s ahead`).toEqual({ outcome: 'full' })
      expect(await rowsOf(lease)).toEqual([])
    }
    await cutOff(-61)
    expect((await reserve(roles)).role).toBe(roles[0])
  })

  test('a cohort is closed after five minutes, and the next one is not one that a session still has or that was given up', async () => {
    const roles = newPool(1)
    const role = roles[0]!
    const grow = (interval: string) =>
      ledger.run(sql`update kill_lists set cohort_since = cohort_since - ${interval}::text::interval where role = ${role}`)
    await reserve(roles)
    await ledger.run(sql`update kill_lists set cohort = 46655, killed = '["001"]' where role = ${role}`)
    expect((await reserve(roles)).name).toMatch(/^zzz/)
    await ledger.run(
      sql`insert into role_sessions (provider, role, name, lease_id, forget_at) values ('aws', ${role}, '000abcde', 'lease_gone', now())`,
    )

    await grow('4 minutes')
    expect((await reserve(roles)).name).toMatch(/^zzz/)
    await grow('1 minute')
    expect((await reserve(roles)).name).toMatch(/^002/)
    await ledger.run(sql`delete from role_sessions where lease_id = 'lease_gone'`)
  })

  test('denying tells how far each session of the lease is, and marks it once and for all', async () => {
    const { lease, role, name } = await reserve(newPool(1))
    const unheard = { role, name, generation: undefined, writtenAt: undefined, confirmedAt: undefined }

    const [first] = await sessions.deny('aws', lease.id)
    expect(first).toMatchObject({ ...unheard, endsAt: lease.expiresAt })
    expect(first!.left).toBeGreaterThan(590_000)
    expect(first!.left).toBeLessThanOrEqual(600_000)
    const marked = await rowsOf(lease)
    expect(marked).toMatchObject([{ name, denied: expect.any(String) as unknown }])

    await passFor(ledger, lease, 700)
    const after = await rowsOf(lease)
    const [again] = await sessions.deny('aws', lease.id)
    expect(again!.left).toBeLessThan(-90_000)
    expect(await rowsOf(lease), 'nothing was written').toEqual(after)
  })

  test('denying a lease without sessions tells of none', async () => {
    const lease = await announceMint(ledger)
    expect(await sessions.deny('aws', lease.id)).toEqual([])
    const { lease: other } = await reserve(newPool(1))
    expect(await sessions.deny('elsewhere', other.id)).toEqual([])
    expect(await rowsOf(other)).toMatchObject([{ denied: null }])
  })

  test('many who deny at once are each told of their own sessions, all of them', async () => {
    const roles = newPool(2)
    const leases = await Promise.all(Array.from({ length: 40 }, () => announceMint(ledger)))
    const taken = await Promise.all([...leases, ...leases].map((lease) => reserve(roles, lease)))

    const told = await Promise.all([...leases, ...leases].map((lease) => sessions.deny('aws', lease.id)))

    told.forEach((found, index) => {
      const own = taken.filter(({ lease }) => lease === leases[index % 40]).map(({ role, name }) => ({ role, name }))
      expect(found.map(({ role, name }) => ({ role, name }))).toEqual(expect.arrayContaining(own))
      expect(found).toHaveLength(2)
    })
  })

  test('a name is forgotten two minutes past the end of its lease, unless the lease has not ended', async () => {
    const { lease } = await reserve(newPool(1))
    await confirmMint(ledger, lease)
    await passFor(ledger, lease, 721)
    await sweep(ledger, 10)
    expect(await rowsOf(lease), 'its lease is active').toHaveLength(1)

    await passFor(ledger, lease, -21)
    const closed = await closeLease(ledger, lease, { cause: 'revoked', by: 'operator:ops' })
    await sessions.deny('aws', lease.id)
    const evidence = { by: 'provider', statement: 'denied', at: '2026-01-01T00:00:00Z' } as const
    await settle(ledger, { lease: closed!, settlement: { to: 'revoked', evidence } })
    await sweep(ledger, 10)
    expect(await rowsOf(lease), 'AWS may be behind').toHaveLength(1)

    await passFor(ledger, lease, 21)
    expect(await sweep(ledger, 10)).toBe(1)
    expect(await rowsOf(lease)).toEqual([])
  })
})
