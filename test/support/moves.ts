import fc from 'fast-check'
import { sql } from 'drizzle-orm'
import type { Broker } from '../../src/tasks/task.ts'
import type { Declared, House } from './house.ts'

/** What anybody may do at any time, in any order, several at once. */
export const moves = [
  'declare',
  'add',
  'refresh',
  'renew',
  'complete',
  'revoke',
  'revoke a lease',
  'time passes',
  'reap',
  'retry',
  'backend fails',
] as const

/** One move, and the number by which it chooses its task, its lease and how it is done. */
export interface Step {
  readonly move: (typeof moves)[number]
  readonly pick: number
}

export const step: fc.Arbitrary<Step> = fc.record({ move: fc.constantFrom(...moves), pick: fc.nat(11) })

/**
 * Makes a move at a broker. Rejects with a BrokerError where it is refused.
 *
 * @param tasks those that there are; a declaration adds its own
 * @param keys what the Idempotency-Keys of this game begin with
 */
export async function play(house: House, broker: Broker, { move, pick }: Step, tasks: Declared[], keys: string): Promise<void> {
  if (move === 'declare') {
    const key = `${keys}-move-${tasks.length}-${pick}`
    return void tasks.push(await house.declare(pick % 2 === 0 ? ['crm', 'api'] : ['api'], { key, broker }))
  }
  if (move === 'retry') return void tasks.push(await house.declare(pick % 4 === 0 ? ['crm'] : ['api'], { key: `${keys}-retry-${pick % 3}`, broker }))
  if (move === 'reap') return await house.reap(broker)
  if (move === 'backend fails') return await house.lab.next(pick % 2 === 0 ? 'put' : 'delete', 'fails', { done: pick % 3 === 0 })
  const task = tasks[pick % Math.max(1, tasks.length)]?.at(broker)
  if (!task) return
  const lease = task.leases[pick % Math.max(1, task.leases.length)]
  const acts: Record<Exclude<Step['move'], 'declare' | 'retry' | 'reap' | 'backend fails'>, () => Promise<unknown>> = {
    add: () => task.add(pick % 2 === 0 ? 'crm' : 'api'),
    refresh: async () => lease && (await task.refresh(lease)),
    // For longer, and for less than is left.
    renew: () => task.renew(pick % 2 === 0 ? 90_000 : 30_000),
    complete: () => task.complete(0),
    revoke: () => task.revoke(0),
    'revoke a lease': async () => lease && (await task.revokeLease(lease, 0)),
    'time passes': () => house.backdate(task.id, `${(pick % 5) * 20} seconds`),
  }
  await acts[move]()
}

/** Every deadline passes, the backend is well again, and the reaper goes round. */
export async function endEverything(house: House): Promise<void> {
  await house.lab.clear()
  await house.ledger.run(sql`
    with over as (update tasks set deadline = now() where state = 'open')
    update leases set expires_at = least(expires_at, now())`)
  for (let round = 0; round < 5; round++) {
    house.skew += 5_000
    await house.ledger.run(sql`update leases set due_at = now() where due_at is not null`)
    await house.reap()
  }
}

/**
 * What works at the lab after everything has ended, but for what has expired: time passes in a game by moving the ledger's rows, and the lab's clock stays
 * where it is. And what was called expired before the lab had its half minute to confirm its end.
 */
export async function survivors(house: House): Promise<readonly string[]> {
  const rows = await house.ledger.run<{ id: string; early: boolean }>(sql`
    select id, ended_at < expires_at + interval '30 seconds' as early from leases where provider = 'lab' and state = 'expired'`)
  const expired = new Set(rows.map(({ id }) => id))
  const alive = (await house.lab.alive()).map(({ lease }) => lease).filter((lease) => !expired.has(lease))
  return [...alive, ...rows.filter(({ early }) => early).map(({ id }) => id)]
}
