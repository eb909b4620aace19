import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { TaskId } from '../../src/base/ids.ts'
import { listLeases } from '../../src/ledger/lists.ts'
import { nextDue } from '../../src/ledger/queue.ts'
import { findTask } from '../../src/ledger/records.ts'
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
      if ((await nextDue(house.ledger, ['vault'])) === undefined) return
    }
  }

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

    await vault.database.wire.mend()
    await untilNothingIsDue()
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
    ['is sealed', 'create token'],
    ['is sealed', 'renew token'],
    ['redirects', 'create token'],
    ['redirects', 'renew lease'],
  ] as const)('whose Vault %s in the middle of a mint, at "%s", fails alone and leaves nothing', async (how, what) => {
    front.next(what, how, { to: 'http://127.0.0.1:9/v1/elsewhere' })
    const refused: unknown = await house.declare(['ledger-read']).catch((error: unknown) => error)
    expect(refused).toMatchObject({ code: expect.stringMatching(/^provider_(failed|unavailable)$/) })
    const tokens = await house.declare(['api'])
    await tokens.complete()
    await untilNothingIsDue()
    const { leases } = await stateOf((refused as { task: TaskId }).task)
    for (const { state } of leases) expect(['failed', 'revoked']).toContain(state)
  })

  test('whose Vault is really sealed is revoked within moments of its return', async () => {
    const task = await house.declare(['ledger-read'])
    await vault.seal()
    await task.complete(0)
    await house.broker.background.settled()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', error: expect.stringContaining('sealed') })
    await expect(house.declare(['settings'])).rejects.toMatchObject({ code: 'provider_unavailable' })

    await vault.unseal()
    await untilNothingIsDue()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
  })
})
