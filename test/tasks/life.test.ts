import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type LeaseId, newId, type TaskId } from '../../src/base/ids.ts'
import type { Actor } from '../../src/identity/actor.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { closeLease } from '../../src/ledger/endings.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { findTask, type Lease, type Task } from '../../src/ledger/records.ts'
import { listEntries, listTasks } from '../../src/ledger/lists.ts'
import { expireLeases } from '../../src/ledger/settlement.ts'
import { isAlive } from '../../src/ledger/tokens.ts'
import type { Target } from '../../src/providers/target.ts'
import { completeTask, revokeLease } from '../../src/tasks/close.ts'
import { countsOf } from '../../src/tasks/counts.ts'
import { introspect } from '../../src/tasks/introspect.ts'
import { addLease } from '../../src/tasks/lease.ts'
import { openTask } from '../../src/tasks/open.ts'
import { refreshLease } from '../../src/tasks/refresh.ts'
import { renewTask } from '../../src/tasks/renew.ts'
import { showLease, showTask } from '../../src/tasks/show.ts'
import type { Caller, Declaration } from '../../src/tasks/task.ts'
import { taskOfToken } from '../../src/tasks/token.ts'
import { actorNamed, type Declared, type House, loadPolicy, never, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const forever = (): Promise<never> => new Promise(() => {})

describe.each(stores)('the life of a task on $name', ({ open }) => {
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  afterEach(async () => {
    await house.lab.clear()
    await house.lab.clock(0)
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  const stateOf = async (id: Parameters<typeof findTask>[1]) => (await findTask(house.ledger, id))!
  /** With another text in the place of one in the catalogue, and more policies, for as long as something takes. */
  async function withCatalogue([before, after]: readonly [string, string], work: () => Promise<void>, policies = ''): Promise<void> {
    const usual = house.broker.policy()
    const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-catalogue-'))
    const edited = (catalogue: string): string => {
      expect(catalogue).toContain(before)
      return catalogue.replace(before, after)
    }
    try {
      const policy = await loadPolicy(folder, { edited, policies })
      await archivePolicySet(house.ledger, policy.set.digest, policy.set.document)
      house.use(policy)
      await work()
    } finally {
      house.use(usual)
      await rm(folder, { recursive: true, force: true })
    }
  }
  /** Whoever holds the token of a task, and nothing else. */
  const holderOf = async ({ token }: Pick<Declared, 'token'>): Promise<Caller> => {
    return { actor: undefined, agent: undefined, task: (await taskOfToken(house.broker, token))!, roles: new Set() }
  }
  const isActive = async (token: string) => (await introspect(house.broker, token, 'all')) !== undefined

  test('a signed token is active until its task is completed, and inactive in the very next introspection', async () => {
    const task = await house.declare(['api'])
    expect(await isActive(task.secrets[0]!)).toBe(true)

    const closed = await task.complete()

    expect(await isActive(task.secrets[0]!)).toBe(false)
    expect(closed).toMatchObject({ ended: true, task: { state: 'completed', cause: 'completed' } })
    expect(closed.leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'broker' } })
  })

  test('a credential of an outside backend works until its task is completed, and the evidence says who confirmed its end', async () => {
    const task = await house.declare(['crm', 'crm-for'])
    expect(await Promise.all(task.secrets.map(house.lab.works))).toEqual([true, true])

    const closed = await task.complete()

    expect(await Promise.all(task.secrets.map(house.lab.works))).toEqual([false, false])
    expect(closed.ended).toBe(true)
    for (const lease of closed.leases) expect(lease).toMatchObject({ state: 'revoked', cause: 'completed', evidence: { by: 'provider' } })
  })

  test('an end is answered with the task as it stands in the ledger and with all of its leases, oldest first, whatever became of them', async () => {
    const ends = { complete: 'completed', revoke: 'revoked' } as const
    const given: Record<string, readonly string[]> = {
      nothing: [],
      'what ends at once': ['api', 'slow-api'],
      'what has to be asked for': ['api', 'crm'],
    }
    for (const [verb, state] of Object.entries(ends) as [keyof typeof ends, string][]) {
      for (const [words, grants] of Object.entries(given)) {
        const task = await house.declare(grants)
        const closed = await task[verb]()

        expect(closed.ended, `${verb} ${words}`).toBe(true)
        expect(closed.task.state).toBe(state)
        expect(closed.leases.map(({ grant }) => grant)).toEqual(grants)
        expect(await stateOf(task.id)).toMatchObject({ task: closed.task, leases: closed.leases })
      }
      const task = await house.declare(['api', 'slow-api'])
      await task.revokeLease(task.leases[0]!)
      const more = await task.add('api')
      const closed = await task[verb]()

      expect(closed.leases.map(({ id }) => id)).toEqual([...task.leases, more.lease].map(({ id }) => id))
      expect(await stateOf(task.id)).toMatchObject({ task: closed.task, leases: closed.leases })

      const asked = await house.declare(['crm', 'crm-for', 'api'])
      await asked.revokeLease(asked.leases[1]!)
      const ended = await asked[verb]()
      expect(ended.leases.map(({ id }) => id)).toEqual(asked.leases.map(({ id }) => id))
      expect(await stateOf(asked.id)).toMatchObject({ task: ended.task, leases: ended.leases })
    }
  })

  test('completing twice, or late, answers with how the task really ended', async () => {
    const task = await house.declare(['api'])
    await task.revoke()

    expect(await task.complete()).toMatchObject({
      ended: true,
      task: { state: 'revoked', reason: 'a test says so', endedBy: 'operator:local/operator:ops' },
    })
    expect(await task.complete()).toMatchObject({ ended: true, task: { state: 'revoked' } })
  })

  test.each([
    { words: 'five minutes ahead', skew: 300_000 },
    { words: 'five minutes behind', skew: -300_000 },
  ])("a broker whose clock is $words of the store's gives, refreshes and introspects as long as the store says, and no longer", async ({ skew }) => {
    house.skew = skew
    try {
      const task = await house.declare(['api'], { duration: 120_000 })
      const more = await task.add('slow-api')
      const fresh = await task.refresh(task.leases[0]!)
      const end = task.opened.task.deadline.getTime()
      for (const { lease } of [more, fresh]) {
        expect(lease.expiresAt.getTime(), 'what is given lasts as long as the task').toBeGreaterThan(end - 1_000)
        expect(lease.expiresAt.getTime()).toBeLessThanOrEqual(end)
      }
      expect(await isActive(task.secrets[0]!)).toBe(true)
      expect(await isAlive(house.ledger, { lease: more.lease.id, exp: end / 1_000 })).toBe(true)
      expect(await isAlive(house.ledger, { lease: more.lease.id, exp: Date.now() / 1_000 - 1 }), 'a token that ended before its lease').toBe(false)

      await house.backdate(task.id, '121 seconds')

      expect(await isActive(task.secrets[0]!)).toBe(false)
      await task.complete()
    } finally {
      house.skew = 0
    }
  })

  test('a task that nobody completes dies at its deadline with all its leases', async () => {
    const task = await house.declare(['api', 'crm'], { duration: 60_000 })
    await house.backdate(task.id, '61 seconds')

    expect(await isActive(task.secrets[0]!)).toBe(false)
    await house.reap()

    expect(await house.lab.works(task.secrets[1]!)).toBe(false)
    const { task: after, leases } = await stateOf(task.id)
    expect(after).toMatchObject({ state: 'expired', cause: 'deadline' })
    expect(leases.map(({ state }) => state)).toEqual(['revoked', 'revoked'])
  })

  test('an operator ends any task by its id, and the reason stays in the ledger', async () => {
    const task = await house.declare(['api', 'crm'])

    expect(await task.revoke()).toMatchObject({ ended: true, task: { state: 'revoked' } })

    expect(await house.lab.works(task.secrets[1]!)).toBe(false)
    const { items } = await listEntries(house.ledger, { task: task.id, kind: 'task.closing' }, { limit: 10 })
    expect(items).toMatchObject([{ body: { cause: 'revoked', reason: 'a test says so', by: 'operator:local/operator:ops' } }])
  })

  test("an agent cannot see, complete or extend another agent's task: it does not exist for it", async () => {
    const task = await house.declare(['api'])
    const rival = house.caller('rival')
    await expect(showTask(house.broker, rival, task.id)).rejects.toMatchObject({ code: 'not_found' })
    const asRival = await house.declare(['api'], { agent: 'rival' })
    const { completeTask } = await import('../../src/tasks/close.ts')
    await expect(completeTask(house.broker, rival, task.id, 0, new AbortController().signal)).rejects.toMatchObject({ code: 'not_found' })
    expect(await isActive(task.secrets[0]!)).toBe(true)
    await asRival.complete()
    await task.complete()
  })

  test('a denial is kept with its decision, and nothing is minted', async () => {
    const before = (await house.lab.minted()).length
    const refused: unknown = await house.declare(['crm'], { agent: 'stranger' }).catch((error: unknown) => error)

    expect(refused).toMatchObject({ code: 'denied' })
    const { task: id, decision } = refused as { task: Parameters<typeof findTask>[1]; decision: string }
    const shown = await showTask(house.broker, house.operator, id)
    expect(shown.task).toMatchObject({ state: 'denied', cause: 'policy' })
    expect(shown.decisions).toMatchObject([{ id: decision, outcome: 'deny', policies: [] }])
    expect((await house.lab.minted()).length).toBe(before)
  })

  test('a further grant is issued under a fresh decision and dies with the task', async () => {
    const task = await house.declare([])
    const added = await task.add('crm')
    expect(added.lease.state).toBe('active')
    expect((await showTask(house.broker, house.operator, task.id)).decisions.map(({ action }) => action)).toEqual(['declare', 'issue'])

    await task.complete()

    expect(await house.lab.alive()).toEqual([])
    await expect(task.add('api')).rejects.toMatchObject({ code: 'conflict' })
  })

  test('a refresh extends a signed token within the deadline, and both tokens die with the task', async () => {
    const task = await house.declare(['api'], { duration: 30 * 60_000 })
    const [lease] = task.leases
    await house.backdate(task.id, '5 minutes')

    const refreshed = await task.refresh(lease!)

    expect(refreshed.lease.expiresAt.getTime()).toBeGreaterThan(lease!.expiresAt.getTime() - 60_000)
    const fresh = Object.values(refreshed.credential)[1] as { open(): string }
    const token = fresh.open()
    expect(await isActive(token)).toBe(true)
    await task.complete()
    expect(await isActive(token)).toBe(false)
    expect(await isActive(task.secrets[0]!)).toBe(false)
    await expect(task.refresh(lease!)).rejects.toMatchObject({ code: 'conflict' })
  })

  test('a lease is not refreshed from another provider than the one that the policy is asked about, nor as more than it says of itself', async () => {
    const changes = [
      ['api: { provider: tokens, audience: "https://api.example.com", scope: "read",', 'api: { provider: lab,'],
      ['scope: "read", max_ttl: 10m }', 'scope: "read", max_ttl: 10m, standing: true }'],
    ] as const
    for (const [before, after] of changes) {
      const task = await house.declare(['api'])
      await withCatalogue([before, after], async () => {
        await expect(task.refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict', task: task.id })
      })
      await task.refresh(task.leases[0]!)
      await task.complete()
    }
  })

  test('a task token gets nothing further once the catalogue means somebody else by the agent that declared its task, and ends the task all the same', async () => {
    const bot = 'bot: { issuer: local, match: { sub: "agent:bot" }'
    for (const another of ['bot: { issuer: other, match: { sub: "agent:bot" }', 'bot: { issuer: local, match: { sub: "agent:robot" }']) {
      const task = await house.declare(['api'])
      const holder = await holderOf(task)
      await withCatalogue([bot, another], async () => {
        await expect(addLease(house.broker, holder, task.id, { name: 'api', parameters: {} }, never)).rejects.toMatchObject({ code: 'agent_unknown' })
        await expect(refreshLease(house.broker, holder, task.leases[0]!.id, never)).rejects.toMatchObject({ code: 'agent_unknown' })
        expect((await completeTask(house.broker, holder, task.id, 5, never)).ended).toBe(true)
      })
    }
  })

  const matched = 'match: { sub: "agent:bot" }'
  const shown = (...claims: readonly string[]) => [matched, `${matched}, tags: [${claims.join(', ')}]`] as const

  test('a task token gets nothing further once policies may see a claim that was not kept with its task, and ends the task all the same', async () => {
    const task = await house.declare(['api'])
    const holder = await holderOf(task)
    await withCatalogue(shown('env'), async () => {
      const refused = { code: 'forbidden', detail: expect.stringContaining('needs a live workload token') as unknown, task: task.id }
      await expect(addLease(house.broker, holder, task.id, { name: 'api', parameters: {} }, never)).rejects.toMatchObject(refused)
      await expect(refreshLease(house.broker, holder, task.leases[0]!.id, never)).rejects.toMatchObject(refused)
      await refreshLease(house.broker, house.caller('bot'), task.leases[0]!.id, never)
      expect((await completeTask(house.broker, holder, task.id, 5, never)).ended).toBe(true)
    })
  })

  test('a token with a claim that policies may see and that cannot be read gets nothing and renews nothing, and ends the task all the same', async () => {
    const { actor, ...rest } = house.caller('bot')
    const broken = { ...rest, actor: { ...actor!, unreadable: ['groups', 'email'] } }
    const task = await house.declare(['api'])
    const [lease] = task.leases
    const declaration = { kind: 'work', purpose: 'a test', labels: {}, grants: [] }
    await refreshLease(house.broker, broken, lease!.id, never)
    await withCatalogue(shown('env', 'groups'), async () => {
      const refused = { code: 'forbidden', detail: expect.stringContaining('the claim groups') as unknown }
      const caller = { ...broken, agent: house.caller('bot').agent }
      await expect(openTask(house.broker, caller, declaration, undefined, never)).rejects.toMatchObject(refused)
      await expect(addLease(house.broker, caller, task.id, { name: 'api', parameters: {} }, never)).rejects.toMatchObject(refused)
      await expect(refreshLease(house.broker, caller, lease!.id, never)).rejects.toMatchObject(refused)
      await expect(renewTask(house.broker, caller, task.id, { duration: 120_000 })).rejects.toMatchObject(refused)
      await revokeLease(house.broker, caller, lease!.id, undefined, 5, never)
      expect((await completeTask(house.broker, caller, task.id, 5, never)).ended).toBe(true)
    })
  })

  test('a claim that cannot be read is not kept with the task where no policy may see it', async () => {
    const { actor, ...rest } = house.caller('bot')
    const caller = { ...rest, actor: { ...actor!, unreadable: ['groups'] } }
    const { task } = await openTask(house.broker, caller, { kind: 'work', purpose: 'a test', labels: {}, grants: [] }, undefined, never)
    expect((await stateOf(task.id)).task.actor).toEqual({ ...actor, attributes: {}, tags: [] })
    await completeTask(house.broker, caller, task.id, 5, never)
  })

  test('a task token goes on where policies may see what they could when its task was declared, or less, whether or not the agent had it', async () => {
    await withCatalogue(shown('env', 'sub'), async () => {
      const task = await house.declare(['api'])
      const holder = await holderOf(task)
      await refreshLease(house.broker, holder, task.leases[0]!.id, never)
      await withCatalogue(shown('env'), async () => void (await refreshLease(house.broker, holder, task.leases[0]!.id, never)))
      await task.complete()
    })
  })

  test('a task token of a broker that kept no list of claims goes on with those that its task has', async () => {
    await withCatalogue(shown('sub'), async () => {
      const task = await house.declare(['api'])
      const holder = await holderOf(task)
      await house.ledger.run(sql`update tasks set actor = actor - 'tags' where id = ${task.id} returning id`)
      await refreshLease(house.broker, holder, task.leases[0]!.id, never)
      await withCatalogue(shown('sub', 'env'), async () => {
        await expect(refreshLease(house.broker, holder, task.leases[0]!.id, never)).rejects.toMatchObject({ code: 'forbidden' })
      })
      await task.complete()
    })
  })

  test('another workload of the agent that declared a task gets nothing within it, and ends it all the same', async () => {
    await withCatalogue([matched, 'match: { sub: ["agent:bot", "agent:twin"] }'], async () => {
      const task = await house.declare(['api', 'crm'])
      const twin: Caller = { ...house.caller('bot'), actor: actorNamed('agent:twin') }
      const refused = {
        code: 'forbidden',
        detail: expect.stringContaining('Another workload of this agent declared the task') as unknown,
        task: task.id,
      }
      await expect(addLease(house.broker, twin, task.id, { name: 'api', parameters: {} }, never)).rejects.toMatchObject(refused)
      await expect(refreshLease(house.broker, twin, task.leases[0]!.id, never)).rejects.toMatchObject(refused)
      await expect(renewTask(house.broker, twin, task.id, { duration: 60_000 })).rejects.toMatchObject(refused)
      expect((await showTask(house.broker, twin, task.id)).leases).toHaveLength(2)
      expect((await completeTask(house.broker, twin, task.id, 20, never)).ended).toBe(true)
    })
  })

  test('a task token is judged by what was proven when its task was last renewed, or declared once more with its key', async () => {
    const noTests =
      '@id("no-tests") forbid(principal, action == Action::"issue", resource) when { principal.hasTag("env") && principal.getTag("env") == "test" };'
    const further = { name: 'api', parameters: {} }
    await withCatalogue(
      shown('env'),
      async () => {
        const usual = house.caller('bot')
        const from = (env: string): Caller => ({ ...usual, actor: { ...usual.actor!, attributes: { ...usual.actor!.attributes, env } } })
        const declared: Declaration = { kind: 'work', purpose: 'a test', labels: {}, duration: 60_000, grants: [] }
        const open = async (env: string, key: string) => {
          const { task, taskToken } = await openTask(house.broker, from(env), declared, key, never)
          return { task, holder: await holderOf({ token: taskToken.open() }) }
        }
        const renewed = await open('prod', newId('task'))
        await addLease(house.broker, renewed.holder, renewed.task.id, further, never)
        await renewTask(house.broker, from('test'), renewed.task.id, { duration: 60_000 })
        await expect(addLease(house.broker, renewed.holder, renewed.task.id, further, never)).rejects.toMatchObject({ code: 'denied' })
        await renewTask(house.broker, from('prod'), renewed.task.id, { duration: 60_000 })
        await addLease(house.broker, renewed.holder, renewed.task.id, further, never)

        const key = newId('task')
        const { task } = await open('prod', key)
        const { holder } = await open('test', key)
        expect(holder.task?.id).toBe(task.id)
        await expect(addLease(house.broker, holder, task.id, further, never)).rejects.toMatchObject({ code: 'denied' })

        const provenIn = async (task: TaskId, kind: string) =>
          (await listEntries(house.ledger, { task, kind }, { limit: 9 })).items.map(
            ({ body }) => (body as unknown as { actor: Actor }).actor.attributes,
          )
        expect(await provenIn(renewed.task.id, 'task.renewed')).toEqual([{ env: 'prod' }, { env: 'test' }])
        expect(await provenIn(task.id, 'task.reissued')).toEqual([{ env: 'test' }])
        await completeTask(house.broker, usual, renewed.task.id, 20, never)
        await completeTask(house.broker, usual, task.id, 20, never)
      },
      noTests,
    )
  })

  test('a refresh and a renewal ask the policy for as long as the lease was given, not for as long as its grant allows', async () => {
    const short = '@id("short") forbid(principal, action, resource == Grant::"api") when { context.ttl > duration("5m") };'
    await withCatalogue(
      [matched, matched],
      async () => {
        const grants = [{ name: 'api', parameters: {}, ttl: 5 * 60_000 }]
        const caller = house.caller('bot')
        const declared: Declaration = { kind: 'work', purpose: 'a test', labels: {}, duration: 20 * 60_000, grants }
        const { task, leases } = await openTask(house.broker, caller, declared, undefined, never)
        await refreshLease(house.broker, caller, leases[0]!.lease.id, never)
        await renewTask(house.broker, caller, task.id, {})
        await completeTask(house.broker, caller, task.id, 20, never)
      },
      short,
    )
  })

  test('a lease lasts as long as it was granted with each refresh, however little was left of its task before that was renewed', async () => {
    const minutes = ({ issuedAt, expiresAt }: Pick<Lease, 'issuedAt' | 'expiresAt'>) =>
      Math.round((expiresAt.getTime() - issuedAt!.getTime()) / 60_000)
    const task = await house.declare(['slow-api'], { duration: 20 * 60_000 })
    await house.backdate(task.id, '18 minutes')
    const late = await task.add('api')
    expect([late.lease, (await task.refresh(task.leases[0]!)).lease].map(minutes)).toEqual([2, 2])

    await task.renew(30 * 60_000)

    expect([(await task.refresh(late.lease)).lease, (await task.refresh(task.leases[0]!)).lease].map(minutes)).toEqual([10, 30])
    await task.complete()
  })

  test('a refresh and a renewal of what the catalogue does not allow by now are refused at no field, since their requests name none', async () => {
    const task = await house.declare(['api'])
    const both = [() => task.refresh(task.leases[0]!), () => task.renew(60_000)]
    await withCatalogue(
      [
        'audience: "https://api.example.com", scope: "read", max_ttl: 10m }',
        'audience: "https://api.example.com", scope: "read", max_ttl: 10m, parameters: { customer: { pattern: "[a-z]{1,8}" } } }',
      ],
      async () => {
        for (const ask of both) await expect(ask()).rejects.toMatchObject({ code: 'conflict', errors: [] })
      },
    )
    await withCatalogue(['grants: [api, ', 'grants: ['], async () => {
      for (const ask of both) await expect(ask()).rejects.toMatchObject({ code: 'unknown_grant', errors: [] })
    })
    await task.complete()
  })

  test('a refresh gives no more than its policy was asked for, which is no more than the kind of its task allows by now', async () => {
    const task = await house.declare(['slow-api'], { duration: 30 * 60_000 })
    await withCatalogue(['max_duration: 30m', 'max_duration: 5m'], async () => {
      const { lease } = await task.refresh(task.leases[0]!)
      expect(lease.expiresAt.getTime() - lease.issuedAt!.getTime()).toBeLessThanOrEqual(5 * 60_000)
    })
    await task.complete()
  })

  test('a refresh never reaches past the deadline', async () => {
    const task = await house.declare(['api'], { duration: 20 * 60_000 })
    await house.backdate(task.id, '9 minutes')
    const deadline = (await stateOf(task.id)).task.deadline

    await house.backdate(task.id, '0 minutes')
    await task.refresh(task.leases[0]!)
    await house.backdate(task.id, '9 minutes')
    const { lease } = await task.refresh(task.leases[0]!)

    expect(lease.expiresAt.getTime()).toBeLessThanOrEqual(deadline.getTime())
    await task.complete()
  })

  test('a renewal moves the deadline under a new decision, and a task that has ended cannot be renewed', async () => {
    const task = await house.declare(['crm'], { duration: 60_000 })
    await house.backdate(task.id, '30 seconds')

    const renewed = await task.renew(120_000)

    // Two minutes from now, and a minute from when it was opened is what it had.
    expect(renewed.deadline.getTime() - task.opened.task.deadline.getTime()).toBeGreaterThanOrEqual(60_000)
    expect((await showTask(house.broker, house.operator, task.id)).decisions.map(({ action }) => action)).toEqual(['issue', 'renew'])
    await task.complete()
    await expect(task.renew(60_000)).rejects.toMatchObject({ code: 'conflict' })
  })

  test('a renewal never brings the deadline forward, so that no credential outlives its task', async () => {
    const task = await house.declare(['crm'], { duration: 600_000 })
    const renewed = await task.renew(1_000)
    expect(renewed.deadline).toEqual(task.opened.task.deadline)
    await task.complete()
  })

  test('a renewal goes no further than its kind lets a task live, counted from when that was opened, and is refused where nothing is left', async () => {
    const task = await house.declare(['crm'], { duration: 30 * 60_000 })
    const minutes = ({ openedAt, deadline }: Pick<Task, 'openedAt' | 'deadline'>) => (deadline.getTime() - openedAt.getTime()) / 60_000
    await withCatalogue(['max_duration: 30m', 'max_duration: 30m, max_life: 45m'], async () => {
      await house.backdate(task.id, '10 minutes')
      expect(Math.round(minutes(await task.renew(30 * 60_000)))).toBe(40)
      await house.backdate(task.id, '29 minutes')

      const last = await task.renew(30 * 60_000)

      expect(minutes(last)).toBe(45)
      const further = [{ duration: 30 * 60_000 }, { deadline: new Date(last.deadline.getTime() + 60_000) }]
      for (const asked of further)
        await expect(renewTask(house.broker, house.caller('bot'), task.id, asked)).rejects.toMatchObject({
          code: 'conflict',
          detail: expect.stringContaining('the last deadline that its kind allows') as unknown,
        })
    })
    const { decisions } = await showTask(house.broker, house.operator, task.id)
    expect(decisions.map(({ action }) => action)).toEqual(['issue', 'renew', 'renew'])
    expect(minutes(await task.renew(30 * 60_000))).toBeGreaterThan(60)
    await task.complete()
  })

  test('a renewal is shortened by a policy where the task itself would be: one without grants; in any other the credentials are', async () => {
    const briefly = `
      @id("brief-work") @max_ttl("10m") permit(principal, action in [Action::"issue", Action::"renew"], resource == Grant::"slow-api");
      @id("brief-task") @max_ttl("10m") permit(principal, action == Action::"declare", resource);
    `
    const minutes = (task: Pick<Task, 'openedAt' | 'deadline'>) => Math.round((task.deadline.getTime() - task.openedAt.getTime()) / 60_000)
    await withCatalogue(
      [matched, matched],
      async () => {
        const [working, empty] = [await house.declare(['slow-api'], { duration: 20 * 60_000 }), await house.declare([], { duration: 20 * 60_000 })]
        expect([working, empty].map(({ opened }) => minutes(opened.task))).toEqual([20, 10])
        for (const { id } of [working, empty]) await house.backdate(id, '5 minutes')

        expect([await working.renew(30 * 60_000), await empty.renew(30 * 60_000)].map(minutes)).toEqual([35, 15])

        const { lease } = await working.refresh(working.leases[0]!)
        expect(lease.expiresAt.getTime() - lease.issuedAt!.getTime()).toBeLessThanOrEqual(10 * 60_000)
        for (const task of [working, empty]) await task.complete()
      },
      briefly,
    )
  })

  test('a renewal is answered with the moment at which its decision was kept, whatever the clock of the broker says', async () => {
    const task = await house.declare([])
    onTestFinished(() => void (house.skew = 0))
    house.skew = -300_000

    const renewed = await renewTask(house.broker, house.caller('bot'), task.id, { duration: 60_000 })

    const { decisions } = await showTask(house.broker, house.operator, task.id)
    expect(decisions.find(({ id }) => id === renewed.decision.id)?.decidedAt).toEqual(renewed.decision.decidedAt)
    await task.complete()
  })

  test('what only looks, and what asks for something new, stands before nothing that ends something', async () => {
    const ranks: string[] = []
    const run: Ledger['run'] = async (statement, rank = 'first', plan) => {
      ranks.push(rank)
      return await house.ledger.run(statement, rank, plan)
    }
    const broker = { ...house.broker, ledger: { ...house.ledger, run } }
    const key = 'a retry that comes too late'
    const task = await house.declare(['api'], { key, broker })
    await showTask(broker, house.operator, task.id)
    await showLease(broker, house.operator, task.leases[0]!.id)
    await task.refresh(task.leases[0]!)
    await task.renew(120_000)
    await task.add('api')
    await task.at(house.broker).complete()
    await expect(house.declare(['api'], { key, broker })).rejects.toMatchObject({ code: 'conflict' })
    expect(ranks.length).toBeGreaterThanOrEqual(13)
    expect(new Set(ranks)).toEqual(new Set(['later']))
  })

  test('a task that has had as many leases as one may is given no more, its refusal is kept, and it goes on and ends', async () => {
    const task = await house.declare(['crm'])
    const announced = (count: number) => house.ledger.run(sql`update tasks set announced_leases = ${count}::int where id = ${task.id}`)
    await announced(9_999)
    const last = await task.add('api')
    await expect(task.add('api')).rejects.toMatchObject({
      code: 'conflict',
      detail: 'This task has had as many leases as one task may: declare another',
    })

    const kept = await listEntries(house.ledger, { task: task.id, kind: 'request.denied' }, { limit: 10 })
    expect(kept.items).toMatchObject([{ body: { action: 'issue', cause: 'limit' } }])
    expect((await task.refresh(last.lease)).lease.state).toBe('active')
    await announced(2)
    await task.complete()
  })

  test('a lease whose end is not waited for is committed as ending before it is answered', async () => {
    const task = await house.declare(['api', 'crm'])
    const [api, crm] = [task.leases[0]!, task.leases[1]!]

    expect((await task.revokeLease(api, 0)).lease.state).toBe('revoked')
    expect(['revoking', 'revoked']).toContain((await task.revokeLease(crm, 0)).lease.state)
    await task.complete()
  })

  test('one lease is revoked and its task goes on', async () => {
    const task = await house.declare(['api', 'crm'])

    const ended = await task.revokeLease(task.leases[1]!)

    expect(ended).toMatchObject({ ended: true, lease: { state: 'revoked', cause: 'revoked' } })
    expect(await house.lab.works(task.secrets[1]!)).toBe(false)
    expect(await isActive(task.secrets[0]!)).toBe(true)
    await task.complete()
  })

  test.each<[string, (lab: Target, end: (lease: LeaseId) => Promise<unknown>) => Target['mint']]>([
    [
      'a handle of it is journaled',
      (_, end) => (reservation, journal) =>
        end(reservation.lease)
          .then(() => journal({ late: 'handle' }))
          .then(forever),
    ],
    [
      'it is confirmed',
      (lab, end) => async (reservation, journal, signal) => {
        const minted = await lab.mint(reservation, journal, signal)
        await end(reservation.lease)
        return minted
      },
    ],
  ])('a further lease that is revoked before %s is refused as one that has ended, and its task goes on', async (_, mintOf) => {
    const task = await house.declare(['api'])
    const lab = house.broker.targets.get('lab')!
    const mint = mintOf(lab, (lease) => revokeLease(house.broker, house.operator, lease, undefined, 20, never))
    const broker = { ...house.broker, targets: new Map([...house.broker.targets, ['lab', { ...lab, mint }]]) }

    await expect(task.at(broker).add('crm')).rejects.toMatchObject({ code: 'conflict', detail: 'This lease has ended' })

    await house.reap()
    expect(await house.lab.alive()).toEqual([])
    expect(await isActive(task.secrets[0]!)).toBe(true)
    await task.complete()
  })

  test('a lease that ends before its task expires by itself, and its place is free again', async () => {
    const task = await house.declare(['api'], { duration: 30 * 60_000 })
    await house.backdate(task.id, '11 minutes')
    expect(await isActive(task.secrets[0]!)).toBe(false)

    await house.reap()

    const { task: after, leases } = await stateOf(task.id)
    expect(leases[0]).toMatchObject({ state: 'expired', cause: 'lease_expired', evidence: null })
    expect(after).toMatchObject({ state: 'open', liveLeases: 0 })
    await task.complete()
  })

  test('an outside credential that has outlived its own end is asked about all the same, and proven dead', async () => {
    const task = await house.declare(['crm'], { duration: 30 * 60_000 })
    await house.backdate(task.id, '21 minutes')

    await house.reap()

    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', cause: 'lease_expired', evidence: { by: 'provider' } })
    await task.complete()
  })

  test('a lease that is past when its task is ends with it, for that reason, whichever of the two the broker looks at first', async () => {
    const task = await house.declare(['api', 'crm'], { duration: 5 * 60_000 })
    await house.backdate(task.id, '6 minutes')

    expect(await expireLeases(house.ledger, 64, 30, { answering: [], confirming: [] })).toEqual([])
    const ended = await closeLease(house.ledger, task.leases[1]!, { cause: 'lease_expired', by: 'broker' })
    expect(ended).toBeUndefined()
    await house.reap()

    const { task: after, leases } = await stateOf(task.id)
    expect(after).toMatchObject({ state: 'expired', cause: 'deadline' })
    expect(leases).toMatchObject([
      { state: 'revoked', cause: 'deadline' },
      { state: 'revoked', cause: 'deadline' },
    ])
  })

  test('what only time can end is never called revoked: it lapses, and expires at its own end', async () => {
    const task = await house.declare(['gone-by-itself'], { duration: 10 * 60_000 })
    const closed = await task.complete(0)
    expect(closed).toMatchObject({ ended: false, task: { state: 'closing' } })
    expect(closed.leases[0]).toMatchObject({ state: 'lapsing', revocation: 'expiry', evidence: null })

    await house.backdate(task.id, '11 minutes')
    await house.lab.clock(11 * 60_000)
    await house.reap()

    const { task: after, leases } = await stateOf(task.id)
    expect(leases[0]).toMatchObject({ state: 'expired', evidence: null })
    expect(after.state).toBe('completed')
    expect(await house.lab.works(task.secrets[0]!)).toBe(false)
  })

  test('the time until something is dead is counted of what was proven dead, and not of what only time ended', async () => {
    const counted = async (provider: string) => {
      const [, count] = new RegExp(`^mayfly_time_to_dead_seconds_count{provider="${provider}",cause="completed"} (\\d+)$`, 'm').exec(
        await house.broker.telemetry.metrics.registry.metrics(),
      ) ?? [undefined, 0]
      return Number(count)
    }
    const [lab, lapsing] = [await counted('lab'), await counted('lapsing')]
    const task = await house.declare(['crm', 'gone-by-itself'])
    await task.complete(0)
    await house.broker.background.settled()
    await house.backdate(task.id, '2 minutes')
    await house.lab.clock(2 * 60_000)
    await house.reap()

    expect((await stateOf(task.id)).leases).toMatchObject([{ state: 'revoked' }, { state: 'expired', cause: 'completed' }])
    expect([await counted('lab'), await counted('lapsing')]).toEqual([lab + 1, lapsing])
  })

  test('of declarations that come at once, as many are given leases as the limit has places for, whatever they ask for together', async () => {
    const shapes = [['api'], ['api', 'crm'], ['api'], ['api', 'crm'], ['api'], [], ['api']]

    const declared = await Promise.allSettled(shapes.map((grants) => house.declare(grants, { agent: 'small' })))

    const opened = declared.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    expect(opened.flatMap(({ leases }) => leases)).toHaveLength(3)
    expect(opened.filter(({ leases }) => leases.length === 0)).toHaveLength(1)
    for (const outcome of declared) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'rate_limited' })
    for (const task of opened) await task.complete()
  })

  test('the limit of live leases is exact, is given back by ends, and its refusal is kept', async () => {
    const first = await house.declare(['api', 'crm'], { agent: 'small' })
    await expect(house.declare(['api', 'crm'], { agent: 'small' })).rejects.toMatchObject({ code: 'rate_limited' })
    const second = await house.declare(['api'], { agent: 'small' })
    await expect(second.add('api')).rejects.toMatchObject({ code: 'rate_limited' })

    await first.complete()

    const third = await house.declare(['crm', 'api'], { agent: 'small' })
    await third.complete()
    await second.complete()
  })

  test('more grants than a task may hold at once are a fault of the declaration, with a key or without, and nothing of it is kept', async () => {
    const broker = { ...house.broker, limits: { ...house.broker.limits, leasesPerTask: 2 } }
    const before = await listTasks(house.ledger, {}, { limit: 1 })
    for (const key of [{}, { key: 'too many' }]) {
      const refused = house.declare(['api', 'slow-api', 'crm'], { broker, ...key })
      await expect(refused).rejects.toMatchObject({
        code: 'invalid_request',
        errors: [{ pointer: '/grants', message: expect.stringContaining('2') as unknown }],
      })
    }
    expect(await listTasks(house.ledger, {}, { limit: 1 })).toEqual(before)

    const task = await house.declare(['api', 'crm'], { broker, key: 'too many' })
    const again = await house.declare(['api', 'crm'], { broker, key: 'too many' })
    expect(again.id).toBe(task.id)
    await again.complete()
  })

  test('twenty declarations at once never take more places than there are', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => house.declare(['api'], { agent: 'small' })))

    const opened = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    expect(opened.length).toBe(3)
    for (const task of opened) await task.complete()
  })

  test('of many tokens that are asked about at once, each has its own answer', async () => {
    const tasks = await Promise.all(Array.from({ length: 12 }, () => house.declare(['api'])))
    await Promise.all(tasks.filter((_, index) => index % 3 === 0).map((task) => task.complete()))

    const answers = await Promise.all(tasks.map((task) => introspect(house.broker, task.secrets[0]!, 'all')))
    expect(answers.map((claims) => claims?.task)).toEqual(tasks.map(({ id }, index) => (index % 3 === 0 ? undefined : id)))
    const spoken = await Promise.all(tasks.map(({ token }) => taskOfToken(house.broker, token)))
    expect(spoken.map((caller) => caller?.id)).toEqual(tasks.map(({ id }) => id))
    for (const task of tasks) await task.complete()
  })

  test('leases announced while a task is being closed never stay alive', async () => {
    for (let round = 0; round < 5; round++) {
      const task = await house.declare(['api'])
      const adding = Array.from({ length: 6 }, () => task.add('api'))
      const [closed] = await Promise.all([task.complete(), Promise.allSettled(adding)])
      expect(closed.task.state).toBe('completed')
      expect((await stateOf(task.id)).leases.every(({ state }) => state === 'revoked')).toBe(true)
    }
  })
})

test.each(stores)(
  'a task of many leases on $name is shown with all that live and the newest of the others, and its decisions without what the policy saw; when it ends, all are counted',
  async ({ open }) => {
    const store = await open()
    const house = await startHouse(store.settings)
    onTestFinished(async () => {
      await house.stop()
      await store.dispose()
    })
    const task = await house.declare(['crm'])
    const ended = { state: 'expired', due_at: null, ended_at: '2026-11-01T00:00:00Z' }
    await house.ledger.run(sql`
    insert into leases select (json_populate_record(lease, (${JSON.stringify(ended)}::text::jsonb || jsonb_build_object('id', 'lease_7z' || lpad(number::text, 24, '0')))::json)).*
    from leases as lease, generate_series(1, 1500) as number where lease.id = ${task.leases[0]!.id}`)
    await house.ledger.run(sql`update tasks set announced_leases = 1501 where id = ${task.id}`)

    const { leases, decisions } = await showTask(house.broker, house.operator, task.id)

    expect(leases).toHaveLength(1_001)
    expect(leases[0]).toMatchObject({ id: task.leases[0]!.id, state: 'active' })
    expect(leases.at(-1)!.id).toMatch(/1500$/)
    expect(decisions).toHaveLength(1)
    expect(decisions[0]).not.toHaveProperty('answers')
    // What stands in no history is this test's own, so nothing is audited.
    const end = await task.complete()
    expect(end.leases).toHaveLength(1_000)
    expect(await countsOf(house.broker, end)).toEqual({ revoked: 1, expired: 1_500 })
  },
)
