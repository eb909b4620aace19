import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { explain } from '../../src/cli/failure.ts'
import { heldTable } from '../../src/cli/lease-lines.ts'
import { BrokerUnreachable, createClient, type Client, type OpenTask } from '../../src/client/client.ts'
import type { LeaseView, RevocationPlan, RevocationView, StopView } from '../../src/http/contract.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { makeSite, mayfly, type RunningBroker, type Site, typing } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { faultyWire } from '../support/wire.ts'

let store: OpenedStore
let lab: Lab
let site: Site
let broker: RunningBroker
let [ops, bot, rival]: readonly Client[] = []
let environment: Record<string, string>
let asReviewer: Record<string, string>

beforeAll(async () => {
  ;[store, lab] = await Promise.all([openEmbedded(), startLab()])
  site = await makeSite({ store: store.settings, lab: lab.url })
  broker = await site.start()
  const { url } = broker
  const clients = await Promise.all(
    ['operator:ops', 'agent:bot', 'agent:rival'].map(async (who) => createClient({ url, token: await site.token(who) })),
  )
  ;[ops, bot, rival] = clients
  environment = { MAYFLY_URL: url, MAYFLY_TOKEN: await site.token('operator:ops') }
  asReviewer = { MAYFLY_URL: url, MAYFLY_TOKEN: await site.token('operator:reader') }
})
afterAll(async () => {
  await broker.stop()
  await lab.stop()
  await site.remove()
  await store.dispose()
})

const api = { name: 'api', parameters: {} }
const crm = { name: 'crm', parameters: { customer: 'acme' } }
const open = (client: Client | undefined, grants = [api, crm]): Promise<OpenTask> => client!.open({ kind: 'work', purpose: 'test', grants })
const states = async (...tasks: readonly OpenTask[]) => await Promise.all(tasks.map(async ({ id }) => (await ops!.showTask(id)).task.state))
const started = async () => (await ops!.listRevocations()).items.length
const said = (text: string): unknown => JSON.parse(text)

/** Of bot two tasks with two leases each, of rival one with one. */
let mine: readonly [OpenTask, OpenTask]
let other: OpenTask
let before: number

async function openAll(): Promise<void> {
  mine = [await open(bot), await open(bot)]
  other = await open(rival, [api])
  before = await started()
}

async function endAll(): Promise<void> {
  for (const { id } of (await ops!.listStops({ in_force: true })).items) await ops!.resumeIssuing(id, 'the test is over')
  await ops!.startRevocation({ selector: { everything: true }, reason: 'the test is over', confirm: 'revoke everything' })
  await vi.waitUntil(async () => (await ops!.listRevocations({ ended: 'false' })).items.length === 0, { timeout: 60_000, interval: 100 })
  expect(await lab.alive()).toEqual([])
}

/** Meanwhile the lab cannot be reached. */
async function withoutLab(during: () => Promise<void>): Promise<void> {
  await lab.down()
  try {
    await during()
  } finally {
    await lab.up()
  }
}

describe('mayfly revoke and mayfly issuing, where nothing is to change', () => {
  beforeAll(openAll)
  afterEach(async () => {
    expect(await states(...mine, other)).toEqual(['open', 'open', 'open'])
    expect(await started()).toBe(before)
    expect((await ops!.listStops({ in_force: true })).items).toEqual([])
  })
  afterAll(endAll)

  const all = { lab: 2, tokens: 3 }
  test.each([
    ['an agent', ['--agent', 'bot'], { tasks: 2, count: 2, confirm: 'revoke agent bot' }, { lab: 2, tokens: 2 }],
    ['an owner', ['--owner', 'rival@example.com'], { tasks: 1, count: 1 }, { tokens: 1 }],
    ['an agent and a kind', ['--agent', 'rival', '--kind', 'work'], { tasks: 1, count: 1, confirm: 'revoke agent rival, kind work' }, { tokens: 1 }],
    ['an issuer', ['--issuer', 'local'], { tasks: 3, count: 3 }, all],
    ['a grant', ['--grant', 'crm'], { tasks: 2, count: 2 }, { lab: 2 }],
    ['a provider and an agent', ['--provider', 'tokens', '--agent', 'bot'], { tasks: 2, count: 2 }, { tokens: 2 }],
    ['nobody', ['--agent', 'nobody'], { tasks: 0, count: 0 }, {}],
    ['everything', ['--everything'], { tasks: 3, count: 3, confirm: 'revoke everything' }, all],
  ])('says of %s how much would end, and ends nothing', async (_, selector, plan, leases) => {
    const { status, stdout } = await mayfly(['revoke', ...selector, '--dry-run', '--json'], environment)
    expect(status).toBe(0)
    const told = said(stdout) as RevocationPlan
    expect(told).toMatchObject({ dry_run: true, ...plan })
    expect(Object.fromEntries(told.leases.map(({ provider, count }) => [provider, count]))).toEqual(leases)
  })

  test('asks about a name that nothing has, and about no other', async () => {
    const slip = await mayfly(['revoke', '--agent', 'bott', '--grant', 'crm', '--dry-run'], environment)
    expect(slip).toMatchObject({ status: 0, stderr: 'this broker knows no agent bott: is it spelled so?\n' })
    const right = ['--agent', 'bot', '--owner', 'owner@example.com', '--issuer', 'local', '--kind', 'work', '--grant', 'crm', '--provider', 'lab']
    expect(await mayfly(['revoke', ...right, '--dry-run'], environment)).toMatchObject({ status: 0, stderr: '' })
  })

  test('tells people the same in a table', async () => {
    const { stdout } = await mayfly(['revoke', '--agent', 'bot', '--dry-run'], environment)
    expect(stdout).toMatch(/^would end: tasks 2, leases 4 \(count 2\)\nPROVIDER +HOW +LEASES\n/)
    expect(stdout).toMatch(/^lab +provider +2$/m)
    expect(stdout).toMatch(/^tokens +provider +2$/m)
    const single = await mayfly(['revoke', '--grant', 'crm', '--dry-run'], environment)
    expect(single.stdout).toMatch(/^would end: leases 2 of tasks 2, which go on \(count 2\)\n/)
  })

  test.each([
    ['another phrase', 'revoke agent rival\r'],
    ['yes', 'yes\r'],
    ['nothing', '\r'],
    ['the end of the terminal', '\u{4}'],
    ['an interrupt', '\u{3}'],
  ])('does nothing where %s is typed', async (_, answer) => {
    const { status, screen } = await typing(answer, ['revoke', '--agent', 'bot', '--reason', 'why'], environment)
    expect(screen).toContain('not confirmed; nothing was changed')
    expect(status).toBe(2)
  })

  test('does nothing where nobody is there to type, and where there is more to end than was counted', async () => {
    const unattended = await mayfly(['revoke', '--agent', 'bot', '--reason', 'why'], environment, 'revoke agent bot\n')
    expect(unattended).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining('--yes COUNT') as string })
    const more = await mayfly(['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '1'], environment)
    expect(more).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('conflict: There is more to end') as string })
  })

  test.each([
    ['names nothing', ['--reason', 'why'], 2, '--agent, --owner, --issuer, --kind, --grant, --provider or --everything'],
    ['means everything and something besides', ['--everything', '--agent', 'bot'], 2, '--everything stands alone'],
    ['has a word that there is not', ['--agnet', 'bot'], 2, '--agnet'],
    ['has an empty name', ['--agent', '', '--dry-run'], 1, '/selector/agent'],
    ['gives no reason', ['--agent', 'bot'], 2, '--reason'],
    ['counts in words', ['--agent', 'bot', '--reason', 'why', '--yes', 'all'], 2, '--yes'],
    ['stops issuing for no time', ['--agent', 'bot', '--reason', 'why', '--yes', '2', '--stop-issuing', 'long'], 2, '--stop-issuing'],
  ])('that %s is refused by name, and nothing happens', async (_, args, status, words) => {
    expect(await mayfly(['revoke', ...args], environment)).toMatchObject({ status, stdout: '', stderr: expect.stringContaining(words) as string })
  })

  test.each([
    ['ask what would end', ['revoke', '--agent', 'bot', '--dry-run']],
    ['end many', ['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '2']],
    ['stop issuing', ['issuing', 'stop', '--agent', 'bot', '--reason', 'why', '--for', '1h']],
  ])('lets no reviewer %s, and keeps that one tried', async (_, args) => {
    const tried = async () => (await ops!.listEntries({ kind: 'request.refused' })).items.length
    const known = await tried()
    expect(await mayfly(args, asReviewer)).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('forbidden: ') as string })
    expect(await tried()).toBe(known + 1)
  })

  test.each([
    ['names nothing', ['stop', '--reason', 'why', '--for', '1h'], 2, 'say what is meant'],
    ['has no end', ['stop', '--agent', 'bot', '--reason', 'why'], 2, '--for'],
    ['has no reason', ['stop', '--agent', 'bot', '--for', '1h'], 2, '--reason'],
    ['is over a month long', ['stop', '--agent', 'bot', '--reason', 'why', '--for', '721h'], 1, '/duration'],
    ['there is not', ['resume', 'stop_nothing', '--reason', 'why'], 1, 'not_found'],
  ])('refuses a stop that %s', async (_, args, status, words) => {
    expect(await mayfly(['issuing', ...args], environment)).toMatchObject({ status, stdout: '', stderr: expect.stringContaining(words) as string })
  })
})

describe('mayfly revoke', () => {
  beforeEach(openAll)
  afterEach(endAll)

  test.each(['--stuck', '--standing'])('has leases beside it that are told apart with %s, with a value and without', async (which) => {
    const listed = async (...given: string[]) => {
      const { stdout } = await mayfly(['lease', 'list', '--state', 'active', which, ...given, '--json'], environment)
      return (said(stdout) as { items: unknown[] }).items.length
    }
    expect([await listed(), await listed('true'), await listed('false')]).toEqual([0, 0, 5])
    const refused = await mayfly(['lease', 'list', which, 'yes'], environment)
    expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining(`?${which.slice(2)}`) as string })
  })

  test('does what the dry run said once its phrase is typed, and nothing else', async () => {
    const { status, screen } = await typing('revoke agent bot\r', ['revoke', '--agent', 'bot', '--reason', "it's seen in a log"], environment)
    expect(screen).toContain('To go on, type: revoke agent bot')
    expect(screen).toMatch(/rev_\w+ {2}ended {2}tasks: 2 revoked {2}leases: 4 revoked/)
    expect(screen.match(/ended {2}tasks/g)).toHaveLength(1)
    expect(status).toBe(0)
    expect(await states(...mine, other)).toEqual(['revoked', 'revoked', 'open'])
    expect(await lab.alive()).toEqual([])
    expect((await ops!.showTask(mine[0].id)).task).toMatchObject({ reason: "it's seen in a log", ended_by: 'operator:local/operator:ops' })
  })

  test('shows how it goes until the last is dead, while a provider is away', async () => {
    let run: ReturnType<typeof mayfly>
    await withoutLab(async () => {
      let shown = ''
      run = mayfly(['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '2', '--json'], environment, '', (stderr) => (shown = stderr))
      await vi.waitUntil(() => /tasks: 2 closing {2}leases: .*2 revoking/.test(shown), { timeout: 60_000, interval: 100 })
      expect(await states(...mine)).toEqual(['closing', 'closing'])
    })
    const { status, stdout } = await run!
    expect(status).toBe(0)
    expect(said(stdout)).toMatchObject({
      state: 'ended',
      tasks: { revoked: 2 },
      leases: { revoked: 4 },
      stuck: 0,
      receipts: [{ kind: 'revocation.started' }],
    })
    expect(await lab.alive()).toEqual([])
  })

  test('that can be watched no more says which it is, for it goes on', async () => {
    const wire = await faultyWire(broker.url)
    try {
      await withoutLab(async () => {
        let cut: Promise<void> | undefined
        const run = mayfly(['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '2'], { ...environment, MAYFLY_URL: wire.url }, '', (stderr) => {
          if (stderr.includes('rev_')) cut ??= wire.cut()
        })
        const { status, stderr } = await run
        await cut
        const [{ id }] = (await ops!.listRevocations()).items as [RevocationView]
        expect(status).toBe(1)
        expect(stderr).toContain(`it was started, and the brokers go on: mayfly revocations show ${id}\nno answer from ${wire.url}`)
      })
    } finally {
      await wire.stop()
    }
  })

  test('that finds nothing but what is ending already does not call that ended, and says how much there is', async () => {
    await withoutLab(async () => {
      for (const task of mine) await task.complete({ wait: 0 })
      const plan = await mayfly(['revoke', '--agent', 'bot', '--dry-run'], environment)
      const others = '2 more were ending already and are not proven dead'
      expect(plan.stdout).toBe(`would end: tasks 0, leases 0 (count 0)\n${others}: it waits for them too\n`)
      const run = await mayfly(['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '0', '--wait', '1'], environment)
      expect(run).toMatchObject({ status: 1, stderr: expect.stringContaining('not all of it is dead yet') as string })
      expect(run.stdout).toMatch(new RegExp(`^rev_\\w+ {2}(ending|proving) {2}tasks: none {2}leases: none {2}${others}\n$`))
    })
    expect(await mayfly(['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '0'], environment)).toMatchObject({ status: 0 })
    expect(await lab.alive()).toEqual([])
  })

  test('that is not waited for to the end says so with its exit status, and where to look', async () => {
    await withoutLab(async () => {
      const args = ['revoke', '--grant', 'crm', '--reason', 'why', '--yes', '2', '--wait', '1', '--json']
      const { status, stdout, stderr } = await mayfly(args, environment)
      expect(status).toBe(1)
      const { id, state } = said(stdout) as RevocationView
      expect(state).not.toBe('ended')
      expect(stderr).toContain(`not all of it is dead yet; the brokers go on: mayfly revocations show ${id}`)
      await expect.poll(async () => (await ops!.showRevocation(id)).leases).toEqual({ revoking: 2 })
      const shown = await mayfly(['revocations', 'show', id, '--json'], asReviewer)
      expect(shown.status).toBe(0)
      expect(said(shown.stdout)).toMatchObject({ id, selector: { grant: 'crm' }, leases: { revoking: 2 } })
      expect(await states(...mine)).toEqual(['open', 'open'])
      const { stdout: table } = await mayfly(['revocations', 'list', '--ended', 'false'], asReviewer)
      expect(table).toMatch(new RegExp(`^${id} .* grant crm +operator:local/operator:ops +why$`, 'm'))
    })
  })
})

const storeLost = JSON.stringify({ status: 503, code: 'store_unavailable', retry: 'later', detail: 'The ledger cannot be read or written' })

describe.each<[string, (response: ServerResponse) => unknown]>([
  ['no answer comes', (response) => response.socket!.destroy()],
  ['the store of the broker is lost', (response) => response.writeHead(503, { 'retry-after': '0' }).end(storeLost)],
  ['a proxy finds it unavailable', (response) => response.writeHead(503, { 'retry-after': '0' }).end()],
])('where %s,', (_, fail) => {
  test.each([
    ['a revocation', ['revoke', '--agent', 'bot', '--reason', 'why', '--yes', '2'], 'mayfly revocations list'],
    [
      'a revocation with a stop',
      ['revoke', '--everything', '--reason', 'why', '--yes', '2', '--stop-issuing', '1h'],
      'mayfly issuing stops --in-force',
    ],
    ['a stop', ['issuing', 'stop', '--agent', 'bot', '--reason', 'why', '--for', '1h'], 'mayfly issuing stops --in-force'],
  ])('%s may have been started, is not started again, and where to look is said', async (_, args, look) => {
    let starts = 0
    const server = createServer((request, response) => {
      let asked = ''
      request
        .on('data', (chunk: Buffer) => (asked += chunk.toString()))
        .on('end', () => {
          if (asked.includes('dry_run')) {
            response.end(JSON.stringify({ dry_run: true, tasks: 2, leases: [], count: 2, confirm: 'revoke agent bot' }))
          } else {
            starts++
            fail(response)
          }
        })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const { status, stderr } = await mayfly(args, { MAYFLY_URL: url, MAYFLY_TOKEN: 'x' })
      expect(status).toBe(1)
      expect(stderr).toMatch(/it may have been started all the same; look before asking again: mayfly /)
      expect(stderr).toContain(look)
      expect(stderr).not.toContain('npm start')
      expect(starts).toBe(1)
    } finally {
      server.close()
    }
  })
})

test('only where nobody listens is asked whether a broker runs there, and only on this machine is one started', () => {
  const refused = { isRefused: true }
  expect(explain(new BrokerUnreachable('http://127.0.0.1:8420', 'x', refused)).lines[1]).toContain('npm start')
  expect(explain(new BrokerUnreachable('https://broker.example.com', 'x', refused)).lines[1]).toBe(
    'Is the broker running there? MAYFLY_URL says where it is asked.',
  )
  expect(explain(new BrokerUnreachable('http://127.0.0.1:8420', 'x')).lines).toHaveLength(1)
})

test('a lease that lives is said to be alive in the table of who held what, with how late it is so far', () => {
  const lease = {
    id: 'lease_1',
    task: 'task_1',
    agent: 'bot',
    owner: 'o',
    grant: 'crm',
    provider: 'lab',
    parameters: {},
    revocation: 'provider',
    standing: false,
    state: 'revoking',
    stuck_since: '2026-11-26T14:00:05.000Z',
    issued_at: '2026-11-26T13:00:00.000Z',
    closing_at: '2026-11-26T14:00:00.000Z',
    expires_at: '2026-11-26T15:00:00.000Z',
    error: 'no answer',
  } as unknown as LeaseView
  const ended = { ...lease, id: 'lease_2', state: 'revoked', stuck_since: undefined, ended_at: '2026-11-26T14:00:01.500Z' } as LeaseView
  const [, alive, dead] = heldTable([lease, ended], Date.parse('2026-11-26T14:00:12.300Z')).split('\n')
  expect(alive).toMatch(/revoking STUCK .* alive, until 2026-11-26 15:00:00Z +12\.3s so far +no answer$/)
  expect(dead).toMatch(/revoked +bot .* 2026-11-26 14:00:01Z +1\.5s +no answer$/)
})

test('a failure without a cause is told in its own words', () => {
  expect(explain(new BrokerError('conflict', 'It cannot be done'))).toEqual({ lines: ['It cannot be done'], status: 1 })
})

test('what stands at the address of the broker has no say about the terminal', async () => {
  const owned = '\u001b]0;owned\u0007'
  const problem = { code: `x${owned}`, detail: `gone\u001b[2J`, errors: [{ pointer: '/a\u009b2J', message: '\u202egone' }] }
  const stop = { id: `stop_1${owned}`, selector: {}, since: owned, until: owned, by: owned, reason: owned }
  const server = createServer((request, answer) => {
    const lists = request.method === 'GET' && request.url!.startsWith('/stops')
    const lifts = request.url!.endsWith('/lift')
    answer.writeHead(lists || lifts ? 200 : 400, { 'content-type': 'application/json' })
    answer.end(JSON.stringify(lists ? { items: [stop], next: null } : lifts ? { ...stop, id: 'stop_2' } : problem))
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const there = { MAYFLY_URL: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, MAYFLY_TOKEN: 'x' }
  const refused = await mayfly(['task', 'list'], there)
  const resumed = await mayfly(['issuing', 'resume', 'stop_2', '--reason', 'over'], there)
  server.close()
  expect(refused.stderr).toContain('gone\u{fffd}[2J')
  expect(resumed.stderr).toContain('STILL STOPPED')
  for (const said of [refused.stderr, resumed.stderr, resumed.stdout]) expect(said.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
})

describe('mayfly issuing', () => {
  beforeEach(openAll)
  afterEach(endAll)
  const inForce = async (token = environment) =>
    said((await mayfly(['issuing', 'stops', '--in-force', '--json'], token)).stdout) as { items: StopView[] }

  test('keeps what is named from being issued, leaves alive what lives, and lets it again with a reason that is kept', async () => {
    const stopped = await mayfly(['issuing', 'stop', '--agent', 'bot', '--reason', 'seen in a log', '--for', '1h', '--json'], environment)
    expect(stopped.status).toBe(0)
    const stop = said(stopped.stdout) as StopView
    expect(stop).toMatchObject({ selector: { agent: 'bot' }, reason: 'seen in a log', by: 'operator:local/operator:ops' })
    expect((await inForce(asReviewer)).items).toMatchObject([{ id: stop.id }])
    const refused: unknown = await open(bot).catch((error: unknown) => error)
    expect(refused).toMatchObject({ code: 'denied', detail: expect.stringContaining(stop.id) as string })
    expect(explain(refused).lines.join('\n')).toMatch(/mayfly issuing stops --in-force$/m)
    await open(rival, [api])
    expect(await states(...mine)).toEqual(['open', 'open'])

    expect(await mayfly(['issuing', 'resume', stop.id], environment)).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('--reason') as string,
    })
    expect((await mayfly(['issuing', 'resume', stop.id, '--reason', 'over'], asReviewer)).status).toBe(1)
    await expect(open(bot)).rejects.toMatchObject({ code: 'denied' })
    const lifted = await mayfly(['issuing', 'resume', stop.id, '--reason', 'it was a test'], environment)
    expect(lifted).toMatchObject({ status: 0, stdout: expect.stringMatching(/ by operator:local\/operator:ops: it was a test$/m) as string })
    expect((await inForce()).items).toEqual([])
    await open(bot)
    const again = await mayfly(['issuing', 'resume', stop.id, '--reason', 'over'], environment)
    expect(again).toMatchObject({ status: 1, stderr: expect.stringContaining('not_found: ') as string })
  })

  test('that lifts one stop names the others that still keep the same from being issued', async () => {
    const stop = async (...what: string[]) => {
      const { stdout } = await mayfly(['issuing', 'stop', ...what, '--reason', 'why', '--for', '1h', '--json'], environment)
      return said(stdout) as StopView
    }
    const mine = await stop('--agent', 'bot', '--grant', 'api')
    const all = await stop('--agent', 'bot')
    const some = await stop('--kind', 'work')
    await stop('--agent', 'rival')
    const lift = (id: string, ...more: string[]) => mayfly(['issuing', 'resume', id, '--reason', 'over', ...more], environment)

    const { status, stderr } = await lift(mine.id)
    expect(status).toBe(0)
    expect(stderr.trimEnd().split('\n')).toEqual([
      expect.stringMatching(new RegExp(`^STILL STOPPED: all of it is kept from being issued by ${all.id} \\(agent bot\\) until 20`)),
      expect.stringMatching(new RegExp(`^perhaps still stopped: some of it may be kept from being issued by ${some.id} \\(kind work\\) until 20`)),
    ])
    await expect(open(bot, [api])).rejects.toMatchObject({ code: 'denied' })
    const { stdout } = await lift(all.id, '--json')
    expect(said(stdout)).toMatchObject({ id: all.id, still_stopped_by: [{ id: some.id, selector: { kind: 'work' }, keeps: 'some' }] })
    expect(said((await lift(some.id, '--json')).stdout)).toMatchObject({ still_stopped_by: [{ selector: { agent: 'rival' }, keeps: 'some' }] })
    await open(bot, [api])
  })

  test('that cannot see the others says so, for the stop is lifted', async () => {
    // A broker of another version: it says less of a stop, and lists none.
    const older = createServer(({ method }, response) => {
      if (method === 'GET') response.writeHead(404).end()
      else response.end(JSON.stringify({ id: 'stop_1', selector: { agent: 'bot' }, lifted_at: '2026-11-27T03:00:00Z' }))
    })
    await once(older.listen(0, '127.0.0.1'), 'listening')
    try {
      const at = { ...environment, MAYFLY_URL: `http://127.0.0.1:${(older.address() as AddressInfo).port}` }
      const { status, stdout, stderr } = await mayfly(['issuing', 'resume', 'stop_1', '--reason', 'over'], at)
      expect({ status, stderr }).toEqual({
        status: 0,
        stderr: expect.stringMatching(
          /another stop keeps it from being issued \(mayfly issuing stops --in-force\) could not be seen: http_404/,
        ) as string,
      })
      expect(stdout).toMatch(/^stop_1 +agent bot +2026-11-27 03:00:00Z/m)
    } finally {
      older.close()
    }
  })

  test('is stopped for a name that nothing has, and asks about it', async () => {
    const stopped = await mayfly(['issuing', 'stop', '--provider', 'labb', '--reason', 'a slip', '--for', '1h'], environment)
    expect(stopped).toMatchObject({ status: 0, stderr: 'this broker knows no provider labb: is it spelled so?\n' })
    expect((await inForce()).items).toMatchObject([{ selector: { provider: 'labb' } }])
  })

  test('is stopped by a revocation that asks for it, which says how to let it again', async () => {
    const args = ['revoke', '--grant', 'api', '--reason', 'why', '--yes', '3', '--stop-issuing', '1h']
    const { status, stderr } = await mayfly(args, environment)
    expect(status).toBe(0)
    const [, command] = /let it again: mayfly (.*) --reason …$/m.exec(stderr) ?? []
    await expect(open(bot, [api])).rejects.toMatchObject({ code: 'denied' })
    await open(bot, [crm])
    expect((await mayfly([...command!.split(' '), '--reason', 'over'], environment)).status).toBe(0)
    await open(bot, [api])
  })
})
