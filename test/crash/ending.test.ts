import { expect } from 'vitest'
import { completes, expires, revokes } from './ends.ts'
import { accepted, api, crm, type Held } from './held.ts'
import { deed, matrix } from './matrix.ts'
import { openScene, type Scene } from './scene.ts'

const declared = (scene: Scene): Promise<Held> => scene.declare()

const ending = ['close the task', 'DELETE', 'record the end']

const complete = completes<Scene>({ crosses: ending, given: declared, isDead })
const revoke = revokes<Scene>({ crosses: ending, given: declared, isDead })
const expire = expires<Scene>({ crosses: ['close what is overdue', 'DELETE', 'record the end'], given: declared, isDead })

const revokeOne = deed<Held, string>({
  words: 'revokes one lease',
  crosses: ['close the lease', 'DELETE', 'record the end'],
  given: declared,
  async ask({ post, tokens }, task) {
    return accepted(await post<{ lease: { state: string } }>(tokens.bot, `/leases/${crm(task).id}/revoke`)).lease.state
  },
  async holds(scene, given, answered) {
    expect(answered).toBe('revoked')
    expect(await scene.lab.works(crm(given).credential.token)).toBe(false)
    expect(await scene.active(api(given).credential.token), 'its task goes on').toBe(true)
    await scene.end(given.task.id)
  },
})

async function isDead(scene: Scene, task: Held): Promise<void> {
  expect(await scene.lab.works(crm(task).credential.token)).toBe(false)
  expect(await scene.active(api(task).credential.token)).toBe(false)
  await scene.end(task.task.id)
}

/** Nobody asks for this one either. */
const outlive = deed<Held>({
  words: 'ends leases at their own end',
  crosses: ['expire what is over', 'claim what is due', 'close the lease', 'DELETE', 'record the end'],
  given: declared,
  due: ({ owner }, { task }) => owner`update leases set expires_at = now(), due_at = now() where task_id = ${task.id}`,
  through: async ({ owner }, { task }) => (await owner`select 1 from leases where task_id = ${task.id} and due_at is not null`).length === 0,
  async holds(scene, task) {
    const kept = await scene.owner`select grant_name, state, cause from leases where task_id = ${task.task.id} order by grant_name`
    expect([...kept]).toEqual([
      { grant_name: 'api', state: 'expired', cause: 'lease_expired' },
      { grant_name: 'crm', state: 'revoked', cause: 'lease_expired' },
    ])
    await isDead(scene, task)
  },
})

matrix('ending', openScene, [complete, revoke, revokeOne, expire, outlive])
