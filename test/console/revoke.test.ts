import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { listEntries, listRevocations, listStops } from '../../src/ledger/lists.ts'
import { findTask } from '../../src/ledger/records.ts'
import { stopIssuing } from '../../src/tasks/revoke.ts'
import type { House } from '../support/house.ts'
import { openEmbedded } from '../support/stores.ts'
import { type ConsoleHouse, type FurnishedHouse, furnish, textOf, type Visitor } from './given.ts'

const markup = `"><script>alert('x')</script><img src=x onerror=alert(1)>`

describe('ending many in the console', () => {
  let given: FurnishedHouse
  let house: House
  let console: ConsoleHouse
  let operator: Visitor
  let reviewer: Visitor

  beforeAll(async () => {
    given = await furnish(openEmbedded)
    ;({ house, console, operator, reviewer } = given)
  })
  afterEach(async () => {
    await house.reap()
    expect(await house.audit()).toEqual([])
  })
  afterAll(() => given.stop())

  const pageOf = async (path: string, visitor = operator) => {
    const answer = await visitor.get(path)
    return { status: answer.status, text: await answer.text() }
  }
  const started = async () => (await listRevocations(house.ledger, undefined, { limit: 50 })).items.length
  const inForce = async () => (await listStops(house.ledger, true, { limit: 50 })).items
  const refusals = async () =>
    (await listEntries(house.ledger, { kind: 'request.refused' }, { limit: 50 })).items.map(({ body }) => (body as { call: string }).call)

  test('begins with true counts, changes nothing until they are confirmed, and is shown until the last is dead', async () => {
    const tasks = await Promise.all([1, 2].map(() => house.declare(['api', 'crm'])))
    const other = await house.declare(['api'], { agent: 'rival' })
    const plan = await pageOf('/revoke?agent=bot&owner=')
    expect(plan.status).toBe(200)
    expect(textOf(plan.text)).toContain('2 tasks with 4 leases would end')
    expect(textOf(plan.text)).toContain('type revoke agent bot')
    expect(await started()).toBe(0)

    const answer = await operator.post('/revoke', { agent: 'bot', reason: `seen in a chat ${markup}`, confirm: 'revoke agent bot' })
    expect(answer.status).toBe(303)
    const [, place = ''] = /^\/console(\/revocations\/rev_\w+)$/.exec(answer.headers.get('location') ?? '') ?? []
    expect(textOf((await pageOf(place, reviewer)).text)).toMatch(/ending .* Tasks None yet/)
    await house.reap()
    await house.reap()
    const { text } = await pageOf(place, reviewer)
    expect(textOf(text)).toMatch(/all dead .* Tasks revoked 2 Leases revoked 4/)
    expect(text).not.toContain('<script>alert')
    for (const { id } of tasks) expect((await findTask(house.ledger, id))!.task.endedBy).toBe('operator:local/operator:ops')
    expect((await findTask(house.ledger, other.id))!.task.state).toBe('open')
    expect(await inForce()).toEqual([])
    const deeds = textOf((await pageOf('/ledger/operators?by=operator:local/operator:ops', reviewer)).text)
    expect(deeds).toContain('Revoking agent bot')
    await other.complete()
  })

  test('counts what was ending already, before it is confirmed and until it is dead', async () => {
    const task = await house.declare(['gone-by-itself'])
    await task.complete(0)
    const others = '1 lease more was ending already and is not proven dead.'
    expect(textOf((await pageOf('/revoke?agent=bot')).text)).toContain(`0 tasks with 0 leases would end ${others}`)
    const answer = await operator.post('/revoke', { agent: 'bot', reason: 'x', confirm: 'revoke agent bot' })
    const place = answer.headers.get('location')!.replace('/console', '')
    await house.reap()
    const waiting = textOf((await pageOf(place, reviewer)).text)
    expect(waiting).toContain(others)
    expect(waiting).not.toContain('all dead')
    await house.backdate(task.id, '20 minutes')
    await house.reap()
    expect(textOf((await pageOf(place, reviewer)).text)).not.toContain(others)
  })

  test('ends single leases where a grant is named, and their task goes on', async () => {
    const task = await house.declare(['api', 'crm'])
    expect(textOf((await pageOf('/revoke?grant=crm')).text)).toContain('1 lease of 1 task would end')
    await operator.post('/revoke', { grant: 'crm', reason: 'x', confirm: 'revoke grant crm' })
    await house.reap()
    const { task: found, leases } = (await findTask(house.ledger, task.id))!
    expect([found.state, ...leases.map(({ state }) => state)]).toEqual(['open', 'active', 'revoked'])
    await task.complete()
  })

  test('may stop issuing the same, which everybody sees and an operator lifts with a reason', async () => {
    await operator.post('/revoke', { everything: 'true', reason: 'all of it', confirm: 'revoke everything', stop_issuing: '8h' })
    await expect(house.declare(['api'])).rejects.toMatchObject({ code: 'denied' })
    const [stop] = await inForce()
    const seen = await pageOf('/revoke', reviewer)
    expect(textOf(seen.text)).toMatch(/Stops in force .* everything .* all of it/)
    expect(seen.text).not.toContain('/lift')
    expect((await pageOf('/revoke')).text).toContain(`/console/stops/${stop!.id}/lift`)

    const unsaid = await operator.post(`/stops/${stop!.id}/lift`, { reason: ' ' })
    expect([unsaid.status, await unsaid.text()]).toEqual([400, expect.stringContaining('/reason')])
    expect((await operator.post(`/stops/${stop!.id}/lift`, { reason: 'it is over' })).status).toBe(303)
    expect(await inForce()).toEqual([])
    expect((await operator.post(`/stops/${stop!.id}/lift`, { reason: 'twice' })).status).toBe(404)
    await (await house.declare(['api'])).complete()
  })

  test('is refused to a reviewer, who sees what stands, and the ledger keeps each attempt to do it', async () => {
    const task = await house.declare(['api'])
    const stop = await stopIssuing(house.broker, house.operator, { selector: { agent: 'rival' }, reason: markup, lasts: 60_000 })
    const { status, text } = await pageOf('/revoke', reviewer)
    expect(status).toBe(200)
    expect(text).toContain('is for operators')
    expect(text).not.toContain('<script>alert')
    const [before, kept] = [await started(), (await refusals()).length]
    expect((await pageOf('/revoke?agent=bot', reviewer)).status).toBe(403)
    expect((await reviewer.post('/revoke', { agent: 'bot', reason: 'x', confirm: 'revoke agent bot' })).status).toBe(403)
    expect((await reviewer.post(`/stops/${stop.id}/lift`, { reason: 'x' })).status).toBe(403)
    expect((await refusals()).slice(0, -kept || undefined)).toEqual(['POST /stops/{id}/lift', 'POST /revocations'])
    expect(await started()).toBe(before)
    expect((await inForce()).map(({ id }) => id)).toEqual([stop.id])
    expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
    await operator.post(`/stops/${stop.id}/lift`, { reason: 'x' })
    await task.complete()
  })

  test('of a reviewer whose forms come slowly takes four places, and leaves the others to operators', async () => {
    const slow = [1, 2, 3, 4].map(() => reviewer.begin('/revoke'))
    const sent = async (visitor: Visitor) => (await visitor.post('/revoke', {})).status
    await expect.poll(() => sent(reviewer)).toBe(429)
    expect(await sent(operator)).toBe(400)
    for (const form of slow) form.leave()
    await expect.poll(() => sent(reviewer)).toBe(403)
  })

  const complete = { agent: 'bot', reason: 'because', confirm: 'revoke agent bot' }
  test.each<[string, Record<string, string>]>([
    ['confirm', { confirm: 'revoke agent rival' }],
    ['confirm', { confirm: '' }],
    ['confirm', { confirm: '99' }],
    ['reason', { reason: '  ' }],
    ['reason', { reason: 'x'.repeat(501) }],
    ['stop_issuing', { stop_issuing: 'soon' }],
    ['stop_issuing', { stop_issuing: '721h' }],
    ['agent', { agent: 'x'.repeat(129) }],
    ['everything', { everything: 'true' }],
    ['everything', { everything: 'yes' }],
    ['selector', { agent: '' }],
  ])('starts nothing and names the field where %s is at fault: %o', async (field, faulty) => {
    const before = await started()
    const answer = await operator.post('/revoke', { ...complete, ...faulty })
    const text = await answer.text()
    expect(answer.status).toBe(400)
    expect(text).toContain(`<code>${field}</code>`)
    if (faulty['confirm'] !== undefined) expect(text).toContain('value="because"')
    expect(await started()).toBe(before)
    expect(await inForce()).toEqual([])
  })

  test.each([
    ['agent', 'a\0b'],
    ['everything', 'maybe'],
    ['colour', 'red'],
    ['agent', 'x'.repeat(129)],
  ])('answers 400 and names the field where /revoke?%s=%j is garbage', async (field, value) => {
    const { status, text } = await pageOf(`/revoke?${new URLSearchParams({ [field]: value }).toString()}`)
    expect(status).toBe(400)
    expect(text).toContain(`<code>${field}</code>`)
  })

  test.each<[string, Record<string, string>, Record<string, string>]>([
    ['another site', {}, { 'sec-fetch-site': 'cross-site' }],
    ['a form without the token', { form_token: '' }, {}],
  ])('is refused to %s', async (_, fields, headers) => {
    const stop = await stopIssuing(house.broker, house.operator, { selector: { agent: 'rival' }, reason: 'x', lasts: 60_000 })
    const before = await started()
    expect((await operator.post('/revoke', { ...complete, ...fields }, headers)).status).toBe(403)
    expect((await operator.post(`/stops/${stop.id}/lift`, { reason: 'x', ...fields }, headers)).status).toBe(403)
    expect(await started()).toBe(before)
    expect((await inForce()).length).toBe(1)
    await operator.post(`/stops/${stop.id}/lift`, { reason: 'x' })
  })

  test('sends whoever has not signed in to do so, and back to the page of the form', async () => {
    for (const path of ['/revoke', `/stops/${newId('stop')}/lift`]) {
      const answer = await console.visitor().post(path, { form_token: 'x' })
      expect(answer.status).toBe(401)
      expect(await answer.text()).toContain(`href="/console/sign-in?to=${encodeURIComponent('/console/revoke')}"`)
    }
    expect((await console.visitor().get(`/revocations/${newId('rev')}/live`)).status).toBe(401)
  })

  test('says that there is nothing, where there is nothing', async () => {
    for (const path of ['/revocations/x', `/revocations/${newId('rev')}`, `/revocations/${newId('rev')}/live`])
      expect((await pageOf(path)).status, path).toBe(404)
    expect((await operator.post('/stops/x/lift', { reason: 'x' })).status).toBe(404)
  })
})
