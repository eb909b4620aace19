import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { replayDecision } from '../../src/tasks/replay.ts'
import { type Declared, type House, loadPolicy, startHouse } from '../support/house.ts'
import { asOwner } from '../support/owner.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const tables = ['entries', 'decisions', 'policy_sets']

describe.each(stores)('a decision that is replayed, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  let folder: string
  let task: Declared
  /** Of a set that is archived, and made no decision. */
  let other: string
  const owner = (...statements: readonly string[]): Promise<void> => asOwner(house.ledger, store, statements)
  const replay = () => replayDecision(house.broker, task.opened.decision.id)

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-replay-'))
    store = await open()
    house = await startHouse(store.settings)
    task = await house.declare(['api'])
    const { set } = await loadPolicy(folder, { policies: '@id("all") permit(principal, action, resource);' })
    await archivePolicySet(house.ledger, set.digest, set.document)
    other = set.digest
    await owner(...tables.map((table) => `create table kept_${table} as table ${table}`))
  })
  afterEach(() => owner(...tables.flatMap((table) => [`delete from ${table}`, `insert into ${table} table kept_${table}`])))
  afterAll(async () => {
    await house.stop()
    await store.dispose()
    await rm(folder, { recursive: true, force: true })
  })

  test('comes to the same answer', async () => {
    expect(await replay()).toMatchObject({ archived: { outcome: 'permit', same: true }, current: { outcome: 'permit', same: true } })
  })

  // Each by whoever owns the database.
  test.each([
    [
      'its inputs were changed',
      () => `update decisions set answers = replace(answers::text, 'robots', 'rabbits')::jsonb`,
      'is not what the history says of it: answers_digest',
    ],
    [
      'its outcome and its policies were changed',
      () => `update decisions set outcome = 'deny', policies = '["none"]'`,
      'is not what the history says of it: outcome, policies',
    ],
    [
      'it was given to another policy set',
      () => `update decisions set policy_digest = '${other}'`,
      'is not what the history says of it: policy_digest',
    ],
    [
      'its policy set was changed',
      () => `update policy_sets set document = replace(document::text, 'robots-work', 'robots-rest')::jsonb`,
      'is not the one that has its digest',
    ],
    [
      'its policy set was given a number that is none',
      () => `update policy_sets set document = document || '{"n": 1e400}'`,
      'is not the one that has its digest',
    ],
    ['its policy set was removed', () => 'delete from policy_sets', 'is not in the archive'],
    ['its entry was removed', () => `delete from entries where kind = 'decision.made'`, 'tells of this decision 0 times'],
    [
      'another entry tells of it',
      () =>
        `insert into entries (kind, agent, task_id, decision_id, body) select kind, agent, task_id, decision_id, body from entries where kind = 'decision.made'`,
      'tells of this decision 2 times',
    ],
  ])('is refused where %s, in words that say so', async (_, statement, words) => {
    await owner(statement())
    const code = words === 'is not in the archive' ? 'internal' : 'conflict'
    await expect(replay()).rejects.toMatchObject({ code, detail: expect.stringContaining(words) as unknown })
  })
})
