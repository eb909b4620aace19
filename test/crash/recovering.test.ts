import { expect } from 'vitest'
import type { Held } from './held.ts'
import { deed, type Deed, matrix } from './matrix.ts'
import { openScene, type Scene } from './scene.ts'

/** Lets brokers die with calls to the backend under way, until that many leases are left. They are kept until a cell makes one of them due. */
async function leave(
  scene: Scene,
  count: number,
  call: 'put' | 'delete',
  done: boolean,
  ask: (times: number) => Promise<unknown>,
): Promise<string[]> {
  const { lab } = scene
  const reached = async () => (await lab.calls()).filter((reached) => reached.call === call).length
  const left: string[] = []
  while (left.length < count) {
    const times = count - left.length
    const before = await reached()
    await lab.next(call, 'hangs', { done, times })
    const asked = ask(times)
    while ((await reached()) < before + times);
    scene.strike()
    await scene.bury()
    await asked
    left.push(...(await scene.park(call === 'put' ? 'reserved' : 'revoking')))
    await lab.release()
    await scene.recover()
  }
  return left
}

const declareMany = (scene: Scene) => (times: number) => Promise.allSettled(Array.from({ length: times }, () => scene.declare(['crm'])))

const completeMany = (scene: Scene) => async (times: number) => {
  const tasks: Held[] = []
  while (tasks.length < times) tasks.push(await scene.declare(['crm']))
  return Promise.allSettled(tasks.map(({ task }) => scene.post(scene.tokens.bot, `/tasks/${task.id}/complete`, {}, { prefer: 'wait=0' })))
}

/** A second death: the first one left the lease, and the reaper dies again while it cleans up. */
function recovery(one: {
  readonly words: string
  readonly crosses: readonly string[]
  leave(scene: Scene, count: number): Promise<string[]>
  given?(scene: Scene): Promise<void>
  readonly becomes: { readonly state: string; readonly cause: string }
}): Deed {
  let left: string[] = []
  return deed<string>({
    words: one.words,
    crosses: one.crosses,
    async prepare(scene, count) {
      left = await one.leave(scene, count)
    },
    async given(scene) {
      await one.given?.(scene)
      return left.pop()!
    },
    due: ({ unpark }, lease) => unpark(lease),
    through: async ({ owner }, lease) => (await owner`select 1 from leases where id = ${lease} and due_at is null`).length > 0,
    async holds({ owner, lab, end }, lease) {
      const [kept] = await owner<{ state: string; cause: string; task_id: string }[]>`select state, cause, task_id from leases where id = ${lease}`
      expect(kept).toMatchObject(one.becomes)
      expect((await lab.alive()).filter((credential) => credential.lease === lease)).toEqual([])
      await end(kept!.task_id)
    },
  })
}

const minted = recovery({
  words: 'recovers what another died minting, when it was minted',
  crosses: ['claim what is due', 'DELETE', 'GET', 'close the lease', 'DELETE', 'record the end'],
  leave: (scene, count) => leave(scene, count, 'put', true, declareMany(scene)),
  becomes: { state: 'revoked', cause: 'interrupted' },
})

const unminted = recovery({
  words: 'recovers what another died minting, when it was not',
  crosses: ['claim what is due', 'DELETE', 'GET', 'record the end'],
  leave: (scene, count) => leave(scene, count, 'put', false, declareMany(scene)),
  becomes: { state: 'failed', cause: 'interrupted' },
})

const unended = recovery({
  words: 'takes over what another died ending, while the backend fails once',
  crosses: ['claim what is due', 'DELETE', 'put the lease back', 'claim what is due', 'DELETE', 'record the end'],
  leave: (scene, count) => leave(scene, count, 'delete', false, completeMany(scene)),
  given: ({ lab }) => lab.next('delete', 'fails'),
  becomes: { state: 'revoked', cause: 'completed' },
})

let late: string[] = []
const stuck = deed<string>({
  words: 'flags what has been ending for too long',
  crosses: ['flag what is stuck'],
  async prepare(scene, count) {
    late = await leave(scene, count, 'delete', false, completeMany(scene))
  },
  given: async () => late.pop()!,
  due: ({ owner }, lease) =>
    owner`update leases set closing_at = closing_at - interval '6 minutes', error = 'the backend failed' where id = ${lease}`,
  through: async ({ owner }, lease) => (await owner`select 1 from leases where id = ${lease} and stuck_since is not null`).length > 0,
  async holds({ owner, unpark, until }, lease) {
    await until(() => owner`select 1 from leases where id = ${lease} and stuck_since is not null`)
    expect((await owner`select 1 from entries where lease_id = ${lease} and kind = 'lease.stuck'`).length, 'told once').toBe(1)
    await unpark(lease)
    await until(() => owner`select 1 from leases where id = ${lease} and state = 'revoked' and stuck_since is null`)
  },
})

const forgotten = ({ owner }: Scene) => owner`select 1 where not exists (select from idempotency_keys)`

const start = deed<undefined, true>({
  words: 'starts',
  crosses: ['put the policies in force', 'forget keys and tokens'],
  async given(scene) {
    const { task } = await scene.declare(['api'], 'soon-forgotten')
    await scene.end(task.id)
    await scene.owner`update idempotency_keys set expires_at = now()`
  },
  async ask(scene) {
    await scene.restart()
    await scene.until(async () => (scene.tripwire.struck() ? [true] : await forgotten(scene)))
    return true
  },
  async holds(scene) {
    await scene.until(() => forgotten(scene))
  },
})

matrix('recovering', openScene, [minted, unminted, unended, stuck, start])
