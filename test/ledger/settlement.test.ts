import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { closeLease } from '../../src/ledger/endings.ts'
import { claimDue } from '../../src/ledger/queue.ts'
import { findLease, type Lease } from '../../src/ledger/records.ts'
import { journal, settle } from '../../src/ledger/settlement.ts'
import { announceMint, passFor, preparePolicy } from '../support/minting.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const evidence = { by: 'provider', statement: 'ended', at: '2026-01-01T00:00:00Z' } as const

describe.each(stores)('what is known of a lease when it ends, on $name', ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger

  beforeAll(async () => {
    store = await open()
    ledger = await connect(store.settings)
    await preparePolicy(ledger)
  })
  afterAll(async () => {
    await ledger.close()
    await store.dispose()
  })

  const now = async ({ id }: Lease): Promise<Lease> => (await findLease(ledger, id))!.lease
  /** What is due by now, claimed for half a minute. */
  const claim = (): Promise<readonly Lease[]> => claimDue(ledger, [{ name: 'aws', kind: 'aws', free: 10 }])

  test('does not fail one whose mint journaled a handle after its provider knew of none: it is due at once', async () => {
    const lease = await announceMint(ledger)
    await passFor(ledger, lease, 61)
    const [claimed] = await claim()
    expect(await journal(ledger, lease, { accessor: 'a' })).toBe('reserved')

    expect(await settle(ledger, { lease: claimed!, settlement: { to: 'failed', error: 'nothing was minted' } })).toBeUndefined()
    expect(await now(lease)).toMatchObject({ state: 'reserved', error: null, endedAt: null })
    expect(await claim()).toMatchObject([{ id: lease.id, handles: [{ accessor: 'a' }] }])
  })

  test('is no proof of a handle that arrived while the others were ended: the lease is due at once, until that one is ended too', async () => {
    const lease = await announceMint(ledger)
    await journal(ledger, lease, { accessor: 'a' })
    const revoking = await closeLease(ledger, lease, { cause: 'revoked', by: 'broker' })
    expect(await journal(ledger, lease, { accessor: 'a', lease_id: 'b' })).toBe('revoking')
    const [again] = await claim()

    expect(await settle(ledger, { lease: revoking!, settlement: { to: 'revoked', evidence } })).toBeUndefined()
    expect(await now(lease)).toMatchObject({ state: 'revoking', evidence: null, endedAt: null })
    expect(await claim()).toMatchObject([{ id: lease.id }])
    expect(await settle(ledger, { lease: again!, settlement: { to: 'revoked', evidence } })).toMatchObject({ lease: { state: 'revoked', evidence } })
  })

  test('is kept for the leases that it is about where it shares a commit with one that it is not', async () => {
    const leases = await Promise.all([announceMint(ledger), announceMint(ledger)])
    const closed = await Promise.all(leases.map((lease) => closeLease(ledger, lease, { cause: 'revoked', by: 'broker' })))
    await journal(ledger, leases[0], { accessor: 'a' })
    const settled = await Promise.all(closed.map((lease) => settle(ledger, { lease: lease!, settlement: { to: 'revoked', evidence } })))
    expect(settled).toMatchObject([undefined, { lease: { id: leases[1].id, state: 'revoked' } }])
  })

  test('is the word of whoever minted it on all that its mint has journaled', async () => {
    const { id, taskId } = await announceMint(ledger)
    await journal(ledger, { id, taskId }, { accessor: 'a' })
    const settled = await settle(ledger, { lease: { id, taskId }, settlement: { to: 'failed', error: 'refused' } })
    expect(settled).toMatchObject({ lease: { state: 'failed', error: 'refused' } })
  })
})
