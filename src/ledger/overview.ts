import { sql } from 'drizzle-orm'
import { idFrom } from '../base/ids.ts'
import type { Ledger } from './connect.ts'
import { type JsonRow, type Lease, leasesOf, type Task, tasksOf } from './records.ts'

/** What is open now and what refuses to die, as far as one page shows it. Every list is bounded, and read from an index in its order. */
export interface Pressing {
  /** Open tasks, the nearest deadline first. */
  readonly open: readonly Task[]
  /** Closing ones, oldest first. */
  readonly closing: readonly Task[]
  /** Unfinished revocations, the oldest first. */
  readonly unfinished: readonly Lease[]
}

/** @param limit rows of each list */
export async function pressing(ledger: Ledger, limit: number): Promise<Pressing> {
  const [row] = await ledger.run<{ open: JsonRow[] | null; closing: JsonRow[] | null; unfinished: JsonRow[] | null }>(
    sql`
    select
      (select json_agg(task order by task.deadline) from (select * from tasks where closing_at is null and ended_at is null order by deadline limit ${limit}) as task) as open,
      (select json_agg(task order by task.id) from (select * from tasks where state = 'closing' order by id limit ${limit}) as task) as closing,
      (select json_agg(lease order by lease.closing_at)
        from (select * from leases where state = 'revoking' order by closing_at limit ${limit}) as lease) as unfinished`,
    'later',
    'fresh',
  )
  return { open: tasksOf(row?.open), closing: tasksOf(row?.closing), unfinished: leasesOf(row?.unfinished) }
}

/** Live leases of one provider in one state, and how many of them are stuck. */
export interface LiveCount {
  readonly provider: string
  readonly state: Lease['state']
  readonly count: number
  readonly stuck: number
}

/** Live leases by provider and state. To be counted, each of them is looked at. */
export async function liveByProvider(ledger: Ledger): Promise<readonly LiveCount[]> {
  const [row] = await ledger.run<{ live: LiveCount[] | null }>(
    sql`
    select json_agg(counted order by counted.provider, counted.state) as live from (
      select provider, state, count(*)::int as count, count(*) filter (where stuck_since is not null)::int as stuck
      from leases where due_at is not null group by provider, state) as counted`,
    'later',
    'fresh',
  )
  return row?.live ?? []
}

/** Decisions of one minute. */
export interface Minute {
  /** Milliseconds at which it began. */
  readonly at: number
  readonly permitted: number
  readonly denied: number
}

/** Rows that one look at the past reads at most: tens of milliseconds, however busy the last minutes were. */
const mostRows = 10_000

/**
 * Decisions by the minute since `from`, oldest first; minutes without any are left out. Where there were more than ten thousand, only the later
 * minutes that they fill. @param from milliseconds
 */
export async function decisionsByMinute(ledger: Ledger, from: number): Promise<readonly Minute[]> {
  const rows = await ledger.run<{ minutes: Minute[] | null; read: number }>(
    sql`
    with recent as (select outcome, decided_at from decisions where id >= ${idFrom('dec', from)} order by id desc limit ${mostRows})
    select (select json_agg(minute order by minute.at) from (
        select (extract(epoch from date_trunc('minute', decided_at)) * 1000)::double precision as at,
          count(*) filter (where outcome = 'permit')::int as permitted, count(*) filter (where outcome = 'deny')::int as denied
        from recent group by 1) as minute) as minutes,
      (select count(*)::int from recent) as read`,
    'later',
    'fresh',
  )
  const minutes = rows[0]?.minutes ?? []
  // Of the first minute some rows were not read.
  return rows[0]?.read === mostRows ? minutes.slice(1) : minutes
}

/** Revocations that are looked at for the times that they took. */
const mostEnds = 500

/** Milliseconds from the cause to the evidence, of the latest revocations that have evidence. */
export async function timesToDead(ledger: Ledger): Promise<readonly number[]> {
  const [row] = await ledger.run<{ times: number[] | null }>(
    sql`
    select json_agg((extract(epoch from lease.ended_at - lease.closing_at) * 1000)::double precision) as times
    from (select lease_id from entries where kind = 'lease.revoked' order by id desc limit ${mostEnds}) as ended
    join leases as lease on lease.id = ended.lease_id where lease.ended_at is not null and lease.closing_at is not null`,
    'later',
    'fresh',
  )
  return row?.times ?? []
}
