import { readFile, writeFile } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { ClosedTask } from '../../src/http/contract.ts'
import { type Fleet, type Held, until } from '../support/fleet.ts'
import { freeze, thaw } from '../support/freeze.ts'
import { stores } from '../support/stores.ts'
import { type RunningVault, vaultRuns } from '../support/vault.ts'
import type { VaultFront } from '../support/vault-front.ts'
import { startVaultFleet } from '../support/vault-site.ts'

describe.runIf(vaultRuns && stores.some(({ name }) => name === 'Postgres'))('two brokers before one OpenBao', () => {
  let vault: RunningVault
  let front: VaultFront
  let fleet: Fleet

  let stop: () => Promise<void>

  beforeAll(async () => {
    ;({ vault, front, fleet, stop } = await startVaultFleet(2))
  })
  afterEach(async () => {
    front.clear()
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(() => stop())

  const loginOf = ({ leases }: Held) => leases[0]!.credential as unknown as { readonly username: string; readonly password: string }

  /** What Postgres says to a login that is gone, over or closed, or that ends at this very moment. */
  const refused = ['28P01', '28000', '57P01', 'CONNECTION_CLOSED', 'ECONNRESET']

  async function works(task: Held): Promise<boolean> {
    const { username, password } = loginOf(task)
    const session = await vault.database.login(username, password).catch((error: { code?: string }) => {
      if (refused.includes(error.code ?? '')) return undefined
      throw error
    })
    await session?.close()
    return session !== undefined
  }

  /** What OpenBao knows of a lease of the ledger. */
  async function handlesOf(task: Held): Promise<{ readonly accessor: string; readonly lease_id: string }> {
    const [row] = await fleet.owner<[{ handles: { accessor: string; lease_id: string }[] }]>`select handles from leases where task_id = ${task.id}`
    return row.handles.at(-1)!
  }

  /** How the lease of a task stands in the ledger. */
  async function leaseOf(task: Held) {
    const [row] = await fleet.owner<[{ state: string; by: string; statement: string; error: string | null }]>`
      select state, evidence ->> 'by' as by, evidence ->> 'statement' as statement, error from leases where task_id = ${task.id}`
    return row
  }

  const asked = (what: string) => front.requests().filter((request) => request.what === what).length
  const endings = async (task: Held) => (await fleet.story(task.id)).filter((kind) => kind === 'lease.revoked' || kind === 'task.ended')

  test('that end one lease at the same moment have one piece of evidence and no error', async () => {
    const [one, other] = [fleet.brokers[0]!, fleet.brokers[1]!]
    for (let round = 0; round < 4; round++) {
      const task = await fleet.declare(one, ['db'])
      front.forget()
      const done = round % 2 === 1
      front.next('revoke lease', 'held', { times: 2, done })
      // Where OpenBao is to act before its answer is held, a request that has arrived is not held yet.
      const held = () => front.requests().filter(({ what, status }) => what === 'revoke lease' && (!done || status !== undefined)).length
      const completed = fleet.complete(one, task, { prefer: 'wait=30' })
      while (held() < 1) await fleet.owner`select 1`
      // It stands still, and its claim is over: the other takes the lease.
      freeze(one.process)
      await fleet.owner`update leases set due_at = now() where task_id = ${task.id}`
      await fleet.wake()
      while (held() < 2) await fleet.owner`select 1`
      thaw(one.process)
      await front.release()

      const { status, body } = await completed
      expect([status, body.task.state]).toEqual([200, 'completed'])
      expect(await leaseOf(task)).toMatchObject({ state: 'revoked', by: 'provider', error: null })
      expect(await endings(task)).toEqual(['lease.revoked', 'task.ended'])
      expect(await works(task)).toBe(false)
      expect(asked('revoke lease'), 'nobody asks again').toBe(2)
    }
    expect(other.process.exitCode).toBeNull()
  })

  const behindOurBack: Record<string, (task: Held) => Promise<unknown>> = {
    'whose lease was revoked': async (task) => vault.root('PUT', 'sys/leases/revoke', { lease_id: (await handlesOf(task)).lease_id, sync: true }),
    'whose token was revoked': async (task) => vault.root('PUT', 'auth/token/revoke-accessor', { accessor: (await handlesOf(task)).accessor }),
    'whose token and lease were both revoked': async (task) => {
      await vault.root('PUT', 'auth/token/revoke-accessor', { accessor: (await handlesOf(task)).accessor })
      await vault.root('PUT', 'sys/leases/revoke', { lease_id: (await handlesOf(task)).lease_id, sync: true })
    },
    'whose login was dropped in the database': async (task) =>
      vault.database.superuser`drop role ${vault.database.superuser(loginOf(task).username)}`,
  }

  const atFirst = 'end a task %s by somebody else at the first try, with evidence'
  test.each(Object.entries(behindOurBack))(atFirst, { timeout: 180_000 }, async (what, happens) => {
    const task = await fleet.declare(fleet.brokers[0]!, ['db'])
    await happens(task)
    // OpenBao ends what a token held in its own time, and tries again after 10 s, 20 s, 40 s where Postgres refused it once.
    await until('the login is refused', async () => !(await works(task)), 120)
    front.forget()

    const { status, body } = await fleet.complete(fleet.brokers[1]!, task, { prefer: 'wait=30' })
    expect([status, body.task.state]).toEqual([200, 'completed'])
    const { statement, ...lease } = await leaseOf(task)
    expect(lease).toEqual({ state: 'revoked', by: 'provider', error: null })
    expect(statement).toMatch(what.includes('token') ? /^Vault knew no such task token at / : /^task token gone since /)
    expect(statement).toMatch(/; sys\/leases\/revoke answered 204 for its lease$/)
    expect([asked('revoke token'), asked('revoke lease')]).toEqual([1, 1])
  })

  test('whose own token was revoked leave tasks alone, say that Vault fails, and go on with a new token: old tasks end with evidence', async () => {
    const [one, other] = [fleet.brokers[0]!, fleet.brokers[1]!]
    const living = await fleet.declare(one, ['db'])
    const ending = await fleet.declare(other, ['db'])
    const { body } = await vault.root<{ accessor: string }>('PUT', 'auth/token/lookup', { token: await brokerToken(vault) })
    expect((await vault.root('PUT', 'auth/token/revoke-accessor', { accessor: body.data.accessor })).status).toBe(204)

    expect(await works(living), 'the tasks live on').toBe(true)
    for (const broker of [one, other]) {
      await until('a declaration is refused and the broker says why', async () => {
        const { status, body: problem } = await fleet.ask(broker, ['db'])
        expect({ status, problem }).toMatchObject({ status: 503, problem: { code: 'provider_unavailable', retry: 'later' } })
        return (await stateOfVault(broker)) === 'failing'
      })
      expect((await fleet.ask(broker, ['api'])).status, 'others are served').toBe(201)
    }
    const closing = await fleet.complete(other, ending, { prefer: 'wait=0' })
    expect([closing.status, closing.body.leases[0]!.state]).toEqual([202, 'revoking'])
    await until('the lease says why', async () => (await leaseOf(ending)).error !== null)
    expect(await works(ending)).toBe(true)

    await writeFile(vault.tokenFile, await newBrokerToken(vault))
    await until('what was due is ended', async () => (await leaseOf(ending)).state === 'revoked')
    expect(await works(ending)).toBe(false)
    await until('both mint again', async () => {
      const answers = [await fleet.ask(one, ['db']), await fleet.ask(other, ['db'])]
      return answers.every(({ status }) => status === 201)
    })
    expect((await fleet.call<ClosedTask>(one, fleet.tokens.ops, 'POST', `/tasks/${living.id}/revoke`, { reason: 'over' })).status).toBe(200)
    expect(await leaseOf(living)).toMatchObject({ state: 'revoked', by: 'provider' })
    expect(await works(living)).toBe(false)
  })

  test('never say that nothing was minted once a secret may have been read, whatever fails then', async () => {
    for (const [turn, what] of (['renew lease', 'renew token'] as const).entries()) {
      // A broker that is not let in any more.
      front.next(what, 'does not know the token')
      front.next('check', 'fails')
      const { status, body } = await fleet.ask(fleet.brokers[turn]!, ['db'])
      expect([status, body.code]).toEqual([503, 'provider_unavailable'])
      front.clear()
      await fleet.settled()
      const [lease] = await fleet.owner<[{ id: string; state: string; by: string }]>`
        select id, state, evidence ->> 'by' as by from leases order by reserved_at desc limit 1`
      expect(lease).toMatchObject({ state: 'revoked', by: 'provider' })
      expect((await vault.database.logins()).filter(({ name }) => name.includes(lease.id.slice('lease_'.length)))).toEqual([])
    }
  })

  test('end what is due while mints that were cut off wait for their time', async () => {
    const task = await fleet.declare(fleet.brokers[1]!, ['db'])
    front.forget()
    front.next('create token', 'hangs', { done: true, times: 5 })
    const cutOff = Promise.allSettled(Array.from({ length: 5 }, () => fleet.ask(fleet.brokers[0]!, ['db'])))
    while (asked('create token') < 5) await fleet.owner`select 1`
    await fleet.brokers[0]!.kill()
    await cutOff
    await front.release()
    await fleet.owner`update leases set due_at = now() where state = 'reserved'`
    await until('each was looked at, and put off', async () => {
      const [row] = await fleet.owner<[{ count: number }]>`select count(*)::int from leases where state = 'reserved' and error is not null`
      return row.count === 5
    })

    const { status, body } = await fleet.complete(fleet.brokers[1]!, task)
    expect([status, body.task.state]).toEqual([200, 'completed'])
    expect(await leaseOf(task)).toMatchObject({ state: 'revoked', error: null })
    expect(await stateOfVault(fleet.brokers[1]!)).toBe('ok')
    fleet.brokers[0] = await fleet.site.start()
    await fleet.owner`update leases set reserved_at = reserved_at - interval '2 minutes', due_at = now() where state = 'reserved'`
  })

  async function stateOfVault({ url }: { readonly url: string }): Promise<string | undefined> {
    const { providers } = (await (await fetch(`${url}/readyz`)).json()) as { providers: readonly { name: string; state: string }[] }
    return providers.find(({ name }) => name === 'vault')?.state
  }
})

async function brokerToken({ tokenFile }: RunningVault): Promise<string> {
  return (await readFile(tokenFile, 'utf8')).trim()
}

/** As deploy/vault/setup.sh makes it. */
async function newBrokerToken({ root }: RunningVault): Promise<string> {
  const { body } = await root('PUT', 'auth/token/create-orphan', { policies: ['mayfly-broker'], no_default_policy: true, period: '24h' })
  return body.auth.client_token
}
