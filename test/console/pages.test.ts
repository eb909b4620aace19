import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { newId, type TaskId } from '../../src/base/ids.ts'
import { renderNow } from '../../src/console/now.ts'
import { listDenials, listEntries } from '../../src/ledger/lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { findTask } from '../../src/ledger/records.ts'
import { resumeIssuing, stopIssuing } from '../../src/tasks/revoke.ts'
import { type House, loadPolicy } from '../support/house.ts'
import { stores } from '../support/stores.ts'
import { type ConsoleHouse, type FurnishedHouse, furnish, openConsole, textOf, untilDead, type Visitor } from './given.ts'

/** A look is shown to all for a second. */
const patient = { interval: 200 }

const markup = `</title><script>alert('x')</script><img src=x onerror=alert(1)> & "quoted"`

describe.each(stores)('the pages of the console on $name', ({ open }) => {
  let given: FurnishedHouse
  let house: House
  let console: ConsoleHouse
  let operator: Visitor
  let reviewer: Visitor

  beforeAll(async () => {
    given = await furnish(open)
    ;({ house, console, operator, reviewer } = given)
  })
  afterEach(async () => {
    await house.lab.clear()
    expect(await house.audit()).toEqual([])
  })
  afterAll(() => given.stop())

  const pageOf = async (path: string, visitor = reviewer) => {
    const answer = await visitor.get(path)
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  }

  test('say of a task that a stop refused that an operator had stopped it', async () => {
    const { id } = await stopIssuing(house.broker, house.operator, { selector: { agent: 'rival' }, reason: 'a test', lasts: 60_000 })
    const refused = (await house.declare(['api'], { agent: 'rival' }).catch((error: unknown) => error)) as { code: string; task: TaskId }
    await resumeIssuing(house.broker, house.operator, id, 'the test is over')

    expect(refused.code).toBe('denied')
    expect(textOf((await pageOf(`/tasks/${refused.task}`)).text)).toMatch(/denied .*, because an operator had stopped it/)
  })

  test('run no script and load nothing but what they brought, say so in their headers, and are stored nowhere', async () => {
    const task = await house.declare(['api'])
    const decision = task.opened.decision.id
    for (const address of ['', `/tasks/${task.id}`, '/ledger', '/ledger?cursor=x', `/decisions/${decision}`, '/nothing', '/signed-out']) {
      const { headers, text } = await pageOf(address)
      const policy = headers.get('content-security-policy') ?? ''
      const [, nonce] = /script-src 'nonce-([\w+/=]{24})'/.exec(policy) ?? []
      expect(policy).toBe(
        `default-src 'none'; script-src 'nonce-${nonce}'; style-src 'nonce-${nonce}'; img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'`,
      )
      expect(headers.get('cache-control')).toBe('no-store')
      expect(headers.get('referrer-policy')).toBe('same-origin')
      expect(text.match(/<script|<style/g)).toHaveLength(2)
      expect(text.split(`nonce="${nonce}"`)).toHaveLength(3)
      expect(text).not.toMatch(/\sstyle=|\son\w+=|(?:src|href)="(?:https?:)?\/\//)
    }
    const nonces = await Promise.all([1, 2].map(async () => (await pageOf('')).headers.get('content-security-policy')))
    expect(nonces[0]).not.toBe(nonces[1])
    await task.complete()
  })

  test('show what an agent wrote as text, and as nothing that was verified', async () => {
    const task = await house.declare(['api'], { purpose: markup })
    for (const address of ['', `/tasks/${task.id}`]) {
      await expect.poll(async () => (await pageOf(address)).text.includes('&lt;script&gt;alert('), patient).toBe(true)
      const { text } = await pageOf(address)
      expect(text).not.toContain('<script>alert')
      expect(text).not.toContain('<img')
    }
    expect((await pageOf(`/tasks/${task.id}`)).text).toContain('written by the agent, not verified')
    await task.complete()
  })

  test('say in their own direction what they say, whatever controls of it an agent wrote', async () => {
    const task = await house.declare(['api'], { purpose: 'paid \u202e\u2066 in full' })
    for (const path of [`/tasks/${task.id}`, '/ledger/tasks']) {
      const { text } = await pageOf(path)
      expect(text).toContain('paid \ufffd\ufffd in full')
      expect(text).not.toMatch(/[\u202a-\u202e\u2066-\u2069]/)
    }
    await task.complete()
  })

  test('escape what stands in an address', async () => {
    for (const address of [
      `/ledger?agent=${encodeURIComponent(markup)}`,
      `/find?id=${encodeURIComponent(markup)}`,
      `/tasks/${encodeURIComponent('<b>x')}`,
    ]) {
      const { text } = await pageOf(address)
      expect(text).not.toContain('<script>alert')
      expect(text).not.toContain('<b>x')
    }
  })

  test('send whoever has not signed in to do so, whatever they ask for', async () => {
    for (const address of ['', '/ledger', `/tasks/${newId('task')}`, `/decisions/${newId('dec')}`, '/find?id=x', '/nothing'])
      expect((await console.visitor().get(address)).status).toBe(303)
    expect((await console.visitor().get('/live')).status).toBe(401)
    expect((await console.visitor().get(`/tasks/${newId('task')}/live`)).status).toBe(401)
  })

  test('say that there is nothing, where there is nothing', async () => {
    for (const address of [
      '/nothing',
      '/tasks/x',
      `/tasks/${newId('task')}`,
      `/tasks/${newId('task')}/live`,
      `/decisions/${newId('dec')}`,
      '/decisions/x',
      '/find?id=x',
      `/find?id=${newId('lease')}`,
      '/find',
    ])
      expect((await pageOf(address)).status, address).toBe(404)
  })

  describe('what is alive now', () => {
    test('shows open tasks by their deadline, leases by provider and state, and how many there are', async () => {
      const later = await house.declare(['api', 'crm'], { duration: 600_000, purpose: 'the later one' })
      const sooner = await house.declare(['gone-by-itself'], { duration: 300_000, purpose: 'the sooner one' })
      await expect.poll(async () => textOf((await pageOf('')).text), patient).toContain('3 leases in 2 tasks')
      const { text } = await pageOf('')
      expect(text.indexOf('the sooner one')).toBeGreaterThan(0)
      expect(text.indexOf('the sooner one')).toBeLessThan(text.indexOf('the later one'))
      expect(text).toContain('Nothing is stuck')
      expect(rowOf(text, 'tokens')).toEqual(['tokens', 'answered', '0', '1', '0', '0', '0'])
      expect(rowOf(text, 'lab')).toEqual(['lab', 'answered', '0', '1', '0', '0', '0'])
      await later.complete()
      await sooner.complete(0)
    })

    test('names what refuses to die, since when, how often it was tried, and why in words', async () => {
      const task = await house.declare(['crm'])
      await house.lab.down()
      await task.complete(0)
      await house.broker.background.settled()
      await house.ledger.run(sql`update leases set closing_at = closing_at - interval '6 minutes', due_at = now() where task_id = ${task.id}`)

      // One round asks the backend once more, and a later one sees how long it has failed.
      const afterRound = async () => {
        await house.reap()
        return textOf((await pageOf('')).text)
      }
      await expect.poll(afterRound, patient).toContain('1 revocation is stuck')
      const { text } = await pageOf('')
      const [state, lease, provider, , retries, error] = rowOf(text, 'stuck')
      expect([state, provider]).toEqual(['stuck', 'lab'])
      expect(lease).toBe('crm of bot')
      expect(retries).toMatch(/^\d+$/)
      expect(error).toContain('lab')
      expect(textOf(text)).toContain('The oldest unfinished revocation was asked for')
      expect(textOf((await pageOf(`/tasks/${task.id}`)).text)).toContain('Ending crm is stuck')

      await house.lab.up()
      await untilDead(house, task.id)
      await expect.poll(async () => textOf((await pageOf('')).text), patient).toContain('Nothing is stuck')
    })

    test('is looked at anew where the clock was ahead and is set back', async () => {
      house.skew = 600_000
      await pageOf('')
      const task = await house.declare(['api'], { purpose: 'since the clock is right' })
      house.skew = 0
      expect((await pageOf('')).text).toContain('since the clock is right')
      await task.complete()
    })

    test('stays below 50 KB with as many rows as it shows, each with the longest purpose', async () => {
      const tasks = await Promise.all(Array.from({ length: 30 }, () => house.declare(['api'], { purpose: '<'.repeat(1_000) })))
      await expect.poll(async () => textOf((await pageOf('')).text), patient).toContain('The 25 nearest')
      expect(Buffer.byteLength((await pageOf('')).text)).toBeLessThan(50_000)
      for (const task of tasks) await task.complete()
    })

    test('shows fifteen providers, those first where somebody has to look, and says what the others have', async () => {
      const names = Array.from({ length: 100 }, (_, at) => `provider-${at}`)
      const providers = names.map((name) => ({ name, failing: name === 'provider-98' }))
      const live = names.flatMap((provider, at) => [
        { provider, state: 'active' as const, count: 10 + at, stuck: 0 },
        { provider, state: 'revoking' as const, count: 5, stuck: at === 7 ? 2 : 0 },
      ])
      const sight = { open: [], closing: [], unfinished: [], live, minutes: [], times: [], providers, at: 0 }
      const text = (await renderNow('/console', sight, 0)).toString()
      const shown = names.filter((name) => text.includes(`<td>${name}</td>`))
      expect(shown).toEqual(['provider-7', ...names.slice(-14)])
      const left = live.filter(({ provider }) => !shown.includes(provider)).reduce((total, { count }) => total + count, 0)
      expect(textOf(text)).toContain(`And 85 providers more, with ${left.toLocaleString('en')} live leases and 0 revocations stuck: all leases`)
      expect(text).toContain('href="/console/ledger/leases"')
      expect(Buffer.byteLength(text)).toBeLessThan(10_000)
    })
  })

  describe('the story of a task', () => {
    test('is told from its declaration to the evidence, with the policy that permitted it', async () => {
      const task = await house.declare(['crm'], { purpose: 'nightly sync' })
      await task.complete()
      const { text } = await pageOf(`/tasks/${task.id}`)
      const told = [
        'Declared by bot',
        'Permitted',
        'robots-work',
        'Announced crm',
        'Minted crm',
        'Closing',
        'Ending crm',
        'crm is dead',
        'Ended: completed',
      ]
      const places = told.map((words) => textOf(text).lastIndexOf(words))
      expect(places).not.toContain(-1)
      expect(places).toEqual(places.toSorted((one, other) => one - other))
      expect(text).toContain(`/console/decisions/${task.opened.decision.id}`)
      expect(text).not.toContain('End this task now')
    })

    test('says of a lease that has expired that its time is over, and waits for no evidence', async () => {
      const task = await house.declare(['gone-by-itself'])
      await house.backdate(task.id, '1 hour')
      await house.reap()
      const text = textOf((await pageOf(`/tasks/${task.id}`)).text)
      expect(text).toContain('its time is over')
      expect(text).not.toContain('none yet')
    })

    test('tells a secret that stands from one that ends by itself', async () => {
      const task = await house.declare(['lent', 'gone-by-itself'])
      const { text } = await pageOf(`/tasks/${task.id}`)
      const how = [...text.matchAll(/<td data-label="How it ends">([^<]*)<\/td>/g)].map(([, words]) => words!)
      expect(new Set(how)).toEqual(new Set(['only time ends it', 'only time ends it, but its secret lives on']))
      await task.complete(0)
    })

    test('of a task that was denied says that nothing was given', async () => {
      await house.declare(['api'], { agent: 'stranger' }).catch(() => {})
      const [entry] = (await listEntries(house.ledger, { kind: 'task.denied' }, { limit: 1 })).items
      const { text } = await pageOf(`/tasks/${entry!.taskId}`)
      expect(text).toContain('This task was given none')
      expect(textOf(text)).toMatch(/Denied\s+issue\.\s+Why/)
    })

    test('is found by the id of the task, of a lease, of a decision, of an entry, or of a revocation', async () => {
      const task = await house.declare(['api'])
      const found = async (id: string) => (await reviewer.get(`/find?id=${id}`)).headers.get('location')
      expect(await found(task.id)).toBe(`/console/tasks/${task.id}`)
      expect(await found(` ${task.leases[0]!.id}`)).toBe(`/console/tasks/${task.id}`)
      expect(await found(task.opened.decision.id)).toBe(`/console/decisions/${task.opened.decision.id}`)
      for (const [id, place] of [
        [newId('ent'), 'entries'],
        [newId('rev'), 'revocations'],
      ] as const)
        expect(await found(id)).toBe(`/console/${place}/${id}`)
      await task.complete()
    })
  })

  describe('ending a task', () => {
    test('works by a plain form, with a reason and a name that stay in the ledger', async () => {
      const task = await house.declare(['api', 'crm'])
      const answer = await operator.post(`/tasks/${task.id}/revoke`, { reason: 'the key was seen in a chat' })
      expect(answer.status).toBe(303)
      expect(answer.headers.get('location')).toBe(`/console/tasks/${task.id}`)
      await house.broker.background.settled()

      const found = (await findTask(house.ledger, task.id))!
      expect(found.task).toMatchObject({ state: 'revoked', reason: 'the key was seen in a chat', endedBy: 'operator:local/operator:ops' })
      expect(await house.lab.works(task.secrets[1]!)).toBe(false)
      expect((await pageOf(`/tasks/${task.id}`)).text).toContain('the key was seen in a chat')
    })

    test('is refused to a reviewer, who is shown no button, and the ledger keeps that they tried', async () => {
      const task = await house.declare(['api'])
      expect((await pageOf(`/tasks/${task.id}`)).text).toContain('Ending this task is for operators')
      const answer = await reviewer.post(`/tasks/${task.id}/revoke`, { reason: 'let me' })
      expect(answer.status).toBe(403)
      expect(await answer.text()).toContain('Only an operator may do this')
      expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
      const kept = await listEntries(house.ledger, { kind: 'request.refused', task: task.id }, { limit: 5 })
      expect(kept.items.map(({ body, agent }) => ({ body, agent }))).toEqual([
        { agent: 'bot', body: { by: 'reviewer:local/operator:reader', call: 'POST /tasks/{id}/revoke' } },
      ])
      expect(textOf((await pageOf(`/tasks/${task.id}`)).text)).toContain('reviewer:local/operator:reader was refused POST /tasks/{id}/revoke')
      await task.complete()
    })

    test('keeps no more attempts of a reviewer than a caller may ask for new things', async () => {
      const narrow = await openConsole(house, { rates: { issue: { burst: 2, perSecond: 0.001 } } })
      const [reader, ops] = await Promise.all([narrow.signedIn('reader'), narrow.signedIn('ops')])
      const task = await house.declare(['api'])
      const answers: [number, boolean][] = []
      for (let attempt = 0; attempt < 3; attempt++) {
        const { status, headers } = await reader.post(`/tasks/${task.id}/revoke`, { reason: 'let me' })
        answers.push([status, headers.has('retry-after')])
      }
      expect(answers).toEqual([
        [403, false],
        [403, false],
        [429, true],
      ])
      expect((await listEntries(house.ledger, { kind: 'request.refused', task: task.id }, { limit: 5 })).items.length).toBe(2)
      // Ending is never limited.
      for (let attempt = 0; attempt < 4; attempt++) expect((await ops.post(`/tasks/${task.id}/revoke`, { reason: 'over' })).status).toBe(303)
      await narrow.stop()
    })

    test('wants a reason of 1 to 500 characters, in one line', async () => {
      const task = await house.declare(['api'])
      for (const reason of ['', '   ', 'x'.repeat(501), 'a\0b', 'a\nb']) {
        const answer = await operator.post(`/tasks/${task.id}/revoke`, { reason })
        expect(answer.status).toBe(400)
        expect(await answer.text()).toContain('/reason')
      }
      await task.complete()
    })

    const foreign: Readonly<Record<string, { fields?: Record<string, string>; headers?: Record<string, string>; status: number }>> = {
      'another site': { headers: { 'sec-fetch-site': 'cross-site', origin: 'https://evil.example.com' }, status: 403 },
      'a sibling host': { headers: { 'sec-fetch-site': 'same-site' }, status: 403 },
      'an address that somebody typed': { headers: { 'sec-fetch-site': 'none' }, status: 403 },
      'an old browser on another site': { headers: { 'sec-fetch-site': '', origin: 'https://evil.example.com' }, status: 403 },
      'a form without the token': { fields: { form_token: '' }, status: 403 },
      'a form with the token of somebody else': { fields: { form_token: 'x'.repeat(43) }, status: 403 },
      'a body that is no form': { headers: { 'content-type': 'application/json' }, status: 415 },
      'a body that is too large': { fields: { reason: 'x'.repeat(20_000) }, status: 413 },
    }
    test.each(Object.entries(foreign))('is refused to %s', async (_, { fields = {}, headers = {}, status }) => {
      const task = await house.declare(['api'])
      const answer = await operator.post(`/tasks/${task.id}/revoke`, { reason: 'x', ...fields }, headers)
      expect(answer.status).toBe(status)
      expect((await findTask(house.ledger, task.id))!.task.state).toBe('open')
      await task.complete()
    })

    test('tells an operator whose session has ended that nothing was done, and leads them to sign in, and back to the task', async () => {
      const task = await house.declare(['api'])
      const answer = await console.visitor().post(`/tasks/${task.id}/revoke`, { reason: 'x', form_token: 'x' })
      expect(answer.status).toBe(401)
      const page = await answer.text()
      expect(textOf(page)).toContain('What you sent was not done.')
      expect(page).toContain(`href="/console/sign-in?to=${encodeURIComponent(`/console/tasks/${task.id}`)}"`)
      expect(answer.headers.get('refresh')).toBeNull()
      await task.complete()
    })
  })

  describe('the ledger', () => {
    test('answers a question in its address, page by page, each with the address of the next', async () => {
      const tasks = await Promise.all(Array.from({ length: 3 }, () => house.declare(['api'], { agent: 'rival' })))
      const seen: string[] = []
      let address = '/ledger?agent=rival&kind=task.opened&limit=2'
      for (let page = 0; page < 9 && address !== ''; page++) {
        const { text, status } = await pageOf(address)
        expect(status).toBe(200)
        seen.push(...[...text.matchAll(/href="\/console\/tasks\/(task_\w+)"/g)].map(([, id]) => id!))
        const [, next] = /rel="next" href="\/console([^"]+)"/.exec(text) ?? []
        address = next?.replaceAll('&amp;', '&') ?? ''
        if (next) expect(next).toContain('agent=rival')
      }
      expect(new Set(seen)).toEqual(new Set(tasks.map(({ id }) => id)))
      for (const task of tasks) await task.complete()
    })

    test('takes the fields of its form that were left empty as not asked', async () => {
      const { status, text } = await pageOf('/ledger?kind=&agent=&task=&lease=&from=&to=')
      expect(status).toBe(200)
      expect(text).toContain('task.opened')
    })

    test.each([
      ['cursor', 'zzz'],
      ['cursor', 'x'.repeat(200)],
      ['cursor', newId('task')],
      ['task', 'task_1'],
      ['lease', "x' or 1=1 --"],
      ['from', 'yesterday'],
      ['to', '2026-11-31T00:00:00Z'],
      ['limit', '0'],
      ['agent', 'a\u0000b'],
      ['colour', 'red'],
    ])('answers 400 and names the field where ?%s=%s is garbage', async (field, value) => {
      const { status, text } = await pageOf(`/ledger?${new URLSearchParams({ [field]: value }).toString()}`)
      expect(status).toBe(400)
      expect(text).toContain(`<code>${field}</code>`)
    })
  })

  describe('a decision', () => {
    test('that denies says what of it was denied, and why, and not what permitted the rest', async () => {
      const before = house.broker.policy()
      const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-console-'))
      const policies = `
        @id("no-crm") forbid(principal, action, resource == Grant::"crm");
        @id("fails") permit(principal, action == Action::"issue", resource == Grant::"slow-api") when { context.ttl.toMilliseconds() * 9223372036854775807 > 0 };`
      const stricter = await loadPolicy(folder, { policies })
      await archivePolicySet(house.ledger, stricter.set.digest, stricter.set.document)
      house.use(stricter)
      await house.declare(['api', 'crm', 'slow-api']).catch(() => {})
      house.use(before)
      await rm(folder, { recursive: true })
      const [denial] = (await listDenials(house.ledger, { policy: 'no-crm' }, { limit: 1 })).items
      const text = textOf((await pageOf(`/decisions/${denial!.id}`)).text)
      expect(text).toMatch(/Determined by\s+crm is forbidden by no-crm\s*; slow-api could not be decided: fails failed\s+Obligations/)
      expect(text).toMatch(/that day\s+denied\s+crm is forbidden by no-crm\s*; slow-api could not be decided: fails failed\s+the same/)
      expect(textOf((await pageOf(`/tasks/${denial!.taskId}`)).text)).not.toContain('robots-work')
    })

    test('shows the policies that determined it as they were, the question, and what it comes to when it is asked again', async () => {
      const task = await house.declare(['api'])
      const address = `/decisions/${task.opened.decision.id}`
      const same = textOf((await pageOf(address)).text)
      expect(same).toContain('It is the same today')
      expect(same).toContain('permit(principal in Group::"robots", action in [Action::"issue"')
      expect(same).toContain('principal = Agent::"bot" resource = Grant::"api"')
      expect(same).toContain('context.ttl = duration("')
      expect(same).toContain('Agent::"bot" in Group::"robots"')
      expect(same.match(/the same/g)!.length).toBeGreaterThanOrEqual(2)

      const before = house.broker.policy()
      const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-console-'))
      house.use(await loadPolicy(folder, { policies: '@id("never")\nforbid(principal, action, resource);\n' }))
      const today = textOf((await pageOf(address)).text)
      house.use(before)
      await rm(folder, { recursive: true })
      expect(today).toMatch(/today\s+denied\s+api is forbidden by never\s+another answer/)
      expect(today).toMatch(/that day\s+permitted\s+robots-work\s+the same/)
      await task.complete()
    })
  })
})

/** The cells of the table row whose first cell has this text. */
function rowOf(page: string, first: string): string[] {
  const rows = [...page.matchAll(/<tr>([\s\S]*?)<\/tr>/g)].map(([, row]) =>
    [...row!.matchAll(/<td[^>]*>([\s\S]*?)<\/td>/g)].map(([, cell]) => textOf(cell!).trim()),
  )
  return rows.find(([cell]) => cell === first) ?? []
}
