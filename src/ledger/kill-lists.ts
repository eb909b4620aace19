import { sql, type SQL } from 'drizzle-orm'
import { BrokerError } from '../base/errors.ts'
import type { HeldList, Intent, KillLists } from '../base/kill-lists.ts'
import { cohortName, nextCohort, openCohorts } from './cohorts.ts'
import type { Ledger } from './connect.ts'
import { claimSeconds, nowWaiting, waitingEntries } from './endings.ts'
import { entryColumns, json, rfc3339 } from './entries.ts'
import { milliseconds } from './intervals.ts'
import { dueChannel } from './postgres.ts'
import { forgetAt } from './role-sessions.ts'
import { shutRung } from './session-names.ts'

/** One role's list. */
interface Which {
  readonly provider: string
  readonly role: string
}

/** Seconds after which no call of a former holder can arrive at AWS any more: more than a provider's timeout. */
const settling = 15

/** Seconds between two comparisons, where whoever compares does not say otherwise (reference: drift is looked for hourly). */
const checkEvery = 3_600

/** Seconds after which a shut role is looked at again: it takes no sessions, so nothing else would tell that there is room. */
const shutFor = 60

/** Milliseconds to wait for a list that changed while it was being taken. */
const shortestWait = 20

/** The kill list of each role, for one holder at a time, in the store. */
export const killLists = (ledger: Ledger): KillLists => ({
  due: (provider) => due(ledger, provider),
  doubt: (provider) => doubt(ledger, provider),
  take: (provider, role, holder, pause) => take(ledger, { provider, role }, holder, pause),
  closeCohort: (provider, role, holder) => closeCohort(ledger, { provider, role }, holder),
  intend: (provider, role, holder, intent) => intend(ledger, { provider, role }, holder, intent),
  wrote: (provider, role, holder, generation, denied) => wrote(ledger, { provider, role }, holder, generation, denied),
  confirm: (provider, role, generation) => confirm(ledger, { provider, role }, generation),
  checked: (provider, role, holder, next) => checked(ledger, { provider, role }, holder, next),
  disturbed: (provider, role) => disturbed(ledger, { provider, role }),
  release: (provider, role, holder) => release(ledger, { provider, role }, holder),
})

const claim = sql`now() + make_interval(secs => ${claimSeconds})`
/** When the claim that is under way was taken, or last renewed. */
const claimed = sql`held_until - make_interval(secs => ${claimSeconds})`
const settled = sql`list.disturbed_at + make_interval(secs => ${settling})`

/** As the column rounds it: never up, so that whoever looks right behind finds it due. */
const atOnce = sql`date_trunc('milliseconds', now())`

const is = ({ provider, role }: Which): SQL => sql`list.provider = ${provider} and list.role = ${role}`
const isHeldBy = (holder: string): SQL => sql`list.held_by = ${holder} and list.held_until > now()`

/**
 * The lists of a provider, and whether the path of the role is `current`: the one under which names were given out last. The list of a former one would be
 * written to the same policy, for names of roles are unique in an account whatever their paths, and where it compared itself with that it would write over it.
 */
const listsOf = (provider: string): SQL => sql`(
  select *, cohort_since = max(cohort_since) over (partition by regexp_replace(role, '^.*/', '')) as current from kill_lists where provider = ${provider}
)`

/** Roles of which something is to be written, confirmed or compared. What has ended by itself needs no document any more. */
async function due(ledger: Ledger, provider: string): Promise<readonly string[]> {
  const rows = await ledger.run<{ role: string }>(sql`
    select list.role from ${listsOf(provider)} as list where (
      list.generation > list.written_generation or (list.check_at <= now() and list.current)
      or (list.rung = ${shutRung} and list.written_at <= now() - make_interval(secs => ${shutFor}))
      or exists (
        select from role_sessions as session join leases as lease on lease.id = session.lease_id
        where session.provider = list.provider and session.role = list.role and session.denied_at is not null and session.confirmed_at is null
          and lease.expires_at > now() and lease.state <> 'failed'
      )
    ) order by list.role`)
  return rows.map(({ role }) => role)
}

/** Has all that was written compared at once. In the order of roles, as names are taken, so that several who do this cannot block each other. */
async function doubt(ledger: Ledger, provider: string): Promise<void> {
  await ledger.run(sql`
    with doubted as (
      select list.provider, list.role from kill_lists as list where list.provider = ${provider} and list.check_at > now() order by list.role for update of list
    )
    update kill_lists as list set check_at = ${atOnce} from doubted where list.provider = doubted.provider and list.role = doubted.role`)
}

/**
 * Takes the list for `claimSeconds`, where nobody else has it and `pause` milliseconds have passed since the last document was begun: however long that one
 * took to write, the next is due at its time. A number: milliseconds to wait.
 *
 * The self-join is what makes one statement enough: its snapshot cannot see what was committed while it waited for the row, such as the last name of a
 * cohort that was closed then. Postgres checks the condition again on the row that it finds, and the two no longer agree.
 */
async function take(ledger: Ledger, which: Which, holder: string, pause: number): Promise<HeldList | number> {
  const [row] = await ledger.run<{ list: ListRow | null; sessions: SessionRow[] | null; found: boolean; wait: number | null }>(sql`
    with free as (
      select list.provider, list.role, list.generation > list.written_generation or list.held_by <> ${holder} as disturbed
      from kill_lists as list join kill_lists as seen on seen.provider = list.provider and seen.role = list.role
        and seen.cohort = list.cohort and seen.generation = list.generation and seen.written_generation = list.written_generation
      where ${is(which)} and (list.held_by is null or list.held_by = ${holder} or list.held_until <= now())
        and (list.intended_at is null or list.intended_at + ${milliseconds(pause)} <= now())
      for update of list
    ),
    list as (
      update kill_lists as list set held_by = ${holder}, held_until = ${claim},
        disturbed_at = case when free.disturbed then now() else list.disturbed_at end,
        check_at = case when free.disturbed then least(list.check_at, now() + make_interval(secs => ${settling})) else list.check_at end
      from free where list.provider = free.provider and list.role = free.role
      returning list.*
    ),
    listed as (
      select session.name, session.denied_at is not null or lease.state not in ('reserved', 'active') as denied, session.generation,
        session.reserved_at as earliest, lease.issued_at as latest
      from list join role_sessions as session on session.provider = list.provider and session.role = list.role join leases as lease on lease.id = session.lease_id
      where ${forgetAt} > now() and lease.state <> 'failed' and (session.denied_at is not null or lease.state <> 'expired')
    )
    select (
        select json_build_object('salt', list.salt, 'generation', list.generation, 'digest', list.digest, 'written', list.written_generation = list.generation,
          'confirmed', list.confirmed_generation, 'open', ${cohortName(sql`list.cohort`)}, 'killed', list.killed, 'cutoff', list.cutoff,
          'checkDue', coalesce(list.check_at <= now(), false)) from list
      ) as list,
      (select json_agg(listed order by listed.name) from listed) as sessions,
      exists (select from kill_lists as list where ${is(which)}) as found,
      (
        select (extract(epoch from greatest(case when list.held_by <> ${holder} then list.held_until end, list.intended_at + ${milliseconds(pause)}) - now()) * 1000)::double precision
        from kill_lists as list where ${is(which)}
      ) as wait`)
  if (row?.list) return inHand(row.list, row.sessions ?? [])
  if (!row?.found) await openCohorts(ledger, which.provider, [which.role])
  return Math.max(shortestWait, Math.ceil(row?.wait ?? 0))
}

/** Closes the open cohort and opens the next. It waits for every name that is being taken, for these share the row. */
async function closeCohort(ledger: Ledger, which: Which, holder: string): Promise<boolean> {
  const rows = await ledger.run(sql`
    update kill_lists as list set cohort = ${nextCohort}, cohort_since = now(), held_until = ${claim}
    where ${is(which)} and ${isHeldBy(holder)} returning list.role`)
  return rows.length > 0
}

/**
 * Says what is about to be written, and ends the leases of those whom it sacrifices, in one commit: the reaper finds them due. The holder has the whole
 * of another claim to write it. The document was begun when the list was taken for it. Asked twice it says the same, as long as it was not written.
 */
async function intend(ledger: Ledger, which: Which, holder: string, intent: Intent): Promise<boolean> {
  const { generation, digest, killed, cutoff, rung, sacrificed } = intent
  const [row] = await ledger.run<{ held: boolean }>(sql`
    with held as (
      select list.provider, list.role, ${claimed} as begun from kill_lists as list
      where ${is(which)} and ${isHeldBy(holder)} and list.generation <= ${generation} and list.written_generation < ${generation} for update of list
    ),
    named as (
      select distinct lease.id, lease.task_id from held
      cross join json_array_elements_text(${JSON.stringify(sacrificed)}::text::json) as sacrificed(name)
      join role_sessions as session on session.provider = held.provider and session.role = held.role and session.name = sacrificed.name
      join leases as lease on lease.id = session.lease_id
    ),
    chosen as (
      select id, 'limit' as cause, null as reason, 'broker' as by, null::text as revoked_in, null::timestamptz as since from tasks
      where id in (select task_id from named) order by id for update
    ),
    ${nowWaiting(sql`chosen`, sql`lease.task_id = chosen.id and lease.id in (select named.id from named)`, sql`now()`)},
    denied as (
      update role_sessions as session set denied_at = now() from waiting where session.lease_id = waiting.id and session.denied_at is null
    ),
    intended as (
      update kill_lists as list set generation = ${generation}, digest = ${digest}, intended_at = held.begun, killed = ${json(killed)},
        cutoff = ${cutoff?.toISOString() ?? null}::text::timestamptz, rung = ${rung}, held_until = ${claim}
      from held where list.provider = held.provider and list.role = held.role
    ),
    told as (${entryColumns} ${waitingEntries}),
    woken as (select pg_notify(${dueChannel}, '') from (select 1 from waiting limit 1) as one)
    select exists (select from held) as held, (select count(*) from woken) as woken`)
  return row?.held === true
}

/**
 * Says that the intended document was written, and gives its generation to those whom it names first. Where somebody has already seen it in force, they
 * are dead by now. True also when it was said before, for the first answer may have been lost.
 */
async function wrote(ledger: Ledger, which: Which, holder: string, generation: number, denied: readonly string[]): Promise<boolean> {
  const [row] = await ledger.run<{ held: boolean }>(sql`
    with held as (
      select list.* from kill_lists as list where ${is(which)} and list.held_by = ${holder} and list.generation = ${generation} for update of list
    ),
    written as (
      update kill_lists as list set written_generation = list.generation, written_at = now(),
        check_at = coalesce(list.check_at, now() + make_interval(secs => ${checkEvery}))
      from held where list.provider = held.provider and list.role = held.role and list.written_generation < list.generation
      returning list.*
    ),
    named as (
      select session.name from written cross join json_array_elements_text(${JSON.stringify(denied)}::text::json) as denied(name)
      join role_sessions as session on session.provider = written.provider and session.role = written.role and session.name = denied.name
      where session.generation is null order by session.name for update of session
    ),
    marked as (
      update role_sessions as session set generation = written.generation, written_at = now(), denied_at = coalesce(session.denied_at, now()),
        confirmed_at = case when written.confirmed_generation >= written.generation then now() end
      from written, named where session.provider = written.provider and session.role = written.role and session.name = named.name and session.generation is null
    ),
    told as (
      ${entryColumns}
      select 'kill_list.written', null, null, null, null, jsonb_strip_nulls(jsonb_build_object('provider', written.provider, 'role', written.role,
        'generation', written.generation, 'digest', written.digest, 'rung', written.rung, 'names', ${denied.length}::int,
        'killed', case when written.killed <> '[]' then written.killed end, 'cutoff', ${rfc3339(sql`written.cutoff`)})) from written
    )
    select exists (select from held) as held`)
  return row?.held === true
}

/** How often a confirmation is asked for anew that met another statement at its row. Each of these had a holder's turn. */
const tries = 5

/** Says that a generation was seen to be in force, and that whoever it or an earlier one denies is dead. */
async function confirm(ledger: Ledger, which: Which, generation: number): Promise<void> {
  for (let attempt = 0; attempt < tries; attempt++) {
    if (await confirmOnce(ledger, which, generation)) return
  }
  throw new BrokerError('store_unavailable', 'A kill list could not be confirmed', { retryAfter: 1 })
}

/** The self-join as in taking: a session that was named while this waited would stay unconfirmed. @returns false where it is to be asked again */
async function confirmOnce(ledger: Ledger, which: Which, generation: number): Promise<boolean> {
  const [row] = await ledger.run<{ found: boolean; seen: boolean }>(sql`
    with known as (
      select list.provider, list.role from kill_lists as list join kill_lists as seen on seen.provider = list.provider and seen.role = list.role
        and seen.written_generation = list.written_generation
      where ${is(which)} and list.generation >= ${generation} for update of list
    ),
    confirmed as (
      update kill_lists as list set confirmed_generation = ${generation}, confirmed_at = now()
      from known where list.provider = known.provider and list.role = known.role and list.confirmed_generation < ${generation}
    ),
    dead as (
      select session.* from known join role_sessions as session on session.provider = known.provider and session.role = known.role
      where session.denied_at is not null and session.confirmed_at is null and session.generation <= ${generation} order by session.name for update of session
    ),
    marked as (
      update role_sessions as session set confirmed_at = now() from dead
      where session.provider = dead.provider and session.role = dead.role and session.name = dead.name
    )
    select exists (select from known) as seen, exists (select from kill_lists as list where ${is(which)} and list.generation >= ${generation}) as found`)
  return row?.seen === true || row?.found !== true
}

/** Says that what was written is as it should be. It is compared again in `next` milliseconds, or as soon as nothing can arrive any more from before. */
async function checked(ledger: Ledger, which: Which, holder: string, next: number): Promise<void> {
  await ledger.run(sql`
    update kill_lists as list set check_at = least(now() + ${milliseconds(next)}, case when ${settled} > now() then ${settled} end)
    where ${is(which)} and list.held_by = ${holder}`)
}

/** Says that somebody else may have written over it: it is compared at once, and again when nothing can arrive any more. */
async function disturbed(ledger: Ledger, which: Which): Promise<void> {
  await ledger.run(sql`update kill_lists as list set check_at = ${atOnce}, disturbed_at = now() where ${is(which)}`)
}

/** Lets the list go, for whoever waits. */
async function release(ledger: Ledger, which: Which, holder: string): Promise<void> {
  await ledger.run(sql`update kill_lists as list set held_by = null, held_until = null where ${is(which)} and list.held_by = ${holder}`)
}

interface ListRow extends Omit<HeldList, 'cutoff' | 'sessions'> {
  readonly cutoff: string | null
}

interface SessionRow {
  readonly name: string
  readonly denied: boolean
  readonly generation: number | null
  readonly earliest: string
  readonly latest: string | null
}

const inHand = ({ cutoff, ...list }: ListRow, sessions: readonly SessionRow[]): HeldList => ({
  ...list,
  cutoff: cutoff === null ? undefined : new Date(cutoff),
  sessions: sessions.map(({ name, denied, generation, earliest, latest }) => ({
    name,
    denied,
    generation: generation ?? undefined,
    earliest: new Date(earliest),
    latest: latest === null ? undefined : new Date(latest),
  })),
})
