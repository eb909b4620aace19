import { expect } from 'vitest'
import { crossings } from '../support/crossings.ts'
import { completes, expires, revokes } from './ends.ts'
import { accepted, api, crm, type Held } from './held.ts'
import { type Deed, deed, matrix } from './matrix.ts'
import { openScene, type Scene } from './scene.ts'

const declared = (scene: Scene): Promise<Held> => scene.declare()

const complete = completes<Scene>({ crosses: crossings.end, given: declared, isDead })
const revoke = revokes<Scene>({ crosses: crossings.end, given: declared, isDead })
const expire = expires<Scene>({ crosses: ['close what is overdue', 'claim what is due', 'DELETE', 'record the end'], given: declared, isDead })

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

/** Revokes whatever the agent has. What is acknowledged is that it was started; the reaper does it. */
const revokesMany = (one: {
  readonly words: string
  readonly grants: readonly string[]
  readonly crosses: Deed['crosses']
  readonly kills?: Deed['kills']
}) =>
  deed<Held, string>({
    words: one.words,
    crosses: one.crosses,
    ...(one.kills && { kills: one.kills }),
    given: (scene) => scene.declare(one.grants),
    async ask({ post, tokens, owner, tripwire, until }) {
      const asked = { selector: { agent: 'bot' }, reason: 'a crash', confirm: 'revoke agent bot' }
      const { id } = accepted(await post<{ id: string }>(tokens.ops, '/revocations', asked), 202)
      await until(async () => (tripwire.struck() ? [true] : await owner`select 1 from revocations where id = ${id} and ended_at is not null`))
      return id
    },
    async holds(scene, { task, leases }, acknowledged) {
      const { owner, until } = scene
      await until(() => owner`select 1 where not exists (select from revocations where ended_at is null)`)
      const told = await owner<{ id: string; kinds: string[] }[]>`
        select id, (select array_agg(kind order by entries.id) from entries where body ->> 'revocation' = revocations.id) as kinds from revocations`
      for (const { id, kinds } of told) expect([id, kinds]).toEqual([id, ['revocation.started', 'revocation.ended']])
      expect(told.map(({ id }) => id)).toContain(acknowledged)
      expect([...(await owner`select state, cause, reason from tasks where id = ${task.id}`)]).toEqual([
        { state: 'revoked', cause: 'revoked', reason: 'a crash' },
      ])
      const works = leases.map(({ grant, credential: { token } }) => (grant === 'api' ? scene.active(token) : scene.lab.works(token)))
      expect(await Promise.all(works)).not.toContain(true)
      await scene.end(task.id)
    },
  })

const revokeMany = revokesMany({
  words: 'revokes many at once',
  grants: ['api', 'crm'],
  crosses: ['start a revocation', 'close what is revoked', 'claim what is due', 'DELETE', 'record the end'],
})

/** Nothing is asked of a backend, so that each note is made at the first try. */
const noteRevoked = revokesMany({
  words: 'revokes many tokens of its own',
  grants: ['api'],
  crosses: ['start a revocation', 'close what is revoked', 'note that all of a revocation is ending', 'note the end of a revocation'],
  kills: (what) => what.startsWith('note'),
})

matrix('ending', openScene, [complete, revoke, revokeOne, expire, outlive, revokeMany, noteRevoked])
