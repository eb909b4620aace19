import { sql } from 'drizzle-orm'
import type { Ledger } from '../../src/ledger/connect.ts'
import type { Lease } from '../../src/ledger/records.ts'
import type { Finding } from './audit.ts'

/** Which entry may follow which in a story, and in which states its row may be where it ends so. */
interface Law {
  readonly next: Readonly<Record<string, readonly string[]>>
  readonly after: Readonly<Record<string, readonly string[]>>
}

/** A lease of the broker itself: its mint changes nothing outside, so it is announced as issued, and dead from the commit that says so. */
const local: Law = lawOf(
  {
    '': ['lease.issued'],
    'lease.issued': ['lease.refreshed', 'lease.revoked', 'lease.expired'],
    'lease.refreshed': ['lease.refreshed', 'lease.revoked', 'lease.expired'],
  },
  { 'lease.issued': ['active'], 'lease.refreshed': ['active'], 'lease.revoked': ['revoked'], 'lease.expired': ['expired'] },
)

/** A lease that its provider ends, or denies: until that is confirmed it is being revoked. */
const revocable: Law = outside('revoking', ['lease.revoked', 'lease.expired', 'lease.failed'], ['lease.stuck'])

/** A lease that nothing but time ends: nobody is asked, so nothing can fail. */
const lapsing: Law = outside('lapsing', ['lease.expired', 'lease.failed'], [])

/**
 * What lives outside the broker: announced before it is minted, each fresh credential too, and said to have ended only after that was begun. But where
 * the mint itself says that nothing was minted and nothing will be, there is nothing to end.
 */
function outside(ending: 'revoking' | 'lapsing', ends: readonly string[], meanwhile: readonly string[]): Law {
  // Several refreshes may be under way at once.
  const extended = ['lease.refreshing', 'lease.refreshed', 'lease.not_refreshed', `lease.${ending}`]
  return lawOf(
    {
      '': ['lease.reserved'],
      'lease.reserved': ['lease.issued', 'lease.failed', `lease.${ending}`],
      'lease.issued': ['lease.refreshing', `lease.${ending}`],
      'lease.refreshing': extended,
      'lease.refreshed': extended,
      'lease.not_refreshed': extended,
      [`lease.${ending}`]: [...ends, ...meanwhile],
      ...Object.fromEntries(meanwhile.map((kind) => [kind, ends])),
      // A handle that arrived late.
      ...Object.fromEntries(ends.map((kind) => [kind, ['lease.reopened']])),
      'lease.reopened': [...ends, ...meanwhile],
    },
    {
      'lease.reserved': ['reserved'],
      'lease.issued': ['active'],
      'lease.refreshing': ['active'],
      'lease.refreshed': ['active'],
      'lease.not_refreshed': ['active'],
      [`lease.${ending}`]: [ending],
      ...Object.fromEntries(meanwhile.map((kind) => [kind, [ending]])),
      ...Object.fromEntries(ends.map((kind) => [kind, [kind.slice('lease.'.length)]])),
      'lease.reopened': [ending],
    },
  )
}

/** What a task gives to its agent, and what changes it: while it is open, and never after. */
const whileOpen = [
  'task.renewed',
  'task.reissued',
  'lease.reserved',
  'lease.issued',
  'lease.refreshing',
  'lease.refreshed',
  'lease.not_refreshed',
] as const

const task: Law = lawOf(
  {
    '': ['task.opened', 'task.denied'],
    ...Object.fromEntries(['task.opened', ...whileOpen].map((kind) => [kind, [...whileOpen, 'task.closing']])),
    'task.closing': ['task.ended'],
    // A lease that comes back brings its task back, which ends once more with it.
    'task.ended': ['lease.reopened'],
    'lease.reopened': ['task.ended'],
  },
  {
    'task.denied': ['denied'],
    ...Object.fromEntries(['task.opened', ...whileOpen].map((kind) => [kind, ['open']])),
    'task.closing': ['closing'],
    'task.ended': ['completed', 'failed', 'revoked', 'expired'],
    'lease.reopened': ['closing'],
  },
)

function lawOf(next: Law['next'], after: Law['after']): Law {
  return { next, after }
}

/** Tasks and leases whose story could not have happened so, or is not that of their row. */
export async function unlawfulStories(ledger: Ledger): Promise<Finding[]> {
  return [...(await unlawfulLeases(ledger)), ...(await unlawfulTasks(ledger))]
}

async function unlawfulLeases(ledger: Ledger): Promise<Finding[]> {
  const stories = await storiesBy(ledger, 'lease_id')
  const leases = await ledger.run<Pick<Lease, 'id' | 'state' | 'local' | 'revocation'>>(sql`select id, state, local, revocation from leases`)
  return leases.flatMap((lease) => {
    const story = stories.get(lease.id) ?? []
    const law = lease.local ? local : lease.revocation === 'expiry' ? lapsing : revocable
    const unannounced =
      !lease.local && refreshedUnannounced(story) ? [`a lease was refreshed without an announcement: ${lease.id}: ${story.join(' ')}`] : []
    return [...faultsOf('lease', lease, story, law), ...unannounced]
  })
}

async function unlawfulTasks(ledger: Ledger): Promise<Finding[]> {
  const stories = await storiesBy(ledger, 'task_id')
  const tasks = await ledger.run<{ id: string; state: string }>(sql`select id, state from tasks`)
  return tasks.flatMap((row) => {
    const told = (stories.get(row.id) ?? []).filter((kind) => kind in task.after)
    // While its task goes on, a lease that comes back changes nothing of it.
    const story = told.filter((kind, at) => kind !== 'lease.reopened' || told[at - 1] === 'task.ended')
    return faultsOf('task', row, story, task)
  })
}

function faultsOf(noun: string, { id, state }: { id: string; state: string }, story: readonly string[], { next, after }: Law): Finding[] {
  const wrong = story.find((kind, at) => !next[story[at - 1] ?? '']?.includes(kind))
  if (wrong !== undefined) return [`a ${noun} has an unlawful story: ${id}: ${story.join(' ')}`]
  const last = story.at(-1) ?? ''
  return after[last]?.includes(state) ? [] : [`a ${noun} is not where its story ends: ${id}: ${state} after ${last}`]
}

/** Whether more came of refreshes, at some moment, than had been announced. */
function refreshedUnannounced(story: readonly string[]): boolean {
  let underWay = 0
  return story.some((kind) => {
    if (kind === 'lease.refreshing') underWay++
    if (kind === 'lease.refreshed' || kind === 'lease.not_refreshed') underWay--
    return underWay < 0
  })
}

/**
 * The kinds of all entries about a lease or a task, in the order in which they happened.
 *
 * An entry's id is made when it is written, which is behind the locks of its statement. Its transaction may be older than another's that had one of these
 * locks first, where it locks several tasks. The embedded store runs one statement at a time, and its clock may be set back by a test. Within one commit a
 * task is opened first and ends last, whatever was written first.
 */
async function storiesBy(ledger: Ledger, subject: 'lease_id' | 'task_id'): Promise<ReadonlyMap<string, readonly string[]>> {
  const about = sql.identifier(subject)
  const commit = ledger.embedded ? sql`xid` : sql`min(id) over (partition by ${about}, xid)`
  const rows = await ledger.run<{ about: string; story: string[] }>(sql`
    select about, json_agg(kind order by commit, place, id) as story from (
      select ${about} as about, kind, id, ${commit} as commit,
        case when kind in ('task.opened', 'task.denied') then 0 when kind = 'task.closing' then 2 when kind = 'task.ended' then 3 else 1 end as place
      from entries where ${about} is not null
    ) as told group by about`)
  return new Map(rows.map(({ about: id, story }) => [id, story]))
}
