import { sql, type SQL } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { type House, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

/** A task of one lease, and ids that nothing has yet. */
interface Subject {
  readonly task: string
  readonly lease: string
  readonly another: string
  readonly decision: string
}

/** What must not stand in a store, and what the audit says where it does. */
interface Breach {
  readonly what: string
  /** Of the lease: `api` is the broker's own, `crm` a provider's, and `gone-by-itself` is ended by time alone. */
  readonly grant: 'api' | 'crm' | 'gone-by-itself'
  readonly of: 'an open task' | 'a task that was completed' | 'a task that was denied'
  /** Each a commit of its own. */
  plant(subject: Subject): readonly SQL[]
  finding(subject: Subject): string
}

/** Another row that differs from one that there is. */
const copied = (table: 'leases' | 'decisions', which: SQL, others: object): SQL => sql`
  insert into ${sql.identifier(table)} select (json_populate_record(found, ${JSON.stringify(others)}::text::json)).* from ${sql.identifier(table)} as found where ${which}`

/** Tells the history what never happened to a lease. */
const toldOfLease = (lease: string, kind: string): SQL => sql`
  insert into entries (kind, agent, task_id, lease_id, decision_id, body) select ${kind}::text, agent, task_id, id, decision_id, '{}' from leases where id = ${lease}`

const toldOfTask = (task: string, kind: string): SQL => sql`
  insert into entries (kind, agent, task_id, body) select ${kind}::text, agent, id, '{}' from tasks where id = ${task}`

/** Tells of another lease, in one commit, what was told of this one. */
const retold = (lease: string, another: string, ...kinds: readonly string[]): SQL => sql`
  insert into entries (kind, agent, task_id, lease_id, decision_id, body) select kind, agent, task_id, ${another}::text, decision_id, body from entries
  where lease_id = ${lease} and kind in (select json_array_elements_text(${JSON.stringify(kinds)}::text::json)) order by id`

const changed = (table: 'leases' | 'tasks', id: string, change: SQL): SQL => sql`update ${sql.identifier(table)} set ${change} where id = ${id}`

const evidence = sql`evidence = '{"by": "provider", "statement": "it is gone", "at": "2026-01-01T00:00:00.000Z"}'`
const over = sql`due_at = null, ended_at = now(), cause = 'revoked'`

const ofLeases: readonly Breach[] = [
  {
    what: 'a credential of a provider that was told of only when it was there',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease, another }) => [copied('leases', sql`id = ${lease}`, { id: another }), retold(lease, another, 'lease.issued')],
    finding: ({ another }) => `a lease has an unlawful story: ${another}: lease.issued`,
  },
  {
    what: 'a credential that was announced in the commit that confirms it',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease, another }) => [copied('leases', sql`id = ${lease}`, { id: another }), retold(lease, another, 'lease.reserved', 'lease.issued')],
    finding: ({ another }) => `a credential was handed out in the commit that announced it: ${another}`,
  },
  {
    what: 'an announcement in another commit than its permit',
    grant: 'api',
    of: 'an open task',
    plant: ({ lease, another }) => [copied('leases', sql`id = ${lease}`, { id: another }), retold(lease, another, 'lease.issued')],
    finding: ({ another }) => `a credential was announced in another commit than its permit: ${another}`,
  },
  {
    what: 'an end of a provider that was not begun before it was confirmed',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'revoked', ${over}, ${evidence}`), toldOfLease(lease, 'lease.revoked')],
    finding: ({ lease }) => `a lease has an unlawful story: ${lease}: lease.reserved lease.issued lease.revoked`,
  },
  {
    what: 'a lease of a provider that expired without having been asked about',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'expired', ${over}`), toldOfLease(lease, 'lease.expired')],
    finding: ({ lease }) => `a lease has an unlawful story: ${lease}: lease.reserved lease.issued lease.expired`,
  },
  {
    what: 'a lease that lapses though its provider can end it',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'lapsing'`), toldOfLease(lease, 'lease.lapsing')],
    finding: ({ lease }) => `a lease has an unlawful story: ${lease}: lease.reserved lease.issued lease.lapsing`,
  },
  {
    what: 'a lease that is being revoked though only time can end it',
    grant: 'gone-by-itself',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'revoking'`), toldOfLease(lease, 'lease.revoking')],
    finding: ({ lease }) => `a lease has an unlawful story: ${lease}: lease.reserved lease.issued lease.revoking`,
  },
  {
    what: 'a lease of the broker itself that waits for somebody',
    grant: 'api',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'revoking'`), toldOfLease(lease, 'lease.revoking')],
    finding: ({ lease }) => `a lease has an unlawful story: ${lease}: lease.issued lease.revoking`,
  },
  {
    what: 'a state that nobody told of',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'lapsing'`)],
    finding: ({ lease }) => `a lease is not where its story ends: ${lease}: lapsing after lease.issued`,
  },
  {
    what: 'a fresh credential that was not announced',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => ['lease.refreshing', 'lease.refreshed', 'lease.refreshed'].map((kind) => toldOfLease(lease, kind)),
    finding: ({ lease }) =>
      `a lease was refreshed without an announcement: ${lease}: lease.reserved lease.issued lease.refreshing lease.refreshed lease.refreshed`,
  },
  {
    what: 'a lease that failed though its credential was handed out',
    grant: 'crm',
    of: 'an open task',
    plant: ({ lease }) => [changed('leases', lease, sql`state = 'failed', ${over}`)],
    finding: ({ lease }) => `a lease failed though it was issued: ${lease}`,
  },
  {
    what: 'other evidence than was told',
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ lease }) => [changed('leases', lease, evidence)],
    finding: ({ lease }) => `a lease ended otherwise than was told: ${lease}`,
  },
]

const ofTasks: readonly Breach[] = [
  ...['task.ended', 'task.closing', 'task.renewed', 'task.reissued', 'lease.issued', 'lease.reserved', 'lease.refreshed'].map((kind): Breach => ({
    what: `${kind} behind the end of a task`,
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ task, lease }) => [kind.startsWith('task.') ? toldOfTask(task, kind) : toldOfLease(lease, kind)],
    finding: ({ task }) => `a task has an unlawful story: ${task}: task.opened lease.issued task.closing task.ended ${kind}`,
  })),
  {
    what: 'an end that was not begun',
    grant: 'api',
    of: 'an open task',
    plant: ({ task }) => [toldOfTask(task, 'task.ended')],
    finding: ({ task }) => `a task has an unlawful story: ${task}: task.opened lease.issued task.ended`,
  },
  {
    what: 'an open task that was told to have ended',
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ task }) => [changed('tasks', task, sql`state = 'open'`)],
    finding: ({ task }) => `a task is not where its story ends: ${task}: open after task.ended`,
  },
  {
    what: 'another final state than was told',
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ task }) => [changed('tasks', task, sql`state = 'expired'`)],
    finding: ({ task }) => `a task ended otherwise than was told: ${task}`,
  },
  {
    what: 'another cause of an end than was told',
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ task }) => [changed('tasks', task, sql`cause = 'deadline'`)],
    finding: ({ task }) => `a task ended otherwise than was told: ${task}`,
  },
  {
    what: 'somebody else who ended it than was told',
    grant: 'api',
    of: 'a task that was completed',
    plant: ({ task }) => [changed('tasks', task, sql`ended_by = 'operator:local/o'`)],
    finding: ({ task }) => `a task is closed otherwise than was told: ${task}`,
  },
  {
    what: 'another cause of a refusal than was told',
    grant: 'api',
    of: 'a task that was denied',
    plant: ({ task }) => [changed('tasks', task, sql`cause = 'limit'`)],
    finding: ({ task }) => `a task was refused otherwise than was told: ${task}`,
  },
]

const ofDecisions: readonly Breach[] = [
  ...Object.entries({
    outcome: 'deny',
    policies: ['another'],
    obligations: { maxTtl: 1 },
    action: 'renew',
    policy_digest: 'sha256:0',
    answers: [],
  }).map(([column, value]): Breach => ({
    what: `a decision with another ${column} than was told`,
    grant: 'api',
    of: 'an open task',
    plant: ({ task, decision }) => [
      copied('decisions', sql`task_id = ${task}`, { id: decision, [column]: value }),
      sql`insert into entries (kind, agent, task_id, decision_id, body)
          select kind, agent, task_id, ${decision}::text, body from entries where kind = 'decision.made' and task_id = ${task}`,
    ],
    finding: ({ decision }) => `a decision is not what its entry says: ${decision}`,
  })),
  {
    what: 'a decision that nobody told of',
    grant: 'api',
    of: 'an open task',
    plant: ({ task, decision }) => [copied('decisions', sql`task_id = ${task}`, { id: decision })],
    finding: ({ decision }) => `a decision is not what its entry says: ${decision}`,
  },
]

const ofEntries: readonly Breach[] = (['task', 'lease', 'decision'] as const).map((noun) => ({
  what: `an entry about a ${noun} that there is not`,
  grant: 'api',
  of: 'an open task',
  plant: ({ task, another, decision }) => {
    const about = { task: [another, null, null], lease: [task, another, null], decision: [task, null, decision] }[noun]
    return [
      sql`insert into entries (id, kind, task_id, lease_id, decision_id, body) values (${`ent_${another}`}, 'lease.stuck', ${about[0]}, ${about[1]}, ${about[2]}, '{}')`,
    ]
  },
  finding: ({ another }) => `an entry is about what is not there: ent_${another}`,
}))

describe.each(stores)('the audit of $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  beforeAll(async () => {
    store = await open()
    house = await startHouse(store.settings)
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
  })

  async function subjectOf({ grant, of }: Breach): Promise<Subject> {
    const unused = { another: newId('lease'), decision: newId('dec') }
    if (of === 'a task that was denied') {
      await expect(house.declare([grant], { agent: 'stranger' })).rejects.toMatchObject({ code: 'denied' })
      const [denied] = await house.ledger.run<{ id: string }>(sql`select id from tasks where state = 'denied' order by id desc limit 1`)
      return { task: denied!.id, lease: '', ...unused }
    }
    const declared = await house.declare([grant])
    if (of === 'a task that was completed') await declared.complete()
    return { task: declared.id, lease: declared.leases[0]!.id, ...unused }
  }

  test.each([...ofLeases, ...ofTasks, ...ofDecisions, ...ofEntries])('finds $what, of $of', async (breach) => {
    const subject = await subjectOf(breach)
    const finding = breach.finding(subject)
    expect(await house.audit()).not.toContain(finding)
    for (const statement of breach.plant(subject)) await house.ledger.run(statement)
    expect(await house.audit()).toContain(finding)
  })

  test('finds a decision that was told twice', async () => {
    const { id } = await house.declare(['api'])
    await house.ledger.run(sql`
      insert into entries (kind, agent, task_id, decision_id, body)
      select kind, agent, task_id, decision_id, body from entries where kind = 'decision.made' and task_id = ${id}`)
    const [told] = await house.ledger.run<{ id: string }>(sql`select id from decisions where task_id = ${id}`)
    expect(await house.audit()).toContain(`a decision was told twice: ${told!.id}`)
  })
})
