import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { type AwsScene, bucket, openAwsScene } from './aws-scene.ts'
import { completes, revokes } from './ends.ts'
import { accepted, type Held, type HeldLease } from './held.ts'
import { type Deed, deed, matrix } from './matrix.ts'

const grants = ['api', 'bucket']

async function declared(scene: AwsScene): Promise<Held> {
  await scene.tidy()
  return await scene.declare(grants)
}

const denying = [
  'deny the sessions',
  'take the kill list',
  'mean to write the kill list',
  'assume a canary',
  'CreatePolicyVersion',
  'say that the kill list was written',
  'let the kill list go',
  'DeletePolicyVersion',
  'ask a canary',
  'confirm the kill list',
  'deny the sessions',
] as const

const opens = (words: string, ...minting: readonly string[]) =>
  deed<{ readonly key: string }, Held, AwsScene>({
    words,
    crosses: ['announce the task', ...minting, 'confirm'],
    async given(scene) {
      await scene.tidy()
      return { key: randomUUID() }
    },
    ask: (scene, { key }) => scene.declare(grants, key),
    async holds(scene, _, healed) {
      expect(await scene.works(bucket(healed)), 'it works').toBe(true)
      await scene.end(healed.task.id)
      await isDead(scene, healed)
    },
  })

/** Denied by AWS's own word, and known to the ledger, with no session that lives longer than the ledger says. */
async function isDead(scene: AwsScene, task: Held): Promise<void> {
  const lease = bucket(task)
  expect(await scene.works(lease)).toBe(false)
  const [kept] = await scene.owner`select state, evidence ->> 'by' as by from leases where id = ${lease.id}`
  expect(kept).toEqual({ state: 'revoked', by: 'provider' })
  await nothingIsOverdue(scene)
}

async function nothingIsOverdue(scene: AwsScene): Promise<void> {
  expect(await scene.overdue(), 'sessions that outlive what the ledger says').toEqual([])
  expect(await scene.unknown(), 'sessions that the ledger does not know').toEqual([])
}

const complete = completes<AwsScene>({ crosses: ['close the task', ...denying, 'record the end'], given: declared, isDead })

/** With as many versions of the boundary as there may be: the old ones have to go first. Behind that the broker looks once more what is there. */
const making = ['CreatePolicyVersion', 'ListPolicyVersions', ...Array<string>(4).fill('DeletePolicyVersion'), 'CreatePolicyVersion']
const revoke = revokes<AwsScene>({
  crosses: [
    'close the task',
    'deny the sessions',
    'mean to write the kill list',
    ...making,
    'say that the kill list was written',
    'ListPolicyVersions',
    'DeletePolicyVersion',
    'confirm the kill list',
    'deny the sessions',
    'record the end',
  ],
  kills: (what, nth) => making.includes(what) && !(what === 'DeletePolicyVersion' && (nth === 2 || nth === 3)),
  async given(scene) {
    const task = await declared(scene)
    await scene.tidy(5)
    return task
  },
  isDead,
})

const expire = deed<Held, undefined, AwsScene>({
  words: 'ends a task at its deadline',
  crosses: ['close what is overdue', 'claim what is due', 'deny the sessions', 'record the end'],
  given: declared,
  async due(scene, { task }) {
    await scene.pass(task.id, 10)
    // The lease is over at the same moment: it is to be found by its task, and not by a round that has looked for tasks already.
    return await scene.owner`update leases set due_at = now() + interval '1 minute' where task_id = ${task.id} and due_at is not null`
  },
  through: async ({ owner }, { task }) => (await owner`select 1 from tasks where id = ${task.id} and state = 'expired'`).length > 0,
  async holds(scene, task) {
    expect(await scene.works(bucket(task))).toBe(false)
    const [kept] = await scene.owner`
      select tasks.cause, leases.state, evidence ->> 'by' as by from leases join tasks on tasks.id = task_id where leases.id = ${bucket(task).id}`
    expect(kept).toEqual({ state: 'expired', cause: 'deadline', by: 'time' })
    await nothingIsOverdue(scene)
  },
})

/** A second death: the first broker died while AWS kept the answer to its AssumeRole to itself, and the reaper dies again while it ends that session. */
function recovery(): Deed<unknown, undefined, AwsScene> {
  let left: string[] = []
  return deed<string, undefined, AwsScene>({
    words: 'recovers what another died minting',
    crosses: ['claim what is due', 'close the lease', ...denying, 'record the end'],
    kills: (what) => ['claim what is due', 'close the lease', 'CreatePolicyVersion', 'record the end'].includes(what),
    async prepare(scene, count) {
      left = await leave(scene, count)
    },
    async given(scene) {
      await scene.tidy()
      return left.pop()!
    },
    due: ({ unpark }, lease) => unpark(lease),
    through: async ({ owner }, lease) => (await owner`select 1 from leases where id = ${lease} and state = 'revoked'`).length > 0,
    async holds(scene, lease) {
      const [kept] = await scene.owner`select state, cause, evidence ->> 'by' as by from leases where id = ${lease}`
      expect(kept).toEqual({ state: 'revoked', cause: 'interrupted', by: 'provider' })
      await nothingIsOverdue(scene)
    },
  })
}

/** Lets a broker die with so many sessions given that it never heard of. They are kept until a cell makes one of them due. */
async function leave(scene: AwsScene, count: number): Promise<string[]> {
  const { owner, site } = scene
  await scene.tidy()
  const before = site.peer.given().length
  site.peer.faults.next('AssumeRole', 'keeps the answer', count)
  const asked = Promise.allSettled(Array.from({ length: count }, () => scene.declare(['bucket'])))
  while (site.peer.given().length < before + count) await owner`select 1`
  scene.strike()
  await scene.bury()
  await asked
  const left = await scene.park('reserved')
  await scene.recover()
  expect(left.length).toBe(count)
  return left
}

function afterwards(scene: () => AwsScene, tell: (line: string) => void): void {
  test('leaves no session that works once every task has ended, of all that AWS ever gave', async () => {
    const { owner, tokens, post, unpark, until, site } = scene()
    const open = await owner<{ id: string }[]>`select id from tasks where state = 'open'`
    await unpark()
    await Promise.all(open.map(({ id }) => post(tokens.ops, `/tasks/${id}/revoke`, { reason: 'the end' })))
    await until(() => owner`select 1 where not exists (select from leases where due_at is not null)`)
    await nothingIsOverdue(scene())
    expect(await scene().alive()).toEqual([])
    const given = site.peer.given().filter(({ name }) => !name.startsWith('@'))
    tell(`${given.length} sessions that AWS gave, of ${new Set(given.map(({ name }) => name)).size} names, all of them in the ledger`)
  })
}

matrix<AwsScene>(
  'AWS, whose agents hold sessions',
  () => openAwsScene('direct'),
  [opens('declares a task with a session', 'AssumeRole'), complete, revoke, expire, recovery()],
  afterwards,
)

const refresh = deed<Held, HeldLease, AwsScene>({
  words: 'gives a lease a fresh child',
  crosses: ['refresh the lease', 'GetScopedCredentials', 'conclude the refresh'],
  given: declared,
  async ask(scene, task) {
    const { lease } = accepted(await scene.post<{ lease: HeldLease }>(scene.tokens.bot, `/leases/${bucket(task).id}/refresh`))
    scene.issued(lease)
    return lease
  },
  async holds(scene, task, lease) {
    expect(await scene.works(lease), 'it works').toBe(true)
    await scene.end(task.task.id)
    await isDead(scene, task)
  },
})

matrix<AwsScene>(
  'AWS, whose agents hold children of sessions',
  () => openAwsScene('children'),
  [
    opens('declares a task with a child of a session', 'AssumeRole', 'GetScopedCredentials'),
    refresh,
    completes<AwsScene>({
      crosses: ['close the task', ...denying, 'record the end'],
      kills: (what) => what === 'close the task' || what === 'CreatePolicyVersion' || what === 'record the end',
      given: declared,
      isDead,
    }),
  ],
  afterwards,
)
