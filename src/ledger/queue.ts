import { sql, type SQL } from 'drizzle-orm'
import type { Ledger } from './connect.ts'
import { claimSeconds } from './endings.ts'
import { endedAt, endedAtAny, type Ender } from './enders.ts'
import { entryColumns } from './entries.ts'
import { milliseconds } from './intervals.ts'
import { dueChannel } from './postgres.ts'
import { type JsonRow, type Lease, leasesOf } from './records.ts'
import { forgetAt } from './role-sessions.ts'

/** How many leases of a provider the caller can work on now. */
export interface Room extends Ender {
  readonly free: number
}

/**
 * Claims due leases, as many of each provider as there is room for: one statement, safe across brokers.
 *
 * `skip locked`, not an advisory lock: brokers never wait for each other, and one that dies frees its rows with its connection. By provider, so that a
 * dead backend cannot fill the batch. The claim time is the lock that outlives the statement: a claimer that hangs loses its turn.
 */
export async function claimDue(ledger: Ledger, rooms: readonly Room[]): Promise<readonly Lease[]> {
  const rows = await ledger.run<{ lease: JsonRow }>(sql`
    update leases as lease set due_at = now() + make_interval(secs => ${claimSeconds}), attempts = lease.attempts + 1
    where lease.id in (
      select due.id from json_to_recordset(${JSON.stringify(rooms)}::text::json) as room(name text, kind text, free int)
      cross join lateral (
        select id from leases where ${endedAt(sql`leases`, sql`room`)} and due_at <= now() and not local and state <> 'lapsing'
        order by due_at limit room.free for update skip locked
      ) as due
    )
    returning to_json(lease) as lease`)
  return leasesOf(rows.map((row) => row.lease))
}

/**
 * Puts a claimed lease back, with the reason why it could not be ended yet. It is asked about once more when its own end passes: what was said before that
 * is no answer to whether it is dead then. Due at once where a handle has arrived meanwhile: what was said is not about that one.
 *
 * @param lease with its handles as they were when the provider was asked
 * @param wait milliseconds until it is due again
 */
export async function retryLater(ledger: Ledger, lease: Pick<Lease, 'id' | 'handles'>, error: string, wait: number): Promise<void> {
  await ledger.run(sql`
    update leases set error = ${error}, due_at = case
      when jsonb_array_length(handles) > ${lease.handles.length}::int then now()
      when expires_at > now() then least(now() + ${milliseconds(wait)}, expires_at)
      else now() + ${milliseconds(wait)} end
    where id = ${lease.id} and state in ('reserved', 'revoking')`)
}

/** Due now, and as one that was not asked about since its own end, where that has passed: time alone must not end it. */
const dueUnasked = sql`least(now(), expires_at)`

/** Makes a claimed lease that nobody was asked about due again at once, and wakes every reaper: whoever has room for it takes it. */
export async function putBack(ledger: Ledger, lease: Pick<Lease, 'id'>): Promise<void> {
  await ledger.run(sql`
    with back as (update leases set due_at = ${dueUnasked} where id = ${lease.id} and state in ('reserved', 'revoking') returning id)
    select pg_notify(${dueChannel}, '') from back`)
}

/**
 * Makes due whatever is claimed or put off. After the store was away nobody may be working on what is claimed: the answer to a claim was lost, or what
 * came of it could not be written. Whoever still works on one finds that it was asked about twice, which is harmless.
 *
 * @param enders whose claims of what was being minted are looked for: there is no index of them alone
 * @param wasSetBack whether the store's clock was: then they may be due at any time
 */
export async function releaseClaims(ledger: Ledger, enders: readonly Ender[], wasSetBack = false): Promise<void> {
  const soon = wasSetBack ? sql`` : sql`and due_at <= now() + make_interval(secs => ${claimSeconds})`
  await ledger.run(sql`
    with revoking as (select id from leases where state = 'revoking' and due_at > now() for update skip locked),
    -- Of those that are being minted, what a claim has looked after: the others are not due for as long as their mint may take.
    reserved as (
      select held.id from ${enderRows(enders)} cross join lateral (
        select id from leases where ${endedAt(sql`leases`, sql`ender`)} and due_at > now() ${soon}
          and state = 'reserved' and attempts > 0 for update skip locked
      ) as held
    ),
    -- Claimed when its own end had passed, and not marked as ending yet. What ends with its task is closed with it.
    outlived as (
      select id from leases where state = 'active' and not local and ended_at is null and expires_at <= now() and due_at > now()
        and exists (select from tasks where id = task_id and deadline > now()) for update skip locked
    )
    update leases set due_at = ${dueUnasked} where id = any(array(select id from revoking union all select id from reserved union all select id from outlived))`)
}

/**
 * Flags leases whose revocation has failed for longer than the alarm limit; they are still retried. One that was not tried yet, because no broker or no
 * store was there, has not failed. One whose provider is not among the `configured` ones has: this broker cannot try it, and does not know who can.
 *
 * @param after seconds
 */
export async function markStuck(ledger: Ledger, after: number, limit: number, configured: readonly Ender[]): Promise<readonly Lease[]> {
  const [row] = await ledger.run<{ leases: JsonRow[] | null }>(sql`
    with late as (
      select id from leases where state = 'revoking' and stuck_since is null and closing_at <= now() - make_interval(secs => ${after})
        and (error is not null or not ${endedAtAny(sql`leases`, configured)})
      order by closing_at limit ${limit} for update skip locked
    ),
    stuck as (
      update leases as lease set stuck_since = now(), error = coalesce(lease.error, format('the provider %s%s is not configured on the broker that looked', lease.provider, ' of kind ' || lease.provider_kind))
      from late where lease.id = late.id returning lease.*
    ),
    told as (
      ${entryColumns}
      select 'lease.stuck', stuck.agent, stuck.task_id, stuck.id, stuck.decision_id, jsonb_strip_nulls(jsonb_build_object('error', stuck.error)) from stuck
    )
    select json_agg(stuck) as leases from stuck`)
  return leasesOf(row?.leases)
}

/** Milliseconds until a deadline passes, or one of these providers' local leases ends, as far as the store knows now; 0 where one has. Undefined: there is none. */
export async function nextClosing(ledger: Ledger, locals: readonly Ender[]): Promise<number | undefined> {
  return await untilThe(
    ledger,
    sql`least((select deadline from tasks where closing_at is null and ended_at is null order by deadline limit 1), ${firstDue(locals, sql`leases.local`)})`,
  )
}

/** Milliseconds until a lease of these providers is due, as far as the store knows now; 0 where one is already. Undefined: none is. */
export const nextDue = (ledger: Ledger, enders: readonly Ender[]): Promise<number | undefined> =>
  untilThe(ledger, firstDue(enders, sql`not leases.local`))

const firstDue = (enders: readonly Ender[], sort: SQL): SQL => sql`
  (select min(first.due_at) from ${enderRows(enders)}
    cross join lateral (select due_at from leases where ${endedAt(sql`leases`, sql`ender`)} and ${sort} and due_at is not null order by due_at limit 1) as first)`

const enderRows = (enders: readonly Ender[]): SQL =>
  sql`json_to_recordset(${JSON.stringify(enders.map(({ name, kind }) => ({ name, kind })))}::text::json) as ender(name text, kind text)`

async function untilThe(ledger: Ledger, moment: SQL): Promise<number | undefined> {
  const [row] = await ledger.run<{ wait: number | null }>(sql`select (extract(epoch from ${moment} - now()) * 1000)::double precision as wait`)
  return row?.wait === null || row === undefined ? undefined : Math.max(0, Math.ceil(row.wait))
}

/** The store's time, in milliseconds. */
export async function storeTime(ledger: Ledger): Promise<number> {
  const [row] = await ledger.run<{ at: number }>(sql`select (extract(epoch from now()) * 1000)::double precision as at`)
  return row!.at
}

/**
 * Forgets what has no meaning any more: keys past their time that no request holds, and spent tokens an hour after, for it is the clock of a broker that says
 * when a token ends, and one that is behind the store's would take it again; and names of sessions at AWS that no kill list needs, once their lease has ended.
 * @returns how many rows went
 */
export async function sweep(ledger: Ledger, limit: number): Promise<number> {
  const [row] = await ledger.run<{ count: number }>(sql`
    with unheld as (
      select key from idempotency_keys where expires_at <= now() and (busy_until is null or busy_until <= now()) limit ${limit} for update skip locked
    ),
    keys as (
      delete from idempotency_keys where key in (select key from unheld) returning 1
    ),
    tokens as (
      delete from spent_tokens where key in (select key from spent_tokens where expires_at <= now() - interval '1 hour' limit ${limit}) returning 1
    ),
    past as (
      select session.provider, session.role, session.name from role_sessions as session join leases as lease on lease.id = session.lease_id
      where session.forget_at <= now() and ${forgetAt} <= now() and lease.ended_at is not null
      order by session.forget_at limit ${limit} for update of session skip locked
    ),
    names as (
      delete from role_sessions as session using past
      where session.provider = past.provider and session.role = past.role and session.name = past.name returning 1
    )
    select ((select count(*) from keys) + (select count(*) from tokens) + (select count(*) from names))::int as count`)
  return row?.count ?? 0
}
