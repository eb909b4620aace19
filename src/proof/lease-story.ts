import { fieldIn, type Json } from '../base/json.ts'
import type { EntryKind } from './entry-kinds.ts'
import type { Fault } from './fault.ts'
import type { EntryFields } from './leaf.ts'
import { momentIn, momentOf } from './moment.ts'
import { permittedEnd, type TaskStory } from './task-story.ts'

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

/** Milliseconds by which a lease may be told to have expired before its end, or to live longer than was permitted: moments in the log are rounded. */
const rounded = 1_000

/** Facts of one lease that wait until it is sure in which order they happened. */
const unsettled = 16

/** One of those that wait. */
interface Fact {
  readonly number: number
  readonly id: string
  readonly kind: string
}

/** A lease, as far as the history has told of it. Times are milliseconds since 1970. */
export interface LeaseStory {
  readonly name: string
  /** Also where its own facts stand behind the end of its task in the log. Undefined: it was never opened, or had ended long before. */
  readonly task: TaskStory | undefined
  readonly revocation: unknown
  /** The fact up to which the story was read, and those that wait. */
  before: string
  readonly waiting: Fact[]
  /** When it ends by itself, and the latest that was ever promised. */
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

/** Takes what is wrong with the entry that is being told, in words that follow the name of the lease. */
type Say = (message: string) => void

/** Whether an entry says that a lease has ended. */
export const isEnd = ({ kind }: EntryFields): boolean => endings.has(kind)

/** A lease before its first fact. One that comes back when it was forgotten already begins its story again, and has to end again. */
export const newLease = ({ kind, lease: name = '', body }: EntryFields, task: TaskStory | undefined): LeaseStory => ({
  name,
  task,
  revocation: fieldIn(body, 'revocation'),
  before: kind === 'lease.reopened' ? 'lease.failed' : '',
  waiting: [],
  until: Infinity,
  latest: -Infinity,
  permitted: -Infinity,
  newest: { id: '', until: Infinity },
  outcome: undefined,
  closing: undefined,
  ended: undefined,
})

/** A lease that begins as issued must have been decided in the same commit: otherwise it was minted before anything was announced. */
export function checkAnnounced({ kind, decision = '', xid }: EntryFields, task: TaskStory | undefined, say: Say): void {
  if (kind === 'lease.issued' && task?.permitting.get(decision)?.xid !== xid)
    say('was issued in another commit than its decision, without having been announced')
}

/** Takes the next fact into the story. @returns what has no place in it */
export function addFact(lease: LeaseStory, number: number, { id, kind }: EntryFields): Fault | undefined {
  lease.waiting.push({ number, id, kind })
  return lease.waiting.length > unsettled ? readFacts(lease, unsettled / 2) : undefined
}

/** Until when it will live, and whether its decision permits that. */
export function readPromise(lease: LeaseStory, { id, kind, decision = '', body }: EntryFields, task: TaskStory | undefined, say: Say): void {
  const expiresAt = fieldIn(body, 'expires_at')
  if (!promises.has(kind) && expiresAt === undefined) return
  lease.until = momentIn(expiresAt, say)
  lease.latest = Math.max(lease.latest, lease.until)
  if (id > lease.newest.id) lease.newest = { id, until: lease.until }
  // What came of a refresh that was announced says no more than its end.
  if ((kind === 'lease.not_refreshed' || kind === 'lease.refreshed') && fieldIn(body, 'grant') === undefined) return
  const permitted = permittedEnd(task?.permitting.get(decision), body)
  if (permitted === undefined) say('rests on no decision that permits it')
  else lease.permitted = Math.max(lease.permitted, permitted)
}

/** Whether it was issued, which cannot be taken back. */
export function readOutcome(lease: LeaseStory, { kind }: EntryFields, say: Say): void {
  if (kind !== 'lease.issued' && kind !== 'lease.failed') return
  lease.outcome ??= kind
  if (lease.outcome !== kind) say('is said to have failed, though it was issued')
}

/** When its end begins, when it has ended, and whether that is proven. @param at milliseconds since 1970 */
export function readEnd(lease: LeaseStory, entry: EntryFields, at: number, say: Say): void {
  const { kind, body } = entry
  if (beginnings.has(kind)) lease.closing ??= at
  if (kind === 'lease.reopened') lease.ended = undefined
  if (!isEnd(entry)) return
  lease.ended = at
  const isProven = isEvidence(fieldIn(body, 'evidence'))
  if (kind === 'lease.revoked' && !isProven) say('is said to be revoked, without evidence')
  if (kind === 'lease.expired' && at + rounded < knownEnd(lease) && !isProven) say('is said to have expired before its end, without evidence')
  if (kind === 'lease.revoked' && lease.revocation === 'expiry') say('is said to be revoked, though only time could end it')
}

/** What is wrong with its story as a whole. It is over: nothing waits any more. */
export function closeStory(lease: LeaseStory): readonly Fault[] {
  const { number, id } = lease.waiting[0] ?? {}
  const outOfOrder = readFacts(lease, lease.waiting.length)
  const { name, task, latest, permitted } = lease
  return [
    ...(outOfOrder ? [outOfOrder] : []),
    ...(task && latest > task.deadline ? [{ number, id, message: `${name} was given a longer life than its task has` }] : []),
    ...(permitted !== -Infinity && latest > permitted + rounded
      ? [{ number, id, message: `${name} was given a longer life than its decisions permit` }]
      : []),
  ]
}

/** Whether it should have ended by then, and is not known to. @param now milliseconds since 1970 */
export function overdueFault(lease: LeaseStory, now: number): Fault | undefined {
  const { name, closing, waiting } = lease
  const over = now - dueOf(lease)
  if (over <= (closing === undefined ? patience.alive : patience.ending)) return undefined
  const { number, id } = waiting.at(-1) ?? {}
  const state = closing === undefined ? 'is alive' : 'is not known to have ended'
  return { number, id, message: `${name} ${state} ${Math.round(over / 1_000)} s after its end` }
}

/** Seconds between when it was due to end and the last that is told of its end. Undefined where that was prompt, or has not begun. */
export function latenessOf(lease: LeaseStory): number | undefined {
  const { closing, ended = closing } = lease
  const due = dueOf(lease)
  if (closing === undefined || ended === undefined || !(closing - due > promptly || ended - due > patience.ending)) return undefined
  return Math.round((ended - due) / 1_000)
}

/** Reads the first facts that wait. They happened in the order of the log, or, where transactions overlapped, in that of their ids, which are made behind the locks. */
function readFacts(lease: LeaseStory, count: number): Fault | undefined {
  const part = lease.waiting.splice(0, count)
  const orders = [part, part.toSorted((a, b) => (a.id < b.id ? -1 : 1))]
  const wrong = orders.map((order) => firstUnlawful(lease.before, order))
  lease.before = orders[wrong[0] === undefined ? 0 : wrong[1] === undefined ? 1 : 0]!.at(-1)?.kind ?? lease.before
  const [first] = wrong
  if (!first || wrong.includes(undefined)) return undefined
  const { number, id, kind } = first
  return { number, id, message: `${lease.name} ${outOfPlace[kind] ?? `has a story in which ${kind} has no place there`}` }
}

/** The first fact that has no place in a story that goes on from here. */
function firstUnlawful(before: string, facts: readonly Fact[]): Fact | undefined {
  for (const fact of facts) {
    if (!next[before]?.includes(fact.kind)) return fact
    before = fact.kind
  }
  return undefined
}

/** When it has to end at the latest. */
const dueOf = ({ until, task }: LeaseStory): number => Math.min(until, task?.deadline ?? Infinity)

/**
 * The earlier of the ends that were told last in the log and last by the order of ids: of two refreshes that overlapped either may be the one that holds.
 * -Infinity where none was told, as of a lease that came back.
 */
function knownEnd({ until, newest }: LeaseStory): number {
  const end = Math.min(until, newest.until)
  return end === Infinity ? -Infinity : end
}

const isEvidence = (value: Json | undefined): boolean =>
  typeof fieldIn(value, 'by') === 'string' && typeof fieldIn(value, 'statement') === 'string' && !Number.isNaN(momentOf(fieldIn(value, 'at')))
