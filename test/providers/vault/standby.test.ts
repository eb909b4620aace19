import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Evidence, Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import { type Minted, type Provider, ProviderError, type Reservation } from '../../../src/providers/provider.ts'
import { createTarget } from '../../../src/providers/target.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { type Openbao, startOpenbao } from '../../support/openbao.ts'
import { frontVault, type VaultFront } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal

describe.runIf(vaultRuns)('two nodes of OpenBao', () => {
  let leader: RunningVault
  let other: Openbao
  let front: VaultFront
  const journaled = new Map<string, Handle[]>()

  beforeAll(async () => {
    leader = await startVault({ storage: 'raft' })
    other = await startOpenbao('raft', leader)
    front = await frontVault(leader.address)
  })
  afterAll(async () => {
    await front.stop()
    await other.stop()
    await leader.stop()
  })

  const connectTo = (address: string, nodes: readonly string[] = []): Promise<Provider> => {
    const settings = { address, nodes, auth: { method: 'token', token_file: leader.tokenFile }, token_role: 'mayfly-task' }
    return vaultKind.connect('vault', vaultKind.settings.parse(settings), {
      publicUrl: 'https://b.example.com',
      keys: leader.folder,
      clock: systemClock,
    })
  }
  const reserve = (): Reservation =>
    reservationOf(vaultKind.grant.parse({ path: 'database/creds/ledger-read', policy: 'mayfly-task-ledger-read' }), { parameters: {} })
  const mint = (provider: Provider, reservation: Reservation): Promise<Minted> =>
    provider.mint(
      reservation,
      async (handle) => void journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle]),
      patient,
    )
  const revoke = (provider: Pick<Provider, 'revoke'>, { lease, task }: Reservation): Promise<Evidence> =>
    provider.revoke({ lease, task, age: 600_000, handles: journaled.get(lease) ?? [] }, patient)
  const openLogins = async ({ lease }: Reservation) =>
    (await leader.database.logins()).filter(({ name, open }) => open && name.includes(lease.replace('_', '-')))

  const isActive = async ({ address }: Openbao): Promise<boolean> => (await fetch(`${address}/v1/sys/health`)).status === 200

  /** What is asked of a standby may be refused; it is asked until it is answered, or for as long as nothing is claimed. */
  async function untilRevoked(provider: Provider, reservation: Reservation): Promise<void> {
    for (;;) {
      const outcome = await revoke(provider, reservation).catch((error: unknown) => error)
      if (!(outcome instanceof ProviderError)) return
    }
  }

  test('the word of a standby that it knows no such token is not taken for the end of it', async () => {
    const active = await connectTo(leader.address)
    const standby = await connectTo(other.address)
    const reservation = reserve()
    await mint(active, reservation)
    await revoke(active, reservation)
    // It is gone by now, and still it is not for the standby to say so.
    await expect(revoke(standby, reservation)).rejects.toMatchObject({ fault: 'downstream', message: expect.stringContaining('standby') })
    await expect(revoke(active, reservation)).resolves.toMatchObject({ by: 'provider' })
  })

  test('what a standby cannot prove keeps nothing else from being ended through it', async () => {
    const active = await connectTo(leader.address)
    const standby = createTarget(await connectTo(other.address), { clock: systemClock, observe: () => {} })
    const ended = reserve()
    await mint(active, ended)
    await revoke(active, ended)
    for (let time = 0; time < 3; time++) await expect(revoke(standby, ended)).rejects.toMatchObject({ message: expect.stringContaining('standby') })
    expect(standby.endsFailing).toBe(false)
  })

  test('what is claimed to be revoked right after it was minted, through a standby, is dead at the active node', async () => {
    const active = await connectTo(leader.address)
    const standby = await connectTo(other.address)
    for (let round = 0; round < 40; round++) {
      const reservation = reserve()
      await mint(standby, reservation)
      const outcome = await revoke(standby, reservation).catch((error: unknown) => error)
      if (outcome instanceof ProviderError) await untilRevoked(active, reservation)
      const { accessor } = journaled.get(reservation.lease)![0]!
      expect((await leader.root('POST', 'auth/token/lookup-accessor', { accessor })).status).not.toBe(200)
      expect(await openLogins(reservation)).toEqual([])
    }
  })

  test.each(['read database/creds/ledger-read', 'renew lease', 'renew token'] as const)(
    'the lead changes in the middle of a mint, at "%s": nothing is left of it',
    async (what) => {
      const provider = await connectTo(front.address, [leader.address, other.address])
      const reservation = reserve()
      front.next(what, 'held')
      const minting = mint(provider, reservation).catch((error: unknown) => error)
      await front.hanging(what)
      const [leads, follows] = (await isActive(leader)) ? [leader, other] : [other, leader]
      await leads.root('PUT', 'sys/step-down')
      await front.release()
      const outcome = await minting
      if (outcome instanceof ProviderError) expect(outcome.message).not.toBe('')
      while (!(await isActive(follows)));
      // Whichever leads: an end is proven by the one that does.
      for (;;) {
        const active = (await isActive(follows)) ? follows : (await isActive(leads)) ? leads : undefined
        const ended = active && (await revoke(await connectTo(active.address), reservation).catch(() => undefined))
        if (ended) break
      }
      while ((await openLogins(reservation)).length > 0);
    },
    // Less than the first life of a login, which ends one that nobody ended.
    40_000,
  )
})
