import { expect, test } from 'vitest'
import type { Json } from '../../src/base/json.ts'
import type { EntryFields } from '../../src/proof/leaf.ts'
import { createStories, type Lives } from '../../src/proof/stories.ts'
import type { Fault } from '../../src/proof/fault.ts'

const evidence = { by: 'provider', statement: 'gone', at: '2026-11-26T10:01:00.000Z' }

/** Seconds after ten. */
const at = (seconds: number): string => new Date(Date.UTC(2026, 10, 26, 10) + seconds * 1_000).toISOString()

/** An entry of the task `t`, its decision `d` and its lease `l`, unless it says otherwise. */
const told = (kind: string, xid: number, body: Json = {}, over: Partial<EntryFields> & { s?: number } = {}): EntryFields => {
  const { s = xid, ...fields } = over
  return {
    id: '',
    at: at(s),
    xid: String(xid),
    kind,
    agent: 'bot',
    task: 't',
    ...(kind.startsWith('lease.') && { lease: 'l', decision: 'd' }),
    ...(kind === 'decision.made' && { decision: 'd' }),
    body,
    ...fields,
  }
}

const opened = told('task.opened', 1, { deadline: at(600) })
const decided = told('decision.made', 1, { outcome: 'permit' })
const lease = { revocation: 'provider', expires_at: at(600) }
const reserved = told('lease.reserved', 1, lease)
const issued = told('lease.issued', 2, lease)
const revoking = told('lease.revoking', 3)
const revoked = told('lease.revoked', 4, { evidence })
const ended = told('task.ended', 4, { state: 'completed' })
const lawful = [opened, decided, reserved, issued, revoking, revoked, ended]

/** @param answers of each decision in it */
function read(entries: readonly EntryFields[], now?: number, answers?: readonly Json[]): { faults: string[]; lives: Lives } {
  const faults: Fault[] = []
  const stories = createStories((fault) => faults.push(fault))
  // Ids in the order in which they are given, where they say nothing else.
  entries.forEach((entry, number) =>
    stories.tell(
      number,
      { ...entry, id: entry.id || `ent_${String(number).padStart(3, '0')}` },
      entry.kind === 'decision.made' ? answers : undefined,
    ),
  )
  const lives = stories.finish(now)
  return { faults: faults.map(({ number, message }) => `${number ?? '-'}: ${message}`), lives }
}

test('what one commit tells is read as one, also where the clock of the store was set back', () => {
  const ahead = told('policy.activated', 1, {}, { s: 300 })
  const denied = [told('task.denied', 2, { cause: 'policy' }), told('decision.made', 2, { outcome: 'deny' })]
  expect(read([ahead, ...denied]).faults).toEqual([])
})

const without = (...gone: EntryFields[]): EntryFields[] => lawful.filter((entry) => !gone.includes(entry))
const instead = (old: EntryFields, other: EntryFields): EntryFields[] => lawful.map((entry) => (entry === old ? other : entry))

test('a life as it should be has no fault', () => {
  expect(read(lawful)).toEqual({ faults: [], lives: { tasks: 1, leases: 1, alive: 0, late: 0, latest: undefined } })
})

test('an agent that was refused what only operators may do to the task of another is no fault, whatever else is told of one', () => {
  const asked = (kind: string): EntryFields => told(kind, 2, {}, { agent: 'nosy' })
  expect(read([opened, decided, asked('request.refused')]).faults).toEqual([])
  expect(read([opened, decided, asked('request.denied')]).faults).toEqual(['2: t is told of nosy, though t is of bot'])
})

test.each([
  ['issued without having been announced', without(reserved), '2: l was issued in another commit than its decision, without having been announced'],
  ['announced under no decision', without(decided), '1: l rests on no decision that permits it'],
  ['announced under a denial', instead(decided, told('decision.made', 1, { outcome: 'deny' })), '2: l rests on no decision that permits it'],
  ['announced in a task that was never opened', without(opened), '0: d is a decision about t, which was never opened, or had ended long before'],
  [
    'given a longer life than its task has',
    instead(reserved, told('lease.reserved', 1, { ...lease, expires_at: at(601) })),
    '2: l was given a longer life than its task has',
  ],
  ['issued to another agent', instead(issued, told('lease.issued', 2, lease, { agent: 'thief' })), '3: l is told of thief, though t is of bot'],
  [
    'decided about for nobody',
    instead(decided, { ...decided, agent: undefined } as unknown as EntryFields),
    '1: d is told of nobody, though t is of bot',
  ],
  ['revoked without evidence', instead(revoked, told('lease.revoked', 4)), '5: l is said to be revoked, without evidence'],
  [
    'revoked though only time could end it',
    instead(reserved, told('lease.reserved', 1, { ...lease, revocation: 'expiry' })),
    '5: l is said to be revoked, though only time could end it',
  ],
  [
    'said to have expired before its end, without evidence',
    instead(revoked, told('lease.expired', 4)),
    '5: l is said to have expired before its end, without evidence',
  ],
  ['issued and said to have failed', instead(revoked, told('lease.failed', 4)), '5: l is said to have failed, though it was issued'],
  [
    'said to have failed and issued, in commits that overlapped',
    [
      opened,
      decided,
      reserved,
      { ...revoking, id: 'ent_2' },
      told('lease.failed', 3, {}, { id: 'ent_3' }),
      { ...issued, xid: '4', id: 'ent_1' },
      ended,
    ],
    '5: l is said to have failed, though it was issued',
  ],
  ['never ended, though its task was', without(revoking, revoked), '-: l lives on, though t has ended'],
  [
    'ended a second time',
    [...lawful.slice(0, -1), told('lease.revoked', 5, { evidence })],
    '6: l was revoked without having been announced, or after it had ended',
  ],
  [
    'used after it had ended',
    [...lawful.slice(0, -1), told('lease.refreshed', 5, { expires_at: at(600) })],
    '6: l has a story in which lease.refreshed has no place there',
  ],
  [
    'promised without an end',
    instead(issued, told('lease.issued', 2, { revocation: 'provider' })),
    '3: l is told with a time that is missing, or none',
  ],
  ['given in a task without a deadline', instead(opened, told('task.opened', 1, {})), '0: t is told with a time that is missing, or none'],
  ['told with a body that is none', instead(issued, told('lease.issued', 2, 'nothing')), '3: l is told with a time that is missing, or none'],
  [
    'alive past its end, beside an entry that is told with no time',
    [opened, decided, reserved, issued, { ...told('policy.activated', 3), at: 'never' }, told('policy.activated', 9, {}, { s: 901 })],
    '3: l is alive 301 s after its end',
  ],
  ['alive past its end', [opened, decided, reserved, issued, told('policy.activated', 9, {}, { s: 901 })], '3: l is alive 301 s after its end'],
])('a lease that was %s is told', (_, entries, words) => {
  expect(read(entries).faults).toContain(words)
})

/** An answer that permits the grant `g` of tenant `a` for ten minutes, unless it says otherwise. */
const answer = (over: Readonly<Record<string, Json>> = {}, ttl = '600000ms', tags: Json = { tenant: 'a' }): Json => ({
  action: 'issue',
  resource: 'g',
  outcome: 'permit',
  obligations: {},
  input: JSON.stringify({ context: { ttl: { __extn: { fn: 'duration', arg: ttl } } }, entities: [{ uid: { type: 'Ask', id: 'ask' }, tags }] }),
  ...over,
})
const ofGrant = { ...lease, grant: 'g', parameters: { tenant: 'a' } }
const [reservedOfGrant, issuedOfGrant] = [told('lease.reserved', 1, ofGrant), told('lease.issued', 2, ofGrant)]
const lawfulOfGrant = lawful.map((entry) => (entry === reserved ? reservedOfGrant : entry === issued ? issuedOfGrant : entry))

test('a lease is held against what its decision permits', () => {
  expect(read(lawfulOfGrant, undefined, [answer({ resource: 'other' }), answer()]).faults).toEqual([])
  // A decision whose answers are missing is told where it is held against them.
  expect(read(lawfulOfGrant).faults).toEqual([])
})

test.each([
  ['another grant', answer({ resource: 'other' })],
  ['other parameters', answer({}, '600000ms', { tenant: 'b' })],
  ['a renewal', answer({ action: 'renew' })],
  ['no more than a task', answer({ action: 'declare' })],
  ['nothing, for its answer denies', answer({ outcome: 'deny' })],
  ['nothing that can be read', answer({ input: '{"entities": 1e400' })],
  ['nothing, for it is no answer', null],
])('a lease whose decision permits %s is told', (_, other) => {
  expect(read(lawfulOfGrant, undefined, [other]).faults).toEqual([
    '2: l rests on no decision that permits it',
    '3: l rests on no decision that permits it',
  ])
})

test.each([
  ['asked for less', answer({}, '300000ms')],
  ['bound its permit to less', answer({ obligations: { maxTtl: 300_000 } })],
])('a lease is told that was given a longer life than its decision permits, which %s', (_, shorter) => {
  expect(read(lawfulOfGrant, undefined, [shorter]).faults).toEqual(['2: l was given a longer life than its decisions permit'])
})

test('a refresh under a decision of its own may give a lease a longer life than its first decision, and a shorter permit takes nothing back', () => {
  const again = told('decision.made', 3, { outcome: 'permit' }, { decision: 'e', s: 250 })
  const refreshed = (s: number): EntryFields[] => [
    told('lease.refreshing', 3, { ...ofGrant, expires_at: at(s) }, { decision: 'e', s: 250 }),
    told('lease.refreshed', 4, { expires_at: at(s) }, { decision: 'e', s: 251 }),
    told('lease.revoking', 5, {}, { s: 252 }),
    told('lease.revoked', 6, { evidence }, { s: 253 }),
    told('task.ended', 6, {}, { s: 253 }),
  ]
  const short = { ...ofGrant, expires_at: at(301) }
  const before = [opened, decided, told('lease.reserved', 1, short), told('lease.issued', 2, short), again]
  const faults = (s: number): string[] => read([...before, ...refreshed(s)], undefined, [answer({}, '300000ms')]).faults
  expect(faults(550)).toEqual([])
  expect(faults(301)).toEqual([])
  expect(faults(560)).toEqual(['2: l was given a longer life than its decisions permit'])
})

test('a fresh credential of the broker itself rests on a decision about its grant too', () => {
  const refreshed = told('lease.refreshed', 3, { ...ofGrant, grant: 'other' })
  expect(read([...lawfulOfGrant.slice(0, 4), refreshed, revoking, revoked, ended], undefined, [answer()]).faults).toEqual([
    '4: l rests on no decision that permits it',
  ])
})

test('a lease that is alive and may be is none', () => {
  expect(read([opened, decided, reserved, issued], Date.parse(at(599)))).toMatchObject({ faults: [], lives: { alive: 1 } })
})

test('transactions that overlapped may stand in another order than they had their locks in', () => {
  const entries = [
    opened,
    decided,
    reserved,
    { ...revoking, xid: '2', id: 'ent_9' },
    { ...issued, xid: '3', id: 'ent_8' },
    { ...revoked, id: 'ent_91' },
    ended,
  ]
  expect(read(entries).faults).toEqual([])
})

test('an end that was begun late, or done late, is counted, and is no fault', () => {
  const end = (begun: number, done: number): ReturnType<typeof read> => {
    const told4 = [told('lease.expired', 4, { evidence }, { s: done }), told('task.ended', 4, {}, { s: done })]
    return read([opened, decided, reserved, issued, told('lease.revoking', 3, {}, { s: begun }), ...told4])
  }
  expect(end(700, 701)).toMatchObject({ faults: [], lives: { late: 1, latest: { lease: 'l', seconds: 101 } } })
  expect(end(300, 11_400)).toMatchObject({ faults: [], lives: { late: 1, latest: { lease: 'l', seconds: 10_800 } } })
  expect(end(300, 1_499)).toMatchObject({ faults: [], lives: { late: 0, latest: undefined } })
})

test.each([
  ['something else was told in between', [told('policy.activated', 8, {}, { s: 120 })]],
  ['nothing else was told', []],
])('a lease that ends long after its task is told, where %s', (_, others) => {
  const after = (s: number): string[] => {
    const end = told('lease.revoked', 9, { evidence }, { s })
    return read([opened, decided, reserved, issued, revoking, ended, ...others.filter((other) => other.at < end.at), end]).faults
  }
  expect(after(10_800)).toEqual(['-: l lives on, though t has ended'])
  expect(after(10)).toEqual([])
})

test('a lease whose end stands behind that of its task in the log is held against the deadline all the same', () => {
  const long = told('lease.reserved', 1, { ...lease, expires_at: at(601) })
  expect(read([opened, decided, long, issued, revoking, ended, told('lease.revoked', 5, { evidence })]).faults).toEqual([
    '2: l was given a longer life than its task has',
  ])
})

test('a lease may expire at its end, before it where its provider says so, and after it came back at any time', () => {
  const past = [told('lease.lapsing', 3, {}, { s: 300 }), told('lease.expired', 4, {}, { s: 600 }), told('task.ended', 4, {}, { s: 600 })]
  expect(read([opened, decided, reserved, issued, ...past]).faults).toEqual([])
  expect(read(instead(revoked, told('lease.expired', 4, { evidence: { ...evidence, by: 'time' } }))).faults).toEqual([])
  const back = told('lease.reopened', 5, {}, { s: 5_000 })
  expect(read([...lawful, back, told('lease.expired', 6, {}, { s: 5_001 })]).faults).toEqual([])
})

test('of refreshes that overlapped, the end that holds may be told before another', () => {
  const refreshing = (xid: number, end: number, id: string): EntryFields => told('lease.refreshing', xid, { expires_at: at(end) }, { id })
  const entries = [
    opened,
    decided,
    reserved,
    issued,
    refreshing(3, 500, 'ent_102'),
    refreshing(4, 590, 'ent_101'),
    told('lease.revoking', 5, {}, { s: 500 }),
    told('lease.expired', 6, {}, { s: 530 }),
    told('task.ended', 6, {}, { s: 530 }),
  ].map((entry, place) => ({ ...entry, id: entry.id || `ent_${place < 4 ? '0' : '2'}${place}` }))
  expect(read(entries).faults).toEqual([])
})

test('a lease that came back has to end again, however long it was gone', () => {
  const back = told('lease.reopened', 5, {}, { s: 5_000 })
  expect(read([...lawful, back, told('lease.revoked', 6, { evidence }, { s: 5_001 })]).faults).toEqual([])
  expect(read([...lawful, told('lease.revoked', 6, { evidence }, { s: 5_001 })]).faults).toEqual([expect.stringContaining('l was revoked without')])
})

test('a renewal gives the task, and what is issued from then on, a longer life', () => {
  const renewed = [
    told('task.renewed', 2, { deadline: at(900) }),
    told('lease.refreshing', 3, { expires_at: at(900) }),
    told('lease.refreshed', 3, { expires_at: at(900) }),
  ]
  expect(read([opened, decided, reserved, issued, ...renewed, told('lease.revoking', 4), told('lease.revoked', 5, { evidence })]).faults).toEqual([])
})
