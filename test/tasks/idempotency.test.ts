import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { listTasks } from '../../src/ledger/lists.ts'
import { sweep } from '../../src/ledger/queue.ts'
import { findTask } from '../../src/ledger/records.ts'
import { introspect } from '../../src/tasks/introspect.ts'
import { addLease } from '../../src/tasks/lease.ts'
import { openTask } from '../../src/tasks/open.ts'
import type { Caller } from '../../src/tasks/task.ts'
import { taskOfToken } from '../../src/tasks/token.ts'
import { type House, loadPolicy, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const never = new AbortController().signal

describe.each(stores)('an Idempotency-Key on $name', ({ open }) => {
  let store: OpenedStore
  let house: House

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  afterEach(async () => {
    await house.lab.clear()
    await house.lab.release()
    await house.reap()
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  test('heals a lost answer: the same task, the old credentials ended, new ones and a new task token', async () => {
    const first = await house.declare(['crm', 'api'], { key: 'lost' })
    const second = await house.declare(['crm', 'api'], { key: 'lost' })

    expect(second.id).toBe(first.id)
    expect(await house.lab.works(first.secrets[0]!)).toBe(false)
    expect(await introspect(house.broker, first.secrets[1]!, 'all')).toBeUndefined()
    expect(await taskOfToken(house.broker, first.token)).toBeUndefined()
    expect(await house.lab.works(second.secrets[0]!)).toBe(true)
    expect(await introspect(house.broker, second.secrets[1]!, 'all')).toMatchObject({ task: first.id })
    expect(await taskOfToken(house.broker, second.token)).toMatchObject({ id: first.id, agent: 'bot' })
    await second.complete()
  })

  test.each(['presented before', 'presented meanwhile'])(
    'gives the old task token nothing while the old credentials are being ended: %s',
    async (when) => {
      const key = `lost, and its token ${when}`
      const first = await house.declare(['crm'], { key })
      const speaker = async (): Promise<Caller | undefined> => {
        const task = await taskOfToken(house.broker, first.token)
        return task && { actor: undefined, agent: undefined, task, roles: new Set() }
      }
      const before = await speaker()
      await house.lab.next('delete', 'held')
      const retried = house.declare(['crm'], { key })
      await house.lab.hanging('delete')

      const holder = when === 'presented before' ? before : await speaker()
      const added =
        holder && (await addLease(house.broker, holder, first.id, { name: 'api', parameters: {} }, never).catch((error: unknown) => error))
      await house.lab.release()
      const second = await retried

      const living = (await findTask(house.ledger, first.id))!.leases.filter(({ state }) => state === 'active')
      expect(living.map(({ id }) => id)).toEqual(second.leases.map(({ id }) => id))
      if (when === 'presented before') expect(added).toMatchObject({ code: 'invalid_token' })
      else expect(holder).toBeUndefined()
      await second.complete()
    },
  )

  test('says of the old credentials that they are being revoked, as long as their backend does not confirm their end', async () => {
    const first = await house.declare(['crm'], { key: 'lost, and its end fails' })
    await house.lab.next('delete', 'fails')
    const second = await house.declare(['crm'], { key: 'lost, and its end fails' })

    const leases = (await findTask(house.ledger, first.id))!.leases
    expect(leases.map(({ state, evidence }) => [state, evidence])).toEqual([
      ['revoking', null],
      ['active', null],
    ])
    expect(await house.lab.works(first.secrets[0]!)).toBe(true)
    await house.ledger.run(sql`update leases set due_at = now() where state = 'revoking'`)
    await house.reap()
    expect((await findTask(house.ledger, first.id))!.leases[0]).toMatchObject({ state: 'revoked' })
    expect(await house.lab.works(first.secrets[0]!)).toBe(false)
    expect(await house.lab.works(second.secrets[0]!)).toBe(true)
    await second.complete()
  })

  test('refuses another declaration under the same key', async () => {
    const task = await house.declare(['api'], { key: 'other' })
    await expect(house.declare(['api'], { key: 'other', purpose: 'something else' })).rejects.toMatchObject({ code: 'idempotency_mismatch' })
    await task.complete()
  })

  test('refuses another declaration under the same key also where the policy would deny it, and keeps nothing of it', async () => {
    const denied = async (grants: string[]) =>
      await house.declare(grants, { key: 'denied first', agent: 'stranger' }).catch((error: unknown) => error)
    expect(await denied(['crm'])).toMatchObject({ code: 'denied' })
    const kept = await listTasks(house.ledger, { agent: 'stranger' }, { limit: 50 })
    expect(await denied(['api'])).toMatchObject({ code: 'idempotency_mismatch' })
    expect(await listTasks(house.ledger, { agent: 'stranger' }, { limit: 50 })).toEqual(kept)
  })

  test('keeps one of two declarations that the policy denies at once under a fresh key, and refuses the other', async () => {
    const denied = async (grants: string[]) =>
      await house.declare(grants, { key: 'denied at once', agent: 'stranger' }).catch((error: { code?: string }) => error.code)
    const before = await listTasks(house.ledger, { agent: 'stranger' }, { limit: 50 })
    expect((await Promise.all([denied(['crm']), denied(['api'])])).toSorted()).toEqual(['denied', 'idempotency_mismatch'])
    expect((await listTasks(house.ledger, { agent: 'stranger' }, { limit: 50 })).items).toHaveLength(before.items.length + 1)
  })

  test('puts nothing into the task of an agent whom the catalogue calls otherwise by now', async () => {
    const task = await house.declare(['api'], { key: 'renamed' })
    const usual = house.broker.policy()
    const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-catalogue-'))
    onTestFinished(async () => {
      house.use(usual)
      await rm(folder, { recursive: true, force: true })
    })
    const renamed = (catalogue: string): string => catalogue.replace('  bot: {', '  renamed: {')
    const policy = await loadPolicy(folder, { edited: renamed })
    house.use(policy)
    const caller = { ...house.caller('bot'), agent: policy.catalogue.agents.get('renamed') }
    const declared = { kind: 'work', purpose: 'a test', labels: {}, duration: 60_000, grants: [{ name: 'api', parameters: {} }] }
    await expect(openTask(house.broker, caller, declared, 'renamed', never)).rejects.toMatchObject({ code: 'conflict', task: task.id })
    house.use(usual)
    expect((await findTask(house.ledger, task.id))!.leases).toHaveLength(1)
    expect((await house.declare(['api'], { key: 'renamed' })).id).toBe(task.id)
    await task.complete()
  })

  test('says in_flight while the first request is being minted, and serves the retry afterwards', async () => {
    await house.lab.next('put', 'held')
    const first = house.declare(['crm'], { key: 'busy' })
    await house.lab.hanging('put')

    await expect(house.declare(['crm'], { key: 'busy' })).rejects.toMatchObject({ code: 'in_flight', retryAfter: 1 })

    await house.lab.release()
    const task = await first
    const again = await house.declare(['crm'], { key: 'busy' })
    expect(again.id).toBe(task.id)
    await again.complete()
  })

  test('is not forgotten while a request holds it, is remembered from anew by a retry, and forgotten when its time is over', async () => {
    const declare = () => house.declare(['crm'], { key: 'old' })
    async function age(): Promise<void> {
      await house.ledger.run(sql`update idempotency_keys set expires_at = now() - interval '1 second'`)
      await sweep(house.ledger, 100)
    }
    await house.lab.next('put', 'held')
    const first = declare()
    await house.lab.hanging('put')
    await age()
    await expect(declare()).rejects.toMatchObject({ code: 'in_flight' })
    await house.lab.release()
    const task = await first

    expect((await declare()).id).toBe(task.id)
    await sweep(house.ledger, 100)
    const again = await declare()
    expect(again.id).toBe(task.id)

    await age()
    const other = await declare()
    expect(other.id).not.toBe(task.id)
    await again.complete()
    await other.complete()
  })

  test('is remembered from anew where it stands for a new task', async () => {
    const declare = () => house.declare(['crm'], { key: 'old and failed' })
    await house.lab.next('put', 'fails')
    await expect(declare()).rejects.toMatchObject({ code: 'provider_unavailable' })
    await house.ledger.run(sql`update idempotency_keys set expires_at = now() - interval '1 second'`)
    const task = await declare()
    await sweep(house.ledger, 100)
    const again = await declare()
    expect(again.id).toBe(task.id)
    await again.complete()
  })

  test('is free again when its request died with its broker', async () => {
    const task = await house.declare(['crm'], { key: 'died' })
    await house.ledger.run(sql`update idempotency_keys set busy_until = now() + interval '30 seconds' where task_id = ${task.id}`)
    await expect(house.declare(['crm'], { key: 'died' })).rejects.toMatchObject({ code: 'in_flight' })

    await house.ledger.run(sql`update idempotency_keys set busy_until = now() - interval '1 second' where task_id = ${task.id}`)
    const again = await house.declare(['crm'], { key: 'died' })
    expect(again.id).toBe(task.id)
    await again.complete()
  })

  test('stands for a new task after the first one failed or was refused', async () => {
    await house.lab.next('put', 'fails')
    const refused: unknown = await house.declare(['crm'], { key: 'failed' }).catch((error: unknown) => error)
    const again = await house.declare(['crm'], { key: 'failed' })
    expect(again.id).not.toBe((refused as { task: string }).task)
    await again.complete()

    await expect(house.declare(['crm'], { key: 'denied', agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })
    await expect(house.declare(['crm'], { key: 'denied', agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })
  })

  test('says that a limit is met, and not that its request is under way, where several met it at once', async () => {
    const declared = await Promise.allSettled([1, 2, 3, 4, 5].map((number) => house.declare(['crm'], { agent: 'small', key: `at-once-${number}` })))

    const opened = declared.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    expect(opened).toHaveLength(3)
    for (const outcome of declared) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'rate_limited' })
    for (const task of opened) await task.complete()
  })

  test('is free again after a limit refused its request', async () => {
    const full = await house.declare(['crm', 'api'], { agent: 'small' })
    await expect(house.declare(['crm', 'crm-for'], { agent: 'small', key: 'full' })).rejects.toMatchObject({ code: 'rate_limited' })
    await full.complete()
    const task = await house.declare(['crm', 'crm-for'], { agent: 'small', key: 'full' })
    await task.complete()
  })

  test('does not bring an ended task back to life', async () => {
    const task = await house.declare(['api'], { key: 'ended' })
    await task.complete()
    await expect(house.declare(['api'], { key: 'ended' })).rejects.toMatchObject({ code: 'conflict', task: task.id })
  })

  test('belongs to its caller: the same key of another agent is another key', async () => {
    const [mine, theirs] = [await house.declare(['api'], { key: 'shared' }), await house.declare(['api'], { key: 'shared', agent: 'rival' })]
    expect(mine.id).not.toBe(theirs.id)
    await mine.complete()
    await theirs.complete()
  })

  test('overtaken by a retry while its request slept leaves the task to the retry', async () => {
    await house.lab.next('put', 'held')
    const slept = expect(house.declare(['crm'], { key: 'slept' })).rejects.toMatchObject({ code: 'in_flight' })
    await house.lab.hanging('put')
    await house.ledger.run(sql`update idempotency_keys set busy_until = now() - interval '1 second' where busy_until is not null`)

    const retry = await house.declare(['crm'], { key: 'slept' })
    await house.lab.release()
    await slept

    expect((await findTask(house.ledger, retry.id))?.task.state).toBe('open')
    expect(await house.lab.works(retry.secrets[0]!)).toBe(true)
    expect((await house.lab.alive()).length).toBe(1)
    await retry.complete()
  })

  test('used by many requests at once leaves one task and one set of living credentials, however they meet', async () => {
    for (let round = 0; round < 6; round++) {
      const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => house.declare(['crm', 'api'], { key: `storm-${round}` })))

      const opened = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
      expect(opened.length).toBeGreaterThan(0)
      expect(new Set(opened.map(({ id }) => id)).size).toBe(1)
      expect((await house.lab.alive()).length).toBe(1)
      expect((await findTask(house.ledger, opened[0]!.id))?.leases.filter(({ state }) => state === 'active').length).toBe(2)
      await opened[0]!.complete()
      expect(await house.lab.alive()).toEqual([])
    }
  })
})
