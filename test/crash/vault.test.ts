import { randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { deadlinePasses } from '../support/deadline.ts'
import { vaultRuns } from '../support/vault.ts'
import type { VaultRequest } from '../support/vault-requests.ts'
import { completes, expires, revokes } from './ends.ts'
import type { Held } from './held.ts'
import { type Deed, deed, matrix } from './matrix.ts'
import { db, openVaultScene, type VaultScene } from './vault-scene.ts'

const grants = ['api', 'db']
const declared = (scene: VaultScene): Promise<Held> => scene.declare(grants)

const minting = ['create token', 'journal a handle', 'read database/creds/ledger-read', ['journal a handle', 'renew token'], 'renew lease'] as const
const ending = ['revoke token', 'revoke lease', 'record the end'] as const

const declare = deed<{ readonly key: string }, Held, VaultScene>({
  words: 'declares a task with a login of a database',
  crosses: ['announce the task', ...minting, 'confirm'],
  given: async () => ({ key: randomUUID() }),
  ask: (scene, { key }) => scene.declare(grants, key),
  async holds(scene, _, healed) {
    expect(await scene.worked(db(healed)), 'it works').toBe(true)
    await scene.end(healed.task.id)
    await isDead(scene, healed)
  },
})

const complete = completes<VaultScene>({ crosses: ['close the task', ...ending], given: declared, isDead })
const revoke = revokes<VaultScene>({ crosses: ['close the task', ...ending], given: declared, isDead })
const expire = expires<VaultScene>({ crosses: ['close what is overdue', 'claim what is due', ...ending], given: declared, isDead })

async function isDead(scene: VaultScene, task: Held): Promise<void> {
  expect(await scene.worked(db(task))).toBe(false)
  const [kept] = await scene.owner`select state, evidence ->> 'by' as by from leases where id = ${db(task).id}`
  expect(kept).toEqual({ state: 'revoked', by: 'provider' })
}

/** Lets a broker die while this request of so many leases is without its answer, which OpenBao has given or not. The leases are kept until a cell makes one of them due. */
async function leave(
  scene: VaultScene,
  count: number,
  what: VaultRequest,
  done: boolean,
  ask: (times: number) => Promise<unknown>,
): Promise<string[]> {
  const { front, owner } = scene
  front.forget()
  front.next(what, 'hangs', { done, times: count })
  const asked = ask(count)
  const reached = () => front.requests().filter((request) => request.what === what && (!done || request.status !== undefined))
  while (reached().length < count) await owner`select 1`
  scene.strike()
  await scene.bury()
  await asked
  const left = await scene.park('reserved', 'revoking')
  await front.release()
  await scene.recover()
  expect(left.length).toBe(count)
  return left
}

const declareMany = (scene: VaultScene) => (times: number) => Promise.allSettled(Array.from({ length: times }, () => scene.declare(['db'])))

/** A second death: the first one left the lease, and the reaper dies again while it cleans up. */
function recovery(one: {
  readonly words: string
  readonly crosses: readonly string[]
  leave(scene: VaultScene, count: number): Promise<string[]>
  /** Seconds since the lease was announced: however long the cells before took, it is as old as that. */
  readonly after?: number
  readonly becomes: { readonly state: string; readonly cause: string | null }
}): Deed<unknown, undefined, VaultScene> {
  let left: string[] = []
  const { state, cause } = one.becomes
  return deed<string, undefined, VaultScene>({
    words: one.words,
    crosses: one.crosses,
    async prepare(scene, count) {
      left = await one.leave(scene, count)
    },
    given: async () => left.pop()!,
    due: ({ unpark }, lease) => unpark(lease, one.after ?? 0),
    through: async ({ owner }, lease) =>
      (await owner`select 1 from leases where id = ${lease} and state = ${state} and (due_at is null or error is not null)`).length > 0,
    async holds(scene, lease) {
      const [kept] = await scene.owner<{ task_id: string }[]>`select state, cause, task_id from leases where id = ${lease}`
      expect(kept).toMatchObject({ state, cause })
      await scene.end(kept!.task_id)
    },
  })
}

const minted = recovery({
  words: 'recovers what another died minting, when its lease was known',
  crosses: ['claim what is due', 'revoke token', 'close the lease', ...ending],
  leave: (scene, count) => leave(scene, count, 'renew lease', true, declareMany(scene)),
  becomes: { state: 'revoked', cause: 'interrupted' },
})

const halfRead = recovery({
  words: 'recovers what another died minting, when a secret may have been read',
  crosses: ['claim what is due', 'revoke token', 'close the lease', 'revoke token', 'put the lease back'],
  leave: (scene, count) => leave(scene, count, 'read database/creds/ledger-read', true, declareMany(scene)),
  becomes: { state: 'revoking', cause: 'interrupted' },
})

const tokenless = recovery({
  words: 'recovers what another died minting, long after it may have been given a token',
  crosses: ['claim what is due', 'record the end'],
  leave: (scene, count) => leave(scene, count, 'create token', true, declareMany(scene)),
  after: 120,
  becomes: { state: 'failed', cause: 'interrupted' },
})

const unended = recovery({
  words: 'takes over what another died ending',
  crosses: ['claim what is due', ...ending],
  leave: (scene, count) =>
    leave(scene, count, 'revoke lease', false, async (times) => {
      const tasks: Held[] = []
      while (tasks.length < times) tasks.push(await scene.declare(['db']))
      return Promise.allSettled(tasks.map(({ task }) => scene.post(scene.tokens.bot, `/tasks/${task.id}/complete`, {}, { prefer: 'wait=0' })))
    }),
  becomes: { state: 'revoked', cause: 'completed' },
})

/** Lets brokers die while OpenBao makes logins for them, at no moment in particular: what it was about is cut off wherever that finds it. */
async function dieMinting(scene: VaultScene, deaths: number): Promise<void> {
  const { front, owner } = scene
  for (let death = 0; death < deaths; death++) {
    front.forget()
    const asked = declareMany(scene)(8)
    while (!front.requests().some(({ what }) => what.startsWith('read'))) await owner`select 1`
    // A death later than the one before it, by some round trips.
    for (let lead = death * 4; lead > 0; lead--) await owner`select 1`
    scene.strike()
    await asked
    await scene.recover()
    await scene.check()
  }
}

describe.runIf(vaultRuns)('before a real OpenBao', () => {
  matrix('Vault', openVaultScene, [declare, complete, revoke, expire, minted, halfRead, tokenless, unended], (scene, tell) => {
    test('does not say that a login has ended which works, at whatever moment of its making', () => dieMinting(scene(), 6))

    test('leaves, a bootstrap time and ten seconds later, no open login but those of active leases', { timeout: 55_000 }, async () => {
      const { strangers, owner, vault } = scene()
      for (let task = 0; task < 2; task++) await declared(scene())
      const before = (await strangers()).length
      while ((await strangers()).length > 0) await owner`select 1`
      const open = (await vault.database.logins()).filter((login) => login.open).length
      tell(`${before} open logins without an active lease after the last death, then 0 of ${open}`)
      expect(open, 'tasks go on').toBe(2)
    })

    test('ends with evidence whatever was left, once its time has passed', async () => {
      const { owner, unpark, until, check } = scene()
      // Nothing of it is open any more, as the database has just said: only the broker has to wait for longer.
      const count = await unpark(undefined, 120)
      expect(count).toBeGreaterThan(0)
      await until(() => owner`select 1 where not exists (select from leases where state in ('reserved', 'revoking'))`)
      const ends = await owner<{ state: string; count: number }[]>`select state, count(*)::int from leases group by state order by state`
      tell(`${count} leases that waited for time; at the end ${ends.map((end) => `${end.count} ${end.state}`).join(', ')}`)
      await check()
    })

    test('leaves no open login after all deadlines, and after the sweep none at all', async () => {
      const { owner, until, vault, sweep, check } = scene()
      await owner.unsafe(deadlinePasses())
      await until(() => owner`select 1 where not exists (select from tasks where state in ('open', 'closing'))`)
      await check()
      const left = await vault.database.logins()
      expect(left.filter(({ open }) => open)).toEqual([])
      await sweep()
      tell(`${left.length} logins that were lost are swept`)
      expect(await vault.database.logins()).toEqual([])
    })
  })
})
