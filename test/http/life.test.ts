import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type {
  AddedLease,
  ClosedLease,
  ClosedTask,
  DecisionDetail,
  DenialView,
  EntryView,
  LeaseView,
  OpenedTask,
  Page,
  ReplayView,
  RenewedTask,
  ShownTask,
  TaskView,
} from '../../src/http/contract.ts'
import { type House, startHouse } from '../support/house.ts'
import { type Answer, bearer, serveHouse, type Served } from '../support/served.ts'
import { settled } from '../support/log.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'

let store: OpenedStore
let house: House
let served: Served

beforeAll(async () => {
  store = await openEmbedded()
  house = await startHouse(store.settings)
  served = serveHouse(house)
})
afterEach(async () => {
  await house.lab.clear()
  expect(await house.audit()).toEqual([])
})
afterAll(async () => {
  await house.stop()
  await store.dispose()
})

const call: Served['call'] = (...asked) => served.call(...asked)
const get = (path: string, init?: RequestInit) => served.app.request(path, init)

const bot = 'agent:bot'
const ops = 'operator:ops'
const eve = 'reviewer:eve'

const declare = async (grants: readonly object[], headers = {}) =>
  await call<OpenedTask>('POST', '/tasks', bot, { kind: 'work', purpose: 'a test', duration: '10m', labels: { run: '8841' }, grants }, headers)

const introspect = async (token: string, as = 'server:api') => {
  const answer = await get('/introspect', {
    method: 'POST',
    headers: { authorization: bearer(as), 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ token }).toString(),
  })
  return (await answer.json()) as { active: boolean; scope?: string; task?: string }
}

const tokenOf = (opened: OpenedTask, at = 0): string => {
  const { credential } = opened.leases[at]!
  if (credential.type !== 'bearer_token') throw new Error(`a ${credential.type}`)
  return credential.token
}

describe('over HTTP, a task', () => {
  test('is opened with credentials in the one answer that is stored nowhere', async () => {
    const { status, headers, body } = await declare([{ name: 'api' }, { name: 'crm-for', parameters: { customer: 'acme' }, ttl: '5m' }])
    expect(status).toBe(201)
    expect(headers.get('cache-control')).toBe('no-store')
    expect(body).toMatchObject({
      task: { state: 'open', kind: 'work', agent: 'bot', owner: 'owner@example.com', purpose: 'a test', labels: { run: '8841' } },
      task_token: expect.stringMatching(/^mft_/) as string,
      decision: { outcome: 'permit', policies: ['robots-work'], policy_digest: expect.stringMatching(/^sha256:/) as string, obligations: {} },
      leases: [
        { grant: 'api', provider: 'tokens', state: 'active', revocation: 'provider', credential: { type: 'bearer_token' } },
        { grant: 'crm-for', provider: 'lab', state: 'active', parameters: { customer: 'acme' } },
      ],
    })
    expect(body.leases[1]).not.toHaveProperty('ended_at')
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('is shown without any secret, to its agent and to those who look after it, and to nobody else', async () => {
    const { body } = await declare([{ name: 'api' }])
    for (const as of [bot, ops, eve, body.task_token]) {
      const shown = await call<ShownTask>('GET', `/tasks/${body.task.id}`, as)
      expect(shown.body).toMatchObject({ task: { id: body.task.id }, leases: [{ grant: 'api' }], decisions: [{ id: body.decision.id }] })
      expect(shown.text).not.toContain(tokenOf(body))
      expect(shown.text).not.toContain(body.task_token)
      expect(shown.headers.get('cache-control')).toBe('no-store')
    }
    for (const path of [`/tasks/${body.task.id}`, `/leases/${body.leases[0]!.id}`]) {
      expect((await call('GET', path, 'agent:rival')).body).toMatchObject({ status: 404, code: 'not_found' })
    }
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('has leases that end at one and the same moment in every answer, in the ledger and in the token', async () => {
    const { body } = await declare([{ name: 'api' }, { name: 'crm' }])
    const { body: refreshed } = await call<AddedLease>('POST', `/leases/${body.leases[0]!.id}/refresh`, body.task_token)
    for (const [leases, given] of [
      [body.leases, tokenOf(body)],
      [[refreshed.lease, body.leases[1]!], (refreshed.lease.credential as { token: string }).token],
    ] as const) {
      const { exp } = JSON.parse(Buffer.from(given.split('.')[1]!, 'base64url').toString()) as { exp: number }
      expect(leases[0].expires_at).toBe(new Date(exp * 1_000).toISOString())
    }
    const ends = [refreshed.lease, body.leases[1]!].map(({ expires_at: end }) => end)
    const shown = await call<ShownTask>('GET', `/tasks/${body.task.id}`, bot)
    expect(shown.body.leases.map(({ expires_at: end }) => end)).toEqual(ends)
    const told = await call<Page<EntryView>>('GET', `/ledger?task=${body.task.id}&kind=lease.issued`, eve)
    expect(told.body.items.map(({ body: fact }) => (fact as { expires_at: string }).expires_at).toSorted()).toEqual(
      body.leases.map(({ expires_at: end }) => end).toSorted(),
    )
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('of another agent cannot be told from one that does not exist, whatever is asked of it', async () => {
    const { body } = await declare([{ name: 'api' }])
    const other = (await call<OpenedTask>('POST', '/tasks', 'agent:rival', { kind: 'work', grants: [] })).body
    const lease = body.leases[0]!.id
    const calls = [
      ['GET', `/tasks/${body.task.id}`],
      ['POST', `/tasks/${body.task.id}/leases`, { name: 'api' }],
      ['POST', `/tasks/${body.task.id}/complete`],
      ['GET', `/leases/${lease}`],
      ['POST', `/leases/${lease}/refresh`],
      ['POST', `/leases/${lease}/revoke`],
    ] as const
    for (const [method, path, json] of calls) {
      for (const as of ['agent:rival', other.task_token])
        expect((await call(method, path, as, json)).body, path).toMatchObject({ status: 404, code: 'not_found' })
    }
    expect((await call('POST', `/tasks/${body.task.id}/renew`, 'agent:rival')).status).toBe(404)
    expect(await introspect(tokenOf(body))).toMatchObject({ active: true })
    for (const id of [body.task.id, other.task.id]) await call('POST', `/tasks/${id}/revoke`, ops, { reason: 'tidying up' })
  })

  test('is led to its end with its own token: further grants, refreshing, completing', async () => {
    const { body } = await declare([{ name: 'api' }])
    const added = await call<AddedLease>('POST', `/tasks/${body.task.id}/leases`, body.task_token, { name: 'crm' })
    expect([added.status, added.body.lease.grant]).toEqual([201, 'crm'])
    const refreshed = await call<AddedLease>('POST', `/leases/${body.leases[0]!.id}/refresh`, body.task_token)
    expect([refreshed.status, refreshed.body.lease.id]).toEqual([200, body.leases[0]!.id])

    const closed = await call<ClosedTask>('POST', `/tasks/${body.task.id}/complete`, body.task_token, {}, { prefer: 'wait=10' })
    expect(closed.status).toBe(200)
    expect(closed.headers.get('preference-applied')).toBe('wait=10')
    expect(closed.body).toMatchObject({ ended: true, counts: { revoked: 2 }, task: { state: 'completed', cause: 'completed' } })
    for (const lease of closed.body.leases) expect(lease).toMatchObject({ state: 'revoked', evidence: { statement: expect.any(String) as string } })
    const again = await call<ClosedTask>('POST', `/tasks/${body.task.id}/complete`, body.task_token)
    expect([again.status, again.body.counts]).toEqual([200, { revoked: 2 }])
  })

  test('is renewed by its agent with a workload token, and not with its own', async () => {
    const { body } = await declare([{ name: 'slow-api' }])
    expect((await call('POST', `/tasks/${body.task.id}/renew`, body.task_token, { duration: '20m' })).body).toMatchObject({
      status: 403,
      code: 'forbidden',
    })
    const renewed = await call<RenewedTask>('POST', `/tasks/${body.task.id}/renew`, bot, { duration: '20m' })
    expect(renewed.body).toMatchObject({ decision: { action: 'renew', outcome: 'permit' } })
    expect(Date.parse(renewed.body.task.deadline)).toBeGreaterThan(Date.parse(body.task.deadline))
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('names the faults of a request at their places in its own body', async () => {
    const { body } = await declare([{ name: 'api' }])
    const pointersOf = async (path: string, asked: object): Promise<readonly string[]> => {
      const { errors } = (await call<{ errors: readonly { pointer: string }[] }>('POST', path, bot, asked)).body
      return errors.map(({ pointer }) => pointer)
    }
    const further = `/tasks/${body.task.id}/leases`
    expect(await pointersOf(further, { name: 'nothing' })).toEqual(['/name'])
    expect(await pointersOf(further, { name: 'crm-for', parameters: { customer: 'ACME' }, ttl: '21m' })).toEqual(['/ttl', '/parameters/customer'])
    const deadline = new Date(Date.now() + 60 * 60_000).toISOString()
    for (const path of ['/tasks', `/tasks/${body.task.id}/renew`]) {
      const declared = path === '/tasks' ? { kind: 'work' } : {}
      expect(await pointersOf(path, { ...declared, deadline }), path).toEqual(['/deadline'])
      expect(await pointersOf(path, { ...declared, duration: '31m' }), path).toEqual(['/duration'])
    }
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('answers 202 while an end is not proven, and 200 once it is', async () => {
    const { body } = await declare([{ name: 'crm' }])
    await house.lab.down()
    const closing = await call<ClosedTask>('POST', `/tasks/${body.task.id}/complete`, bot, undefined, { prefer: 'wait=0' })
    expect([closing.status, closing.body.ended]).toEqual([202, false])
    expect(closing.body.leases[0]).toMatchObject({ state: 'revoking', cause: 'completed' })
    expect(closing.body.counts).toEqual({ revoking: 1 })
    expect(closing.body.leases[0]).not.toHaveProperty('evidence')
    await house.lab.up()
    await house.backdate(body.task.id, '2 minutes')
    house.skew += 120_000
    await house.reap()
    const closed = await call<ClosedTask>('POST', `/tasks/${body.task.id}/complete`, bot)
    expect([closed.status, closed.body.ended]).toEqual([200, true])
    expect(await house.lab.alive()).toEqual([])
    house.skew = 0
  })

  test('is ended by an operator with a reason that stays', async () => {
    const { body } = await declare([{ name: 'api' }])
    expect((await call('POST', `/tasks/${body.task.id}/revoke`, ops, {})).body).toMatchObject({ status: 400, errors: [{ pointer: '/reason' }] })
    expect((await call('POST', `/tasks/${body.task.id}/revoke`, eve, { reason: 'r' })).status).toBe(403)
    const closed = await call<ClosedTask>('POST', `/tasks/${body.task.id}/revoke`, ops, { reason: 'leaked in a log' })
    expect(closed.body).toMatchObject({ ended: true, task: { state: 'revoked', reason: 'leaked in a log' }, leases: [{ state: 'revoked' }] })
    expect(closed.body.counts).toEqual({ revoked: 1 })
    expect(await introspect(tokenOf(body))).toEqual({ active: false })
  })

  test('that is denied says which decision it was, and lets a reviewer ask it again', async () => {
    const refused = await call<{ decision: string }>('POST', '/tasks', 'agent:stranger', { kind: 'work', grants: [{ name: 'api' }] })
    expect(refused.body).toMatchObject({ status: 403, code: 'denied', retry: 'no', decision: expect.stringMatching(/^dec_/) as string })
    const { body: detail } = await call<DecisionDetail>('GET', `/decisions/${refused.body.decision}`, eve)
    expect(detail).toMatchObject({ outcome: 'deny', agent: 'stranger', answers: [{ resource: 'api', outcome: 'deny' }] })
    const { body: replay } = await call<ReplayView>('GET', `/decisions/${refused.body.decision}/replay`, eve)
    expect(replay).toMatchObject({ decision: { id: detail.id }, archived: { outcome: 'deny', same: true }, current: { outcome: 'deny', same: true } })
    for (const { denied } of [replay.archived, replay.current]) expect(denied).toEqual([{ resource: 'api', policies: [], diagnostics: [] }])
    const { body: page } = await call<Page<DenialView>>('GET', `/denials?task=${detail.task}`, eve)
    expect(page.items).toMatchObject([{ id: detail.id, denied: [{ resource: 'api', policies: [], diagnostics: [] }] }])
    const { body: set } = await call<{ digest: string }>('GET', `/policies/${detail.policy_digest}`, ops)
    expect(set).toMatchObject({ digest: detail.policy_digest, document: expect.anything() as object })
  })

  test('that an operator has stopped is refused in words that do not lay it on the policy', async () => {
    const { body: stop } = await call<{ id: string }>('POST', '/stops', ops, { selector: { agent: 'bot' }, reason: 'strange', duration: '1h' })
    expect((await declare([{ name: 'api' }])).body).toMatchObject({
      status: 403,
      code: 'denied',
      title: 'This is not permitted',
      detail: expect.stringContaining('An operator has stopped this') as unknown,
    })
    await call('POST', `/stops/${stop.id}/lift`, ops, { reason: 'not so strange' })
  })

  test.each([
    [{ kind: 'nothing' }, 422, 'unknown_kind'],
    [{ kind: 'work', grants: [{ name: 'nothing' }] }, 422, 'unknown_grant'],
    [{ kind: 'work', grants: [{ name: 'crm-for', parameters: { customer: '../*' } }] }, 400, 'invalid_request'],
    [{ kind: 'work', duration: '2h', grants: [] }, 400, 'invalid_request'],
  ])('declared as %j is refused', async (json, status, code) => {
    expect((await call('POST', '/tasks', bot, json)).body).toMatchObject({ status, code })
  })

  test('declared again with its Idempotency-Key gets fresh credentials, and the old ones are dead', async () => {
    const headers = { 'idempotency-key': 'run-8841' }
    const { body: first } = await declare([{ name: 'api' }], headers)
    const { status, body: second } = await declare([{ name: 'api' }], headers)
    expect([status, second.task.id]).toEqual([201, first.task.id])
    expect(await introspect(tokenOf(first))).toEqual({ active: false })
    expect(await introspect(tokenOf(second))).toMatchObject({ active: true })
    expect((await declare([{ name: 'crm' }], headers)).body).toMatchObject({ status: 422, code: 'idempotency_mismatch' })
    await call('POST', `/tasks/${second.task.id}/complete`, bot)
  })

  test.each<[string, object, string, string]>([
    ['as a whole', { agent: 'bot' }, 'revoke agent bot', 'revoked'],
    ['in one of its leases', { grant: 'crm' }, 'revoke grant crm', 'open'],
  ])(
    'that is revoked %s with many shows its agent that, and to operators and reviewers alone by whom and why',
    async (_, selector, confirm, state) => {
      const { body } = await declare([{ name: 'api' }, { name: 'crm' }])
      const { id } = body.task
      const started = await call<{ id: string }>('POST', '/revocations', ops, { selector, confirm, reason: 'it sells what it reads' })
      await settled(house.ledger)
      await house.reap()

      const told = { cause: 'revoked', revoked_in: started.body.id }
      const why = { reason: 'it sells what it reads', ended_by: 'operator:local/operator:ops' }
      const crm = `/leases/${body.leases[1]!.id}`
      for (const own of [bot, body.task_token]) {
        const answers = [
          await call<ShownTask>('GET', `/tasks/${id}`, own),
          await call<LeaseView>('GET', crm, own),
          await call('POST', `${crm}/revoke`, own),
        ]
        if (state === 'revoked') answers.push(await call('POST', `/tasks/${id}/complete`, own))
        for (const { text } of answers) {
          expect(text).toContain(`"revoked_in":"${told.revoked_in}"`)
          expect(text).not.toMatch(/it sells|operator:|"reason"|"ended_by"/)
        }
        expect(answers[0]!.body).toMatchObject({ task: { state, ...(state === 'revoked' && told) } })
        expect(answers[1]!.body).toMatchObject({ state: 'revoked', ...told, evidence: { by: 'provider' } })
      }
      for (const reader of [eve, ops]) {
        const { task, leases } = (await call<ShownTask>('GET', `/tasks/${id}`, reader)).body
        expect([task, leases[1]]).toMatchObject([
          { state, ...(state === 'revoked' && { ...told, ...why }) },
          { state: 'revoked', ...told, ...why },
        ])
        expect((await call<LeaseView>('GET', crm, reader)).body).toMatchObject({ ...told, ...why })
      }
      await call('POST', `/tasks/${id}/complete`, bot)
    },
  )
})

describe('over HTTP, a token that the broker signed', () => {
  test('is active for its own audience and for operators, and for nobody else', async () => {
    const { body } = await declare([{ name: 'api' }])
    expect(await introspect(tokenOf(body))).toMatchObject({
      active: true,
      token_type: 'Bearer',
      scope: 'read',
      task: body.task.id,
      jti: body.leases[0]!.id,
    })
    expect(await introspect(tokenOf(body), ops)).toMatchObject({ active: true })
    expect(await introspect(tokenOf(body), 'server:other')).toEqual({ active: false })
    const one = await call<ClosedLease>('POST', `/leases/${body.leases[0]!.id}/revoke`, bot, { reason: 'not needed' })
    expect(one.body).toMatchObject({ ended: true, lease: { state: 'revoked', reason: 'not needed' } })
    expect(await introspect(tokenOf(body))).toEqual({ active: false })
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('says what its parameters narrow it to, in itself and to whoever asks about it, fresh or refreshed; and nothing of the kind without parameters', async () => {
    const { body } = await declare([{ name: 'api-for', parameters: { customer: 'acme' } }, { name: 'api' }])
    const narrowed = [{ type: 'urn:mayfly:grant', identifier: 'api-for', parameters: { customer: 'acme' } }]
    const { body: refreshed } = await call<AddedLease>('POST', `/leases/${body.leases[0]!.id}/refresh`, body.task_token)
    for (const token of [tokenOf(body), (refreshed.lease.credential as { token: string }).token]) {
      expect(JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())).toMatchObject({ authorization_details: narrowed })
      expect(await introspect(token)).toMatchObject({ active: true, authorization_details: narrowed })
    }
    expect(await introspect(tokenOf(body, 1))).not.toHaveProperty('authorization_details')
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('is inactive where its parameters were changed', async () => {
    const { body } = await declare([{ name: 'api-for', parameters: { customer: 'acme' } }])
    const [header, payload, signature] = tokenOf(body).split('.')
    const changed = Buffer.from(payload!, 'base64url').toString().replace('"acme"', '"initech"')
    expect(changed).toContain('initech')
    expect(await introspect([header, Buffer.from(changed).toString('base64url'), signature].join('.'))).toEqual({ active: false })
    expect(await introspect(tokenOf(body))).toMatchObject({ active: true })
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
  })

  test('can be checked with the published keys, which hold nothing private', async () => {
    const { keys } = (await (await get('/.well-known/jwks.json')).json()) as { keys: Record<string, unknown>[] }
    const metadata = (await (await get('/.well-known/openid-configuration')).json()) as Record<string, unknown>
    expect(keys.length).toBeGreaterThan(0)
    for (const key of keys) expect(key).not.toHaveProperty('d')
    expect(metadata).toMatchObject({
      issuer: 'http://broker.test',
      jwks_uri: 'http://broker.test/.well-known/jwks.json',
      id_token_signing_alg_values_supported: [keys[0]!['alg']],
    })
  })
})

describe('over HTTP, the lists', () => {
  test('are walked by their cursors, newest first, with nothing twice and nothing left out', async () => {
    const opened = []
    for (let count = 0; count < 5; count++) opened.push((await declare([{ name: 'api' }])).body.task.id)
    const seen: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const { body }: Answer<Page<TaskView>> = await call('GET', `/tasks?limit=2&state=open${cursor && `&cursor=${cursor}`}`, eve)
      seen.push(...body.items.map((task) => task.id))
      cursor = body.next
    }
    expect(seen).toEqual(opened.toReversed())
    const { body: leases } = await call<Page<LeaseView>>('GET', `/leases?task=${opened[0]}&stuck=false`, ops)
    expect(leases.items).toMatchObject([{ grant: 'api', task: opened[0], state: 'active' }])
    for (const id of opened) await call('POST', `/tasks/${id}/complete`, bot)
  })

  test('of leases tell those of standing secrets apart, and they are counted until their time is over', async () => {
    const { task } = (await declare([{ name: 'api' }, { name: 'lent' }])).body
    const listed = async (standing: string) =>
      (await call<Page<LeaseView>>('GET', `/leases?task=${task.id}&standing=${standing}`, ops)).body.items.map(({ grant, standing: flag }) => [
        grant,
        flag,
      ])
    const counted = async () => {
      // They are counted once a second.
      house.skew += 1_000
      const text = await (await get('/metrics')).text()
      return /^mayfly_standing_leases (\d+)$/m.exec(text)?.[1]
    }
    expect([await listed('true'), await listed('false')]).toEqual([[['lent', true]], [['api', undefined]]])
    expect(await counted()).toBe('1')
    await call('POST', `/tasks/${task.id}/complete`, bot)
    // Completing takes back nothing here: who has read it has it.
    expect(await counted()).toBe('1')
    await house.backdate(task.id, '1 hour')
    await house.reap()
    expect(await counted()).toBe('0')
    house.skew = 0
    expect(await listed('true')).toEqual([['lent', true]])
  })

  test('of the ledger tell the life of a task in all three forms, and never a secret', async () => {
    const { body } = await declare([{ name: 'api' }])
    await call('POST', `/tasks/${body.task.id}/complete`, bot)
    const path = `/ledger?task=${body.task.id}`
    const { body: page, text } = await call<Page<EntryView>>('GET', path, eve)
    expect(page.items.length).toBeGreaterThan(2)
    expect(page.items.map((entry) => entry.id)).toEqual(
      page.items
        .map((entry) => entry.id)
        .toSorted()
        .toReversed(),
    )
    const form = async (accept: string) => await (await get(path, { headers: { authorization: bearer(eve), accept } })).text()
    const lines = await form('application/x-ndjson')
    const csv = await form('text/csv')
    expect(
      lines
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as EntryView),
    ).toEqual(page.items)
    expect(csv.trim().split('\r\n')).toHaveLength(page.items.length + 1)
    for (const shown of [text, lines, csv, served.log()]) {
      expect(shown).not.toContain(tokenOf(body))
      expect(shown).not.toContain(body.task_token)
    }
  })
})
