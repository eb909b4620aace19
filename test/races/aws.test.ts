import fc from 'fast-check'
import { sql } from 'drizzle-orm'
import { describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { digestOf } from '../../src/providers/aws-sts/kill-list/world.ts'
import { audit } from '../support/audit.ts'
import { bound } from '../support/aws/deny-site.ts'
import type { AwsFault } from '../support/aws/faults.ts'
import { inProduction, startAwsSite } from '../support/aws/site.ts'
import { type AwsHouse, startAwsHouse } from '../support/aws-house.ts'
import { awsCatalogue, awsProvider } from '../support/aws-site.ts'
import { type Held, startFleet, until } from '../support/fleet.ts'
import { freeze, thaw } from '../support/freeze.ts'
import type { Declared } from '../support/house.ts'
import { openDatabase, stores } from '../support/stores.ts'

/** On Postgres; a thousand orders in which two writers meet in a store of memory are in test/providers/aws-sts/writer.test.ts. */
const games = 100
/** Games whose ends share documents: one second apart, as in life. */
const each = 25

/** `RACES_SEED` plays the same again. */
const seed = Number(process.env['RACES_SEED'] ?? Date.now() % 1_000_000_000)

const moves = ['declare', 'complete', 'revoke', 'refresh', 'reap', 'tend', 'another takes over', 'AWS fails'] as const
const step = fc.record({ move: fc.constantFrom(...moves), pick: fc.nat(11) })
type Step = typeof step extends fc.Arbitrary<infer One> ? One : never
const game = fc.tuple(fc.array(step, { minLength: 2, maxLength: 4 }), fc.array(step, { minLength: 2, maxLength: 4 }))

const faults: readonly (readonly [string, AwsFault])[] = [
  ['CreatePolicyVersion', 'loses the answer'],
  ['CreatePolicyVersion', 'conflicts'],
  ['CreatePolicyVersion', 'resets'],
  ['AssumeRole', 'loses the answer'],
  ['DecodeAuthorizationMessage', 'fails'],
]

async function play(aws: AwsHouse, broker: Broker, { move, pick }: Step, tasks: Declared[]): Promise<unknown> {
  const { house, site } = aws
  if (move === 'declare') return tasks.push(await house.declare(['bucket'], { broker }))
  if (move === 'reap') return await house.reap(broker)
  if (move === 'tend') return await aws.tend(broker).catch(() => {})
  // As if the claim of whoever holds the list were over, in the middle of what it does.
  if (move === 'another takes over') return await house.ledger.run(sql`update kill_lists set held_until = now()`)
  if (move === 'AWS fails') return site.peer.faults.next(...faults[pick % faults.length]!)
  const task = tasks[pick % tasks.length]!.at(broker)
  return await { complete: () => task.complete(0), revoke: () => task.revoke(0), refresh: () => task.refresh(task.leases[0]!) }[move]()
}

describe.runIf(stores.some(({ name }) => name === 'Postgres')).each(['direct', 'children'])('two brokers that share one kill list, %s', (mode) => {
  test('lose no end in any interleaving: AWS refuses whatever ended, and has the document that was written last', { timeout: 900_000 }, async () => {
    console.log(`RACES_SEED=${seed}`)
    const store = await openDatabase()
    const aws = await startAwsHouse(store.settings, { mode })
    const { house } = aws
    const brokers = [house.broker, await house.neighbour()]
    for (const [number, lines] of fc.sample(game, { numRuns: games / 2, seed: seed + mode.length }).entries()) {
      const tasks = await Promise.all(brokers.map((broker) => house.declare(['bucket'], { broker }).catch(nobody)))
      const declared = tasks.filter((task) => task !== undefined)
      await Promise.all(
        brokers.map(async (broker, at) => {
          for (const one of lines[at]!) if (declared.length > 0 || one.move === 'declare') await play(aws, broker, one, declared).catch(refused)
        }),
      )
      await Promise.all(declared.map((task) => task.complete(0).catch(refused)))
      // Where the last failures of AWS keep a breaker open.
      house.skew += 2_000
      if ((number + 1) % each === 0) await settle(aws, brokers)
    }
    await settle(aws, brokers)
    const [counted] = await house.ledger.run<{ sessions: number; documents: number }>(sql`
      select (select count(*) from role_sessions where confirmed_at is not null)::int as sessions, (select generation from kill_lists)::int as documents`)
    console.log(`${games / 2} interleavings, ${mode}: ${counted!.sessions} sessions denied in ${counted!.documents} documents`)
    await aws.stop()
    await store.dispose()
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('two broker processes that share one kill list', () => {
  test('deny whatever ended though one of them freezes past its claim, or is killed, in the middle of writing', { timeout: 240_000 }, async () => {
    const site = await startAwsSite()
    const { peer } = site
    const boundary = await bound(site)
    for (const [name, value] of Object.entries(await inProduction(site))) vi.stubEnv(name, value)
    const fleet = await startFleet(2, { providers: awsProvider(site), catalogue: awsCatalogue(site) })
    const { owner, brokers } = fleet
    const held = new Set<string>()
    const reads = (names: (name: string) => boolean): string[] =>
      peer.given().flatMap((session) => (names(session.name) && session.may('s3:GetObject', 'arn:aws:s3:::invoices/acme/1') ? [session.name] : []))
    const nameOf = async (task: Held): Promise<string> => {
      const [row] = await owner<[{ name: string }]>`select handles -> 0 ->> 'session_name' as name from leases where task_id = ${task.id}`
      return row.name
    }
    // What was sent before its sender froze may come late, on top of the other's: that is found by the next comparison, a quarter of a minute away at most.
    const compareNow = () => owner`update kill_lists set check_at = now() where disturbed_at is not null`
    const sibling = await fleet.declare(brokers[0]!, ['bucket'])
    held.add(await nameOf(sibling))

    for (let round = 0; round < 6; round += 1) {
      const [writer, other] = [brokers[round % 2]!, brokers[1 - (round % 2)]!]
      const [first, second] = [await fleet.declare(writer, ['bucket']), await fleet.declare(other, ['bucket'])]
      // Nobody else writes while one of them means to, nor holds the list as it stands still.
      freeze(other.process)
      const [{ generation }] = await owner<[{ generation: number }]>`update kill_lists set held_until = now() returning generation`
      const ending = fleet.complete(writer, first, { prefer: 'wait=0' }).catch(() => undefined)
      // Or has written already, on a machine where that is sooner seen.
      await until('it means to write', async () => (await owner`select 1 from kill_lists where generation > ${generation}`).length > 0)
      freeze(writer.process)
      thaw(other.process)
      await owner`update kill_lists set held_until = now()`
      await owner`update leases set due_at = now() where state = 'revoking'`
      await fleet.complete(other, second)
      await fleet.settled()
      await until('AWS refuses whatever ended while it stands still', async () => {
        await compareNow()
        return reads((name) => !held.has(name) && !name.startsWith('@')).length === 0
      })
      if (round % 3 === 2) {
        await writer.kill()
        brokers[round % 2] = await fleet.site.start()
      } else thaw(writer.process)
      await ending
      const written = async () => (await owner<{ digest: string }[]>`select digest from kill_lists where generation = written_generation`)[0]?.digest
      // Until it has come, AWS may have what was written before it, and then for as long as that is not compared.
      await until('AWS refuses all but the sibling, and has what was written last', async () => {
        await compareNow()
        const reading = reads((name) => !name.startsWith('@'))
        return reading.join() === [...held].join() && digestOf(peer.document(boundary)) === (await written())
      })
    }

    const late = brokers.map(({ log }) => log().split('"kill_list_drift"').length - 1)
    console.log(`6 writers that stood still or died: ${late[0]! + late[1]!} documents came late and were written over`)
    const secrets = peer.given().flatMap((session) => session.secrets)
    const told = (await Promise.all(brokers.map(async ({ url, log }) => log() + (await (await fetch(`${url}/metrics`)).text())))).join('')
    expect(secrets.filter((secret) => told.includes(secret))).toEqual([])
    expect(await audit(fleet.ledger, secrets)).toEqual([])
    expect(await fleet.findings()).toEqual([])
    await fleet.stop()
    await peer.stop()
    vi.unstubAllEnvs()
  })
})

/** Whatever is due is done by both, in turn, until nothing is; then ledger and AWS have to agree. */
async function settle(aws: AwsHouse, brokers: readonly Broker[]): Promise<void> {
  const { house } = aws
  const rest = sql`select id from leases where state in ('reserved', 'revoking')`
  for (let round = 0; (await house.ledger.run(rest)).length > 0; round += 1) {
    house.skew += 5_000
    await house.ledger.run(sql`update leases set due_at = now() where state in ('reserved', 'revoking')`)
    await house.reap(brokers[round % 2])
  }
  // What was on its way when a claim was over has landed, and is looked at.
  await house.ledger.run(sql`update kill_lists set check_at = now(), disturbed_at = now() - interval '1 minute'`)
  await aws.tend().catch(() => {})
  expect(await aws.findings(), `RACES_SEED=${seed}`).toEqual([])
}

/** A refusal is an ordinary answer here; anything else is a fault. */
function refused(error: unknown): void {
  if (!(error instanceof BrokerError)) throw error
  expect(error.code, `RACES_SEED=${seed}: ${error.message}`).not.toBe('internal')
}

function nobody(error: unknown): undefined {
  refused(error)
}
