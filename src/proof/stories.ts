import { fieldIn, type Json } from '../base/json.ts'
import type { Fault } from './fault.ts'
import type { EntryFields } from './leaf.ts'
import {
  addFact,
  checkAnnounced,
  closeStory,
  isEnd,
  latenessOf,
  type LeaseStory,
  newLease,
  overdueFault,
  readEnd,
  readOutcome,
  readPromise,
} from './lease-story.ts'
import { momentIn } from './moment.ts'
import { type Permit, permitsIn } from './permits.ts'
import { newTask, type TaskStory } from './task-story.ts'

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

/**
 * Milliseconds for which what has ended is remembered. Transactions that overlap may stand in the log in another order than they had their locks in; none lasts
 * longer than 10 s. Longer would cost memory: a busy broker ends some hundred leases a second.
 */
const remembered = 60_000

/** Entries of one commit that are looked at together: more than any of ours has. */
const mostOfCommit = 10_000

/** An entry of the commit that is being read. */
interface CommitEntry {
  readonly number: number
  readonly entry: EntryFields
  /** Milliseconds since 1970. */
  readonly at: number
  readonly permits: readonly Permit[] | undefined
}

/**
 * Reads the life of each lease out of the history and says where it breaks a promise: announced before it was minted, for the agent of its task and under a
 * permit of that task, of the grant and the parameters in it and for no longer, never to outlive the task's deadline, ended before its task did, revoked only
 * with evidence, and ended at all.
 *
 * Keeps what lives and what ended a moment ago, and so stays small over a history of any length.
 */
export function createStories(fault: (fault: Fault) => void): Stories {
  const leases = new Map<string, LeaseStory>()
  const tasks = new Map<string, TaskStory>()
  /** In the order of their ends. */
  const gone: { readonly at: number; readonly task?: string; readonly lease?: string }[] = []
  let forgotten = 0
  /** What one transaction wrote. Its ids may be out of order, where their counter began anew within a millisecond. */
  const commit: CommitEntry[] = []
  let latestTime = 0
  const lives = { tasks: 0, leases: 0, late: 0, latest: undefined as Lives['latest'] }

  function tellTask({ number, entry: { id, kind, agent, task: name = '', body }, at }: CommitEntry): void {
    const deadline = fieldIn(body, 'deadline')
    const known = tasks.get(name)
    const say = (message: string): void => fault({ number, id, message: `${name} ${message}` })
    if (kind === 'task.opened' || kind === 'task.denied') {
      if (known) say('was opened a second time')
      lives.tasks++
      tasks.set(name, newTask(kind === 'task.opened' ? momentIn(deadline, say) : -Infinity, agent))
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

  function tellDecision({ number, entry: { id, decision = '', task: name = '', xid, body }, at, permits }: CommitEntry): void {
    const task = tasks.get(name)
    if (!task) return fault({ number, id, message: `${decision} is a decision about ${name}, which was never opened, or had ended long before` })
    if (fieldIn(body, 'outcome') === 'permit') task.permitting.set(decision, { xid, at, permits })
  }

  function tellLease({ number, entry, at }: CommitEntry): void {
    const { id, kind, lease: name = '', task: taskName = '' } = entry
    const say = (message: string): void => fault({ number, id, message: `${name} ${message}` })
    const lease = leases.get(name) ?? beginLease(entry, say)
    const task = tasks.get(taskName)
    const outOfOrder = addFact(lease, number, entry)
    if (outOfOrder) fault(outOfOrder)
    readPromise(lease, entry, task, say)
    readOutcome(lease, entry, say)
    readEnd(lease, entry, at, say)
    if (isEnd(entry)) gone.push({ at, lease: name })
    // What comes back brings its task back.
    if (kind === 'lease.reopened' && task) task.ended = undefined
  }

  /** Whose a credential is, is said once for its task: what is told of somebody else was given to somebody else, or hides to whom. */
  function checkAgent({ number, entry: { id, kind, agent, task = '', lease, decision } }: CommitEntry): void {
    // Anybody may ask for what only operators may do to a task, and nothing came of it: the agent is whoever asked.
    if (kind === 'request.refused') return
    const owner = tasks.get(task)?.agent
    if (owner === undefined || agent === owner) return
    fault({ number, id, message: `${lease ?? decision ?? task} is told of ${agent ?? 'nobody'}, though ${task} is of ${owner}` })
  }

  function beginLease(entry: EntryFields, say: (message: string) => void): LeaseStory {
    const { kind, lease: name = '', task: taskName = '' } = entry
    // A handle that arrived when both were forgotten already.
    if (kind === 'lease.reopened' && !tasks.has(taskName)) tasks.set(taskName, newTask())
    const task = tasks.get(taskName)
    const lease = newLease(entry, task)
    leases.set(name, lease)
    task?.leases.add(name)
    lives.leases++
    checkAnnounced(entry, task, say)
    return lease
  }

  function closeLease(lease: LeaseStory): void {
    for (const each of closeStory(lease)) fault(each)
    const seconds = latenessOf(lease)
    if (seconds === undefined) return
    lives.late++
    if (seconds > (lives.latest?.seconds ?? 0)) lives.latest = { lease: lease.name, seconds }
  }

  /** Closes the book on what ended before this time. */
  function forget(until: number): void {
    while (forgotten < gone.length && gone[forgotten]!.at < until) {
      const { at, task: taskName, lease: name } = gone[forgotten++]!
      const lease = name === undefined ? undefined : leases.get(name)
      if (lease?.ended === at) {
        closeLease(lease)
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
    const entries = commit.splice(0).toSorted((one, other) => rankOf(one.entry) - rankOf(other.entry))
    latestTime = Math.max(latestTime, ...entries.map(({ at }) => at))
    // First, so that it is all the same whether others told anything in between; and once, for what this commit ends is of this commit.
    forget(latestTime - remembered)
    for (const told of entries) {
      const { kind } = told.entry
      if (kind.startsWith('task.')) tellTask(told)
      else if (kind === 'decision.made') tellDecision(told)
      else if (kind.startsWith('lease.')) tellLease(told)
      checkAgent(told)
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
      for (const lease of leases.values()) {
        const overdue = overdueFault(lease, read)
        if (overdue) fault(overdue)
        closeLease(lease)
      }
      return { ...lives, alive: leases.size }
    },
  }
}

/** Within a commit: first that a task was opened, then what was decided about it, then the rest, and last that it has ended. */
const rankOf = ({ kind }: EntryFields): number =>
  kind === 'task.opened' || kind === 'task.denied' ? 0 : kind === 'decision.made' ? 1 : kind === 'task.ended' ? 3 : 2
