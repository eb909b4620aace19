import { sql } from 'drizzle-orm'
import type { LeaseId, TaskId } from '../base/ids.ts'
import type { Ledger } from './connect.ts'
import { together } from './together.ts'

/** What the ledger keeps of the token of a task: its SHA-256, and whose task it is. */
export interface KeptToken {
  readonly hash: string
  readonly agent: string
}

/** The token of a task, ended ones too. Undefined: there is no such task, or it was denied and has no token. */
export const findTaskToken: (ledger: Ledger, id: TaskId) => Promise<KeptToken | undefined> = together(findTaskTokens, 'first')

async function findTaskTokens(ledger: Ledger, ids: readonly TaskId[]): Promise<readonly (KeptToken | undefined)[]> {
  // With a limit, since a join is answered by walking all tasks where the planner believes that there are few.
  const rows = await ledger.run<KeptToken & { id: TaskId }>(sql`
    select task.* from json_array_elements_text(${JSON.stringify(ids)}::text::json) as asked(id)
    cross join lateral (select id, token_hash as hash, agent from tasks where id = asked.id and token_hash is not null limit 1) as task`)
  const kept = new Map(rows.map((row) => [row.id, row]))
  return ids.map((id) => kept.get(id))
}

/** A token that a lease has given out. */
export interface GivenToken {
  readonly lease: LeaseId
  /** When the token itself ends, in seconds since 1970: one that was refreshed ends before its lease. */
  readonly exp: number
}

/**
 * Whether a token and its lease live at this very moment, by the store's clock: what introspection answers from, on every broker alike. Questions share
 * a statement, but only one that begins after they were asked.
 */
export const isAlive: (ledger: Ledger, token: GivenToken) => Promise<boolean> = together(areAlive, 'first')

async function areAlive(ledger: Ledger, tokens: readonly GivenToken[]): Promise<readonly boolean[]> {
  // One row by its key, and then another: with limits, since a join is answered by walking all that lives where the planner believes that to be little.
  const rows = await ledger.run<{ alive: boolean | null }>(sql`
    select (
      select true from (select task_id from leases where id = asked.lease and state = 'active' and expires_at > now() limit 1) as lease
      cross join lateral (select from tasks where id = lease.task_id and state = 'open' and deadline > now() limit 1) as task
      where to_timestamp(asked.exp) > now()
    ) as alive
    from json_to_recordset(${JSON.stringify(tokens.map((token, place) => ({ ...token, place })))}::text::json)
      as asked(place integer, lease text, exp double precision) order by asked.place`)
  return rows.map(({ alive }) => alive === true)
}

/** Spends a token of a `single-use` issuer, exactly once over all brokers and restarts. False: it was spent before. */
export async function spendToken(ledger: Ledger, key: string, expiresAt: Date): Promise<boolean> {
  const rows = await ledger.run(sql`
    insert into spent_tokens (key, expires_at) values (${key}, ${expiresAt.toISOString()}::text::timestamptz) on conflict (key) do nothing returning key`)
  return rows.length > 0
}
