import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { AddedLease, ClosedTask, RenewedTask } from '../../src/http/contract.ts'
import { after, atEachCrossing, before, crossings } from '../support/crossings.ts'
import { deadlinePasses } from '../support/deadline.ts'
import { type Answer, type Fleet, type Held, heldOf, startFleet, until } from '../support/fleet.ts'
import { freeze, thaw } from '../support/freeze.ts'
import type { RunningBroker } from '../support/program.ts'
import { stores } from '../support/stores.ts'
import { isCommit } from '../support/statements.ts'
import { type Count, createTripwire, type Crossing, type Wire, wirePostgres } from '../support/tripwire.ts'

/** What is under way when the connection is cut. `ends`: what it acknowledges is that the task is over. */
interface Deed {
  readonly name: string
  readonly ends: boolean
  readonly crosses: readonly string[]
  run(task: Held): Promise<Answer<Partial<ClosedTask & AddedLease & RenewedTask>>>
}

const hows = ['once', 'for a while', 'with a late commit'] as const
type How = (typeof hows)[number]

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('a connection to Postgres that is cut in the middle of a commit', () => {
  const tripwire = createTripwire()
  let fleet: Fleet
  let wire: Wire
  /** The one whose connections are cut. It lives on. */
  let broker: RunningBroker
  let other: RunningBroker

  beforeAll(async () => {
    fleet = await startFleet(1)
    wire = await wirePostgres(fleet.storeUrl, tripwire)
    other = fleet.brokers[0]!
    broker = await fleet.site.start({ store: { url: wire.url } })
    fleet.brokers.push(broker)
  })
  afterEach(async () => {
    await fleet.settled()
    expect(await fleet.findings()).toEqual([])
  })
  afterAll(async () => {
    await fleet.stop()
    await wire.stop()
  })

  const aliveOf = async (task: string): Promise<number> => (await fleet.lab.alive()).filter((credential) => credential.task === task).length

  /** What is done while the wire is armed, and what lets a late commit land. */
  type Cell = (armed: <Came>(deed: () => Promise<Came>) => Promise<Came>, landed: () => Promise<void>) => Promise<void>

  /**
   * Cuts where a commit crosses. `once`: that connection alone. `for a while`: with a network that is gone until the agent has its answer.
   * `with a late commit`: with a Postgres that has it when the connection is cut, and commits it only when whoever asked has asked again.
   *
   * @returns where it was cut; undefined where it did not come to that
   */
  async function cut(name: string, how: How, where: Crossing | Count, cell: Cell): Promise<string | undefined> {
    const network = new EventTarget()
    const late = new Promise((land) => network.addEventListener('lands', land))
    async function landed(): Promise<void> {
      network.dispatchEvent(new Event('lands'))
      while (!tripwire.quiet()) await fleet.owner`select 1`
    }
    await cell(async (deed) => {
      const strike = how === 'once' ? () => tripwire.disarm() : () => {}
      tripwire.arm(strike, where, how === 'with a late commit' ? late : undefined)
      const answer = await deed()
      tripwire.disarm()
      // What a crash would leave is left here too: claims and holds that nobody works on. They run out.
      await fleet.owner`update idempotency_keys set busy_until = null`
      await fleet.owner`update leases set due_at = now() where state in ('reserved', 'revoking')`
      await fleet.wake()
      await fleet.settled()
      return answer
    }, landed)
    console.log(`${name}, ${how}: ${tripwire.struck() ? `cut ${tripwire.where()}` : 'not cut'}`)
    return tripwire.where()?.replace(/^during/, 'before')
  }

  /**
   * Cuts at each commit of a deed: before Postgres has it, so that it did not happen, and after, so that it happened and the answer was lost; and where it
   * lands late.
   */
  async function matrix(name: string, crosses: readonly string[], cell: Cell): Promise<void> {
    const commits = crosses.filter(isCommit)
    for (const how of hows) {
      const expected = [...before(commits), ...(how === 'with a late commit' ? [] : after(commits))]
      await atEachCrossing(expected, isCommit, (where) => cut(name, how, where, cell))
    }
  }

  /** It happened, or whoever asked is told that nobody knows and to come back. */
  function expectTruth({ status, body }: Answer<object>, done: readonly number[]): boolean {
    if (done.includes(status)) return true
    expect({ status, ...body }).toMatchObject({ status: 503, code: 'store_unavailable', retry: 'later' })
    return false
  }

  test('makes a declaration a 503 or the truth; the same Idempotency-Key heals it, and nothing unknown is alive', async () => {
    let round = 0
    await matrix('declare', crossings.declare, async (armed, landed) => {
      const headers = { 'idempotency-key': `cut-${round++}` }
      const answer = await armed(() => fleet.ask(broker, ['api', 'crm'], headers))
      const first = expectTruth(answer, [201]) ? heldOf(answer.body) : undefined
      if (first) expect([await fleet.lab.works(first.secrets['crm']!), await fleet.active(other, first.secrets['api']!)]).toEqual([true, true])

      const task = first ?? (await fleet.declare(broker, ['api', 'crm'], headers))
      await landed()
      expect(await aliveOf(task.id)).toBe(1)
      expect(await fleet.activeAt(fleet.brokers, task.secrets['api']!)).toBe(2)
      expect(await fleet.complete(broker, task)).toMatchObject({ status: 200, body: { ended: true } })
      expect(await fleet.lab.alive()).toEqual([])
    })
  }, 300_000)

  const soon = { prefer: 'wait=1' }
  const deeds: readonly Deed[] = [
    { name: 'complete', ends: true, crosses: crossings.end, run: (task) => fleet.complete(broker, task, soon) },
    {
      name: 'revoke',
      ends: true,
      crosses: crossings.end,
      run: (task) => fleet.call(broker, fleet.tokens.ops, 'POST', `/tasks/${task.id}/revoke`, { reason: 'a cut' }, soon),
    },
    {
      name: 'refresh',
      ends: false,
      crosses: crossings.refresh,
      run: (task) => fleet.call(broker, task.token, 'POST', `/leases/${task.leases[0]!.id}/refresh`, {}),
    },
    {
      name: 'renew',
      ends: false,
      crosses: crossings.renew,
      run: (task) => fleet.call(broker, fleet.tokens.bot, 'POST', `/tasks/${task.id}/renew`, { duration: '20m' }),
    },
    {
      name: 'add a lease',
      ends: false,
      crosses: crossings.add,
      run: (task) => fleet.call(broker, task.token, 'POST', `/tasks/${task.id}/leases`, { name: 'crm', parameters: { customer: 'other' } }),
    },
  ]

  test.each(deeds)(
    'makes $name a 503 or the truth; asking again heals it',
    async ({ name, ends, crosses, run }) => {
      await matrix(name, crosses, async (armed, landed) => {
        const task = await fleet.declare(other, ['api', 'crm'])
        const answer = await armed(() => run(task))
        const done = expectTruth(answer, [200, 201, 202])
        if (done && answer.body.ended) expect(await aliveOf(task.id)).toBe(0)
        const [row] = await fleet.owner`select state, deadline from tasks where id = ${task.id}`
        if (done && name === 'renew') expect((row!['deadline'] as Date).toISOString()).toBe(answer.body.task!.deadline)

        if (!done || ends) expect([200, 201]).toContain((await run(task)).status)
        const [told] = await fleet.owner`select deadline from tasks where id = ${task.id}`
        await landed()
        const [kept] = await fleet.owner`select deadline from tasks where id = ${task.id}`
        expect(kept!['deadline'] >= told!['deadline'], 'no deadline is sooner than it was said to be').toBe(true)
        expect(await fleet.activeAt(fleet.brokers, task.secrets['api']!)).toBe(ends ? 0 : 2)
        expect((await fleet.complete(broker, task)).body.ended).toBe(true)
        expect(await fleet.lab.alive()).toEqual([])
        expect((await fleet.story(task.id)).filter((kind) => kind === 'task.closing' || kind === 'task.ended')).toEqual([
          'task.closing',
          'task.ended',
        ])
      })
    },
    300_000,
  )

  /** How a reaper ends what has passed its deadline. Nobody waits for the answers. */
  const reaped = ['close what is overdue', 'claim what is due', 'record the end']

  test('leaves an end at the deadline in the ledger once, and nothing alive', async () => {
    for (const how of hows)
      for (const what of reaped)
        for (const side of how === 'with a late commit' ? (['before'] as const) : (['before', 'after'] as const))
          expect(await cut('deadline', how, { side, what, nth: 1 }, reap), 'it was cut here').toBeDefined()
  })

  const reap: Cell = async (armed, landed) => {
    const task = await fleet.declare(other, ['api', 'crm'])
    // Nobody else looks until this one was cut, and its very next look finds what is overdue.
    freeze(other.process)
    freeze(broker.process)
    try {
      while (!tripwire.quiet()) await fleet.owner`select 1`
      await fleet.owner.unsafe(deadlinePasses(`id = '${task.id}'`))
      await armed(async () => {
        thaw(broker.process)
        await fleet.wake()
        // The question lets the wire of this very process do its work between two looks.
        await until('it was cut', async () => (await fleet.owner`select 1`).length > 0 && tripwire.struck())
      })
    } finally {
      thaw(broker.process)
      thaw(other.process)
    }
    await until('the task has ended', async () => (await fleet.owner`select 1 from tasks where id = ${task.id} and state = 'expired'`).length > 0)
    await landed()
    expect(await aliveOf(task.id)).toBe(0)
    expect(await fleet.activeAt(fleet.brokers, task.secrets['api']!)).toBe(0)
    const story = await fleet.story(task.id)
    expect(story.filter((kind) => kind.startsWith('task.'))).toEqual(['task.opened', 'task.closing', 'task.ended'])
    expect(story.filter((kind) => kind === 'lease.revoked' || kind === 'lease.expired').length, 'each lease').toBe(2)
  }
})
