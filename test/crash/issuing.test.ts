import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { crossings } from '../support/crossings.ts'
import type { FaultDetails, LabFault } from '../support/lab.ts'
import { accepted, api, crm, declarationOf, type Held, type HeldLease } from './held.ts'
import { type Deed, deed, matrix } from './matrix.ts'
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
  crosses: crossings.declare,
  given: async () => ({ key: randomUUID() }),
  ask: (scene, { key }) => scene.declare(['api', 'crm'], key),
  async holds(scene, _, healed) {
    await works(scene, healed)
    expect((await scene.lab.alive()).map(({ lease }) => lease)).toEqual([crm(healed).id])
    await scene.end(healed.task.id)
  },
})

/** What becomes of a declaration that fails: whatever was minted of it is ended, and its key stands for another try. */
function inVain(one: {
  readonly words: string
  readonly crosses: Deed['crosses']
  readonly kills?: Deed['kills']
  readonly grants: readonly string[]
  /** Of the first mint that reaches the backend. */
  readonly fault: readonly [LabFault, FaultDetails?]
}): Deed {
  return deed<Keyed, { readonly status: number; readonly task: unknown }>({
    words: one.words,
    crosses: one.crosses,
    ...(one.kills && { kills: one.kills }),
    async given({ lab }) {
      await lab.next('put', ...one.fault)
      return { key: randomUUID() }
    },
    async ask({ post, tokens, issued }, { key }) {
      const { status, body } = await post<Held>(tokens.bot, '/tasks', declarationOf(one.grants), { 'idempotency-key': key })
      if (status === 201) issued(...body.leases)
      return { status, task: body.task }
    },
    async holds(scene, { key }, { status, task }) {
      if (status === 201) expect(await scene.lab.alive(), 'the backend mints the second time').not.toEqual([])
      else await scene.until(() => scene.owner`select 1 from tasks where id = ${task as string} and state = 'failed'`)
      const healed = await scene.declare(one.grants, key)
      await works(scene, healed)
      const outside = healed.leases.flatMap(({ id, grant }) => (grant === 'api' ? [] : [id]))
      expect((await scene.lab.alive()).map(({ lease }) => lease).toSorted(), 'what failed is dead').toEqual(outside.toSorted())
      await scene.end(healed.task.id)
    },
  })
}

const declareInVain = inVain({
  words: 'declares a task whose backend refuses',
  crosses: ['announce the task', 'PUT', 'record the end', 'close the task', 'let the key go'],
  grants: ['api', 'crm'],
  fault: ['refuses'],
})

const declareHalfway = inVain({
  words: 'declares a task of which one backend mints and another refuses',
  crosses: ['announce the task', 'PUT', 'PUT', 'record the end', 'close the task', ['let the key go', 'DELETE', 'record the end']],
  kills: (what, nth) => (what === 'PUT' ? nth === 2 : what !== 'announce the task'),
  grants: ['crm', 'other'],
  fault: ['refuses'],
})

const declareUnknown = inVain({
  words: 'declares a task whose backend mints and says that it failed',
  crosses: crossings.declareUnknown,
  kills: (what) => what !== 'announce the task',
  grants: ['api', 'crm'],
  fault: ['fails', { done: true }],
})

const redeclare = deed<Keyed & { readonly first: Held }, Held>({
  words: 'answers the retry of a declaration whose answer was lost',
  crosses: crossings.redeclare,
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
  holds: (scene, _, { decision }) => isKept(scene, decision),
})

/** A decision that was answered with a denial. */
async function isKept({ owner }: Scene, decision: string): Promise<void> {
  expect([...(await owner`select outcome from decisions where id = ${decision}`)]).toEqual([{ outcome: 'deny' }])
}

/** Declares as an agent that may have one lease. */
const asSmall = async <Body>(scene: Scene, grant: string, key: string) =>
  scene.post<Body>(await scene.token('agent:small'), '/tasks', declarationOf([grant]), { 'idempotency-key': key })

const limit = deed<Keyed & { readonly first: Held }, readonly string[]>({
  words: 'refuses a task whose agent has too many leases',
  crosses: ['announce the task', 'keep the denial', 'let the key go'],
  kills: (what) => what !== 'announce the task',
  async given(scene) {
    const first = accepted(await asSmall<Held>(scene, 'api', randomUUID()), 201)
    scene.issued(...first.leases)
    return { key: randomUUID(), first }
  },
  async ask(scene, { key }) {
    const { receipts } = accepted(await asSmall<{ receipts: { entry: string }[] }>(scene, 'crm', key), 429)
    return receipts.map(({ entry }) => entry)
  },
  async holds(scene, { key, first }, told) {
    const kept = await scene.owner`select kind, body ->> 'cause' as cause from entries where id in ${scene.owner(told)} order by kind`
    expect([...kept], 'the refusal').toEqual([
      { kind: 'decision.made', cause: null },
      { kind: 'task.denied', cause: 'limit' },
    ])
    await works(scene, first)
    await scene.end(first.task.id, first.task_token)
    const second = accepted(await asSmall<Held>(scene, 'crm', key), 201)
    scene.issued(...second.leases)
    await works(scene, second)
    await scene.end(second.task.id, second.task_token)
  },
})

interface Spending extends Keyed {
  readonly token: string
  /** How many tokens were spent before this one. */
  readonly before: number
}

const spent = ({ owner }: Scene) => owner<{ count: number }[]>`select count(*)::int from spent_tokens`.then(([row]) => row!.count)

const spend = deed<Spending, Held>({
  words: 'declares a task with a token that is accepted once',
  crosses: ['spend the token', 'announce the task'],
  given: async (scene) => ({ key: randomUUID(), token: await scene.spendable(), before: await spent(scene) }),
  async ask(scene, { key, token, before }) {
    const declareAs = (as: string) => scene.post<Held>(as, '/tasks', declarationOf(['api']), { 'idempotency-key': key })
    const isSpent = (await spent(scene)) > before
    const answer = await declareAs(token)
    if (isSpent) expect(answer, 'what is spent heals nothing').toMatchObject({ status: 401, body: { code: 'invalid_token', retry: 'new_token' } })
    const held = accepted(isSpent ? await declareAs(await scene.spendable()) : answer, 201)
    scene.issued(...held.leases)
    return held
  },
  async holds(scene, _, healed) {
    await works(scene, healed)
    await scene.end(healed.task.id, healed.task_token)
  },
})

const add = deed<Held, HeldLease>({
  words: 'issues a further lease',
  crosses: crossings.add,
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

const addDenied = deed<Held, { readonly decision: string }>({
  words: 'denies a further lease',
  crosses: ['keep the decision'],
  given: (scene) => scene.declare(['api'], undefined, '20m'),
  async ask({ post, tokens }, { task }) {
    return accepted(await post<{ decision: string }>(tokens.bot, `/tasks/${task.id}/leases`, { name: 'crm', parameters: { customer: 'acme' } }), 403)
  },
  async holds(scene, given, { decision }) {
    await isKept(scene, decision)
    expect([...(await scene.owner`select grant_name from leases where task_id = ${given.task.id}`)]).toEqual([{ grant_name: 'api' }])
    await works(scene, given)
    await scene.end(given.task.id)
  },
})

const addInVain = deed<Held, number>({
  words: 'issues a further lease whose backend mints and says that it failed',
  crosses: ['announce the lease', 'PUT', 'close the lease', 'DELETE', 'record the end'],
  kills: (what) => what !== 'announce the lease',
  async given(scene) {
    const task = await declared(scene)
    await scene.lab.next('put', 'fails', { done: true })
    return task
  },
  async ask({ post, tokens, issued }, { task }) {
    const { status, body } = await post<{ lease: HeldLease }>(tokens.bot, `/tasks/${task.id}/leases`, { name: 'other' })
    if (status === 201) issued(body.lease)
    return status
  },
  async holds(scene, given, status) {
    expect([201, 503]).toContain(status)
    await works(scene, given)
    const alive = (await scene.lab.alive()).filter(({ task }) => task === given.task.id)
    expect(alive.length, 'what failed is dead, and its task goes on').toBe(status === 201 ? 2 : 1)
    await scene.end(given.task.id)
  },
})

const refresh = deed<Held, HeldLease>({
  words: 'refreshes a lease',
  crosses: crossings.refresh,
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
  crosses: crossings.renew,
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

matrix('issuing', openScene, [
  declare,
  declareInVain,
  declareHalfway,
  declareUnknown,
  redeclare,
  deny,
  limit,
  spend,
  add,
  addDenied,
  addInVain,
  refresh,
  renew,
])
