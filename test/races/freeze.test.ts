import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { AddedLease, ClosedTask } from '../../src/http/contract.ts'
import { after, atEachCrossing, crossings } from '../support/crossings.ts'
import { deadlinePasses } from '../support/deadline.ts'
import { type Answer, type Fleet, type Held, heldOf, startFleet, until } from '../support/fleet.ts'
import { freeze, thaw } from '../support/freeze.ts'
import type { RunningBroker } from '../support/program.ts'
import { stores } from '../support/stores.ts'
import { isCommitOrRequest } from '../support/statements.ts'
import { type Count, createTripwire, type Crossing, type Wire, wireHttp, wirePostgres } from '../support/tripwire.ts'

describe.runIf(stores.some(({ name }) => name === 'Postgres'))(
  'a broker that freezes past its claims, and goes on after another has taken over',
  { timeout: 300_000 },
  () => {
    const tripwire = createTripwire()
    let fleet: Fleet
    let wires: Wire[]
    /** The one whose wires are watched. */
    let frozen: RunningBroker
    let other: RunningBroker

    beforeAll(async () => {
      fleet = await startFleet(1)
      wires = [await wirePostgres(fleet.storeUrl, tripwire), await wireHttp(fleet.lab.url, tripwire)]
      other = fleet.brokers[0]!
      frozen = await fleet.site.start({ store: { url: wires[0]!.url }, lab: wires[1]!.url })
      fleet.brokers.push(frozen)
    })
    afterEach(async () => {
      await fleet.settled()
      expect(await fleet.findings()).toEqual([])
    })
    afterAll(async () => {
      await fleet.stop()
      await Promise.all(wires.map((wire) => wire.stop()))
    })

    const answered: Count['counts'] = (what, side) => side === 'after' && isCommitOrRequest(what)
    const answeredOrFound: Count['counts'] = (what, side) =>
      side === 'after' && (isCommitOrRequest(what) || what === 'close what is overdue' || what === 'claim what is due')

    /**
     * Freezes the broker at a crossing of what `act` begins, where an answer is on its way to it: what the answer says has happened, and
     * whatever would follow comes late. While it is frozen every claim and every patience of its own runs out, and the other
     * broker, which may be frozen itself until then, looks.
     *
     * @param meanwhile what happens at the other broker before this one goes on
     * @returns what `act` came to, and where it froze; undefined where `act` was through before
     */
    async function freezeAt<Came>(
      at: Crossing | Count,
      act: () => Promise<Came>,
      meanwhile: () => Promise<void>,
    ): Promise<{ came: Came; where: string | undefined }> {
      const stopped = new Promise<void>((resolve) => {
        const strike = () => (freeze(frozen.process), resolve(), 'passes')
        tripwire.arm(strike, at)
      })
      const acting = act()
      await Promise.race([stopped, acting])
      tripwire.disarm()
      thaw(other.process)
      try {
        await fleet.owner`update idempotency_keys set busy_until = null`
        await fleet.owner`update leases set due_at = now() where state in ('reserved', 'revoking')`
        await fleet.wake()
        await fleet.settled()
        await meanwhile()
      } finally {
        thaw(frozen.process)
      }
      return { came: await acting, where: tripwire.where() }
    }

    /** Secrets of this task that work. */
    const aliveOf = async (task: string): Promise<string[]> =>
      (await fleet.lab.alive()).filter((credential) => credential.task === task).map(({ secret }) => secret)

    /** One crossing after the other, until the deed is through twice without coming that far. @param crosses where it has to freeze meanwhile */
    async function matrix(
      name: string,
      crosses: readonly string[],
      counts: Count['counts'],
      cell: (at: Crossing | Count, round: number) => Promise<string | undefined>,
    ): Promise<void> {
      async function freezes(at: Crossing | Count, round: number): Promise<string | undefined> {
        const where = await cell(at, round)
        console.log(`${name}, round ${round}: ${where === undefined ? 'it was through before' : `frozen ${where}`}`)
        return where
      }
      await atEachCrossing(after(crosses), counts, freezes, 2)
    }

    const upToPut = (crosses: readonly string[]): readonly string[] => crosses.slice(0, crosses.indexOf('PUT') + 1)
    for (const { words, retried, fails, crosses } of [
      { words: 'while it declares', retried: false, fails: false, crosses: crossings.declare },
      {
        words: 'while it declares and the backend mints but does not say so',
        retried: false,
        fails: true,
        // What goes side by side is behind the answer.
        crosses: crossings.declareUnknown.filter((what) => typeof what === 'string'),
      },
      { words: 'while it serves a retry', retried: true, fails: false, crosses: crossings.redeclare },
      {
        words: 'while it serves a retry and the backend mints but does not say so',
        retried: true,
        fails: true,
        crosses: [...upToPut(crossings.redeclare), 'close the task'],
      },
    ]) {
      test(`${words}, leaves the task to the retry at the other`, async () => {
        await matrix(words, crosses, answered, async (at, round) => {
          const headers = { 'idempotency-key': `${retried ? 'retried' : 'first'}-${fails}-${round}` }
          const lost = retried ? [await fleet.declare(other, ['api', 'crm'], headers)] : []
          if (fails) await fleet.lab.next('put', 'fails', { done: true })
          let retry: Held | undefined
          const { came, where } = await freezeAt(
            at,
            () => fleet.ask(frozen, ['api', 'crm'], headers),
            async () => {
              await fleet.lab.clear()
              retry = await fleet.declare(other, ['api', 'crm'], headers)
            },
          )
          await fleet.settled()

          expect([201, 409, 503], JSON.stringify(came.body)).toContain(came.status)
          // Whoever was served last has the task. One that froze before it had taken the key takes it when it goes on, and may be that.
          const served = [retry!, ...(came.status === 201 ? [heldOf(came.body)] : [])]
          const working = await aliveOf(retry!.id)
          const [held, ...more] = served.filter(({ secrets }) => working.includes(secrets['crm']!))
          expect({ more, working: working.length }).toEqual({ more: [], working: 1 })
          expect(await fleet.activeAt(fleet.brokers, held!.secrets['api']!)).toBe(2)
          for (const dead of [...lost, ...served].filter((one) => one !== held))
            expect(await fleet.activeAt(fleet.brokers, dead.secrets['api']!)).toBe(0)
          expect(await fleet.complete(frozen, held!)).toMatchObject({ status: 200, body: { ended: true, task: { state: 'completed' } } })
          return where
        })
      })
    }

    /** What is under way when it freezes, while the other completes the task. */
    const deeds: readonly {
      readonly name: string
      readonly crosses: readonly string[]
      run(task: Held): Promise<Answer<Partial<ClosedTask & AddedLease>>>
    }[] = [
      { name: 'complete', crosses: crossings.end, run: (task) => fleet.complete(frozen, task) },
      {
        name: 'revoke',
        crosses: crossings.end,
        run: (task) => fleet.call(frozen, fleet.tokens.ops, 'POST', `/tasks/${task.id}/revoke`, { reason: 'a freeze' }),
      },
      {
        name: 'refresh',
        crosses: crossings.refresh,
        run: (task) => fleet.call(frozen, task.token, 'POST', `/leases/${task.leases[0]!.id}/refresh`, {}),
      },
      {
        name: 'add a lease',
        crosses: crossings.add,
        run: (task) => fleet.call(frozen, task.token, 'POST', `/tasks/${task.id}/leases`, { name: 'crm', parameters: { customer: 'other' } }),
      },
    ]

    test.each(deeds)('while it has to $name, changes nothing about an end that the other answered', async ({ name, crosses, run }) => {
      await matrix(name, crosses, answered, async (at) => {
        const task = await fleet.declare(other, ['api', 'crm'])
        let ended: ClosedTask['task'] | undefined
        const { came, where } = await freezeAt(
          at,
          () => run(task),
          async () => {
            const { status, body } = await fleet.complete(other, task)
            expect([status, body.ended]).toEqual([200, true])
            ended = body.task
          },
        )
        await fleet.settled()

        // 502: its late PUT met the fence of the other, and was refused by the backend.
        expect([200, 201, 409, 502], JSON.stringify(came.body)).toContain(came.status)
        const said = came.body.ended ? came.body.task : undefined
        if (said) expect([said.state, said.cause, said.ended_at]).toEqual([ended!.state, ended!.cause, ended!.ended_at])
        const { token = task.secrets['api']! } = (came.body.lease?.credential ?? {}) as { token?: string }
        expect(await fleet.activeAt(fleet.brokers, token), 'nothing that it hands out late is active').toBe(0)
        expect(await aliveOf(task.id)).toEqual([])
        const story = await fleet.story(task.id)
        expect(story.filter((kind) => kind.startsWith('task.'))).toEqual(['task.opened', 'task.closing', 'task.ended'])
        return where
      })
    })

    test('while it ends what has passed its deadline, leaves each end in the ledger once', async () => {
      await matrix('deadline', crossings.expire, answeredOrFound, async (at) => {
        const task = await fleet.declare(other, ['api', 'crm'])
        freeze(other.process)
        const { where } = await freezeAt(
          at,
          async () => {
            await fleet.owner.unsafe(deadlinePasses(`id = '${task.id}'`))
            await fleet.wake()
            await until(
              'the task has ended',
              async () => (await fleet.owner`select 1 from tasks where id = ${task.id} and state = 'expired'`).length > 0,
            )
          },
          async () => {},
        )
        expect((await fleet.story(task.id)).filter((kind) => kind.startsWith('task.'))).toEqual(['task.opened', 'task.closing', 'task.ended'])
        expect(await aliveOf(task.id)).toEqual([])
        return where
      })
    })
  },
)
