import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { createExports } from '../../src/console/export.ts'
import { readEntry } from '../../src/ledger/entries.ts'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { logKeyOf } from '../../src/ledger/log-key.ts'
import { type LogRefusal, stepLog } from '../../src/ledger/signing.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { leafOf } from '../../src/proof/leaf.ts'
import { checkProof } from '../../src/proof/entry-proof.ts'
import type { House } from '../support/house.ts'
import { growAll } from '../support/log.ts'
import { asOwner } from '../support/owner.ts'
import { openEmbedded } from '../support/stores.ts'
import { type ConsoleHouse, type FurnishedHouse, furnish, textOf, untilDead, type Visitor } from './given.ts'

const markup = `"><script>alert('x')</script><img src=x onerror=alert(1)>`

describe("the reviewer's questions in the console", () => {
  let given: FurnishedHouse
  let house: House
  let console: ConsoleHouse
  let reviewer: Visitor
  let refusal: LogRefusal | undefined

  beforeAll(async () => {
    given = await furnish(openEmbedded, { sequencer: { refusal: () => refusal } })
    ;({ house, console, reviewer } = given)
  })
  afterEach(async () => {
    await house.lab.clear()
    expect(await house.audit()).toEqual([])
  })
  afterAll(() => given.stop())

  const log = () => ({ ledger: house.ledger, key: logKeyOf(new Uint8Array(32).fill(1)), origin: 'log.example.com' })

  const pageOf = async (path: string) => {
    const answer = await reviewer.get(path)
    const text = await answer.text()
    const [table = ''] = /<tbody>[\s\S]*<\/tbody>/.exec(text) ?? []
    return { status: answer.status, text, rows: textOf(table), links: [...table.matchAll(/\/console\/tasks\/(task_\w+)/g)].map(([, id]) => id!) }
  }

  test('who held a grant between two times is found by its address, and what was held before or after is not', async () => {
    const task = await house.declare(['crm'])
    await task.complete()
    const [now, soon] = [new Date(Date.now() - 60_000).toISOString(), new Date(Date.now() + 60_000).toISOString()]
    const asked = (from: string, to: string, grant = 'crm') => `/ledger/leases?${new URLSearchParams({ grant, from, to }).toString()}`
    const { links, rows } = await pageOf(asked(now, soon))
    expect(links).toEqual([task.id])
    expect(rows).toContain('revoked crm')
    expect(rows).toContain('owner@example.com')
    expect((await pageOf(asked(now, soon, 'api'))).links).toEqual([])
    expect((await pageOf(asked('2020-01-01T00:00:00Z', '2020-02-01T00:00:00Z'))).links).toEqual([])
  })

  test('an answer stays below 50 kB with as many rows as a page has, each with the longest purpose, and the older ones are behind it', async () => {
    const tasks = await Promise.all(Array.from({ length: 41 }, () => house.declare(['api'], { agent: 'bot', purpose: 'x'.repeat(1_000) })))
    for (const path of ['/ledger/tasks', '/ledger/leases', '/ledger']) {
      const { text, links } = await pageOf(`${path}?agent=bot`)
      expect(links).toHaveLength(40)
      expect(text).toContain('rel="next"')
      expect(Buffer.byteLength(text)).toBeLessThan(50_000)
    }
    for (const task of tasks) await task.complete()
  })

  test('everything that an agent or an owner had is found by either', async () => {
    const task = await house.declare(['api'], { agent: 'rival', purpose: markup })
    for (const asked of ['agent=rival', 'owner=rival@example.com']) {
      const { links, text } = await pageOf(`/ledger/tasks?${asked}`)
      expect(links).toEqual([task.id])
      expect(text).not.toContain('<script>alert')
      expect(text).toContain('&lt;script&gt;alert(')
    }
    await task.complete()
    expect((await pageOf('/ledger/tasks?agent=rival&completed=false')).links).toEqual([])
  })

  test('what was denied is found by its policy, or by that none permitted it', async () => {
    await house.declare(['api'], { agent: 'stranger' }).catch(() => {})
    expect((await pageOf('/ledger/denials?by_default=true&agent=stranger')).rows).toContain('no policy permits api')
    expect((await pageOf('/ledger/denials?policy=never')).text).toContain('Nothing is kept that fits')
  })

  test('what outlives its task, and later has ended late, is found with how late and why', async () => {
    const task = await house.declare(['crm'])
    await house.lab.down()
    await task.complete(0)
    await house.broker.background.settled()
    await house.ledger.run(sql`update leases set closing_at = closing_at - interval '2 minutes' where task_id = ${task.id}`)
    await house.ledger.run(sql`update tasks set closing_at = closing_at - interval '2 minutes' where id = ${task.id}`)
    expect((await pageOf('/ledger/leases?outlived_task=1m')).links).toEqual([task.id])
    await house.lab.up()
    await untilDead(house, task.id)
    expect((await pageOf('/ledger/leases?outlived_task=1m')).links).toEqual([])
    const { links, rows } = await pageOf('/ledger/leases?ended_late=10s')
    expect(links).toEqual([task.id])
    expect(rows).toMatch(/1[23]\d\.\d s/)
    expect(rows).toContain('lab')
  })

  test('tasks that were never completed, and what the operator did who ended them, are found with the reason', async () => {
    const task = await house.declare(['api'])
    await task.revoke()
    const never = await pageOf('/ledger/tasks?completed=false')
    expect(never.links).toContain(task.id)
    expect(never.rows).toContain('a test says so')
    expect((await pageOf('/ledger/operators')).text).not.toContain('<tbody>')
    const { links } = await pageOf('/ledger/operators?by=operator:local/operator:ops')
    expect(new Set(links)).toEqual(new Set([task.id]))
  })

  test('what an address asks goes on being asked by the form on its page', async () => {
    const { text } = await pageOf('/ledger/leases?standing=true&grant=crm&cursor=' + newId('lease'))
    expect(text).toContain('<input type="hidden" name="standing" value="true" />')
    expect(text).not.toContain('name="cursor"')
    expect(text).toContain('value="crm"')
  })

  test('the answer of the history can be downloaded whole, in both forms of the API, and by nobody who has not signed in', async () => {
    for (let at = 0; at < 3; at++)
      await house.ledger.run(
        sql`insert into entries (kind, agent, body) select 'policy.activated', 'many', '{"policy_digest": "none"}' from generate_series(1, 400)`,
      )
    await house.ledger.run(sql`insert into entries (kind, agent, body) values ('policy.activated', 'many', '{"policy_digest": "=1+1"}')`)
    const address = /href="\/console(\/ledger\/export\/csv[^"]*)"/.exec((await pageOf('/ledger?agent=many&kind=policy.activated&limit=5')).text)![1]!
    const csv = await reviewer.get(address.replaceAll('&amp;', '&'))
    expect(csv.headers.get('content-disposition')).toBe('attachment; filename="ledger.csv"')
    const lines = (await csv.text()).trimEnd().split('\r\n')
    expect(lines).toHaveLength(1_202)
    expect(new Set(lines).size).toBe(1_202)
    const ndjson = await (await reviewer.get('/ledger/export/ndjson?agent=many')).text()
    expect(
      ndjson
        .trimEnd()
        .split('\n')
        .map((line) => (JSON.parse(line) as { agent: string }).agent),
    ).toEqual(Array(1_201).fill('many'))
    const refused = await reviewer.get('/ledger/export/csv?from=yesterday')
    expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining('from')])
    expect((await reviewer.get('/ledger/export/pdf')).status).toBe(404)
    expect((await console.visitor().get('/ledger/export/csv')).status).toBe(303)
    // More than may be under way at once, one after another: each gives its place back.
    for (let turn = 0; turn < 6; turn++) expect(await (await reviewer.get('/ledger/export/csv?agent=nobody')).text()).toBe(`${lines[0]}\r\n`)
  })

  test('whoever has two downloads under way gets no third, and somebody else does while there are places', async () => {
    const download = createExports(house.ledger)
    const under = [await download({}, 'csv', 'ann'), await download({}, 'ndjson', 'ann')]
    await expect(download({}, 'csv', 'ann')).rejects.toThrow('You have as many downloads as one caller may: 2')
    under.push(await download({}, 'csv', 'bob'), await download({}, 'csv', 'bob'))
    await expect(download({}, 'csv', 'eve')).rejects.toThrow('This broker has as many downloads as it keeps: 4')
    await under.shift()!.cancel()
    under.push(await download({}, 'csv', 'ann'))
    for (const one of under) await one.cancel()
  })

  test('how far the history is signed stands above every answer, and loudly where it is not signed any further', async () => {
    expect(textOf((await pageOf('/ledger')).text)).toContain('nothing was signed yet')
    const memory = { head: undefined }
    while ((await stepLog(log(), memory)).outcome === 'appended');
    const { size } = (await latestCheckpoint(house.ledger))!
    for (const path of ['/ledger', '/ledger/leases', '/ledger/operators']) {
      const text = textOf((await pageOf(path)).text)
      expect(text).toContain(`${size.toLocaleString('en')} entries signed`)
      expect(text).toContain('nothing waits')
      expect(text).not.toContain('not signed any further')
    }
    refusal = 'altered tree'
    const { text } = await pageOf('/ledger')
    refusal = undefined
    expect(text).toContain('<div role="alert" class="alarm">')
    expect(textOf(text)).toContain('The tree in the store does not come to the root that was signed')
    await house.ledger.run(sql`insert into entries (kind, agent, body) values ('policy.activated', 'late', '{"policy_digest": "none"}')`)
    expect(textOf((await pageOf('/ledger')).text)).toMatch(/1 entry waits, the oldest for \d+\.\d s/)
  })

  test('an entry is shown with all that is kept of it and its proof, which anybody can check with the key of the log', async () => {
    const task = await house.declare(['api'], { purpose: markup })
    const { text: list } = await pageOf(`/ledger?task=${task.id}&kind=task.opened`)
    const [, id = ''] = /\/console\/entries\/(ent_\w+)/.exec(list) ?? []
    expect(textOf((await pageOf(`/entries/${id}`)).text)).toContain('The entry has no place in the log yet')
    expect((await pageOf(`/entries/${id}/proof`)).status).toBe(404)

    await growAll(log())
    const { text } = await pageOf(`/entries/${id}`)
    expect(textOf(text)).toContain('It comes to the root that was signed')
    expect(text).not.toContain('<script>alert')
    const proof = await (await reviewer.get(`/entries/${id}/proof`)).text()
    const leaf = leafHash(leafOf((await readEntry(house.ledger, id))!))
    expect(checkProof(proof, leaf, [(await log().key.signerFor(log().origin))!.key])).toMatchObject({ ok: true })
    expect(text).toContain(leaf.toString('base64'))

    for (const other of ['x', newId('ent'), newId('task')]) expect((await pageOf(`/entries/${other}`)).status).toBe(404)
    await task.complete()
  })

  test('an entry that was changed behind the log is seen on its page', async () => {
    const task = await house.declare(['api'])
    await growAll(log())
    const [row] = await house.ledger.run<{ id: string }>(sql`select id from entries where task_id = ${task.id} and kind = 'task.opened'`)
    const giveTo = (agent: string) => asOwner(house.ledger, given.store, [`update entries set agent = '${agent}' where id = '${row!.id}'`])
    await giveTo('rival')
    expect(textOf((await pageOf(`/entries/${row!.id}`)).text)).toContain('It is not what was signed')
    await giveTo('bot')
    expect(textOf((await pageOf(`/entries/${row!.id}`)).text)).toContain('It comes to the root that was signed')
    await task.complete()
  })

  test.each([
    ['/ledger/leases', 'ended_late', 'soon'],
    ['/ledger/leases', 'state', 'dead'],
    ['/ledger/leases', 'cursor', newId('task')],
    ['/ledger/tasks', 'completed', 'true'],
    ['/ledger/tasks', 'from', 'yesterday'],
    ['/ledger/denials', 'by_default', 'maybe'],
    ['/ledger/denials', 'colour', 'red'],
    ['/ledger/operators', 'by', 'ann'],
    ['/ledger/operators', 'by', `operator:${markup}\0`],
  ])('%s answers 400 and names the field where ?%s=%s is garbage', async (path, field, value) => {
    const { status, text } = await pageOf(`${path}?${new URLSearchParams({ [field]: value }).toString()}`)
    expect(status).toBe(400)
    expect(text).toContain(`<code>${field}</code>`)
    expect(text).not.toContain('<script>alert')
  })
})
