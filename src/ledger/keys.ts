import { sql, type SQL } from 'drizzle-orm'
import type { DecisionId, TaskId } from '../base/ids.ts'
import type { Receipt } from '../base/receipt.ts'
import type { Ledger } from './connect.ts'
import { entryColumns, type ExportedRow, json, type NewTask } from './entries.ts'
import { receiptsOfRows, toldRows } from './receipts.ts'

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

/** Seconds for which a key is remembered, from when a request took it last. */
const keyLife = 24 * 3600

const busyUntil = sql`now() + make_interval(secs => ${keyPatience})`
const rememberedUntil = sql`now() + make_interval(secs => ${keyLife})`

/** What an Idempotency-Key stands for. */
export interface HeldKey {
  readonly requestDigest: string
  readonly task: TaskId
  /** Its request has not been answered yet, and may still be. */
  readonly busy: boolean
}

/** For a retry of new work. */
export async function findKey(ledger: Ledger, key: string): Promise<HeldKey | undefined> {
  const [row] = await ledger.run<{ request_digest: string; task_id: TaskId; busy: boolean }>(
    sql`
    select request_digest, task_id, (busy_until is not null and busy_until > now()) as busy from idempotency_keys where key = ${key}`,
    'later',
  )
  return row && { requestDigest: row.request_digest, task: row.task_id, busy: row.busy }
}

/**
 * Takes a key for a retry of its own declaration, and the open task with it: this commit replaces the task's token, and the old one gets nothing further.
 * Nobody has the new one yet, and where this request dies nobody ever will; the next retry then brings another.
 *
 * @param next SHA-256 of the task token that the retry is to be answered with, and who brought it, by whose claims that token is judged from here on
 * @returns receipts of what was told; undefined: another retry was faster
 */
export async function holdKey(
  ledger: Ledger,
  { key, holder }: KeyClaim,
  task: TaskId,
  next: Pick<NewTask, 'tokenHash' | 'actor'>,
): Promise<readonly Receipt[] | undefined> {
  const [row] = await ledger.run<{ told: ExportedRow[] | null }>(sql`
    with held as (
      update idempotency_keys set busy_until = ${busyUntil}, holder = ${holder}, expires_at = ${rememberedUntil}
      where key = ${key} and task_id = ${task} and (busy_until is null or busy_until <= now()) returning task_id
    ),
    taken as (update tasks set token_hash = ${next.tokenHash}, actor = ${json(next.actor)} from held where tasks.id = ${task} and tasks.state = 'open' returning tasks.*),
    told as (${entryColumns} select 'task.reissued', taken.agent, taken.id, null, null, jsonb_build_object('actor', taken.actor) from taken returning *)
    select ${toldRows()} as told from held`)
  return row && receiptsOfRows(ledger, row.told)
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

/**
 * Whether the key is still held by this very request, and nobody takes it before the commit of the statement that asks. Without the lock a statement
 * that waits for its task would go by a snapshot from before another request took the key.
 */
export const isHeld = (key: SQL, holder: SQL): SQL =>
  sql`exists (select from idempotency_keys as held where held.key = ${key} and held.holder = ${holder} for share)`

/** The same of one claim. */
export const holds = ({ key, holder }: KeyClaim): SQL => isHeld(sql`${key}`, sql`${holder}`)

const isHeldBy = ({ key, holder }: KeyClaim): SQL => sql`key = ${key} and holder = ${holder}`

/** A key that is claimed for a task about to be announced or denied. */
export interface ClaimFor {
  readonly task: TaskId
  readonly claim: KeyClaim
  /** Whether others have to wait until it is let go. */
  readonly busy: boolean
}

/**
 * Takes Idempotency-Keys, or takes them over from tasks that came to nothing: the query `claimed` has the tasks whose key nobody else holds.
 *
 * In the order of keys, so that two brokers that claim several at once cannot block each other. Whoever holds a key already gets it again.
 */
export const claimKeys = (claims: readonly ClaimFor[]): SQL => sql`
  claims as materialized (
    select *, case when busy then ${busyUntil} end as until
    from json_to_recordset(${JSON.stringify(claims.map(({ claim, ...rest }) => ({ ...claim, ...rest })))}::text::json)
      as claims(task text, key text, "requestDigest" text, holder text, "from" text, busy boolean)
  ),
  taken_over as (
    update idempotency_keys as held set task_id = claims.task, holder = claims.holder, busy_until = claims.until, expires_at = ${rememberedUntil}
    from claims where held.key = claims.key and held.task_id = claims."from"
      and (held.busy_until is null or held.busy_until <= now() or held.holder = claims.holder)
    returning held.task_id
  ),
  taken as (
    insert into idempotency_keys (key, request_digest, task_id, holder, busy_until, expires_at)
    select key, "requestDigest", task, holder, until, ${rememberedUntil} from claims where "from" is null order by key
    on conflict (key) do nothing returning task_id
  ),
  claimed as (select task_id from taken_over union all select task_id from taken)`
