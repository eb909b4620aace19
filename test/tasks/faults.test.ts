import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { TaskId } from '../../src/base/ids.ts'
import { stopwatch } from '../../src/base/time.ts'
import { announceTask } from '../../src/ledger/announce.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import { closeOverdue, closeTask } from '../../src/ledger/endings.ts'
import { findTask } from '../../src/ledger/records.ts'
import { nextDue, putBack } from '../../src/ledger/queue.ts'
import { listEntries, listLeases } from '../../src/ledger/lists.ts'
import { ProviderError } from '../../src/providers/provider.ts'
import type { Target } from '../../src/providers/target.ts'
import { lap, startReaper } from '../../src/reaper.ts'
import { revokeLease, revokeTask } from '../../src/tasks/close.ts'
import { decideOn } from '../../src/tasks/decision.ts'
import { newLeases } from '../../src/tasks/mint.ts'
import { phraseOf, revokeMany } from '../../src/tasks/revoke.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { type House, never, startHouse } from '../support/house.ts'
import type { LabFault } from '../support/lab.ts'
import { queryOf } from '../support/query.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

/** Each with both truths: nothing was done, and it was done and the answer was lost. */
const faults = (['refuses without a word', 'fails', 'resets', 'garbage', 'half', 'hangs'] as const).flatMap((how: LabFault) => [
  { how, done: false, words: `${how} and nothing was done` },
  { how, done: true, words: `${how} after it was done` },
])

describe.each(stores)('a backend that fails, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  /** For what hangs: nobody waits for that as long as for a busy machine. */
  let impatient: Broker

  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
    impatient = await house.neighbour('1s')
  })
  afterEach(async () => {
    await house.lab.clear()
    await house.lab.release()
    await untilNothingIsDue()
    expect(await house.lab.alive()).toEqual([])
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  const stateOf = async (id: TaskId) => (await findTask(house.ledger, id))!
  const brokerFor = (how: LabFault): Broker => (how === 'hangs' ? impatient : house.broker)

  /** What was committed is told a moment later: so many looks at the store take much longer than that. */
  async function lookAround(): Promise<void> {
    for (let look = 0; look < 20; look++) await house.ledger.run(sql`select`)
  }

  /** Drives the reaper over every retry: what is due later is moved to now. */
  async function untilNothingIsDue(): Promise<void> {
    for (let round = 0; round < 20; round++) {
      await house.ledger.run(sql`update leases set due_at = now() where state in ('reserved', 'revoking')`)
      await house.reap()
      if ((await nextDue(house.ledger, [{ name: 'lab', kind: 'http' }])) === undefined) return
    }
  }

  test.each(faults)('minting $words: no credential is alive that the ledger does not know, and the task has failed', async ({ how, done }) => {
    await house.lab.next('put', how, { done })

    const refused: unknown = await house.declare(['crm', 'api'], { broker: brokerFor(how) }).catch((error: unknown) => error)

    expect(refused).toMatchObject({ code: expect.stringMatching(/^provider_(failed|unavailable)$/) as unknown })
    await brokerFor(how).background.settled()
    await house.lab.clear()
    await untilNothingIsDue()
    const { task, leases } = await stateOf((refused as { task: TaskId }).task)
    expect(task).toMatchObject({ state: 'failed', cause: 'mint_failed' })
    for (const lease of leases) expect(['revoked', 'failed']).toContain(lease.state)
  })

  test('of several leases that were not minted for certain each has failed at once, and no provider is asked to end one', async () => {
    await house.lab.next('put', 'refuses', { times: 2 })
    const asked = (await house.lab.calls()).length

    const refused: unknown = await house.declare(['crm', 'crm-for']).catch((error: unknown) => error)

    expect(refused).toMatchObject({ code: 'provider_failed' })
    const { task, leases } = await stateOf((refused as { task: TaskId }).task)
    expect(task).toMatchObject({ state: 'failed', cause: 'mint_failed' })
    expect(leases.map(({ state }) => state)).toEqual(['failed', 'failed'])
    expect((await house.lab.calls()).slice(asked).map(({ call }) => call)).toEqual(['put', 'put'])
  })

  test.each(faults)('ending $words: it never says revoked before there is proof, and dies in the end', async ({ how, done }) => {
    const task = await house.declare(['crm'])
    await house.lab.next('delete', how, { done })

    await task.at(brokerFor(how)).complete(0)
    await brokerFor(how).background.settled()

    expect(await stateOf(task.id)).toMatchObject({ task: { state: 'closing' }, leases: [{ state: 'revoking', evidence: null }] })
    await house.lab.clear()
    await untilNothingIsDue()
    expect(await house.lab.works(task.secrets[0]!)).toBe(false)
    expect((await stateOf(task.id)).task.state).toBe('completed')
  })

  test('a backend that is down refuses new work with a reason, and what it holds is revoked when it is back', async () => {
    const task = await house.declare(['crm'])
    await house.lab.down()
    await expect(house.declare(['crm'])).rejects.toMatchObject({ code: 'provider_unavailable', retryAfter: 2 })

    const closed = await task.complete(0)
    expect(closed).toMatchObject({ ended: false })
    await house.broker.background.settled()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', evidence: null, error: expect.stringContaining('lab') as unknown })

    await house.lab.up()
    house.skew += 10_000
    await untilNothingIsDue()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({
      state: 'revoked',
      error: expect.stringContaining('lab') as unknown,
      evidence: { by: 'provider' },
    })
  })

  test('whoever waits for an end is told what has come of it as soon as their signal fires', async () => {
    const task = await house.declare(['crm'])
    await house.lab.next('delete', 'hangs')
    const late = new AbortController()

    const closing = revokeTask(house.broker, house.operator, task.id, 'a test says so', 3_600, late.signal)
    await house.lab.hanging('delete')
    late.abort()

    expect(await closing).toMatchObject({ ended: false, task: { state: 'closing' }, leases: [{ state: 'revoking', evidence: null }] })
  })

  test('whoever waits for an end waits as long as they said, however slowly the store answers', async () => {
    const task = await house.declare(['crm'])
    await house.lab.down()
    await task.complete(0)
    await house.broker.background.settled()
    let statements = 0
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => statements * 5_000)
    onTestFinished(() => clock.mockRestore())
    const run: Ledger['run'] = (...asked) => ((statements += 1), house.ledger.run(...asked))

    await task.at({ ...house.broker, ledger: { ...house.ledger, run } }).complete(10)

    clock.mockRestore()
    expect(statements, 'two of them are looks, the others come before the wait begins or after it').toBeLessThan(10)
    await house.lab.up()
    // The breaker has opened: its pause is over for the tests that follow.
    house.skew += 10_000
  })

  test.each(['store_unavailable', 'internal'] as const)(
    'a declaration that meets its limit, and whose own statement fails with %s, fails none of those that were announced beside it',
    async (code) => {
      const announcing: number[] = []
      const run: Ledger['run'] = async (...asked) => {
        const { sql: text, params } = queryOf(asked[0])
        if (text.includes("'task.opened'") && announcing.push((JSON.parse(String(params[0])) as unknown[]).length) === 2)
          throw new BrokerError(code, 'not this one')
        return await house.ledger.run(...asked)
      }
      const broker = { ...house.broker, ledger: { ...house.ledger, run } }

      const [over, beside] = await Promise.allSettled([
        house.declare(['api', 'slow-api', 'crm', 'crm-for'], { agent: 'small', broker }),
        house.declare(['crm'], { broker }),
      ])

      expect(announcing, 'declarations of each statement').toEqual([2, 1])
      expect(over).toMatchObject({ status: 'rejected', reason: { code } })
      expect(beside).toMatchObject({ status: 'fulfilled' })
      if (beside.status === 'fulfilled') await beside.value.complete()
    },
  )

  test('a lease that is not there any more while its end is waited for is said to be a lease', async () => {
    const task = await house.declare(['api'])
    let isAsked = 0
    const run: Ledger['run'] = async (statement, ...how) => {
      const found = await house.ledger.run(statement, ...how)
      return found.some((row) => 'lease' in row && 'task' in row) && isAsked++ > 0 ? [] : (found as never)
    }
    const forgetful = { ...house.broker, ledger: { ...house.ledger, run } }
    const revoking = revokeLease(forgetful, house.caller('bot'), task.opened.leases[0]!.lease.id, undefined, 0, never)
    await expect(revoking).rejects.toMatchObject({ code: 'not_found', detail: 'There is no such lease for you' })
  })

  test('a revocation that fails for longer than the alarm limit is flagged stuck, is still tried, and loses the flag with the proof', async () => {
    const task = await house.declare(['crm'])
    await house.lab.down()
    await task.complete(0)
    await house.broker.background.settled()
    await house.ledger.run(sql`update leases set closing_at = closing_at - interval '6 minutes' where task_id = ${task.id}`)

    await house.reap()

    const { items } = await listLeases(house.ledger, { stuck: true }, { limit: 10 })
    expect(items).toMatchObject([{ taskId: task.id, state: 'revoking', error: expect.any(String) as unknown }])
    expect(house.log()).toContain('a lease is stuck')
    await house.lab.up()
    house.skew += 10_000
    await untilNothingIsDue()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', stuckSince: null })
  })

  test('a revocation that nobody could try, because broker or store were away, is tried and not called stuck', async () => {
    const task = await house.declare(['crm'])
    await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    await house.ledger.run(sql`update leases set closing_at = closing_at - interval '6 minutes', due_at = now() where task_id = ${task.id}`)

    await house.reap()

    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    expect((await listEntries(house.ledger, { task: task.id, kind: 'lease.stuck' }, { limit: 10 })).items).toEqual([])
  })

  test('a revocation that nobody can try, because its provider is in no configuration, is flagged stuck with that, and ends when the provider is back', async () => {
    const task = await house.declare(['crm'])
    await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    await house.ledger.run(sql`update leases set closing_at = closing_at - interval '6 minutes', due_at = now() where task_id = ${task.id}`)
    const without = { ...house.broker, targets: new Map([...house.broker.targets].filter(([name]) => name !== 'lab')) }

    await lap(without)

    const { items } = await listLeases(house.ledger, { stuck: true }, { limit: 10 })
    expect(items).toMatchObject([
      { taskId: task.id, state: 'revoking', error: 'the provider lab of kind http is not configured on the broker that looked' },
    ])
    expect((await listEntries(house.ledger, { task: task.id, kind: 'lease.stuck' }, { limit: 10 })).items).toHaveLength(1)

    await house.reap()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', stuckSince: null, evidence: { by: 'provider' } })
  })

  /** The same broker, whose configuration gives the name of the lab to another provider. */
  const calledLab = (another: Target): Broker => ({ ...house.broker, targets: new Map([...house.broker.targets, ['lab', another]]) })

  const others = {
    'one that signs tokens': () => {
      const tokens = house.broker.targets.get('tokens')!
      return { ...tokens, provider: { ...tokens.provider, name: 'lab' } }
    },
    'one of another kind, to which what it does not know is gone': () => {
      const lab = house.broker.targets.get('lab')!
      const revoke: Target['revoke'] = () =>
        Promise.resolve({ by: 'provider', statement: 'there is nothing of this name', at: new Date().toISOString() })
      return { ...lab, revoke, provider: { ...lab.provider, kind: 'vault' } }
    },
  }

  describe.each(Object.entries(others))('where a provider gave its name to %s', (_, anotherOf) => {
    test('a revocation is not called revoked by that one, and ends when its own is back', async () => {
      const task = await house.declare(['crm'])
      const another = anotherOf()
      const changed = calledLab(another)

      await task.at(changed).complete(0)
      await house.ledger.run(sql`update leases set closing_at = closing_at - interval '6 minutes', due_at = now() where task_id = ${task.id}`)
      await house.reap(changed)

      const inVain = 'the provider lab of kind http is not configured on the broker that looked'
      expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', evidence: null, attempts: 0, error: inVain })
      expect((await house.lab.alive()).length).toBe(1)
      const { name, kind } = another.provider
      expect(await nextDue(house.ledger, [{ name, kind }])).not.toBe(0)
      await house.reap()
      expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    })

    test('a lease gets no fresh credential, and is expired when its time is over, without a word of that one', async () => {
      const task = await house.declare(['crm'])
      const changed = calledLab(anotherOf())
      await expect(task.at(changed).refresh(task.leases[0]!)).rejects.toMatchObject({ code: 'conflict' })

      await house.backdate(task.id, '2 minutes')
      await house.reap(changed)
      await house.ledger.run(sql`update leases set due_at = now() where task_id = ${task.id} and due_at is not null`)
      await house.reap(changed)
      expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'expired', evidence: null })
      await house.broker.targets.get('lab')!.revoke({ lease: task.leases[0]!.id, task: task.id, age: 0, handles: [] }, never)
    })
  })

  test('a mint is told for how long its lease has been announced, the way to the store and back included', async () => {
    const begun = stopwatch()
    const run: Ledger['run'] = async (...statement) => {
      const answer = await house.ledger.run<never>(...statement)
      const back = stopwatch()
      while (back() < 200) await house.ledger.run(sql`select 1`)
      return answer
    }
    const { provider } = house.broker.targets.get('lab')!
    const mint = provider.mint.bind(provider)
    const told: number[] = []
    const spy = vi.spyOn(provider, 'mint')
    onTestFinished(() => spy.mockRestore())
    spy.mockImplementation((reservation, ...rest) => (told.push(reservation.elapsed()), mint(reservation, ...rest)))

    const task = await house.declare(['crm'], { broker: { ...house.broker, ledger: { ...house.ledger, run } } })
    await task.add('crm')
    await task.at(house.broker).complete()

    expect(told).toHaveLength(2)
    for (const elapsed of told) expect(elapsed).toBeGreaterThan(150)
    // Each by its own announcement, and not by that of its task.
    expect(told[1]).toBeLessThan(begun() - 400)
  })

  test('what its provider says has ended by itself is expired with that for evidence, and never called revoked', async () => {
    const task = await house.declare(['crm'])
    const { provider } = house.broker.targets.get('lab')!
    const byTime = { by: 'time' as const, statement: 'what was given ended by itself', at: '2026-11-26T12:00:00.000Z' }
    const revoke = provider.revoke.bind(provider)
    vi.spyOn(provider, 'revoke').mockImplementationOnce(async (lease, signal) => (await revoke(lease, signal), byTime))

    await task.complete()

    const { task: ended, leases } = await stateOf(task.id)
    expect(ended.state).toBe('completed')
    expect(leases[0]).toMatchObject({ state: 'expired', cause: 'completed', evidence: byTime })
  })

  test.each([
    [1, 'closing what is overdue'],
    [2, 'revoking many'],
    [3, 'revoking many: noting which have ended'],
    [4, 'expiring what time has ended'],
  ])('a lap of the reaper whose statement %s fails ends what is due all the same, and says that %s has failed', async (which, step) => {
    const task = await house.declare(['crm'])
    await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    await house.ledger.run(sql`update leases set due_at = now() where task_id = ${task.id}`)
    let statements = 0
    const failing: Ledger = {
      ...house.ledger,
      run: async (...asked) =>
        ++statements === which ? await Promise.reject(new BrokerError('store_unavailable', 'not this one')) : await house.ledger.run(...asked),
    }

    await expect(lap({ ...house.broker, ledger: failing })).rejects.toThrow(new RegExp(`^${step}: store_unavailable: not this one$`))
    await house.broker.background.settled()

    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', attempts: 1 })
  })

  describe('a reaper that cannot close what is overdue', () => {
    /** What it does, in order: its closings, which go as is said, its claims, and pauses of a second. Nobody wakes it. */
    function overheard(closing: () => Promise<never> = fails): { readonly did: string[]; readonly broker: Broker } {
      const did: string[] = []
      const run: Ledger['run'] = async (...asked) => {
        const { sql: text } = queryOf(asked[0])
        if (text.includes('room.free')) did.push('claim')
        if (!text.includes('task.deadline <= now()')) return await house.ledger.run(...asked)
        did.push('close')
        return await closing()
      }
      return { did, broker: { ...house.broker, ledger: { ...house.ledger, run, onDue: async () => {} } } }
    }

    const fails = async (): Promise<never> => await Promise.reject(new BrokerError('store_unavailable', 'not this one'))

    async function closeAndAwaitItsEnd(id: TaskId): Promise<void> {
      await closeTask(house.ledger, { id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
      await house.ledger.run(sql`update leases set due_at = now() where task_id = ${id}`)
      await expect.poll(async () => (await stateOf(id)).leases[0]?.state, { timeout: 20_000 }).toBe('revoked')
    }

    test('claims and ends what is due all the same, and counts as one that stands still', async () => {
      const { broker } = overheard()
      await using reaper = startReaper(broker)
      await expect.poll(() => reaper.lastLap()).toBeGreaterThan(150)
      for (const { id } of [await house.declare(['crm']), await house.declare(['crm'])]) await closeAndAwaitItsEnd(id)
      expect(reaper.lastLap()).toBeGreaterThan(150)
    })

    test('does not wait with claims for a closing that hangs', async () => {
      let fail = (): void => {}
      const hung = new Promise<void>((resolve) => (fail = resolve))
      const { did, broker } = overheard(async () => (await hung, await fails()))
      const reaper = startReaper(broker)
      try {
        for (const { id } of [await house.declare(['crm']), await house.declare(['crm'])]) await closeAndAwaitItsEnd(id)
        expect(did.filter((what) => what === 'close')).toHaveLength(1)
      } finally {
        fail()
        await reaper.stop()
      }
    })

    test('goes on at once where there is more of what it can do', async () => {
      await house.declare([])
      await revokeMany(house.broker, house.operator, { selector: {}, reason: 'a test says so', confirm: phraseOf({}), stopFor: undefined })
      const { did, broker } = overheard()
      const setTimer = globalThis.setTimeout
      const timers = vi.spyOn(globalThis, 'setTimeout').mockImplementation((run: () => void, ms?: number) => {
        if (ms === 1_000) did.push('pause')
        return setTimer(run, ms)
      })
      const reaper = startReaper(broker)
      const closings = (): number[] => did.flatMap((what, index) => (what === 'close' ? [index] : []))
      await expect.poll(() => closings().length, { timeout: 20_000 }).toBeGreaterThan(1)
      timers.mockRestore()
      await reaper.stop()
      // The loop that asks providers has nothing to do, and pauses.
      expect(did.slice(0, closings()[1]).filter((what) => what === 'pause').length).toBeLessThan(2)
    })
  })

  test('a reaper that runs has a provider do what nobody asked it for', async () => {
    const { provider } = house.broker.targets.get('lab')!
    const tended = new Promise<void>((resolve) => {
      provider.upkeep = async () => {
        resolve()
        throw new ProviderError('downstream', 'not done yet', 'maybe')
      }
    })
    const reaper = startReaper(house.broker)
    await tended
    await reaper.stop()
    delete provider.upkeep
  })

  test('a reaper is woken by whoever puts a lease back, and not by whoever closes a task and asks for its leases itself', async () => {
    const task = await house.declare(['crm'])
    let calls = 0
    let called = (): void => {}
    await house.ledger.onDue(() => {
      calls++
      called()
    })
    // Some stores call once as soon as they listen.
    calls = 0
    const { revoking } = await closeTask(house.ledger, { id: task.id, outcome: 'completed', ending: { cause: 'completed', by: 'agent:bot' } })
    await lookAround()
    expect(calls).toBe(0)
    const woken = new Promise<void>((resolve) => (called = resolve))
    await putBack(house.ledger, revoking[0]!)
    await woken
    expect(calls).toBe(1)
  })

  test('what a reaper has closed and died before it asked is asked about by the next one at once', async () => {
    const task = await house.declare(['crm', 'api'], { duration: 60_000 })
    await house.backdate(task.id, '65 seconds')
    const closed = await closeOverdue(house.ledger, 10)
    expect(closed.revoking.map(({ taskId }) => taskId)).toEqual([task.id])

    await house.reap()

    expect((await stateOf(task.id)).leases.map(({ state, attempts }) => [state, attempts])).toEqual([
      ['revoked', 1],
      ['revoked', 0],
    ])
    expect(await house.lab.works(task.secrets[0]!)).toBe(false)
  })

  test('what has outlived its own end while no broker was there is asked about, and only called expired where nobody can', async () => {
    const [task, orphan] = [await house.declare(['crm'], { duration: 60_000 }), await house.declare(['crm'], { duration: 60_000 })]
    await house.ledger.run(sql`update leases set provider = 'taken-out' where task_id = ${orphan.id}`)
    for (const { id } of [task, orphan]) await house.backdate(id, '1 hour')

    await house.reap()
    await house.reap()

    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoked', evidence: { by: 'provider' } })
    expect(await house.lab.works(task.secrets[0]!)).toBe(false)
    expect((await stateOf(orphan.id)).leases[0]).toMatchObject({ state: 'expired', evidence: null })
    // Nobody is left who could end it, and it must not disturb the tests that follow.
    await fetch(`${house.lab.url}/leases/${orphan.leases[0]!.id}`, { method: 'DELETE' })
  })

  test('a reaper that runs expires what its provider refuses to end, once its own end has passed', async () => {
    const refusing: Target = {
      ...house.broker.targets.get('lab')!,
      revoke: () => Promise.reject(new ProviderError('refused', 'not that one', 'maybe')),
    }
    const broker = { ...house.broker, targets: new Map(house.broker.targets).set('lab', refusing) }
    const task = await house.declare(['crm'], { duration: 60_000 })
    await task.at(broker).complete(0)
    await house.backdate(task.id, '2 minutes')

    await using _ = startReaper(broker)

    await expect.poll(async () => (await stateOf(task.id)).leases[0]?.state, { timeout: 15_000 }).toBe('expired')
    await fetch(`${house.lab.url}/leases/${task.leases[0]!.id}`, { method: 'DELETE' })
  })

  test('a backend that stays dead past the end of its credential leaves it expired, with the last error', async () => {
    const task = await house.declare(['crm'], { duration: 60_000 })
    await house.lab.down()
    await task.complete(0)
    await house.broker.background.settled()
    await house.backdate(task.id, '2 minutes')

    // Asked once more, for its end had not passed when it was asked before; and when it would be asked again, it is over.
    await house.reap()
    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'revoking', attempts: 1 })
    await house.ledger.run(sql`update leases set due_at = now() where task_id = ${task.id}`)
    await house.reap()

    expect((await stateOf(task.id)).leases[0]).toMatchObject({ state: 'expired', evidence: null, error: expect.any(String) as unknown })
    await house.lab.up()
    await house.lab.clock(120_000)
    expect(await house.lab.works(task.secrets[0]!)).toBe(false)
    // The lab's clock goes back for the tests that follow, and must not take the credential with it.
    await fetch(`${house.lab.url}/leases/${task.leases[0]!.id}`, { method: 'DELETE' })
    await house.lab.clock(0)
    house.skew += 10_000
  })

  describe('when a broker dies while it opens a task', () => {
    /** What a broker leaves that dies right after the announcing commit. */
    async function announceOnly(): Promise<TaskId> {
      const caller = house.caller('bot')
      const declared = { kind: 'work', duration: 60_000, grants: [{ name: 'crm', parameters: {} }] }
      const inquiry = house.broker.policy().catalogue.resolve(caller.agent!, caller.actor!, 'issue', declared)
      const decision = decideOn(house.broker, inquiry)
      const task = {
        id: `task_${decision.id.slice(4)}` as const,
        kind: 'work',
        agent: 'bot',
        owner: 'owner@example.com',
        actor: caller.actor!,
        purpose: '',
        labels: {},
        tokenHash: decision.id,
        duration: 60_000,
        deadline: undefined,
      }
      await announceTask(house.ledger, {
        task,
        decision,
        leases: newLeases(house.broker, inquiry, decision),
        limits: { perAgent: 100, perTask: 16 },
        claim: undefined,
      })
      return task.id
    }

    test('before it asked the provider, the lease is failed: nothing was minted', async () => {
      const id = await announceOnly()
      await untilNothingIsDue()
      expect((await stateOf(id)).leases[0]).toMatchObject({ state: 'failed', cause: 'interrupted' })
    })

    test('after the provider had minted, the credential is found and ended', async () => {
      const id = await announceOnly()
      const { task, leases } = await stateOf(id)
      const target = house.broker.targets.get('lab')!
      const reservation = { ...leases[0]!, lease: leases[0]!.id, task: id, owner: task.owner, kind: 'work', subject: 's', settings: { settings: {} } }
      const told = { issuedAt: task.openedAt, elapsed: stopwatch(), policyDigest: 'sha256:' }
      const minted = await target.mint({ ...reservation, ...told }, async () => {}, never)
      expect((await house.lab.alive()).length).toBe(1)
      expect(minted.credential.type).toBe('bearer_token')

      await untilNothingIsDue()

      expect((await stateOf(id)).leases[0]).toMatchObject({ state: 'revoked', cause: 'interrupted', evidence: { by: 'provider' } })
    })

    test('a broker that wakes up late cannot mint what the reaper has given up', async () => {
      const id = await announceOnly()
      const { task, leases } = await stateOf(id)
      await untilNothingIsDue()
      const target = house.broker.targets.get('lab')!
      const reservation = { ...leases[0]!, lease: leases[0]!.id, task: id, owner: task.owner, kind: 'work', subject: 's', settings: { settings: {} } }
      const told = { issuedAt: task.openedAt, elapsed: stopwatch(), policyDigest: 'sha256:' }

      await expect(target.mint({ ...reservation, ...told }, async () => {}, never)).rejects.toMatchObject({ minted: 'no' })
      expect(await house.lab.alive()).toEqual([])
    })
  })
})
