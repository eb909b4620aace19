import type { Json } from '../base/json.ts'
import { canonical } from './canonical.ts'
import type { EntryKind } from './entry-kinds.ts'
import type { Fault } from './fault.ts'
import type { EntryFields } from './leaf.ts'
import { type Permit, permitsIn } from './permits.ts'

/** What the whole history comes to. */
export interface Lives {
  readonly tasks: number
  readonly leases: number
  /** That the history does not say to have ended; some of them may be about to. */
  readonly alive: number
  /**
   * Leases whose end was begun more than a minute after it was due, as when every broker was down, or done more than 15 minutes after, as when a provider was.
   * Each was dead at its own end all the same, if its provider kept it.
   */
  readonly late: number
  /** The worst of them, by what lies between the moment at which it was due to end and the last that is told of its end. */
  readonly latest: { readonly lease: string; readonly seconds: number } | undefined
}

/** Told entry by entry, in the order of the log. */
export interface Stories {
  /** @param answers of a decision; where absent, nothing is held against them */
  tell(number: number, entry: EntryFields, answers?: readonly Json[]): void
  /** @param now milliseconds since 1970; where absent, the time of the last entry */
  finish(now: number | undefined): Lives
}

/** Which fact may follow which in the story of one lease. */
const next: Readonly<Record<string, readonly string[]>> = {
  '': ['lease.reserved', 'lease.issued'],
  'lease.reserved': ['lease.issued', 'lease.failed', 'lease.revoking', 'lease.lapsing'],
  'lease.issued': ['lease.refreshing', 'lease.refreshed', 'lease.revoking', 'lease.lapsing', 'lease.revoked', 'lease.expired'],
  'lease.refreshing': ['lease.refreshing', 'lease.refreshed', 'lease.not_refreshed', 'lease.revoking', 'lease.lapsing'],
  'lease.refreshed': [
    'lease.refreshing',
    'lease.refreshed',
    'lease.not_refreshed',
    'lease.revoking',
    'lease.lapsing',
    'lease.revoked',
    'lease.expired',
  ],
  'lease.not_refreshed': ['lease.refreshing', 'lease.refreshed', 'lease.not_refreshed', 'lease.revoking', 'lease.lapsing'],
  'lease.revoking': ['lease.revoked', 'lease.expired', 'lease.failed', 'lease.stuck'],
  'lease.stuck': ['lease.revoked', 'lease.expired', 'lease.failed'],
  'lease.lapsing': ['lease.expired', 'lease.failed'],
  'lease.revoked': ['lease.reopened'],
  'lease.expired': ['lease.reopened'],
  'lease.failed': ['lease.reopened'],
  'lease.reopened': ['lease.revoked', 'lease.expired', 'lease.failed', 'lease.stuck'],
} satisfies Partial<Record<EntryKind | '', readonly EntryKind[]>>

/** What says until when a lease will live. */
const promises: ReadonlySet<string> = new Set(['lease.reserved', 'lease.issued', 'lease.refreshing', 'lease.refreshed'])
const endings: ReadonlySet<string> = new Set(['lease.revoked', 'lease.expired', 'lease.failed'])
const beginnings: ReadonlySet<string> = new Set(['lease.revoking', 'lease.lapsing', ...endings])

/** In the words of a reader: what must have come before, where it did not. */
const outOfPlace: Readonly<Record<string, string>> = {
  'lease.issued': 'was issued without having been announced, or a second time',
  'lease.revoked': 'was revoked without having been announced, or after it had ended',
  'lease.expired': 'expired without having been announced, or after it had ended',
  'lease.reserved': 'was announced a second time',
} satisfies Partial<Record<EntryKind, string>>

/** Milliseconds behind which the end of a lease is late: a lap of the reaper is a second, and a busy one some more. */
const promptly = 60_000

/** Milliseconds past its end after which a lease that nobody has begun to end counts as alive, and one whose end was begun as forgotten. */
const patience = { alive: 5 * 60_000, ending: 15 * 60_000 }

/**
 * Milliseconds for which what has ended is remembered. Transactions that overlap may stand in the log in another order than they had their locks in; none lasts
 * longer than 10 s. Longer would cost memory: a busy broker ends some hundred leases a second.
 */
const remembered = 60_000

/** Milliseconds by which a lease may be told to have expired before its end, or to live longer than was permitted: moments in the log are rounded. */
const rounded = 1_000

/** Entries of one commit that are looked at together: more than any of ours has. */
const mostOfCommit = 10_000

/** Facts of one lease that wait until it is sure in which order they happened. */
const unsettled = 16

interface Told {
  readonly number: number
  readonly id: string
  readonly kind: string
}

interface Lease {
  /** Also where its own facts stand behind the end of its task in the log. Undefined: it was never opened, or had ended long before. */
  readonly task: Task | undefined
  readonly revocation: unknown
  /** The fact up to which the story was read. */
  before: string
  readonly told: Told[]
  /** Milliseconds since 1970 at which it ends by itself, and the latest that was ever promised. */
  until: number
  latest: number
  /** The latest that its decisions permit. */
  permitted: number
  /** The end that was told last by the order of ids. */
  newest: { readonly id: string; readonly until: number }
  /** Which of these two was told first: of one lease there is never the other too. */
  outcome: 'lease.issued' | 'lease.failed' | undefined
  /** When its end was begun, and when it had ended. */
  closing: number | undefined
  ended: number | undefined
}

interface Task {
  deadline: number
  /** Decisions that permit something. */
  readonly permitting: Map<string, Permitting>
  readonly leases: Set<string>
  ended: number | undefined
}

interface Permitting {
  readonly xid: string
  readonly at: number
  /** Undefined where its answers are missing, which is another fault. */
  readonly permits: readonly Permit[] | undefined
}

/** An entry of the commit that is being read. */
interface Fact {
  readonly number: number
  readonly entry: EntryFields
  /** Milliseconds since 1970. */
  readonly at: number
  readonly permits: readonly Permit[] | undefined
}

/**
 * Reads the life of each lease out of the history and says where it breaks a promise: announced before it was minted and under a permit of its task, of the
 * grant and the parameters in it and for no longer, never to outlive the task's deadline, ended before its task did, revoked only with evidence, and ended at all.
 *
 * Keeps what lives and what ended a moment ago, and so stays small over a history of any length.
 */
export function createStories(fault: (fault: Fault) => void): Stories {
  const leases = new Map<string, Lease>()
  const tasks = new Map<string, Task>()
  /** In the order of their ends. */
  const gone: { readonly at: number; readonly task?: string; readonly lease?: string }[] = []
  let forgotten = 0
  /** What one transaction wrote. Its ids may be out of order, where their counter began anew within a millisecond. */
  const commit: Fact[] = []
  let latestTime = 0
  const lives = { tasks: 0, leases: 0, late: 0, latest: undefined as Lives['latest'] }

  function tellTask(number: number, { id, kind, task: name = '', body }: EntryFields, at: number): void {
    const { deadline } = (body ?? {}) as { deadline?: Json }
    const known = tasks.get(name)
    const say = (message: string): void => fault({ number, id, message: `${name} ${message}` })
    if (kind === 'task.opened' || kind === 'task.denied') {
      if (known) say('was opened a second time')
      lives.tasks++
      tasks.set(name, { ...unknownTask(), deadline: kind === 'task.opened' ? momentIn(deadline, say) : -Infinity })
      if (kind === 'task.denied') end(name, at)
      return
    }
    if (!known) return say(`is told about (${kind}), but was never opened, or had ended long before`)
    if (kind === 'task.renewed') known.deadline = Math.max(known.deadline, momentIn(deadline, say))
    if (kind === 'task.ended') end(name, at)
  }

  function end(name: string, at: number): void {
    const task = tasks.get(name)!
    task.ended = at
    gone.push({ at, task: name })
  }

  function tellDecision({ number, entry: { id, decision = '', task: name = '', xid, body }, at, permits }: Fact): void {
    const { outcome } = (body ?? {}) as { outcome?: Json }
    const task = tasks.get(name)
    if (!task) return fault({ number, id, message: `${decision} is a decision about ${name}, which was never opened, or had ended long before` })
    if (outcome === 'permit') task.permitting.set(decision, { xid, at, permits })
  }

  function tellLease(number: number, entry: EntryFields, at: number): void {
    const { id, kind, lease: name = '', task = '', decision = '', xid } = entry
    const body = Object(entry.body) as Readonly<Record<string, Json>>
    const say = (message: string): void => fault({ number, id, message: `${name} ${message}` })
    let lease = leases.get(name)
    if (!lease) {
      // A handle that arrived when the lease was forgotten already: its story begins again, and has to end again.
      const isBack = kind === 'lease.reopened'
      if (isBack && !tasks.has(task)) tasks.set(task, unknownTask())
      lease = {
        task: tasks.get(task),
        revocation: body['revocation'],
        before: isBack ? 'lease.failed' : '',
        told: [],
        until: Infinity,
        latest: -Infinity,
        permitted: -Infinity,
        newest: { id: '', until: Infinity },
        outcome: undefined,
        closing: undefined,
        ended: undefined,
      }
      leases.set(name, lease)
      lease.task?.leases.add(name)
      lives.leases++
      if (kind === 'lease.issued' && lease.task?.permitting.get(decision)?.xid !== xid)
        say('was issued in another commit than its decision, without having been announced')
    }
    lease.told.push({ number, id, kind })
    if (lease.told.length > unsettled) read(name, lease, unsettled / 2)

    if (promises.has(kind) || 'expires_at' in body) {
      lease.until = momentIn(body['expires_at'], say)
      lease.latest = Math.max(lease.latest, lease.until)
      if (id > lease.newest.id) lease.newest = { id, until: lease.until }
      // What came of a refresh that was announced says no more than its end.
      if ((kind !== 'lease.not_refreshed' && kind !== 'lease.refreshed') || 'grant' in body) {
        const permitted = permittedEnd(tasks.get(task)?.permitting.get(decision), body)
        if (permitted === undefined) say('rests on no decision that permits it')
        else lease.permitted = Math.max(lease.permitted, permitted)
      }
    }
    if (kind === 'lease.issued' || kind === 'lease.failed') {
      lease.outcome ??= kind
      if (lease.outcome !== kind) say('is said to have failed, though it was issued')
    }
    if (beginnings.has(kind)) lease.closing ??= at
    if (kind === 'lease.reopened') {
      lease.ended = undefined
      const closed = tasks.get(task)
      if (closed) closed.ended = undefined
    }
    if (!endings.has(kind)) return
    lease.ended = at
    gone.push({ at, lease: name })
    if (kind === 'lease.revoked' && !isEvidence(body['evidence'])) say('is said to be revoked, without evidence')
    if (kind === 'lease.expired' && at + rounded < knownEnd(lease) && !isEvidence(body['evidence']))
      say('is said to have expired before its end, without evidence')
    if (kind === 'lease.revoked' && lease.revocation === 'expiry') say('is said to be revoked, though only time could end it')
  }

  /** Reads the first facts that wait. They happened in the order of the log, or, where transactions overlapped, in that of their ids, which are made behind the locks. */
  function read(name: string, lease: Lease, count: number): void {
    const part = lease.told.splice(0, count)
    const orders = [part, part.toSorted((a, b) => (a.id < b.id ? -1 : 1))]
    const wrong = orders.map((order) => firstUnlawful(lease.before, order))
    if (wrong.every((told) => told !== undefined)) {
      const [{ number, id, kind }] = wrong as [Told]
      fault({ number, id, message: `${name} ${outOfPlace[kind] ?? `has a story in which ${kind} has no place there`}` })
    }
    lease.before = orders[wrong[0] === undefined ? 0 : wrong[1] === undefined ? 1 : 0]!.at(-1)?.kind ?? lease.before
  }

  function closeLease(name: string, lease: Lease): void {
    const [first] = lease.told
    read(name, lease, lease.told.length)
    if (lease.task && lease.latest > lease.task.deadline)
      fault({ number: first?.number, id: first?.id, message: `${name} was given a longer life than its task has` })
    if (lease.permitted !== -Infinity && lease.latest > lease.permitted + rounded)
      fault({ number: first?.number, id: first?.id, message: `${name} was given a longer life than its decisions permit` })
    const { closing, ended = closing } = lease
    const due = dueOf(lease)
    if (closing === undefined || ended === undefined || !(closing - due > promptly || ended - due > patience.ending)) return
    lives.late++
    const seconds = Math.round((ended - due) / 1_000)
    if (seconds > (lives.latest?.seconds ?? 0)) lives.latest = { lease: name, seconds }
  }

  /** Closes the book on what ended before this time. */
  function forget(until: number): void {
    while (forgotten < gone.length && gone[forgotten]!.at < until) {
      const { at, task: taskName, lease: name } = gone[forgotten++]!
      const lease = name === undefined ? undefined : leases.get(name)
      if (lease?.ended === at) {
        closeLease(name!, lease)
        leases.delete(name!)
        lease.task?.leases.delete(name!)
      }
      const task = taskName === undefined ? undefined : tasks.get(taskName)
      if (task?.ended === at) {
        for (const left of task.leases)
          if (leases.get(left)?.ended === undefined) fault({ message: `${left} lives on, though ${taskName} has ended` })
        tasks.delete(taskName!)
      }
    }
    if (forgotten < 10_000) return
    gone.splice(0, forgotten)
    forgotten = 0
  }

  function tellCommit(): void {
    const facts = commit.splice(0).toSorted((one, other) => rankOf(one.entry) - rankOf(other.entry))
    latestTime = Math.max(latestTime, ...facts.map(({ at }) => at))
    // First, so that it is all the same whether others told anything in between; and once, for what this commit ends is of this commit.
    forget(latestTime - remembered)
    for (const fact of facts) {
      const { number, entry, at } = fact
      if (entry.kind.startsWith('task.')) tellTask(number, entry, at)
      else if (entry.kind === 'decision.made') tellDecision(fact)
      else if (entry.kind.startsWith('lease.')) tellLease(number, entry, at)
    }
  }

  return {
    tell(number, entry, answers) {
      const [first] = commit
      if (first && (first.entry.xid !== entry.xid || commit.length >= mostOfCommit)) tellCommit()
      const at = momentIn(entry.at, (message) => fault({ number, id: entry.id, message }), latestTime)
      commit.push({ number, entry, at, permits: answers && permitsIn(answers) })
    },

    finish(now) {
      tellCommit()
      forget(Infinity)
      const read = now ?? latestTime
      for (const [name, lease] of leases) {
        const over = read - dueOf(lease)
        const last = lease.told.at(-1)
        if (over > (lease.closing === undefined ? patience.alive : patience.ending)) {
          const state = lease.closing === undefined ? 'is alive' : 'is not known to have ended'
          fault({ number: last?.number, id: last?.id, message: `${name} ${state} ${Math.round(over / 1_000)} s after its end` })
        }
        closeLease(name, lease)
      }
      return { ...lives, alive: leases.size }
    },
  }
}

/** Until when this decision permits what a lease says of itself, in milliseconds since 1970. Undefined: it does not. */
function permittedEnd(decision: Permitting | undefined, { grant, parameters = null }: Readonly<Record<string, Json>>): number | undefined {
  if (!decision?.permits) return decision && Infinity
  const asked = canonical(parameters)
  const permit = decision.permits.find((each) => each.grant === grant && each.parameters === asked)
  return permit && decision.at + permit.ttl
}

/** When it has to end at the latest, in milliseconds since 1970. */
const dueOf = ({ until, task }: Lease): number => Math.min(until, task?.deadline ?? Infinity)

/**
 * The earlier of the ends that were told last in the log and last by the order of ids: of two refreshes that overlapped either may be the one that holds.
 * -Infinity where none was told, as of a lease that came back.
 */
function knownEnd({ until, newest }: Lease): number {
  const end = Math.min(until, newest.until)
  return end === Infinity ? -Infinity : end
}

/** Nobody has told about it yet. */
const unknownTask = (): Task => ({ permitting: new Map(), leases: new Set(), deadline: Infinity, ended: undefined })

/** Within a commit: first that a task was opened, then what was decided about it, then the rest, and last that it has ended. */
const rankOf = ({ kind }: EntryFields): number =>
  kind === 'task.opened' || kind === 'task.denied' ? 0 : kind === 'decision.made' ? 1 : kind === 'task.ended' ? 3 : 2

/** The first fact that has no place in a story that goes on from here. */
function firstUnlawful(before: string, told: readonly Told[]): Told | undefined {
  for (const each of told) {
    if (!next[before]?.includes(each.kind)) return each
    before = each.kind
  }
  return undefined
}

/** Milliseconds since 1970; NaN, which is later and earlier than nothing, for what is no moment. */
const momentOf = (value: Json | undefined): number => (typeof value === 'string' ? Date.parse(value) : Number.NaN)

/** The same where there must be one: a story without times would break no promise. @returns `otherwise` for what is none, which is told */
function momentIn(value: Json | undefined, say: (message: string) => void, otherwise = Infinity): number {
  const moment = momentOf(value)
  if (!Number.isNaN(moment)) return moment
  say('is told with a time that is missing, or none')
  return otherwise
}

const isEvidence = (value: Json | undefined): boolean => {
  const { by, statement, at } = (value ?? {}) as Readonly<Record<string, Json>>
  return typeof by === 'string' && typeof statement === 'string' && !Number.isNaN(momentOf(at))
}
