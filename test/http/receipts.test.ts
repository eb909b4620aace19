import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { AddedLease, ClosedTask, OpenedTask, ReceiptView } from '../../src/http/contract.ts'
import { listEntries } from '../../src/ledger/lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import { checkProof } from '../../src/proof/entry-proof.ts'
import { leafOf } from '../../src/proof/leaf.ts'
import { type LogLine, parseLine } from '../../src/proof/lines.ts'
import { leafHash } from '../../src/proof/merkle.ts'
import { type AwsSite, startAwsSite } from '../support/aws/site.ts'
import { type House, loadPolicy, startHouse } from '../support/house.ts'
import { growAll } from '../support/log.ts'
import { type Answer, bearer, log, serveHouse, type Served } from '../support/served.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

const bot = 'agent:bot'
const ops = 'operator:ops'
const eve = 'reviewer:eve'

type Told = Answer<{ readonly receipts?: readonly ReceiptView[]; readonly code?: string; readonly decision?: unknown; readonly task?: unknown }>

describe.each(stores)('the receipts of an answer, on $name', ({ open }) => {
  let store: OpenedStore
  let house: House
  let served: Served
  let folder: string
  let aws: AwsSite

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-receipts-'))
    store = await open()
    aws = await startAwsSite()
    for (const [name, value] of Object.entries(aws.environment)) vi.stubEnv(name, value)
    const { region, account, url: endpoint } = aws.peer
    house = await startHouse(store.settings, {
      kind: 'aws-sts',
      name: 'aws',
      settings: { region, account, endpoint, external_id: aws.externalId, mode: 'children' },
      grants: { bucket: `role: ${aws.role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }]` },
    })
    served = serveHouse(house)
  })
  afterEach(async () => {
    expect(await house.audit()).toEqual([])
  })
  afterAll(async () => {
    await house.stop()
    await store.dispose()
    await aws.peer.stop()
    vi.unstubAllEnvs()
    await rm(folder, { recursive: true })
  })

  const post = <Body = Told['body']>(at: string, as: string, body: unknown = {}, headers: Record<string, string> = {}) =>
    served.call<Body>('POST', at, as, body, headers)
  const declaration = (grants: readonly string[]) => ({ kind: 'work', duration: '10m', grants: grants.map((name) => ({ name })) })
  const declare = (grants: readonly string[], as = bot, headers = {}) => post<OpenedTask>('/tasks', as, declaration(grants), headers)
  const read = async (at: string) => await (await served.app.request(at, { headers: { authorization: bearer(eve) } })).text()

  async function logLines(): Promise<readonly LogLine[]> {
    await growAll({ ledger: house.ledger, ...log })
    const lines: LogLine[] = []
    for (let page = ['']; page.length > 0; lines.push(...page.map((text) => parseLine(text) as LogLine))) {
      page = (await read(`/ledger/log${lines.length === 0 ? '' : `?after=${lines.length - 1}`}`)).split('\n').filter(Boolean)
    }
    return lines
  }

  /** Holds every receipt against the log as a reviewer reads it. @returns what they are of */
  async function held({ body, text }: Told): Promise<readonly string[]> {
    const receipts = body.receipts ?? []
    const lines = await logLines()
    const places = receipts.map(({ entry }) => lines.find((line) => line.entry?.id === entry))
    expect(receipts).toEqual(places.map((line) => ({ entry: line?.entry?.id, kind: line?.entry?.kind, leaf_hash: line?.leaf_hash })))
    // A hash tells nothing of what is hashed; but what is hashed is for reviewers to read.
    for (const secret of secretsIn(text))
      expect([JSON.stringify(receipts), JSON.stringify(places)].filter((shown) => shown.includes(secret))).toEqual([])
    for (const { leaf_hash: hash, ...rest } of receipts) {
      expect(Buffer.from(hash, 'base64')).toHaveLength(32)
      expect(Object.keys(rest)).toEqual(['entry', 'kind'])
    }
    const numbers = places.map((line) => line!.number)
    expect(numbers).toEqual(numbers.toSorted((one, other) => one - other))
    for (const [at, { entry, leaf_hash: hash }] of receipts.entries()) {
      expect(hash).toBe(leafHash(leafOf(places[at]!.entry!)).toString('base64'))
      const proof = await read(`/ledger/${entry}/proof`)
      const keys = [(await log.key.signerFor(log.origin))!.key]
      expect(checkProof(proof, Buffer.from(hash, 'base64'), keys)).toMatchObject({ ok: true, index: numbers[at] })
      expect(checkProof(proof, leafHash(Buffer.from(text)), keys)).toEqual({ ok: false, fault: 'not_included' })
    }
    // Whoever is refused finds in the ledger by what.
    const decided = places.findLast((line) => line?.entry?.kind === 'decision.made')?.entry
    if (body.code !== undefined && decided) expect(body).toMatchObject({ decision: decided.decision, task: decided.task })
    return receipts.map(({ kind }) => kind)
  }

  const complete = (id: string, wait = 10) => post<ClosedTask>(`/tasks/${id}/complete`, bot, {}, { prefer: `wait=${wait}` })

  test('to a declaration are of its task, its decision and all that was told of each lease', async () => {
    const local = await declare(['api'])
    expect(await held(local)).toEqual(['task.opened', 'decision.made', 'lease.issued'])
    const outside = await declare(['crm'])
    expect(await held(outside)).toEqual(['task.opened', 'decision.made', 'lease.reserved', 'lease.issued'])
    const none = await declare([])
    expect(await held(none)).toEqual(['task.opened', 'decision.made'])
    for (const { body } of [local, outside, none]) await complete(body.task.id)
  })

  test('to declarations that share a commit are each of its own task', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => declare(['api'])))
    const lines = await logLines()
    for (const { body } of answers) {
      const entries = body.receipts.map(({ entry }) => lines.find((line) => line.entry?.id === entry)?.entry)
      expect(entries.map((entry) => entry?.task)).toEqual([body.task.id, body.task.id, body.task.id])
      expect(entries[1]?.decision).toBe(body.decision.id)
      expect(entries[2]?.lease).toBe(body.leases[0]?.id)
    }
    const closed = await Promise.all(answers.map(({ body }) => complete(body.task.id)))
    for (const answer of closed) expect(await held(answer)).toEqual(['task.closing', 'lease.revoked', 'task.ended'])
    expect(new Set(closed.flatMap(({ body }) => body.receipts.map(({ entry }) => entry))).size).toBe(36)
  })

  test('to a declaration again, with its Idempotency-Key, are of what that made', async () => {
    const headers = { 'idempotency-key': 'lost' }
    const first = await declare(['api'], bot, headers)
    const second = await declare(['api'], bot, headers)
    expect(second.body.task.id).toBe(first.body.task.id)
    expect(await held(second)).toEqual(['task.reissued', 'decision.made', 'lease.issued'])
    expect(second.body.receipts).not.toEqual(first.body.receipts)
    await complete(second.body.task.id)
  })

  test('to what fails at a provider are of all that was told until then', async () => {
    await house.lab.next('put', 'refuses', { done: false })
    const failed = await declare(['crm'])
    expect(failed.status).toBe(502)
    expect(await held(failed)).toEqual(['task.opened', 'decision.made', 'lease.reserved', 'lease.failed', 'task.closing', 'task.ended'])

    const { body } = await declare(['api'])
    await house.lab.next('put', 'refuses', { done: false })
    const further = await post(`/tasks/${body.task.id}/leases`, body.task_token, { name: 'crm' })
    expect(await held(further)).toEqual(['decision.made', 'lease.reserved', 'lease.failed'])
    await complete(body.task.id)
    await house.reap()
  })

  test('to a refresh that fails at a provider are of its decision, what it announced and what came of it', async () => {
    const { body } = await declare(['bucket'])
    const refresh = () => post(`/leases/${body.leases[0]!.id}/refresh`, body.task_token)
    aws.peer.faults.next('GetScopedCredentials', 'throttles', 3)
    const failed = await refresh()
    expect([failed.status, await held(failed)]).toEqual([503, ['decision.made', 'lease.refreshing', 'lease.not_refreshed']])
    expect(await held(await refresh())).toEqual(['decision.made', 'lease.refreshing', 'lease.refreshed'])
    await complete(body.task.id, 0)
    await house.backdate(body.task.id, '10 minutes')
    await house.reap()
  })

  test('to whatever goes on with a task are of the fresh decision and of what came of it', async () => {
    const { body } = await declare(['slow-api'])
    expect(await held(await post(`/tasks/${body.task.id}/leases`, body.task_token, { name: 'api' }))).toEqual(['decision.made', 'lease.issued'])
    const outside = await post(`/tasks/${body.task.id}/leases`, body.task_token, { name: 'crm' })
    expect(await held(outside)).toEqual(['decision.made', 'lease.reserved', 'lease.issued'])
    expect(await held(await post(`/leases/${body.leases[0]!.id}/refresh`, body.task_token))).toEqual(['decision.made', 'lease.refreshed'])
    expect(await held(await post(`/tasks/${body.task.id}/renew`, bot, { duration: '20m' }))).toEqual(['decision.made', 'task.renewed'])
    await complete(body.task.id)
  })

  test('to a completion are of its end, those of other commits too, and the same when it is asked again', async () => {
    const ending = ['task.closing', 'lease.revoking', 'lease.revoked', 'task.ended']
    const { body } = await declare(['crm'])
    const closed = await complete(body.task.id)
    expect(await held(closed)).toEqual(ending)
    expect((await complete(body.task.id)).body.receipts).toEqual(closed.body.receipts)

    const mixed = (await declare(['api', 'crm'])).body
    await post(`/leases/${mixed.leases[0]!.id}/revoke`, mixed.task_token)
    expect(await held(await complete(mixed.task.id))).toEqual(ending)
  })

  test('to a completion name each entry once, in the order of the log, though its leases end by one commit or by several', async () => {
    const grants = [{ name: 'api' }, { name: 'crm' }, { name: 'crm-for', parameters: { customer: 'acme' } }]
    const { body } = await post<OpenedTask>('/tasks', bot, { ...declaration([]), grants })
    const closed = await complete(body.task.id)
    const kinds = ['task.closing', 'lease.revoked', 'lease.revoking', 'lease.revoking', 'lease.revoked', 'lease.revoked', 'task.ended']
    expect((await held(closed)).toSorted()).toEqual(kinds.toSorted())
    expect((await complete(body.task.id)).body.receipts).toEqual(closed.body.receipts)
  })

  test('to an end that is not proven yet are of its beginning', async () => {
    const { body } = await declare(['crm'])
    await house.lab.down()
    const closing = await complete(body.task.id, 0)
    expect([closing.status, await held(closing)]).toEqual([202, ['task.closing', 'lease.revoking']])
    await house.lab.up()
    await house.backdate(body.task.id, '2 minutes')
    house.skew += 120_000
    await house.reap()
    house.skew = 0
  })

  test('to a revocation are of the end of the task, or of the one lease', async () => {
    const { body } = await declare(['api', 'crm'])
    const [api, crm] = body.leases
    expect(await held(await post(`/leases/${api!.id}/revoke`, body.task_token))).toEqual(['lease.revoked'])
    expect(await held(await post(`/leases/${crm!.id}/revoke`, ops, { reason: 'seen in a log' }))).toEqual(['lease.revoking', 'lease.revoked'])
    expect(await held(await post(`/tasks/${body.task.id}/revoke`, ops, { reason: 'seen in a log' }))).toEqual(['task.closing', 'task.ended'])
  })

  test('to a revocation of many are of its start and of the stop that was put with it', async () => {
    const many = (more: object = {}) =>
      post<Told['body'] & { stop: string }>('/revocations', ops, {
        selector: { agent: 'bot' },
        reason: 'it attacks',
        confirm: 'revoke agent bot',
        ...more,
      })
    const { body } = await declare(['api'])
    const started = await many({ stop_issuing: '1h' })
    expect([started.status, await held(started)]).toEqual([202, ['stop.began', 'revocation.started']])
    const lifted = await post(`/stops/${started.body.stop}/lift`, ops, { reason: 'over' })
    expect([lifted.status, await held(lifted)]).toEqual([200, ['stop.lifted']])
    const alone = await many()
    expect([alone.status, await held(alone)]).toEqual([202, ['revocation.started']])
    await house.reap()
    expect(await held(await complete(body.task.id))).toEqual(['task.closing', 'lease.revoked', 'task.ended'])

    const dry = await post('/revocations', ops, { selector: { agent: 'bot' }, dry_run: true })
    expect([dry.status, dry.body]).toEqual([200, expect.not.objectContaining({ receipts: expect.anything() as unknown })])
  })

  test('to a stop are of its beginning, and of its end to whoever lifts it', async () => {
    const stop = await post<Told['body'] & { id: string }>('/stops', ops, { selector: { agent: 'rival' }, reason: 'strange', duration: '1h' })
    expect([stop.status, await held(stop)]).toEqual([201, ['stop.began']])
    const lift = () => post(`/stops/${stop.body.id}/lift`, ops, { reason: 'over' })
    expect(await held(await lift())).toEqual(['stop.lifted'])
    const again = await lift()
    expect([again.status, again.body.receipts]).toEqual([404, undefined])
  })

  test('to whoever tries what only operators may do are of what the ledger keeps of that', async () => {
    const { body } = await declare(['api'])
    for (const path of ['/revocations', '/stops', `/tasks/${body.task.id}/revoke`]) {
      const refused = await post(path, eve, { selector: { agent: 'bot' }, reason: 'curious', duration: '1h', confirm: 'revoke agent bot' })
      expect([path, refused.status, await held(refused)]).toEqual([path, 403, ['request.refused']])
    }
    const { items } = await listEntries(house.ledger, { kind: 'request.refused', task: body.task.id }, { limit: 5 })
    expect(items, 'of a task where the call is about one').toMatchObject([{ agent: 'bot', body: { call: 'POST /tasks/{id}/revoke' } }])
    await complete(body.task.id)
  })

  test('to a refusal are of what the ledger keeps of it', async () => {
    const refused = await declare(['api'], 'agent:stranger')
    expect([refused.status, await held(refused)]).toEqual([403, ['task.denied', 'decision.made']])
    const many = await declare(['api', 'slow-api', 'crm', 'gone-by-itself'], 'agent:small')
    expect([many.status, await held(many)]).toEqual([429, ['task.denied', 'decision.made']])
    const { body: full } = await declare(['api', 'slow-api', 'gone-by-itself'], 'agent:small')
    const further = await post(`/tasks/${full.task.id}/leases`, full.task_token, { name: 'api' })
    expect([further.status, await held(further)]).toEqual([429, ['decision.made', 'request.denied']])
    await post(`/tasks/${full.task.id}/complete`, full.task_token)

    const { body } = await declare(['api'])
    const before = house.broker.policy()
    const other = await loadPolicy(folder, { policies: '@id("no-crm") forbid(principal, action, resource == Grant::"crm");' })
    await archivePolicySet(house.ledger, other.set.digest, other.set.document)
    house.use(other)
    const denied = await post(`/tasks/${body.task.id}/leases`, body.task_token, { name: 'crm' })
    house.use(before)
    expect([denied.status, await held(denied)]).toEqual([403, ['decision.made']])

    const { body: stop } = await post<{ id: string }>('/stops', ops, { selector: { agent: 'bot' }, reason: 'strange', duration: '1h' })
    const asked = await post(`/tasks/${body.task.id}/renew`, bot)
    const declared = await declare(['api'])
    await post(`/stops/${stop.id}/lift`, ops, { reason: 'over' })
    expect([asked.status, await held(asked)]).toEqual([403, ['decision.made', 'request.denied']])
    expect([declared.status, await held(declared)]).toEqual([403, ['task.denied', 'decision.made']])
    expect((await post('/tasks', bot, { kind: 'nothing' })).body).not.toHaveProperty('receipts')
    await complete(body.task.id)
  })

  test('are of what the log has, whatever an agent writes', async () => {
    const words = fc.string({ unit: 'grapheme', maxLength: 40 })
    await fc.assert(
      fc.asyncProperty(words, fc.dictionary(words.filter(Boolean), words, { maxKeys: 3 }), async (purpose, labels) => {
        const opened = await post<OpenedTask>('/tasks', bot, { ...declaration(['api']), purpose, labels })
        expect(await held(opened)).toEqual(['task.opened', 'decision.made', 'lease.issued'])
        await complete(opened.body.task.id)
      }),
      { numRuns: 12, examples: [['\u{1f510} "\\u0000" 1.0 1e400', { é: 'e\u0301', __proto__x: '</script>' }]] },
    )
  })
})

/** Whatever of an answer nobody else may read. */
function secretsIn(text: string): readonly string[] {
  const { task_token: token, leases = [], lease } = JSON.parse(text) as Partial<OpenedTask & AddedLease>
  const boxes = [...leases, ...(lease ? [lease] : [])].flatMap(({ credential }) => Object.entries(credential ?? {}))
  return [
    ...(token === undefined ? [] : [token]),
    ...boxes.flatMap(([name, value]) => (name === 'type' || name === 'expiration' ? [] : [String(value)])),
  ]
}
