import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import type { LeaseReference, Provider, Reservation } from '../../../src/providers/provider.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { type Openbao, startOpenbao } from '../../support/openbao.ts'
import { frontVault } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { failureOf } from '../contract.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal

describe.runIf(vaultRuns)('an address that leads to another Vault', () => {
  let vault: RunningVault
  let other: Openbao
  /** Of a broker whose `address` leads where the leases were made. */
  let here: Provider
  /** Of the same broker, once it leads to the other one. */
  let moved: Provider

  beforeAll(async () => {
    ;[vault, other] = await Promise.all([startVault({ storage: 'raft' }), startOpenbao('raft')])
    const otherToken = join(other.folder, 'broker-token')
    await writeFile(otherToken, other.rootToken)
    ;[here, moved] = await Promise.all([connectTo(vault.address, vault.tokenFile), connectTo(other.address, otherToken)])
  })
  afterAll(async () => {
    await other.stop()
    await vault.stop()
  })

  const connectTo = (address: string, tokenFile: string): Promise<Provider> =>
    vaultKind.connect('vault', vaultKind.settings.parse({ address, auth: { method: 'token', token_file: tokenFile }, token_role: 'mayfly-task' }), {
      publicUrl: 'https://broker.example.com',
      keys: vault.folder,
      clock: systemClock,
    })

  /** A login of its own, and how its lease stands in the ledger. */
  async function minted(by: Provider = here): Promise<{ readonly reservation: Reservation; readonly lease: LeaseReference }> {
    const grant = vaultKind.grant.parse({ path: 'database/creds/ledger-read', policy: 'mayfly-task-ledger-read' })
    const reservation = reservationOf(grant, { parameters: {} })
    const handles: Handle[] = []
    await by.mint(reservation, async (handle) => void handles.push(handle), patient)
    return { reservation, lease: { lease: reservation.lease, task: reservation.task, age: 600_000, handles } }
  }
  async function isOpen({ lease }: LeaseReference): Promise<boolean> {
    return (await vault.database.logins()).some(({ name, open }) => open && name.includes(lease.replace('_', '-')))
  }

  test('says nothing of a lease that it never had: it is not called revoked, and ends where it was made', async () => {
    const { lease } = await minted()
    const refusal = { fault: 'downstream', message: expect.stringContaining('another Vault than the one that made it') }
    expect(await failureOf(moved.revoke(lease, patient))).toMatchObject(refusal)
    expect(await failureOf(moved.recover({ ...lease, handles: lease.handles.slice(0, 1) }, patient))).toMatchObject(refusal)
    expect(await isOpen(lease)).toBe(true)

    await expect(here.revoke(lease, patient)).resolves.toMatchObject({ by: 'provider' })
    expect(await isOpen(lease)).toBe(false)
    // It is gone by now, and still it is not for another one to say so.
    expect(await failureOf(moved.revoke(lease, patient))).toMatchObject(refusal)
    await expect(here.revoke(lease, patient)).resolves.toMatchObject({ statement: expect.stringContaining('Vault knew no such task token') })
  })

  test('is believed of a lease without the id of a cluster, as brokers journaled it that did not ask for one', async () => {
    const { lease } = await minted()
    const handles = lease.handles.map((handle) => Object.fromEntries(Object.entries(handle).filter(([key]) => key !== 'cluster_id')))
    await expect(moved.revoke({ ...lease, handles }, patient)).resolves.toMatchObject({ by: 'provider' })
    await here.revoke(lease, patient)
  })

  test('is known by what each handle has of its cluster, for which Vault is asked once a login and not with each mint', async () => {
    const front = await frontVault(vault.address)
    const behind = await connectTo(front.address, vault.tokenFile)
    const { cluster_id: cluster } = (await (await fetch(`${vault.address}/v1/sys/health`)).json()) as { cluster_id: string }
    for (let mint = 0; mint < 3; mint++) {
      const { lease } = await minted(behind)
      expect(lease.handles.map((handle) => handle['cluster_id'])).toEqual([cluster, cluster])
      await here.revoke(lease, patient)
    }
    expect(front.requests().filter(({ path }) => path === '/v1/sys/health')).toHaveLength(1)
    await front.stop()
  })

  // Last, for it makes another one of the other Vault.
  test('that was restored from a snapshot of the first is the first, and ends what this had made by then', async () => {
    const { lease } = await minted()
    const asRoot = (token: string) => ({ 'x-vault-token': token })
    const snapshot = await fetch(`${vault.address}/v1/sys/storage/raft/snapshot`, { headers: asRoot(vault.rootToken) })
    const body = await snapshot.arrayBuffer()
    const restored = await fetch(`${other.address}/v1/sys/storage/raft/snapshot-force`, { method: 'POST', headers: asRoot(other.rootToken), body })
    expect(restored.status).toBe(204)
    const health = async () => (await fetch(`${other.address}/v1/sys/health`)).status
    await expect.poll(health, { timeout: 90_000 }).toBe(503)
    await fetch(`${other.address}/v1/sys/unseal`, { method: 'PUT', body: JSON.stringify({ key: vault.unsealKey }) })
    await expect.poll(health, { timeout: 90_000 }).toBe(200)

    const there = await connectTo(other.address, vault.tokenFile)
    await expect(there.revoke(lease, patient)).resolves.toMatchObject({ statement: expect.stringContaining('task token gone since') })
    expect(await isOpen(lease)).toBe(false)
    await expect(there.revoke(lease, patient)).resolves.toMatchObject({ statement: expect.stringContaining('Vault knew no such task token') })
  })
})
