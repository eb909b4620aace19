import { sql, type SQL } from 'drizzle-orm'
import type { DecisionId, TaskId } from '../base/ids.ts'
import type { Ledger } from './connect.ts'

/** The place of an Idempotency-Key in an announcement: taken for the first time, or taken over from a task that came to nothing. */
export interface KeyClaim {
  readonly key: string
  readonly requestDigest: string
  /** Which request holds the key while it is busy: its decision's id. One that was overtaken, because it slept past its time, changes nothing any more. */
  readonly holder: DecisionId
  /** The task that the key stood for, where it is taken over. */
  readonly from: TaskId | undefined
}

/** Seconds that a key stays busy when nobody answers: after that its request has ended, one way or the other. */
const keyPatience = 45

/** Seconds for which a key is remembered. */
const keyLife = 24 * 3600

const busyUntil = sql`now() + make_interval(secs => ${keyPatience})`

/** What an Idempotency-Key stands for. */
export interface HeldKey {
  readonly requestDigest: string
  readonly task: TaskId
  /** Its request has not been answered yet, and may still be. */
  readonly busy: boolean
}

export async function findKey(ledger: Ledger, key: string): Promise<HeldKey | undefined> {
  const [row] = await ledger.run<{ request_digest: string; task_id: TaskId; busy: boolean }>(sql`
    select request_digest, task_id, (busy_until is not null and busy_until > now()) as busy from idempotency_keys where key = ${key}`)
  return row && { requestDigest: row.request_digest, task: row.task_id, busy: row.busy }
}

/** Takes a key for a retry of its own declaration. False: another retry was faster. */
export async function holdKey(ledger: Ledger, { key, holder }: KeyClaim, task: TaskId): Promise<boolean> {
  const rows = await ledger.run(sql`
    update idempotency_keys set busy_until = ${busyUntil}, holder = ${holder}
    where key = ${key} and task_id = ${task} and (busy_until is null or busy_until <= now()) returning key`)
  return rows.length > 0
}

/** Makes sure of a key that this request took before. False: another has taken it meanwhile. */
export async function keepKey(ledger: Ledger, claim: KeyClaim): Promise<boolean> {
  const rows = await ledger.run(sql`update idempotency_keys set busy_until = ${busyUntil} where ${isHeldBy(claim)} returning key`)
  return rows.length > 0
}

/** Lets a key go: the next retry need not wait. One that another request holds is left to it. */
export async function releaseKey(ledger: Ledger, claim: KeyClaim): Promise<void> {
  await ledger.run(release(claim))
}

/** The statement of `releaseKey`, for those that do it together with something else. */
export const release = (claim: KeyClaim): SQL => sql`update idempotency_keys set busy_until = null where ${isHeldBy(claim)}`

/** Whether the key is still held by this very request. */
export const holds = (claim: KeyClaim): SQL => sql`exists (select from idempotency_keys where ${isHeldBy(claim)})`

const isHeldBy = ({ key, holder }: KeyClaim): SQL => sql`key = ${key} and holder = ${holder}`

/** Takes an Idempotency-Key, or takes it over from a task that came to nothing. No row: somebody else has it. */
export function claim({ key, requestDigest, holder, from }: KeyClaim, task: TaskId, busy: boolean): SQL {
  const until = busy ? sql`${busyUntil}` : sql`null::timestamptz`
  if (from !== undefined) {
    return sql`
      update idempotency_keys set task_id = ${task}, holder = ${holder}, busy_until = ${until}
      where key = ${key} and task_id = ${from} and (busy_until is null or busy_until <= now()) returning key`
  }
  return sql`
    insert into idempotency_keys (key, request_digest, task_id, holder, busy_until, expires_at)
    values (${key}, ${requestDigest}, ${task}, ${holder}, ${until}, now() + make_interval(secs => ${keyLife}))
    on conflict (key) do nothing returning key`
}

/** Spends a token of a `single-use` issuer, exactly once over all brokers and restarts. False: it was spent before. */
export async function spendToken(ledger: Ledger, key: string, expiresAt: Date): Promise<boolean> {
  const rows = await ledger.run(sql`
    insert into spent_tokens (key, expires_at) values (${key}, ${expiresAt.toISOString()}::text::timestamptz) on conflict (key) do nothing returning key`)
  return rows.length > 0
}
