import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { accepted, api, crm, declarationOf, type Held, type HeldLease } from './held.ts'
import { deed, matrix } from './matrix.ts'
import { openScene, type Scene } from './scene.ts'

const declared = (scene: Scene): Promise<Held> => scene.declare()

/** Everything that a task was given works, and nothing else of it. */
async function works(scene: Scene, task: Held): Promise<void> {
  for (const { grant, credential } of task.leases) {
    expect(await (grant === 'api' ? scene.active(credential.token) : scene.lab.works(credential.token)), `${grant} works`).toBe(true)
  }
}

interface Keyed {
  readonly key: string
}

const declare = deed<Keyed, Held>({
  words: 'declares a task',
  crosses: ['announce the task', 'PUT', 'confirm'],
  given: async () => ({ key: randomUUID() }),
  ask: (scene, { key }) => scene.declare(['api', 'crm'], key),
  async holds(scene, _, healed) {
    await works(scene, healed)
    expect((await scene.lab.alive()).map(({ lease }) => lease)).toEqual([crm(healed).id])
    await scene.end(healed.task.id)
  },
})

const declareInVain = deed<Keyed, { readonly status: number; readonly task: unknown }>({
  words: 'declares a task whose backend refuses',
  crosses: ['announce the task', 'PUT', 'record the end', 'close the task', 'let the key go'],
  async given({ lab }) {
    await lab.next('put', 'refuses')
    return { key: randomUUID() }
  },
  async ask({ post, tokens }, { key }) {
    const { status, body } = await post<{ task: unknown }>(tokens.bot, '/tasks', declarationOf(['api', 'crm']), { 'idempotency-key': key })
    return { status, task: body.task }
  },
  async holds(scene, { key }, { status, task }) {
    if (status === 502) expect([...(await scene.owner`select state from tasks where id = ${task as string}`)]).toEqual([{ state: 'failed' }])
    else expect(status, 'the backend accepts it the second time').toBe(201)
    const healed = await scene.declare(['api', 'crm'], key)
    await works(scene, healed)
    expect((await scene.lab.alive()).map(({ lease }) => lease)).toEqual([crm(healed).id])
    await scene.end(healed.task.id)
  },
})

const redeclare = deed<Keyed & { readonly first: Held }, Held>({
  words: 'answers the retry of a declaration whose answer was lost',
  crosses: ['announce the task', 'take the key', 'close the lease', 'DELETE', 'record the end', 'announce anew', 'PUT', 'confirm', 'let the key go'],
  async given(scene) {
    const key = randomUUID()
    return { key, first: await scene.declare(['crm'], key) }
  },
  ask: (scene, { key }) => scene.declare(['crm'], key),
  async holds(scene, { first }, healed) {
    expect(await scene.lab.works(crm(first).credential.token)).toBe(false)
    await works(scene, healed)
    expect((await scene.lab.alive()).map(({ lease }) => lease)).toEqual([crm(healed).id])
    await scene.end(healed.task.id)
  },
})

const deny = deed<Keyed, { readonly decision: string }>({
  words: 'denies a task',
  crosses: ['keep the denial'],
  given: async () => ({ key: randomUUID() }),
  async ask({ post, tokens }, { key }) {
    const tooLong = { ...declarationOf(['crm']), duration: '20m', grants: [{ name: 'crm', parameters: { customer: 'acme' }, ttl: '19m' }] }
    return accepted(await post<{ decision: string }>(tokens.bot, '/tasks', tooLong, { 'idempotency-key': key }), 403)
  },
  async holds(scene, _, { decision }) {
    expect([...(await scene.owner`select outcome from decisions where id = ${decision}`)]).toEqual([{ outcome: 'deny' }])
  },
})

const add = deed<Held, HeldLease>({
  words: 'issues a further lease',
  crosses: ['announce the lease', 'PUT', 'confirm'],
  given: declared,
  async ask({ post, tokens, issued }, { task }) {
    const { lease } = accepted(
      await post<{ lease: HeldLease }>(tokens.bot, `/tasks/${task.id}/leases`, { name: 'crm', parameters: { customer: 'other' } }),
      201,
    )
    issued(lease)
    return lease
  },
  async holds(scene, given, further) {
    expect(await scene.lab.works(further.credential.token)).toBe(true)
    await works(scene, given)
    await scene.end(given.task.id)
  },
})

const refresh = deed<Held, HeldLease>({
  words: 'refreshes a lease',
  crosses: ['refresh the lease'],
  given: declared,
  async ask({ post, tokens, issued }, task) {
    const { lease } = accepted(await post<{ lease: HeldLease }>(tokens.bot, `/leases/${api(task).id}/refresh`))
    issued(lease)
    return lease
  },
  async holds(scene, given, fresh) {
    expect(await scene.active(fresh.credential.token)).toBe(true)
    await works(scene, given)
    await scene.end(given.task.id)
    expect(await scene.active(fresh.credential.token)).toBe(false)
  },
})

const renew = deed<Held, string>({
  words: 'renews a task',
  crosses: ['renew the task'],
  given: declared,
  async ask({ post, tokens }, { task }) {
    return accepted(await post<{ task: { deadline: string } }>(tokens.bot, `/tasks/${task.id}/renew`, { duration: '25m' })).task.deadline
  },
  async holds(scene, given, acknowledged) {
    const [kept] = await scene.owner<{ deadline: Date; told: string }[]>`
      select deadline, (select body ->> 'deadline' from entries where task_id = tasks.id and kind = 'task.renewed' order by id desc limit 1) as told
      from tasks where id = ${given.task.id}`
    expect(kept!.deadline.toISOString()).toBe(acknowledged)
    expect(kept!.told).toBe(acknowledged)
    await works(scene, given)
    await scene.end(given.task.id)
  },
})

matrix('issuing', openScene, [declare, declareInVain, redeclare, deny, add, refresh, renew])
