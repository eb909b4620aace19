import { sql } from 'drizzle-orm'
import type { TaskId } from '../base/ids.ts'
import type { Ledger } from './connect.ts'

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

/** Takes a key for a retry of its own declaration, for `seconds`. False: another retry was faster. */
export async function holdKey(ledger: Ledger, key: string, task: TaskId, seconds: number): Promise<boolean> {
  const rows = await ledger.run(sql`
    update idempotency_keys set busy_until = now() + make_interval(secs => ${seconds})
    where key = ${key} and task_id = ${task} and (busy_until is null or busy_until <= now()) returning key`)
  return rows.length > 0
}

/** Lets a key go: the next retry need not wait. */
export async function releaseKey(ledger: Ledger, key: string): Promise<void> {
  await ledger.run(sql`update idempotency_keys set busy_until = null where key = ${key}`)
}

/** Spends a token of a `single-use` issuer, exactly once over all brokers and restarts. False: it was spent before. */
export async function spendToken(ledger: Ledger, key: string, expiresAt: Date): Promise<boolean> {
  const rows = await ledger.run(sql`
    insert into spent_tokens (key, expires_at) values (${key}, ${expiresAt.toISOString()}::text::timestamptz) on conflict (key) do nothing returning key`)
  return rows.length > 0
}
