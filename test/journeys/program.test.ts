import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdir, open as openFile, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { version } from '../../src/base/version.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { freePort } from '../support/port.ts'
import { command, makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openDatabase, type OpenedStore, stores } from '../support/stores.ts'
import { terminal } from '../support/terminal.ts'

interface Answer {
  readonly status: number
  readonly body: Record<string, unknown>
}

/** One call as an agent, an operator or a stranger makes it. */
async function call(broker: RunningBroker, token: string, method: string, where: string, body?: object, headers: object = {}): Promise<Answer> {
  const content = body === undefined ? {} : { body: JSON.stringify(body) }
  const type = body === undefined ? {} : { 'content-type': 'application/json' }
  const answer = await fetch(broker.url + where, { method, headers: { authorization: `Bearer ${token}`, ...type, ...headers }, ...content })
  return { status: answer.status, body: (await answer.json()) as Record<string, unknown> }
}

async function introspect(broker: RunningBroker, as: string, token: string): Promise<unknown> {
  const headers = { authorization: `Bearer ${as}` }
  const answer = await fetch(`${broker.url}/introspect`, { method: 'POST', headers, body: new URLSearchParams({ token }) })
  return ((await answer.json()) as { active: unknown }).active
}

const grant = (name: string) => (name === 'crm' ? { name, parameters: { customer: 'acme' } } : { name })
const declaration = (...grants: string[]) => ({ kind: 'work', purpose: 'a journey', duration: '5m', grants: grants.map(grant) })

interface Opened {
  readonly id: string
  readonly token: string
  readonly secrets: readonly string[]
}

async function open(broker: RunningBroker, as: string, grants: readonly string[], headers: object = {}): Promise<Opened> {
  const { status, body } = await call(broker, as, 'POST', '/tasks', declaration(...grants), headers)
  expect(status, JSON.stringify(body)).toBe(201)
  const { task, task_token, leases } = body as { task: { id: string }; task_token: string; leases: { credential: { token: string } }[] }
  return { id: task.id, token: task_token, secrets: leases.map(({ credential }) => credential.token) }
}

describe.each(stores)('the built program on $name', ({ open: openStore }) => {
  let store: OpenedStore
  let lab: Lab
  let site: Site
  let broker: RunningBroker
  let bot: string
  let ops: string
  const secrets: string[] = []
  let logs = ''

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openStore(), startLab()])
    site = await makeSite({ store: store.settings, lab: lab.url })
    broker = await site.start()
    ;[bot, ops] = [await site.token('agent:bot'), await site.token('operator:ops')]
  })
  afterAll(async () => {
    expect(await broker.stop()).toBe(0)
    await lab.stop()
    await site.remove()
    await store.dispose()
  })

  test('an agent declares a task, uses its credentials, completes it with the task token, and they are dead', async () => {
    const task = await open(broker, bot, ['api', 'crm'])
    secrets.push(task.token, ...task.secrets)
    const api = await site.token('resource:api')
    expect(await introspect(broker, api, task.secrets[0]!)).toBe(true)
    expect(await lab.works(task.secrets[1]!)).toBe(true)

    const { status, body } = await call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {})

    expect(status).toBe(200)
    expect(body).toMatchObject({ ended: true, task: { state: 'completed' } })
    expect(await introspect(broker, api, task.secrets[0]!)).toBe(false)
    expect(await lab.works(task.secrets[1]!)).toBe(false)
  })

  test('a resource server sees only the tokens for its own audience', async () => {
    const task = await open(broker, bot, ['api'])
    expect(await introspect(broker, await site.token('resource:other'), task.secrets[0]!)).toBe(false)
    expect(await introspect(broker, ops, task.secrets[0]!)).toBe(true)
    await call(broker, bot, 'POST', `/tasks/${task.id}/complete`, {})
  })

  test("another agent's task does not exist; a reviewer may look and not revoke; an operator may", async () => {
    const task = await open(broker, bot, ['api'])
    const [rival, reader] = [await site.token('agent:rival'), await site.token('operator:reader')]
    for (const [method, where] of [
      ['GET', ''],
      ['POST', '/complete'],
      ['POST', '/renew'],
    ] as const) {
      expect((await call(broker, rival, method, `/tasks/${task.id}${where}`, method === 'POST' ? {} : undefined)).status).toBe(404)
    }
    expect((await call(broker, reader, 'GET', `/tasks/${task.id}`)).status).toBe(200)
    expect((await call(broker, reader, 'POST', `/tasks/${task.id}/revoke`, { reason: 'no' })).body).toMatchObject({ status: 403, code: 'forbidden' })

    const revoked = await call(broker, ops, 'POST', `/tasks/${task.id}/revoke`, { reason: 'three in the morning' })

    expect(revoked).toMatchObject({ status: 200, body: { ended: true, task: { state: 'revoked', reason: 'three in the morning' } } })
  })

  test('a backend that is down makes completion say so, and the reaper ends the credential when it is back', async () => {
    const task = await open(broker, bot, ['crm'])
    await lab.down()

    const closed = await call(broker, bot, 'POST', `/tasks/${task.id}/complete`, {}, { prefer: 'wait=0' })
    expect(closed).toMatchObject({ status: 202, body: { ended: false, leases: [{ state: 'revoking' }] } })
    expect(JSON.stringify(closed.body)).not.toContain('"evidence"')

    await lab.up()
    const again = await call(broker, bot, 'POST', `/tasks/${task.id}/complete`, {}, { prefer: 'wait=15' })
    expect(again).toMatchObject({ status: 200, body: { ended: true, leases: [{ state: 'revoked', evidence: { by: 'provider' } }] } })
    expect(await lab.works(task.secrets[0]!)).toBe(false)
  })

  test('a lost answer is healed by the same Idempotency-Key, and the lost credentials are dead', async () => {
    const headers = { 'idempotency-key': 'run-1' }
    const lost = await open(broker, bot, ['crm'], headers)
    const again = await open(broker, bot, ['crm'], headers)
    expect(again.id).toBe(lost.id)
    expect(await lab.works(lost.secrets[0]!)).toBe(false)
    expect(await lab.works(again.secrets[0]!)).toBe(true)
    expect((await call(broker, lost.token, 'GET', `/tasks/${lost.id}`)).status).toBe(401)
    await call(broker, again.token, 'POST', `/tasks/${again.id}/complete`, {})
  })

  test('the command line opens, shows, lists and completes, and its exit status says what came of it', async () => {
    const as = (token: string) => ({ MAYFLY_URL: broker.url, MAYFLY_TOKEN: token })
    const opened = await mayfly(['task', 'open', '--kind', 'work', '--grant', 'crm', '--param', 'customer=acme', '--json'], as(bot))
    expect(opened.stderr).toBe('')
    const { task, leases } = JSON.parse(opened.stdout) as { task: { id: string }; leases: { credential: { token: string } }[] }
    secrets.push(leases[0]!.credential.token)

    expect(await mayfly(['task', 'show', task.id], as(bot))).toMatchObject({ status: 0, stdout: expect.stringContaining('active') as unknown })
    expect(await mayfly(['task', 'list', '--state', 'open'], as(ops))).toMatchObject({
      status: 0,
      stdout: expect.stringContaining(task.id) as unknown,
    })
    expect(await mayfly(['task', 'complete', task.id], as(bot))).toMatchObject({ status: 0 })
    expect(await lab.works(leases[0]!.credential.token)).toBe(false)
    expect(await mayfly(['task', 'open', '--kind', 'nothing'], as(bot))).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('unknown_kind') as unknown,
    })
    expect(await mayfly(['--version'])).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' })
    expect((await mayfly(['--help'])).stdout).toContain('MAYFLY_TOKEN_FILE')
    expect(await mayfly(['task', 'open'], as(bot))).toMatchObject({ status: 2, stderr: expect.stringContaining('add --help') as unknown })
    const nowhere = `http://127.0.0.1:${await freePort()}`
    expect(await mayfly(['task', 'show', task.id], { MAYFLY_URL: nowhere, MAYFLY_TOKEN: bot })).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('npm start') as unknown,
    })
  })

  test('with --json a command that fails answers with JSON as well, with the receipts of its refusal', async () => {
    const failing = async (args: readonly string[], environment: Record<string, string>) => {
      const { status, stdout, stderr } = await mayfly([...args, '--json'], environment)
      return { status, answer: JSON.parse(stdout) as Record<string, unknown>, stderr }
    }
    const as = (token: string) => ({ MAYFLY_URL: broker.url, MAYFLY_TOKEN: token })
    const stop = await mayfly(['issuing', 'stop', '--agent', 'bot', '--for', '1m', '--reason', 'a drill', '--json'], as(ops))
    const refused = await failing(['task', 'open', '--kind', 'work', '--grant', 'api'], as(bot))
    await mayfly(['issuing', 'resume', (JSON.parse(stop.stdout) as { id: string }).id, '--reason', 'over'], as(ops))
    expect(refused).toMatchObject({
      status: 1,
      answer: { code: 'denied', status: 403, retry: 'no', receipts: [{ kind: 'task.denied' }, { kind: 'decision.made' }] },
      stderr: expect.stringContaining('denied: ') as unknown,
    })
    expect(await failing(['task', 'list', '--limit', 'many'], as(ops))).toMatchObject({
      status: 1,
      answer: { code: 'invalid_request', errors: [{ pointer: '?limit' }] },
    })
    expect(await failing(['task', 'list'], { MAYFLY_URL: 'http://127.0.0.1:1', MAYFLY_TOKEN: ops })).toMatchObject({
      status: 1,
      answer: { code: 'unreachable' },
    })
    expect(await failing(['task', 'list'], { MAYFLY_URL: broker.url, MAYFLY_TOKEN: '' })).toMatchObject({ status: 2, answer: { code: 'usage' } })
    expect(await failing(['serve', '--config', '/nowhere/mayfly.yaml'], {})).toMatchObject({ status: 1, answer: { code: 'configuration' } })
    // Their stdout is not theirs: what was run, and lines of the ledger.
    expect(await mayfly(['ledger', 'export', '--json'], as(bot))).toMatchObject({ status: 1, stdout: '' })
    expect(await mayfly(['exec', '--json', '--kind', 'nothing', '--', 'true'], as(bot))).toMatchObject({ stdout: '' })
    // What was answered already is not answered twice.
    const task = await open(broker, bot, ['crm'])
    await lab.down()
    const completed = await mayfly(['task', 'complete', task.id, '--wait', '0', '--json'], as(bot))
    await lab.up()
    expect(completed.status).toBe(1)
    expect(JSON.parse(completed.stdout)).toMatchObject({ ended: false })
  })

  test('a reviewer exports the ledger and replays a decision', async () => {
    const task = await open(broker, bot, ['api'])
    await call(broker, bot, 'POST', `/tasks/${task.id}/complete`, {})
    const as = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:reader') }

    const exported = await mayfly(['ledger', 'export', '--task', task.id], as)
    const entries = exported.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { kind: string; decision?: string })
    expect(entries.map(({ kind }) => kind).toReversed()).toEqual([
      'task.opened',
      'decision.made',
      'lease.issued',
      'task.closing',
      'lease.revoked',
      'task.ended',
    ])
    const decision = entries.find(({ kind }) => kind === 'decision.made')!.decision!
    expect(await mayfly(['policy', 'replay', decision], as)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('the same answer') as unknown,
    })
    expect((await mayfly(['ledger', 'export', '--format', 'csv', '--task', task.id], as)).stdout.trim().split('\n')).toHaveLength(7)
  })

  test('SIGHUP puts better policies in force, and leaves the old ones when the new ones are faulty', async () => {
    const file = path.join(site.folder, 'policies/site.cedar')
    const before = await readFile(file, 'utf8')
    const metrics = async () => await (await fetch(`${broker.url}/metrics`)).text()
    const reloads = (outcome: string, count: number) => expect.poll(metrics).toContain(`mayfly_policy_reloads_total{outcome="${outcome}"} ${count}`)
    // From its start on: of a counter that is first seen at 1, nobody sees that it has grown.
    expect(await metrics()).toContain('mayfly_policy_reloads_total{outcome="refused"} 0')
    await site.write('policies/site.cedar', `${before}\n@id("broken") permit(principal in Nonsense::"x", action, resource);`)
    broker.process.kill('SIGHUP')
    await reloads('refused', 1)
    expect((await call(broker, bot, 'POST', '/tasks', declaration('api'))).status).toBe(201)
    await expect.poll(() => broker.log()).toContain('the old ones stay in force')

    await site.write('policies/site.cedar', before.replace('resource in Kind::"work"', 'resource == Grant::"crm"'))
    broker.process.kill('SIGHUP')
    await reloads('activated', 1)
    const denied = await call(broker, bot, 'POST', '/tasks', declaration('api', 'crm'))
    expect(denied.body).toMatchObject({ status: 403, code: 'denied' })
    const as = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:reader') }
    expect((await mayfly(['policy', 'denials', '--by-default'], as)).stdout).toMatch(/ issue +no policy permits api$/m)
    expect((await mayfly(['policy', 'replay', String(denied.body['decision'])], as)).stdout).toMatch(/^kept +deny \(no policy permits api\) /m)

    await site.write('policies/site.cedar', before)
    broker.process.kill('SIGHUP')
    await reloads('activated', 2)
  })

  test('goes on where nobody reads its log any more', async () => {
    logs += broker.log()
    broker.process.stderr!.destroy()
    for (let more = 0; more < 3; more++) {
      const task = await open(broker, bot, ['api', 'crm'])
      expect((await call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {})).body).toMatchObject({ ended: true })
    }
    expect(await broker.stop()).toBe(0)
    broker = await site.start()
  })

  test('what it held is still known after a restart', async () => {
    const task = await open(broker, bot, ['api', 'crm'])
    logs += broker.log()
    expect(await broker.stop()).toBe(0)
    broker = await site.start()

    expect(await introspect(broker, ops, task.secrets[0]!)).toBe(true)
    const { body } = await call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {})

    expect(body).toMatchObject({ ended: true })
    expect(await lab.works(task.secrets[1]!)).toBe(false)
  })

  test('a SIGHUP that comes while it starts is heeded once it has started', async () => {
    logs += broker.log()
    expect(await broker.stop()).toBe(0)
    const file = path.join(site.folder, 'jwks.json')
    await rm(file)
    await promisify(execFile)('mkfifo', [file])
    broker = await site.launch()
    // Opened as soon as the broker opens it too, which then waits for what is written.
    const keys = await openFile(file, 'w')
    broker.process.kill('SIGHUP')
    await keys.writeFile(JSON.stringify(site.jwks))
    await keys.close()
    await rm(file)
    await site.write('jwks.json', JSON.stringify(site.jwks))

    await broker.ready()

    const metrics = async () => await (await fetch(`${broker.url}/metrics`)).text()
    await expect.poll(metrics).toContain('mayfly_policy_reloads_total{outcome="activated"} 1')
  })

  test('nothing secret stands in any log', () => {
    const all = logs + broker.log()
    expect(all).toContain('a lease has ended')
    expect(secrets.length).toBeGreaterThan(3)
    for (const secret of [...secrets, bot, ops]) expect(all).not.toContain(secret)
    expect(all).not.toMatch(/mft_[\w-]{20}|eyJ[\w-]{20}/)
  })
})

describe.runIf(stores.some(({ name }) => name === 'Postgres'))('brokers that share one Postgres', () => {
  let store: OpenedStore
  let lab: Lab
  let site: Site
  let owner: postgres.Sql

  beforeAll(async () => {
    ;[store, lab] = await Promise.all([openDatabase(), startLab()])
    site = await makeSite({ store: store.settings, lab: lab.url })
    owner = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
  })
  afterAll(async () => {
    await owner.end()
    await lab.stop()
    await site.remove()
    await store.dispose()
  })

  /** Until the ledger has written down what the backend did. */
  async function nothingDue(): Promise<void> {
    while ((await owner`select 1 from leases where due_at is not null`).length > 0);
  }

  test('answer as one: what ends at one is dead at the other, in its very next answer', async () => {
    const [one, other] = await Promise.all([site.start(), site.start()])
    const bot = await site.token('agent:bot')
    const api = await site.token('resource:api')
    for (let round = 0; round < 5; round++) {
      const task = await open(one, bot, ['api'])
      expect(await introspect(other, api, task.secrets[0]!)).toBe(true)
      await call(other, task.token, 'POST', `/tasks/${task.id}/complete`, {})
      expect(await introspect(one, api, task.secrets[0]!)).toBe(false)
    }
    expect(await Promise.all([one.stop(), other.stop()])).toEqual([0, 0])
  })

  test('a broker that is killed while it mints leaves nothing alive, whoever finds it', async () => {
    const [one, other] = await Promise.all([site.start(), site.start()])
    const bot = await site.token('agent:bot')
    await lab.next('put', 'hangs', { done: true })
    const lost = open(one, bot, ['crm']).catch(() => undefined)
    await lab.hanging('put')
    expect((await lab.alive()).length).toBe(1)

    await one.kill()
    await lost
    await owner`update leases set due_at = now() where state = 'reserved'`

    await untilDead(lab)
    await nothingDue()
    const [lease] = await owner`select state, cause, evidence from leases order by id desc limit 1`
    expect(lease).toMatchObject({ state: 'revoked', cause: 'interrupted', evidence: { by: 'provider' } })
    await other.stop()
  })

  test('a task whose broker is gone dies at its deadline', async () => {
    const [one, other] = await Promise.all([site.start(), site.start()])
    const task = await open(one, await site.token('agent:bot'), ['crm'])
    await one.kill()
    await owner`update tasks set deadline = now() where id = ${task.id}`

    await untilDead(lab)
    await other.stop()
  })

  test('a store that is lost stops issuance and forgets nothing', async () => {
    const broker = await site.start()
    const bot = await site.token('agent:bot')
    const task = await open(broker, bot, ['crm'])
    const name = new URL((store.settings as { url: string }).url).pathname.slice(1)
    const cluster = new URL((store.settings as { url: string }).url)
    cluster.pathname = '/postgres'
    const admin = postgres(cluster.href, { max: 1, onnotice: () => {} })
    await owner.end()
    await admin.unsafe(`alter database ${name} allow_connections false`)
    await admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${name}`

    expect((await call(broker, bot, 'POST', '/tasks', declaration('api'))).body).toMatchObject({
      status: 503,
      code: 'store_unavailable',
      retry: 'later',
    })
    await expect.poll(async () => (await fetch(`${broker.url}/readyz`)).status).toBe(503)
    expect((await fetch(`${broker.url}/healthz`)).status).toBe(200)

    await admin.unsafe(`alter database ${name} allow_connections true`)
    await admin.end()
    owner = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
    await owner`update tasks set deadline = now() where id = ${task.id}`
    await untilDead(lab)
    expect(await broker.stop()).toBe(0)
  })
})

describe('a start that cannot work', () => {
  test('is refused with every fault at once, each with file and line', async () => {
    const site = await makeSite({ store: { embedded: './data' }, extra: 'colour: blue\n' })
    const text = (await readFile(site.config(), 'utf8')).replace('kind: jwt', 'kind: jot').replace('urn:mayfly:local-issuer', 'not a url')
    await site.write('mayfly.yaml', text)

    const ran = await mayfly(['serve', '--config', site.config()])

    expect(ran.status).toBe(1)
    expect(ran.stderr).toMatch(/mayfly\.yaml:\d+: .*colour/)
    expect(ran.stderr).toMatch(/mayfly\.yaml:\d+: .*(kind|jot)/)
    await site.remove()
  })

  test('refuses keys that others could read or put others in the place of, with the faults of all its key files at once', async () => {
    const site = await makeSite({ store: { embedded: './data' } })
    const keys = path.join(site.folder, 'keys')
    async function start(): Promise<readonly string[]> {
      const [, ...faults] = (await mayfly(['serve', '--config', site.config()])).stderr.trim().split('\n')
      return faults.map((fault) => fault.trim())
    }
    await mkdir(keys, { mode: 0o750 })
    expect(await start()).toEqual([`keys: ${keys} is open to others; chmod 700 it`])

    await chmod(keys, 0o700)
    await writeFile(path.join(keys, 'digest.key'), new Uint8Array(32), { mode: 0o640 })
    await writeFile(path.join(keys, 'log.key'), new Uint8Array(31), { mode: 0o600 })
    expect(await start()).toEqual([
      `keys: ${path.join(keys, 'digest.key')} can be read by others; chmod 600 it`,
      `keys: ${path.join(keys, 'log.key')} must hold 32 bytes`,
    ])
    await site.remove()
  })

  test('refuses a catalogue before it touches the store, which it would bring up to date, together with what is wrong with its keys', async () => {
    const site = await makeSite({ store: { embedded: './data' } })
    await mkdir(path.join(site.folder, 'keys'), { mode: 0o750 })
    await site.write('catalogue.yaml', 'colours: {}\n')

    const ran = await mayfly(['serve', '--config', site.config()])

    expect(ran.status).toBe(1)
    expect(ran.stderr).toMatch(/catalogue\.yaml:\d+: colours: is not a known key/)
    expect(ran.stderr).toContain('is open to others; chmod 700 it')
    expect(existsSync(path.join(site.folder, 'data'))).toBe(false)
    await site.remove()
  })

  test('refuses issuers whose keys cannot be used together with its key files, and has put nothing in force by then', async () => {
    const site = await makeSite({ store: { embedded: './data' } })
    const keys = path.join(site.folder, 'keys')
    await mkdir(keys, { mode: 0o700 })
    await writeFile(path.join(keys, 'digest.key'), new Uint8Array(32), { mode: 0o640 })
    await site.write('none.json', JSON.stringify({ keys: [{ kty: 'oct' }] }))
    await site.write('mayfly.yaml', (await readFile(site.config(), 'utf8')).replace(/keys: "[^"]*", replay/, 'keys: "./none.json", replay'))

    const ran = await mayfly(['serve', '--config', site.config()])

    expect(ran.status).toBe(1)
    expect(ran.stderr).toContain('issuer local: keys: none of the pinned keys can be used')
    expect(ran.stderr).toContain('digest.key can be read by others; chmod 600 it')
    expect(ran.stdout).not.toContain('a policy set is in force')
    await site.remove()
  })

  test('in development changes nothing of the tokens of the broker that has its folder', async () => {
    const [site, port] = [await makeSite({ store: { embedded: './data' } }), await freePort()]
    const data = path.join(site.folder, 'dev')
    const first = terminal(process.execPath, [command, 'dev', '--data', data, '--port', String(port)], {})
    await first.prints('the broker is listening')
    const audience = async () => {
      const { stdout } = await mayfly(['dev', 'token', '--operator', 'ops', '--data', data])
      return (JSON.parse(Buffer.from(stdout.split('.')[1]!, 'base64url').toString()) as { aud: unknown }).aud
    }
    const second = await mayfly(['dev', '--data', data, '--port', String(await freePort())])

    expect(second).toMatchObject({ status: 1, stderr: expect.stringContaining('in use') as unknown })
    expect(await audience()).toBe(`http://127.0.0.1:${port}`)
    await first.interrupt()
    await site.remove()
  })

  test('says that the store cannot be reached, without its password', async () => {
    const site = await makeSite({ store: { url: 'postgres://someone:hunter2@127.0.0.1:1/none' } })
    const ran = await mayfly(['serve', '--config', site.config()])
    expect(ran.status).toBe(1)
    expect(ran.stderr).toContain('The ledger cannot be opened')
    expect(ran.stderr).not.toContain('hunter2')
    await site.remove()
  })

  test('refuses a catalogue that names a missing provider', async () => {
    const site = await makeSite({ store: { embedded: './data' } })
    await site.write(
      'catalogue.yaml',
      (await readFile(path.join(site.folder, 'catalogue.yaml'), 'utf8')).replace('provider: tokens', 'provider: nobody'),
    )
    const ran = await mayfly(['serve', '--config', site.config()])
    expect(ran).toMatchObject({ status: 1, stderr: expect.stringMatching(/catalogue\.yaml:\d+: grants\.api\.provider/) as unknown })
    await site.remove()
  })
})

/** Asks the backend itself until nothing works there any more. Bounded by the test's own time. */
async function untilDead(lab: Lab): Promise<void> {
  while ((await lab.alive()).length > 0);
}
