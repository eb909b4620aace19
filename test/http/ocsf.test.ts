import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { idFrom, newId } from '../../src/base/ids.ts'
import type { Json } from '../../src/base/json.ts'
import { formats } from '../../src/http/follow.ts'
import { type EntryKind, entryKinds } from '../../src/proof/entry-kinds.ts'
import type { EntryFields } from '../../src/proof/leaf.ts'
import { faultsOf } from '../support/ocsf.ts'

const [task, lease, decision, id] = [newId('task'), newId('lease'), newId('dec'), newId('ent')]
const at = '2026-11-26T15:30:48.098Z'
const operator = 'operator:corp/alice'

interface Example {
  readonly about: Partial<EntryFields>
  readonly body: Json
  /** What it has to come to. */
  readonly event: object
}

const ofTask = { agent: 'bot', task }
const ofLease = { ...ofTask, lease, decision }
const ended = { cause: 'revoked', reason: 'seen in a log', by: operator }
const promised = { grant: 'crm', provider: 'lab', revocation: 'provider', standing: false, parameters: { customer: 'acme' }, expires_at: at }
const evidence = { by: 'provider', statement: 'DELETE answered 204', at }
const bot = { name: 'bot', type_id: 4, type: 'Service' }
const alice = { user: { uid: operator, type_id: 99, type: 'operator' } }
const crm = [{ name: 'crm', type: 'Grant', namespace: 'lab', data: { customer: 'acme' } }]
const entity = (type: string, uid: string) => ({ uid, type_id: 99, type })
const aTask = entity('Task', task)

/** An entry of each kind as the broker writes it, and what a SIEM is to see. */
const examples: Readonly<Record<EntryKind, Example>> = {
  'task.opened': {
    about: ofTask,
    body: { kind: 'work', purpose: 'sync', deadline: at },
    event: { type_uid: 300401, activity_name: 'Create', status: 'Success', actor: { user: bot }, entity: aTask },
  },
  'task.denied': {
    about: ofTask,
    body: { kind: 'work', purpose: 'sync', cause: 'policy' },
    event: { type_uid: 300401, status: 'Failure', status_code: 'policy', actor: { user: bot }, entity: aTask },
  },
  'task.closing': {
    about: ofTask,
    body: { ...ended, outcome: 'revoked' },
    event: { type_uid: 300499, activity_name: 'Close', comment: 'seen in a log', actor: alice, entity: aTask },
  },
  'task.ended': { about: ofTask, body: { state: 'revoked', cause: 'revoked' }, event: { type_uid: 300411, status: 'Success', entity: aTask } },
  'task.renewed': { about: { ...ofTask, decision }, body: { deadline: at }, event: { type_uid: 300403, actor: { user: bot }, entity: aTask } },
  'task.reissued': { about: ofTask, body: {}, event: { type_uid: 300403, actor: { user: bot }, entity: aTask } },
  'decision.made': {
    about: { ...ofTask, decision },
    body: { action: 'issue', outcome: 'deny', policies: ['no-robots'], policy_digest: 'sha256:ab', obligations: {}, answers_digest: 'sha256:cd' },
    event: {
      type_uid: 99,
      activity_name: 'issue',
      status: 'Failure',
      action: 'Denied',
      authorizations: [{ policy: { name: 'no-robots', version: 'sha256:ab' } }],
      actor: { user: bot },
    },
  },
  'lease.reserved': {
    about: ofLease,
    body: promised,
    event: { type_uid: 300599, activity_name: 'Announce', privileges: [lease], user: bot, resources: crm },
  },
  'lease.issued': {
    about: ofLease,
    body: promised,
    event: { type_uid: 300501, activity_name: 'Assign Privileges', status: 'Success', privileges: [lease], user: bot, resources: crm },
  },
  'lease.refreshing': { about: ofLease, body: promised, event: { type_uid: 300599, activity_name: 'Announce Refresh', resources: crm } },
  'lease.refreshed': {
    about: ofLease,
    body: { expires_at: at },
    event: { type_uid: 300599, activity_name: 'Refresh', status: 'Success', privileges: [lease] },
  },
  'lease.not_refreshed': {
    about: ofLease,
    body: { expires_at: at, error: 'no answer' },
    event: { type_uid: 300599, activity_name: 'Refresh', status: 'Failure', status_detail: 'no answer' },
  },
  'lease.revoking': {
    about: ofLease,
    body: ended,
    event: { type_uid: 300599, activity_name: 'Begin Revocation', actor: alice, privileges: [lease] },
  },
  'lease.lapsing': {
    about: ofLease,
    body: { cause: 'completed' },
    event: { type_uid: 300599, activity_name: 'Await Expiry', status_code: 'completed' },
  },
  'lease.revoked': {
    about: ofLease,
    body: { ...ended, evidence },
    event: { type_uid: 300502, activity_name: 'Revoke Privileges', status: 'Success', status_detail: 'DELETE answered 204', actor: alice },
  },
  'lease.expired': {
    about: ofLease,
    body: { cause: 'lease_expired', by: 'broker' },
    event: { type_uid: 300599, activity_name: 'Expire', status: 'Success', actor: { app_name: 'broker' } },
  },
  'lease.failed': {
    about: ofLease,
    body: { cause: 'mint_failed', by: 'broker', error: 'refused' },
    event: { type_uid: 300501, status: 'Failure', status_detail: 'refused' },
  },
  'lease.reopened': { about: ofLease, body: {}, event: { type_uid: 300599, activity_name: 'Reopen', severity: 'Medium' } },
  'lease.stuck': {
    about: ofLease,
    body: { error: 'no answer' },
    event: { type_uid: 300502, status: 'Failure', severity: 'High', status_detail: 'no answer' },
  },
  'policy.activated': {
    about: {},
    body: { policy_digest: 'sha256:ab' },
    event: { type_uid: 300410, entity: { uid: 'sha256:ab', type_id: 5, type: 'Policy', policy: { uid: 'sha256:ab' } } },
  },
  'request.denied': {
    about: { ...ofTask, decision },
    body: { action: 'renew', cause: 'stopped', stop: 'stop_1' },
    event: { type_uid: 99, activity_name: 'renew', action: 'Denied', status: 'Failure', status_code: 'stopped', actor: { user: bot } },
  },
  'request.refused': {
    about: {},
    body: { call: 'POST /revocations', by: 'reviewer:corp/bob' },
    event: {
      type_uid: 99,
      activity_name: 'POST /revocations',
      action: 'Denied',
      severity: 'Medium',
      actor: { user: { uid: 'reviewer:corp/bob', type_id: 99, type: 'reviewer' } },
    },
  },
  'revocation.started': {
    about: {},
    body: { revocation: 'rev_1', selector: { agent: 'bot' }, reason: 'seen in a log', by: operator, tasks: 2, leases: [] },
    event: { type_uid: 300401, entity: entity('Revocation', 'rev_1'), comment: 'seen in a log', actor: alice },
  },
  'revocation.ended': {
    about: {},
    body: { revocation: 'rev_1', tasks: 2, leases: 4 },
    event: { type_uid: 300411, entity: entity('Revocation', 'rev_1') },
  },
  'stop.began': {
    about: {},
    body: { stop: 'stop_1', selector: {}, reason: 'seen in a log', by: operator, until: at },
    event: { type_uid: 300410, entity: entity('Stop', 'stop_1'), actor: alice },
  },
  'stop.lifted': {
    about: {},
    body: { stop: 'stop_1', reason: 'over', by: operator },
    event: { type_uid: 300411, entity: entity('Stop', 'stop_1'), comment: 'over', actor: alice },
  },
  'kill_list.written': {
    about: {},
    body: { provider: 'aws', role: 'mayfly-invoices', generation: 7, digest: 'sha256:ab', rung: 'names', names: 3 },
    event: { type_uid: 300403, entity: { ...entity('Kill list', 'mayfly-invoices'), version: '7' } },
  },
  'log.opened': {
    about: {},
    body: {
      log: 2,
      origin: 'broker.test/log/2',
      key: 'broker.test/log/2+ab+cd',
      closed: { origin: 'broker.test', key: 'broker.test+ab+ef', size: 7, root: 'gh', checkpoint: 'broker.test\n7\ngh\n' },
    },
    event: { type_uid: 300410, severity: 'Medium', status: 'Success', entity: entity('Log', 'broker.test/log/2') },
  },
}

type Event = Readonly<Record<string, unknown>> & { readonly metadata: Readonly<Record<string, unknown>> }

const hash = Buffer.alloc(32).toString('base64')

/** As it is sent. */
const sent = (entry: EntryFields, number = 7): Event => JSON.parse(formats.ocsf({ number, leaf_hash: hash, entry })) as Event

describe('an entry as an event of OCSF', () => {
  test.each(entryKinds)('%s is what the schema says of its class, and leads back to the ledger', (kind) => {
    const { about, body, event } = examples[kind]
    const made = sent({ id, at, xid: '762', kind, ...about, body })
    expect(faultsOf(made)).toEqual([])
    expect(made).toMatchObject(event)
    expect(made).toMatchObject({
      time: Date.parse(at),
      metadata: { version: '1.8.0', uid: id, sequence: 7, event_code: kind },
      unmapped: { number: 7, leaf_hash: hash, xid: '762', ...about, body },
    })
    const { task: itsTask } = about
    if (itsTask !== undefined) expect(made.metadata['correlation_uid']).toBe(itsTask)
  })

  test('says nothing that the entry does not say', () => {
    const without = sent({ id, at, xid: '1', kind: 'task.ended', ...ofTask, body: { state: 'completed' } })
    expect(Object.keys(without)).not.toEqual(expect.arrayContaining([expect.stringMatching(/^(actor|comment|status_code|status_detail)$/)]))
    expect(sent({ id, at, xid: '1', kind: 'lease.revoked', ...ofLease, body: { evidence } })).not.toHaveProperty('resources')
    const determined = sent({ id, at, xid: '1', kind: 'decision.made', ...ofTask, body: { outcome: 'deny', policies: ['one', 'other'] } })
    expect(determined['authorizations']).toEqual([{ policy: { name: 'one' } }, { policy: { name: 'other' } }])
    const undetermined = sent({
      id,
      at,
      xid: '1',
      kind: 'decision.made',
      ...ofTask,
      body: { action: 'issue', outcome: 'deny', policies: [], policy_digest: 'sha256:ab' },
    })
    expect(undetermined).toMatchObject({
      status: 'Failure',
      action: 'Denied',
      authorizations: [{ decision: 'deny', policy: { type: 'Cedar', version: 'sha256:ab' } }],
    })
  })

  test('of what is over by time is never said to be revoked', () => {
    const lapsed = entryKinds.filter((kind) => /lapsing|expired/.test(kind)).map((kind) => sent({ id, at, xid: '1', kind, ...ofLease, body: {} }))
    expect(lapsed.map(({ type_uid }) => type_uid)).toEqual([300599, 300599])
  })

  test('whose place in the history is empty is the gravest there is, dated by its id', () => {
    const missing = `${idFrom('ent', Date.parse(at))}abcdefghjkmnpqrs`
    const made = JSON.parse(formats.ocsf({ number: 7, leaf_hash: hash, missing })) as Event
    expect(faultsOf(made)).toEqual([])
    expect(made).toMatchObject({
      class_uid: 0,
      severity: 'Critical',
      status: 'Failure',
      time: Date.parse(at),
      metadata: { uid: missing, sequence: 7 },
    })
  })

  test('of a kind, or with a body, that no version has written is an event all the same', () => {
    const name = fc.option(fc.string({ minLength: 1 }), { nil: undefined })
    const place = fc.record({ agent: name, task: name, lease: name, decision: name }, { requiredKeys: [] })
    const field = fc.constantFrom(
      'by',
      'cause',
      'reason',
      'grant',
      'policies',
      'outcome',
      'action',
      'call',
      'stop',
      'revocation',
      'evidence',
      'parameters',
    )
    const body = fc.oneof(fc.jsonValue(), fc.dictionary(field, fc.oneof(fc.string(), fc.array(fc.string()), fc.jsonValue())))
    fc.assert(
      fc.property(fc.constantFrom(...entryKinds, 'lease.praised', 'toString'), place, body, (kind, about, held) => {
        const made = sent({ id, at, xid: '1', kind, ...(about as Partial<EntryFields>), body: held as Json })
        expect(faultsOf(made)).toEqual([])
      }),
      { numRuns: 2_000 },
    )
  })
})
