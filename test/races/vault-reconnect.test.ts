import { setMaxListeners } from 'node:events'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Fleet, type Held, startFleet } from '../support/fleet.ts'
import { connectAs, type Login } from '../support/login.ts'
import { stores } from '../support/stores.ts'
import { type RunningVault, startVault, vaultRuns } from '../support/vault.ts'
import { vaultCatalogue, vaultProvider } from '../support/vault-site.ts'

const tasks = 100
const atOnce = 10
const loops = 6

/** Sessions that logins of tasks have, those of dropped ones included: Postgres shows them without a name, as it does one that is still being opened. */
const sessionsOf = ({ superuser }: RunningVault['database']) => superuser<{ pid: number; usename: string | null }[]>`
  select pid, usename from pg_stat_activity where backend_type = 'client backend' and (usename is null or usename ~ '^mf-')`

/**
 * Connects, becomes the group whose rights the login has, so that they stay when the login is dropped, and again as soon as it is thrown out.
 *
 * @returns how many sessions it had
 */
async function attack(url: string, login: Login, over: AbortSignal): Promise<number> {
  let sessions = 0
  while (!over.aborted) {
    const client = connectAs(url, login)
    const leave = () => void client.end({ timeout: 0 })
    over.addEventListener('abort', leave)
    try {
      await client`set role ledger_read`
      sessions++
      await client`select pg_sleep(60)`
    } catch (error) {
      // Thrown out: once more. A login that is closed or gone does not come back.
      if (['28000', '28P01'].includes((error as { code?: string }).code ?? '')) return sessions
    } finally {
      over.removeEventListener('abort', leave)
      await client.end({ timeout: 0 })
    }
  }
  return sessions
}

const loginOf = ({ leases }: Held): Login => leases[0]!.credential as unknown as Login

describe.runIf(vaultRuns && stores.some(({ name }) => name === 'Postgres'))('a client that reconnects in loops', () => {
  let vault: RunningVault
  let fleet: Fleet

  beforeAll(async () => {
    vault = await startVault()
    fleet = await startFleet(1, { providers: vaultProvider(vault), catalogue: vaultCatalogue })
  })
  afterAll(async () => {
    await fleet.stop()
    await vault.stop()
  })

  test(`keeps no session with a login whose lease says revoked: ${loops} loops on each of ${tasks} tasks`, { timeout: 240_000 }, async () => {
    const [broker] = fleet.brokers
    let opened = 0
    let alive = 0
    for (let ended = 0; ended < tasks; ended += atOnce) {
      const batch = await Promise.all(Array.from({ length: atOnce }, (_, at) => fleet.declare(broker!, [at % 2 === 0 ? 'db' : 'db-2'])))
      const over = new AbortController()
      setMaxListeners(0, over.signal)
      const attacks = batch.flatMap((task) => Array.from({ length: loops }, () => attack(vault.database.url, loginOf(task), over.signal)))
      while ((await sessionsOf(vault.database)).length < batch.length * loops);

      const answers = await Promise.all(batch.map((task) => fleet.complete(broker!, task, { prefer: 'wait=30' })))
      expect(answers.map(({ status, body }) => [status, body.leases[0]!.state])).toEqual(batch.map(() => [200, 'revoked']))
      // Each loop ends by itself once it is refused. A session that was being opened meanwhile could not be seen at once: until nobody is on the way one looks.
      let onTheWay = attacks.length
      for (const one of attacks) void one.then(() => onTheWay--)
      let left: number
      do left = (await sessionsOf(vault.database)).length
      while (left === 0 && onTheWay > 0)
      alive += left
      over.abort()
      opened += (await Promise.all(attacks)).reduce((sum, sessions) => sum + sessions, 0)
    }
    console.log(
      `${tasks} tasks were completed under ${loops} loops each, which had ${opened} sessions; ${alive} were alive when the lease said revoked`,
    )
    expect(alive).toBe(0)
    expect(await vault.database.logins()).toEqual([])
    expect(await fleet.findings()).toEqual([])
  })
})
