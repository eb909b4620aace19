import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import type { LeaseReference, Provider } from '../../../src/providers/provider.ts'
import { createBacklog } from '../../../src/providers/vault/backlog.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { frontVault, type VaultFront } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { failureOf } from '../contract.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal

describe.runIf(vaultRuns)('what waits for a database', () => {
  let vault: RunningVault
  let front: VaultFront
  let provider: Provider
  /** Milliseconds. It stands still, however long anything takes. */
  let now = Date.now()
  let recoveries = 0

  beforeAll(async () => {
    vault = await startVault()
    front = await frontVault(vault.address)
    const settings = { address: front.address, auth: { method: 'token', token_file: vault.tokenFile }, token_role: 'mayfly-task' }
    provider = await vaultKind.connect('vault', vaultKind.settings.parse(settings), {
      publicUrl: 'https://broker.example.com',
      keys: vault.folder,
      clock: () => now,
    })
    provider.onRecovery!(() => recoveries++)
  })
  afterEach(async () => {
    await mend()
    front.forget()
    recoveries = 0
  })
  afterAll(async () => {
    await front.stop()
    await vault.stop()
  })

  async function minted(role: string): Promise<LeaseReference> {
    const grant = vaultKind.grant.parse({ path: `database/creds/${role}`, policy: `mayfly-task-${role}` })
    const reservation = reservationOf(grant, { parameters: {} })
    const handles: Handle[] = []
    await provider.mint(reservation, async (handle) => void handles.push(handle), patient)
    return { lease: reservation.lease, task: reservation.task, age: 0, handles }
  }
  const end = (lease: LeaseReference) => provider.revoke(lease, patient)
  /** What hung stays silent for ever, and Vault waits for it: only a reset frees its connection. */
  async function mend(): Promise<void> {
    await vault.database.wire.cut()
    await vault.database.wire.mend()
  }
  async function untilEnded(lease: LeaseReference): Promise<void> {
    await expect.poll(async () => (await end(lease).catch(() => undefined))?.by, { timeout: 20_000 }).toBe('provider')
  }
  const asked = (what: string): number => front.requests().filter((request) => request.what === what).length

  /** One that was asked to end a login in vain, and one that still waits for its answer: whoever comes next waits for that one. */
  async function fallSilent(lease: LeaseReference): Promise<void> {
    vault.database.wire.hang()
    const impatient = new AbortController()
    const first = failureOf(provider.revoke(lease, impatient.signal))
    await expect.poll(() => asked('revoke lease'), { timeout: 20_000 }).toBe(1)
    impatient.abort()
    expect(await first).toMatchObject({ fault: 'downstream', pointlessFor: 50 })
    void end(lease).catch(() => {})
    await expect.poll(() => asked('revoke lease'), { timeout: 20_000 }).toBe(2)
  }

  test.each([
    ['is down', async () => vault.database.wire.cut(), /the backend behind it failed/, 0],
    ['is silent', fallSilent, /this one waits for its turn/, 1],
  ] as const)('that %s comes back in turn, and leaves the way to all others', async (_, fail, words, before) => {
    const [lease, other] = [await minted('ledger-read'), await minted('ledger-read-2')]
    await fail(lease)

    // However many there are, their turns are this far apart.
    for (let turn = before + 1; turn <= 50; turn++)
      expect(await failureOf(end(lease))).toMatchObject({ fault: 'downstream', message: expect.stringMatching(words), pointlessFor: turn * 50 })
    now += 1_000
    expect(await failureOf(end(lease))).toMatchObject({ pointlessFor: 1_550 })

    front.forget()
    await expect(end(other)).resolves.toMatchObject({ by: 'provider' })
    expect(front.requests().map(({ what }) => what)).toEqual(['revoke token', 'revoke lease'])
    await mend()
    await untilEnded(lease)
  })

  test('for long is due at once when one of them was ended, and those that come next begin at the head', async () => {
    const [first, second] = [await minted('ledger-read'), await minted('ledger-read')]
    await vault.database.wire.cut()
    for (let turn = 0; turn < 60; turn++) await failureOf(end(first))
    expect(recoveries).toBe(0)

    await vault.database.wire.mend()
    await untilEnded(first)
    expect(recoveries).toBe(1)
    await vault.database.wire.cut()
    expect(await failureOf(end(second))).toMatchObject({ pointlessFor: 50 })
    await vault.database.wire.mend()
    await untilEnded(second)
    expect(recoveries, 'what is due in a moment anyway').toBe(1)
  })
})

describe('a backlog', () => {
  test('puts nothing off by more than half a minute, and not by a clock that was set back', () => {
    let now = 1_000_000
    const backlog = createBacklog(
      () => now,
      () => {},
    )
    for (let turn = 0; turn < 2_000; turn++) expect(backlog.putOff('one')).toBeLessThanOrEqual(30_000)
    expect(backlog.putOff('one')).toBe(30_000)
    now -= 600_000
    expect(backlog.putOff('one')).toBe(30_000)
    now += 30_000
    expect(backlog.putOff('one')).toBe(50)
  })

  test('remembers 256 places, those that failed last', () => {
    const backlog = createBacklog(
      () => 0,
      () => {},
    )
    for (let place = 0; place <= 256; place++) backlog.putOff(`place ${place}`)
    expect(backlog.putOff('place 1')).toBe(100)
    expect(backlog.putOff('place 0')).toBe(50)
  })
})
