import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Answer, type Fleet, type Held, startFleet, until } from '../support/fleet.ts'
import { stores } from '../support/stores.ts'
import type { VaultFront } from '../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../support/vault.ts'
import { startVaultFleet, vaultCatalogue, vaultProvider } from '../support/vault-site.ts'
import { type FaultyWire, faultyWire } from '../support/wire.ts'

/** With a login of another Vault, before another database. */
const catalogue = `${vaultCatalogue.replace('db-2]', 'db-2, elsewhere]')}
  elsewhere: { provider: other, path: database/creds/ledger-read, policy: mayfly-task-ledger-read, max_ttl: 20m }
`

describe.runIf(vaultRuns && stores.some(({ name }) => name === 'Postgres'))('an outage of OpenBao', () => {
  let vault: RunningVault
  let other: RunningVault
  /** Between the broker and the one that fails. */
  let wire: FaultyWire
  let fleet: Fleet

  beforeAll(async () => {
    ;[vault, other] = await Promise.all([startVault({ storage: 'raft' }), startVault()])
    wire = await faultyWire(vault.address)
    const providers = vaultProvider(vault, { address: wire.url, more: ', timeout: 20s' }) + vaultProvider(other, { name: 'other' })
    fleet = await startFleet(1, { providers, catalogue })
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(async () => {
    await fleet.stop()
    await wire.stop()
    await Promise.all([vault.stop(), other.stop()])
  })

  const ask = (...grants: readonly string[]) => fleet.ask(fleet.brokers[0]!, grants)
  const open = async () => (await vault.database.logins()).filter((login) => login.open).length

  async function states(): Promise<Record<string, number>> {
    const rows = await fleet.owner<{ state: string; count: number }[]>`
      select state, count(*)::int from leases where provider = 'vault' group by state order by state`
    return Object.fromEntries(rows.map(({ state, count }) => [state, count]))
  }

  /** What is asked of Vault is to be asked again later; nobody else waits. */
  async function refusesForNow(reason: RegExp): Promise<void> {
    const refused: Answer<object> = await ask('api', 'db')
    expect(refused).toMatchObject({ status: 503, body: { code: 'provider_unavailable', retry: 'later' } })
    expect((refused.body as { detail?: string }).detail).toMatch(reason)
    expect((await ask('api', 'elsewhere')).status).toBe(201)
  }

  test('that was killed loses no lease, and ends when it is back what fell due meanwhile', async () => {
    const tasks: Held[] = []
    for (let at = 0; at < 8; at++) tasks.push(await fleet.declare(fleet.brokers[0]!, ['db']))
    await vault.kill()

    await refusesForNow(/did not answer|not asked for a moment|did not accept/)
    const due = tasks.slice(0, 5).map(({ id }) => id)
    await fleet.owner`with late as (update tasks set deadline = now() where id in ${fleet.owner(due)} returning id)
      update leases set expires_at = now() from late where task_id = late.id`
    const closing = await fleet.complete(fleet.brokers[0]!, tasks[5]!, { prefer: 'wait=0' })
    expect([closing.status, closing.body.leases[0]!.state]).toEqual([202, 'revoking'])
    await until('each was tried in vain, and says so', async () => {
      const [row] = await fleet.owner<[{ count: number }]>`
        select count(*)::int from leases where state = 'revoking' and error is not null and task_id in ${fleet.owner(tasks.map(({ id }) => id))}`
      return row.count === 6
    })
    expect(await open(), 'the database knows nothing of all this').toBe(8)

    await vault.start()
    await until('what was due is ended', async () => (await open()) === 2)
    await fleet.settled()
    expect(await states()).toMatchObject({ active: 2, revoked: 6 })
    const proofs = await fleet.owner`
      select distinct evidence ->> 'by' as by from leases where state = 'revoked' and task_id in ${fleet.owner(tasks.map(({ id }) => id))}`
    expect([...proofs]).toEqual([{ by: 'provider' }])
    for (const task of tasks.slice(6)) expect((await fleet.complete(fleet.brokers[0]!, task)).status).toBe(200)
    expect(await open()).toBe(0)
  })

  test('that is sealed refuses its own grants for now and no others, and ends what is due once it is unsealed', async () => {
    await until('it mints again', async () => (await ask('db')).status === 201)
    const task = await fleet.declare(fleet.brokers[0]!, ['db'])
    const before = await open()
    await vault.seal()

    await refusesForNow(/sealed/)
    const closing = await fleet.complete(fleet.brokers[0]!, task, { prefer: 'wait=0' })
    expect([closing.status, closing.body.leases[0]!.state]).toEqual([202, 'revoking'])
    await until('the lease says why', async () => {
      const [row] = await fleet.owner<[{ error: string | null }]>`select error from leases where task_id = ${task.id}`
      return /sealed/.test(row.error ?? '')
    })

    await vault.unseal()
    await until('the login is gone', async () => (await open()) === before - 1)
    await fleet.settled()
  })

  test('that says nothing is waited for by whoever asks it, and by nobody who asks another one', async () => {
    await until('it mints again', async () => (await ask('db')).status === 201)
    wire.hang()
    let answered = 0
    const waiting = Array.from({ length: 8 }, () => ask('db').finally(() => answered++))
    for (let at = 0; at < 4; at++) expect((await ask('elsewhere')).status).toBe(201)
    expect(answered, 'of those that wait for the silent one').toBe(0)
    for (const { status } of await Promise.all(waiting)) expect(status).toBe(503)

    await wire.cut()
    await wire.mend()
    await until('it mints again', async () => (await ask('db')).status === 201)
  })
})

describe.runIf(vaultRuns && stores.some(({ name }) => name === 'Postgres'))('a broker that is stopped while OpenBao still makes a login', () => {
  let vault: RunningVault
  let front: VaultFront
  let fleet: Fleet

  let stop: () => Promise<void>

  beforeAll(async () => {
    ;({ vault, front, fleet, stop } = await startVaultFleet(1, ', timeout: 1s'))
  })
  afterAll(() => stop())

  test('is still there four seconds later, though nobody else waits for it, and ends it when it has come', async () => {
    const [broker] = fleet.brokers
    front.next('read database/creds/ledger-read', 'held', { done: true })
    expect((await fleet.ask(broker!, ['db'])).status).toBe(503)
    let isGone = false
    const stopped = broker!.stop().finally(() => (isGone = true))
    await until('it takes no new requests', () =>
      fetch(`${broker!.url}/livez`).then(
        () => false,
        () => true,
      ),
    )
    // Less than the ten seconds that it has, however long a look takes.
    const began = performance.now()
    while (performance.now() - began < 4_000) {
      await vault.database.logins()
      expect(isGone, 'whether it left before what it waits for').toBe(false)
    }
    await front.release()

    expect(await stopped).toBe(0)
    expect(front.requests().filter(({ hungUp }) => hungUp)).toEqual([])
    expect(front.requests().map(({ what, status }) => `${what} ${status}`)).toContain('revoke lease 204')
    expect((await vault.database.logins()).filter((login) => login.open)).toEqual([])
  })
})
