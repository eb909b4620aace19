import { setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { TaskId } from '../../src/base/ids.ts'
import { listLeases } from '../../src/ledger/lists.ts'
import { nextDue } from '../../src/ledger/queue.ts'
import { findTask } from '../../src/ledger/records.ts'
import type { Credential } from '../../src/providers/credential.ts'
import { startReaper } from '../../src/reaper.ts'
import { openTask } from '../../src/tasks/open.ts'
import { type House, startHouse } from '../support/house.ts'
import { type OpenedStore, openDatabase } from '../support/stores.ts'
import { frontVault, type VaultFront } from '../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../support/vault.ts'

describe.runIf(vaultRuns)('a task with a database login', () => {
  let vault: RunningVault
  let front: VaultFront
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    ;[vault, store] = await Promise.all([startVault({ storage: 'raft' }), openDatabase()])
    front = await frontVault(vault.address)
    const auth = { method: 'token', token_file: vault.tokenFile }
    house = await startHouse(store.settings, {
      kind: 'vault',
      name: 'vault',
      settings: { address: front.address, auth, token_role: 'mayfly-task' },
      grants: {
        'ledger-read': 'path: database/creds/ledger-read, policy: mayfly-task-ledger-read',
        'other-read': 'path: database/creds/ledger-read-2, policy: mayfly-task-ledger-read-2',
        settings: 'path: secret/data/app, policy: mayfly-task-app-settings, standing: true',
        // The broker's own policy does not let it revoke these.
        certificate: 'path: pki/issue/service, policy: mayfly-task-service-certificate, ended_by: serial, data: { common_name: api.example.com }',
      },
    })
  })
  afterEach(async () => {
    front.clear()
    await front.release()
    await vault.database.wire.cut()
    await vault.database.wire.mend()
    await untilNothingIsDue()
    while ((await vault.database.logins()).some(({ open }) => open));
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
    await front.stop()
    await vault.stop()
  })

  const stateOf = async (id: TaskId) => (await findTask(house.ledger, id))!

  /** Drives the reaper over every retry: what is due later is moved to now, and what was cut off is as old as it has to be. */
  async function untilNothingIsDue(): Promise<void> {
    for (;;) {
      // The breaker goes by the broker's clock; what bounds this is the time of the test.
      house.skew += 2_000
      await house.ledger.run(
        sql`update leases set due_at = now(), reserved_at = reserved_at - interval '2 minutes' where state in ('reserved', 'revoking')`,
      )
      await house.reap()
      if ((await nextDue(house.ledger, [{ name: 'vault', kind: 'vault' }])) === undefined) return
    }
  }

  /** Lets the reaper look again, and again, at what an outage keeps from ending. */
  async function reapInVain(id: TaskId): Promise<void> {
    for (let round = 0; round < 4; round++) {
      await house.ledger.run(sql`update leases set due_at = now() where task_id = ${id} and ended_at is null`)
      await house.reap()
    }
  }

  /**
   * Tenths of a second from a recovery to the end of a task, with a reaper that goes by its own time: no row and no clock is moved. Between two of them the
   * ledger answers, so that they take longer where the machine is slow.
   */
  async function tenthsToEnd(id: TaskId, recover: () => Promise<unknown>): Promise<number> {
    await using _ = startReaper(house.broker)
    await recover()
    let tenths = 0
    for (; (await stateOf(id)).task.endedAt === null; tenths++) await pause(100)
    return tenths
  }

  test.each([
    ['whose database is away', () => vault.database.wire.cut(), () => vault.database.wire.mend()],
    ['whose Vault is sealed', () => vault.seal(), () => vault.unseal()],
  ])('%s past its own end is being revoked as long as its session is open, and both are dead within 5 s of recovery', async (_, leave, recover) => {
    const task = await house.declare(['ledger-read'], { agent: 'small' })
    const { username } = task.opened.leases[0]!.credential as Extract<Credential, { type: 'username_password' }>
    const session = await vault.database.login(username, task.secrets[0]!)
    await leave()
    await house.backdate(task.id, '20 minutes')
    await reapInVain(task.id)

    const { task: seen, leases } = await stateOf(task.id)
    expect([seen.state, leases[0]]).toMatchObject(['closing', { state: 'revoking', evidence: null, stuckSince: expect.any(Date) }])
    expect(await session.alive()).toBe(true)
    // What may live has its place: two more are the most that this agent may hold.
    await expect(house.declare(['api', 'slow-api', 'crm'], { agent: 'small' })).rejects.toMatchObject({ code: 'rate_limited' })

    expect(await tenthsToEnd(task.id, recover)).toBeLessThan(50)
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', stuckSince: null, evidence: { by: 'provider' } })
    expect(await session.alive()).toBe(false)
    await session.close()
  })

  test('with a certificate that Vault cannot revoke is expired at its own end, which outlives nothing, and its place is free', async () => {
    // Not by the house, which would take all that a certificate says of itself for secrets.
    const grants = [{ name: 'certificate', parameters: {} }]
    const declared = { kind: 'work', purpose: 'a test', labels: {}, duration: 60_000, grants }
    const { task } = await openTask(house.broker, house.caller('small'), declared, undefined, new AbortController().signal)
    await house.backdate(task.id, '65 seconds')
    await reapInVain(task.id)
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', error: expect.stringContaining('could not end it') })

    await house.backdate(task.id, '30 seconds')
    await reapInVain(task.id)
    const { task: seen, leases } = await stateOf(task.id)
    expect([seen.state, leases[0]]).toMatchObject(['expired', { state: 'expired', evidence: null }])
    const more = await house.declare(['api', 'slow-api', 'crm'], { agent: 'small' })
    await more.complete()
  })

  test('whose Vault is in no configuration any more is expired at its own end, which is the way out where it is gone for good', async () => {
    const task = await house.declare(['ledger-read'])
    await vault.database.wire.cut()
    await house.backdate(task.id, '20 minutes')
    await reapInVain(task.id)
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking' })

    const without = { ...house.broker, targets: new Map([...house.broker.targets].filter(([name]) => name !== 'vault')) }
    await house.ledger.run(sql`update leases set due_at = now() where task_id = ${task.id}`)
    await house.reap(without)
    const { task: seen, leases } = await stateOf(task.id)
    expect([seen.state, leases[0]]).toMatchObject(['expired', { state: 'expired', evidence: null }])
    // Nobody is left who would end it, and it must not disturb the tests that follow.
    await vault.database.wire.mend()
    await vault.root('POST', 'sys/leases/revoke', { lease_id: leases[0]!.handles.at(-1)!['lease_id'], sync: true })
  })

  test('whose database is down for twenty minutes is being revoked, with the reason in words; then stuck; and dead as soon as it is back', async () => {
    const task = await house.declare(['ledger-read'], { duration: 1_200_000 })
    await vault.database.wire.cut()

    const closed = await task.complete(0)
    await house.broker.background.settled()
    expect(closed.ended).toBe(false)
    const [lease] = (await stateOf(task.id)).leases
    expect(lease).toMatchObject({ state: 'revoking', evidence: null, error: expect.stringContaining('the backend behind it failed') })

    for (let minute = 0; minute < 20; minute++) {
      await house.ledger.run(sql`update leases set closing_at = closing_at - interval '1 minute', due_at = now() where task_id = ${task.id}`)
      await house.reap()
    }
    const { items } = await listLeases(house.ledger, { stuck: true }, { limit: 10 })
    expect(items).toMatchObject([{ taskId: task.id, state: 'revoking' }])
    expect(house.log()).toContain('a lease is stuck')

    expect(await tenthsToEnd(task.id, () => vault.database.wire.mend())).toBeLessThan(50)
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', stuckSince: null, evidence: { by: 'provider' } })
    expect((await vault.database.logins()).filter(({ open }) => open)).toEqual([])
  })

  test('is not opened while its database is down, says so, and other grants of the same Vault are issued', async () => {
    await vault.database.wire.cut()
    await expect(house.declare(['ledger-read'])).rejects.toMatchObject({ code: 'provider_unavailable', retryAfter: 2 })
    const other = await house.declare(['settings', 'other-read'])
    expect(other.leases.map(({ state, revocation, standing }) => ({ state, revocation, standing }))).toEqual([
      { state: 'active', revocation: 'expiry', standing: true },
      { state: 'active', revocation: 'provider', standing: false },
    ])
    await other.complete()
    await house.backdate(other.id, '30 minutes')
  })

  test.each([
    ['is sealed', 'create token', 2],
    ['is sealed', 'renew token', 2],
    ['has a quota', 'create token', 7],
    ['has a quota', 'read database/creds/ledger-read', 7],
    ['redirects', 'create token', 2],
    ['redirects', 'renew lease', 2],
  ] as const)(
    'whose Vault %s in the middle of a mint, at "%s", fails alone, says when to come back, and leaves nothing',
    async (how, what, retryAfter) => {
      // To a node that is not configured, as a standby does whose active node the operator did not name.
      front.next(what, how, { to: `http://127.0.0.1:9/v1/${what === 'renew lease' ? 'sys/leases/renew' : 'auth/token/create/mayfly-task'}` })
      const refused: unknown = await house.declare(['ledger-read']).catch((error: unknown) => error)
      expect(refused).toMatchObject({ code: 'provider_unavailable', retryAfter })
      const tokens = await house.declare(['api'])
      await tokens.complete()
      await untilNothingIsDue()
      const { leases } = await stateOf((refused as { task: TaskId }).task)
      for (const { state } of leases) expect(['failed', 'revoked']).toContain(state)
    },
  )

  test('whose Vault is really sealed is revoked within 5 s of its return', async () => {
    const task = await house.declare(['ledger-read'])
    await vault.seal()
    await task.complete(0)
    await house.broker.background.settled()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', error: expect.stringContaining('sealed') })
    await expect(house.declare(['settings'])).rejects.toMatchObject({ code: 'provider_unavailable' })

    expect(await tenthsToEnd(task.id, () => vault.unseal())).toBeLessThan(50)
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
  })
})
