import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Ledger } from '../../src/ledger/connect.ts'
import { readEntry } from '../../src/ledger/entries.ts'
import { newId, type LeaseId, type TaskId } from '../../src/base/ids.ts'
import { recordDecision } from '../../src/ledger/refusals.ts'
import { concludeRefresh, extendLease } from '../../src/ledger/extend.ts'
import { keepKey } from '../../src/ledger/keys.ts'
import { killLists } from '../../src/ledger/kill-lists.ts'
import { counts, listDenials, listEntries, listLeases, listTasks, showDecision, toldOfDecision } from '../../src/ledger/lists.ts'
import { decisionsByMinute, liveByProvider, pressing, timesToDead } from '../../src/ledger/overview.ts'
import { nextEntry } from '../../src/ledger/append.ts'
import { latestCheckpoint, listLogs } from '../../src/ledger/checkpoints.ts'
import { beginning, seekStrays } from '../../src/ledger/look.ts'
import { readLeaves } from '../../src/ledger/tiles.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { readLogLines } from '../../src/ledger/log-lines.ts'
import { archivePolicySet, policySetOf } from '../../src/ledger/policy-sets.ts'
import { proveConsistency, proveEntry } from '../../src/ledger/proofs.ts'
import { claimDue, nextClosing, nextDue, putBack, releaseClaims, retryLater, storeTime, sweep } from '../../src/ledger/queue.ts'
import { progressOf, reachOf, startRevocation } from '../../src/ledger/revocations.ts'
import { countLeases, type DecisionRecord } from '../../src/ledger/records.ts'
import { recordRefusal } from '../../src/ledger/refusals.ts'
import { roleSessions } from '../../src/ledger/role-sessions.ts'
import { stepLog } from '../../src/ledger/signing.ts'
import { liftStop, putStop } from '../../src/ledger/stops.ts'
import { journal } from '../../src/ledger/settlement.ts'
import { spendToken } from '../../src/ledger/tokens.ts'
import { lap } from '../../src/reaper.ts'
import { introspect } from '../../src/tasks/introspect.ts'
import { showTask } from '../../src/tasks/show.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { taskOfToken } from '../../src/tasks/token.ts'
import { type House, startHouse } from '../support/house.ts'
import { settled } from '../support/log.ts'
import { announceMint, confirmMint, preparePolicy } from '../support/minting.ts'
import { queryOf } from '../support/query.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { nameOf, noLease, noTask, writeLiving, writePast } from './past.ts'
import { createExaminer, type Examiner } from './plans.ts'

/** Pages that a statement may touch: a page of a listing touches one for each row and a few of the index. */
const few = 400

/** Rows that a step of a statement may read in vain: more, and it looks through them instead of looking something up. */
const inVain = 100

/** Every choice of one value for each key. */
function choices<Options extends Record<string, readonly unknown[]>>(options: Options): { [Key in keyof Options]: Options[Key][number] }[] {
  const found = Object.entries(options).reduce<Record<string, unknown>[]>(
    (chosen, [name, values]) => chosen.flatMap((choice) => values.map((value) => ({ ...choice, [name]: value }))),
    [{}],
  )
  return found as { [Key in keyof Options]: Options[Key][number] }[]
}

const named = (column: string) => [undefined, ...(['busy', 'other', 'none'] as const).map((which) => nameOf(column, which))]
const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000)

/**
 * Tasks of the past, whose tables have some 30,000 pages with their indexes, and such as are open and not due. Those of the second kind have twice as many
 * pages in each table as a statement may touch. A store of the third kind is so small that it may seem as good to read all of it as to look for something,
 * and Postgres knows that hardly any lease needs a provider.
 */
const given = [
  { past: 40_000, living: 2_500, words: 'that Postgres has counted', counted: true, local: false, whole: true },
  { past: 40_000, living: 20_000, words: 'that Postgres has not counted yet', counted: false, local: false, whole: false },
  { past: 5_000, living: 500, words: 'whose credentials are all of our own', counted: true, local: true, whole: false },
]

describe.runIf(stores.some(({ name }) => name === 'Postgres')).each(given)(
  'with $past past tasks and $living living ones $words',
  ({ past, living, counted, local, whole }) => {
    let store: OpenedStore
    let house: House
    let owner: postgres.Sql
    let examiner: Examiner
    /** A broker of the house whose every statement is examined before it is run. */
    let broker: Broker

    beforeAll(async () => {
      store = await openDatabase()
      house = await startHouse(store.settings)
      owner = postgres((store.settings as { url: string }).url, { max: 1, onnotice: () => {} })
      await writePast(owner, past)
      await writeLiving(owner, living, counted)
      if (local) await makeLocal(owner)
      examiner = createExaminer(owner)
      const ledger: Ledger = {
        ...house.ledger,
        run: async (statement, rank, plan) => {
          const verb = verbOf(new Error().stack)
          const { sql, params } = queryOf(statement)
          await examiner.examine(verb, sql, params, plan)
          return await house.ledger.run(statement, rank, plan)
        },
      }
      broker = { ...house.broker, ledger }
    })

    afterAll(async () => {
      await owner.end()
      await house.stop()
      await store.dispose()
    })

    test('a task lives, and is ended in every way, with statements that touch few pages', async () => {
      // The first statements of a connection read the catalogue of the database too.
      await (await house.declare(['api', 'crm'], { broker })).complete()
      const before = examiner.found.length
      const declared = await house.declare(['api', 'crm'], { broker, key: 'growth' })
      const retried = await house.declare(['api', 'crm'], { broker, key: 'growth' })
      expect(retried.id).toBe(declared.id)
      const [api, crm] = retried.leases
      await retried.add('api')
      await retried.refresh(api!)
      await retried.renew(120_000)
      await retried.revokeLease(crm!)
      await introspect(broker, retried.secrets[0]!, 'all')
      await taskOfToken(broker, retried.token)
      await showTask(broker, house.operator, retried.id)
      await countLeases(broker.ledger, retried.id)
      const { decision } = retried.opened
      await showDecision(broker.ledger, decision.id)
      await toldOfDecision(broker.ledger, { id: decision.id, taskId: retried.id })
      await recordDecision(broker.ledger, retried.id, {
        id: newId('dec'),
        agent: 'bot',
        kind: 'work',
        action: 'renew',
        made: { ...decision, answers: [] },
      })
      await policySetOf(broker.ledger, decision.policyDigest)
      const { set } = broker.policy()
      await archivePolicySet(broker.ledger, set.digest, set.document)
      await recordRefusal(broker.ledger, 'POST /stops', 'agent:bot', { agent: 'bot' })
      const stop = { id: newId('stop'), selector: { grant: 'api', agent: 'agent-none' }, reason: 'growth', by: 'operator:o', lasts: 60_000 }
      await putStop(broker.ledger, stop)
      const renewal = { id: newId('dec'), agent: 'bot', kind: 'work', action: 'renew', made: { ...decision, answers: [] } } as const
      await recordDecision(broker.ledger, retried.id, renewal, { cause: 'stopped', stop: stop.id })
      await liftStop(broker.ledger, stop.id, 'growth', 'operator:o')
      await keepKey(broker.ledger, { key: 'growth', requestDigest: '', holder: decision.id, from: undefined })
      await spendToken(broker.ledger, 'growth', daysAgo(0))
      await retried.complete()

      await expect(house.declare(['api'], { broker, agent: 'stranger', key: 'denied' })).rejects.toMatchObject({ code: 'denied' })
      const { id } = await house.declare(['api', 'crm', 'gone-by-itself'], { broker })
      await house.backdate(id, '2 minutes')
      await journal(broker.ledger, { id: noLease, taskId: noTask }, {})
      await retryLater(broker.ledger, { id: noLease, handles: [] }, 'no reason', 0)
      await putBack(broker.ledger, { id: noLease })
      const targets = [...broker.targets.values()].map(({ provider: { name, kind } }) => ({ name, kind }))
      await releaseClaims(broker.ledger, targets)
      await storeTime(broker.ledger)
      while (await lap(broker));
      await nextDue(broker.ledger, targets)
      await nextClosing(broker.ledger, targets)
      await house.broker.background.settled()
      await sweep(broker.ledger, 200)
      await keepKillLists(broker.ledger)
      await settled(house.ledger)
      await keepLog(broker.ledger)
      await refreshOutside(broker.ledger, retried.opened.decision)
      await counts(broker.ledger)
      await recordRefusal(broker.ledger, 'POST /tasks/{id}/revoke', 'reviewer:local/x', { task: retried.id })
      await pressing(broker.ledger, 25)
      await liveByProvider(broker.ledger)
      await decisionsByMinute(broker.ledger, Date.now() - 1_800_000)
      await timesToDead(broker.ledger)

      const asked = examiner.found.slice(before)
      // To count what is alive, each of them is looked at; and of five hundred leases, each is looked up.
      const counting = ['counts', 'liveByProvider', 'timesToDead']
      expect(asked.filter((one) => touchesMuch(one) && !counting.includes(one.verb)).map(inWords)).toEqual([])
      expect(asked.filter(({ vain }) => vain > inVain).map(inWords)).toEqual([])
      expect(asked.filter(({ verb, scans, pages }) => verb === 'timesToDead' && (scans.length > 0 || pages > 5_000)).map(inWords)).toEqual([])
    })

    // What nobody has counted is soon counted, a small store is soon read, and a person who reads can wait for either; an agent cannot.
    if (whole)
      test('a page of tasks, leases or entries touches few pages, whatever it is asked for', async () => {
        const [middle] = await owner<{ id: LeaseId; task_id: TaskId }[]>`select id, task_id from leases order by id offset ${past / 2} limit 1`
        const before = examiner.found.length
        for (const cursor of [undefined, middle!.task_id]) {
          for (const filter of choices({
            // Nothing open is that old, which Postgres cannot know: the page behind the last open task is the one that may cost more.
            state: [undefined, 'completed', 'failed', ...(cursor === undefined ? (['open'] as const) : [])] as const,
            agent: named('agent'),
            kind: named('kind'),
            owner: named('owner'),
          }))
            await listTasks(broker.ledger, filter, { limit: 50, cursor })
        }
        for (const filter of choices({
          state: [undefined, 'revoked', 'failed', 'revoking', 'active'] as const,
          agent: named('agent'),
          grant: named('grant'),
          provider: named('provider'),
          task: [undefined, middle!.task_id],
          stuck: [undefined, true, false],
        }))
          await listLeases(broker.ledger, filter, { limit: 50 })
        for (const filter of choices({
          standing: [true, false],
          state: [undefined, 'revoked', 'expired', 'active'] as const,
          agent: named('agent'),
          provider: named('provider'),
          stuck: [undefined, true],
        }))
          await listLeases(broker.ledger, filter, { limit: 50 })
        for (const filter of choices({
          kind: [undefined, 'task.opened', 'lease.stuck'],
          agent: named('agent'),
          task: [undefined, middle!.task_id],
          lease: [undefined, middle!.id],
          from: [undefined, daysAgo(0.1), daysAgo(20)],
          to: [undefined, daysAgo(0.1), daysAgo(20)],
        }))
          await listEntries(broker.ledger, filter, { limit: 50 })

        const asked = examiner.found.slice(before)
        expect(asked.length).toBeGreaterThan(1_000)
        expect(asked.filter(touchesMuch).map(inWords)).toEqual([])
      }, 300_000)

    if (whole)
      test('each question of a reviewer touches few pages', async () => {
        const before = examiner.found.length
        const times = choices({ from: [undefined, daysAgo(0.1), daysAgo(20)], to: [undefined, daysAgo(0.2), daysAgo(19.9)] })
        for (const time of times) {
          for (const filter of choices({ agent: named('agent'), owner: named('owner'), grant: named('grant') }))
            await listLeases(broker.ledger, { ...filter, ...time }, { limit: 50 })
          for (const filter of choices({ agent: named('agent'), owner: named('owner'), completed: [undefined, false as const] }))
            await listTasks(broker.ledger, { ...filter, ...time }, { limit: 50 })
          for (const policy of [undefined, 'policy-busy', 'policy-other', 'policy-none'])
            await listDenials(broker.ledger, { policy, ...time }, { limit: 50 })
          for (const agent of named('agent'))
            for (const byDefault of [undefined, true as const]) await listDenials(broker.ledger, { agent, byDefault, ...time }, { limit: 50 })
          for (const by of ['operator:corp/busy', 'operator:corp/other', 'operator:corp/none'])
            await listEntries(broker.ledger, { by, ...time }, { limit: 50 })
        }
        const [middle] = await owner<{ id: LeaseId; task_id: TaskId }[]>`select id, task_id from leases order by id offset ${past / 2} limit 1`
        for (const cursor of [undefined, middle!.id])
          for (const endedLate of [1_000, 30_000, 3_600_000]) await listLeases(broker.ledger, { endedLate }, { limit: 50, cursor })
        for (const filter of choices({ agent: named('agent'), owner: named('owner') }))
          await listTasks(broker.ledger, { ...filter, completed: false }, { limit: 50, cursor: middle!.task_id })

        // What was there before a moment and lives still is found by looking at what lives.
        const most = few + living / 10
        expect(
          examiner.found
            .slice(before)
            .filter(({ scans, pages }) => scans.length > 0 || pages > most)
            .map(inWords),
        ).toEqual([])
      }, 240_000)

    if (whole)
      test('a revocation of many looks through what lives, and not through the past', async () => {
        const before = examiner.found.length
        for (const selector of [{ agent: 'agent-none' }, { grant: 'grant-none' }]) {
          const asked = { id: newId('rev'), selector, reason: 'growth', by: 'operator:o', most: 1, stop: undefined }
          await reachOf(broker.ledger, selector)
          const { revocation } = (await startRevocation(broker.ledger, asked))!
          while (await lap(broker));
          await progressOf(broker.ledger, revocation.id)
        }
        const asked = examiner.found.slice(before)
        expect(asked.flatMap(({ scans }) => scans)).toEqual([])
        expect(asked.filter(({ pages }) => pages > living * 5).map(inWords)).toEqual([])
      })

    if (whole)
      test('what has outlived its task is looked for among what lives, and not in the past', async () => {
        const before = examiner.found.length
        const { items } = await listLeases(broker.ledger, { outlivedTask: 60_000 }, { limit: 50 })
        const [looked] = examiner.found.slice(before)
        // What only time ends is left of a task that ended above, and was moved into the past beyond its own end.
        expect(items.filter(({ grant }) => grant !== 'gone-by-itself')).toEqual([])
        expect(looked!.scans).toEqual([])
        expect(looked!.pages).toBeLessThan(living * 5)
      })

    if (whole)
      test('what is alive is looked for among what lives, and not in the past', async () => {
        const before = examiner.found.length
        for (const filter of choices({ agent: named('agent'), provider: named('provider'), state: [undefined, 'lapsing'] as const }))
          await listLeases(broker.ledger, { alive: true, ...filter }, { limit: 50 })
        const asked = examiner.found.slice(before)
        expect(asked.flatMap(({ scans }) => scans)).toEqual([])
        expect(asked.filter(({ pages }) => pages > living * 5).map(inWords)).toEqual([])
      })

    test('in a storm, what is due is claimed and looked for with statements that touch few pages, however much waits behind it', async () => {
      const [lab, tokens] = [
        { name: 'lab', kind: 'http' },
        { name: 'tokens', kind: 'tokens' },
      ]
      await owner`update leases set state = 'revoking', closing_at = now(), due_at = now() - n * interval '1 ms', provider = ${lab.name}, provider_kind = ${lab.kind}
        from generate_series(1, ${living}::int) as n where id = 'lease_1' || lpad(n::text, 25, '0') and not local`
      await owner`update leases set provider = ${tokens.name}, provider_kind = ${tokens.kind} where id like 'lease_1%' and local`
      await owner`update tasks set deadline = now() where id like 'task_1%'`
      const before = examiner.found.length

      await claimDue(broker.ledger, [{ ...lab, free: 4 }])
      await nextDue(broker.ledger, [lab])
      await nextClosing(broker.ledger, [tokens])

      const asked = examiner.found.slice(before)
      expect(asked.map(({ verb }) => verb)).toEqual(expect.arrayContaining(['claimDue', 'untilThe']))
      // A claim writes four rows with all their indexes; a look reads one.
      expect(asked.filter(({ verb, pages }) => pages > (verb === 'claimDue' ? 200 : 20)).map(inWords)).toEqual([])
    })

    if (whole)
      test('no statement of the ledger was forgotten here', async () => {
        expect([...new Set(examiner.found.map(({ verb }) => verb))].toSorted()).toEqual(await verbsOfLedger())
      })
  },
)

/** Makes all leases those of the broker itself. */
async function makeLocal(owner: postgres.Sql): Promise<void> {
  await owner`update leases set local = true`
  await owner`vacuum (full, analyze) leases`
}

/** Every statement about sessions of AWS, for a role of the past and for one that is new. */
async function keepKillLists(ledger: Ledger): Promise<void> {
  const [sessions, lists] = [roleSessions(ledger), killLists(ledger)]
  await preparePolicy(ledger)
  await lists.doubt('past-7')
  for (const [provider, role] of [
    ['past-7', 'role-7'],
    ['new', 'role'],
  ] as const) {
    const minting = await announceMint(ledger)
    expect(await sessions.reserve(provider, minting.id, [role])).toMatchObject({ outcome: 'reserved' })
    const held = await lists.take(provider, role, 'one', 0)
    if (typeof held === 'number') throw new Error(`held for ${held} ms`)
    expect(await lists.closeCohort(provider, role, 'one')).toBe(true)
    const generation = held.generation + 1
    const document = { generation, digest: null, killed: [], cutoff: undefined, rung: 4, sacrificed: held.sessions.map(({ name }) => name) }
    expect(await lists.intend(provider, role, 'one', document)).toBe(true)
    const denied = await sessions.deny(provider, minting.id)
    expect(
      await lists.wrote(
        provider,
        role,
        'one',
        generation,
        denied.map(({ name }) => name),
      ),
    ).toBe(true)
    expect(await lists.due(provider)).toEqual([role])
    await lists.confirm(provider, role, generation)
    await lists.disturbed(provider, role)
    await lists.checked(provider, role, 'one', 60_000)
    await lists.release(provider, role, 'one')
  }
}

/** Every statement about the log: its first step and the next, and what readers ask of it. */
async function keepLog(ledger: Ledger): Promise<void> {
  const log = { ledger, key: logKeyOf(new Uint8Array(32)), origin: 'broker.example.com' }
  const memory = { head: undefined }
  for (let step = 0; step < 2; step++) expect(await stepLog(log, memory, 64)).toMatchObject({ outcome: 'appended' })
  const { size } = (await latestCheckpoint(ledger))!
  const [first] = await readLeaves(ledger, { number: 1, first: 0 }, 0, 64)
  expect(await readLogLines(ledger, 0, 32)).toHaveLength(32)
  expect(await proveEntry(ledger, first!.id)).toMatchObject({ index: 0 })
  expect(await readEntry(ledger, first!.id)).toEqual(first)
  expect(await listLogs(ledger)).toHaveLength(1)
  await nextEntry(ledger)
  expect(await seekStrays(ledger, beginning, 64)).toMatchObject({ strays: [] })
  expect(await proveConsistency(ledger, 1, 1, size)).toBeDefined()
}

/** A lease whose provider is outside the broker, refreshed. */
async function refreshOutside(ledger: Ledger, made: Pick<DecisionRecord, 'outcome' | 'policies' | 'policyDigest' | 'obligations'>): Promise<void> {
  const lease = await announceMint(ledger)
  await confirmMint(ledger, lease)
  const decision = { id: newId('dec'), agent: 'bot', kind: 'work', action: 'issue' as const, made: { ...made, answers: [] } }
  const extension = await extendLease(ledger, lease, decision, 60_000)
  if (!extension || 'stop' in extension) throw new Error('the lease has ended')
  await concludeRefresh(ledger, extension, { to: 'refreshed', expiresAt: extension.until, digests: {} })
}

const touchesMuch = ({ scans, pages }: Examiner['found'][number]) => scans.length > 0 || pages > few
const inWords = ({ verb, plan, scans, pages, text, params }: Examiner['found'][number]) =>
  `${verb} (${plan} plan) touches ${pages} pages${scans.length > 0 ? `, all of ${scans.join()}` : ''}: ${text.slice(0, 400)} ${JSON.stringify(params).slice(0, 200)}`

/** The function of the ledger room whose statement it is, from a stack. */
const verbOf = (stack = ''): string => /at (?:async )?(\w+) \([^)]*\/src\/ledger\/(?!connect)[\w-]+\.ts/.exec(stack)?.[1] ?? 'unknown'

/** Every function of the ledger room that runs a statement. */
async function verbsOfLedger(): Promise<string[]> {
  const room = path.join(import.meta.dirname, '../../src/ledger')
  const texts = await Promise.all((await readdir(room)).map((file) => readFile(path.join(room, file), 'utf8')))
  return texts
    .flatMap((text) => text.split(/^(?:export )?async function /m).slice(1))
    .filter((body) => body.includes('ledger.run'))
    .map((body) => /^\w+/.exec(body)![0])
    .toSorted()
}
