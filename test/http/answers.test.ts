import { Hono } from 'hono'
import { describe, expect, test } from 'vitest'
import { newId } from '../../src/base/ids.ts'
import { Secret } from '../../src/base/secret.ts'
import { asCsv, cell } from '../../src/http/export.ts'
import { waitSeconds } from '../../src/http/prefer.ts'
import { reveal } from '../../src/http/reveal.ts'
import { viewLease, viewTask } from '../../src/http/views.ts'
import type { Lease, Task } from '../../src/ledger/records.ts'
import { secretsOf, type Credential } from '../../src/providers/credential.ts'
import { buildHouse } from './house.ts'

describe('revealing a credential', () => {
  const credentials: Credential[] = [
    { type: 'bearer_token', token: new Secret('s1') },
    { type: 'username_password', username: 'u', password: new Secret('s1') },
    {
      type: 'aws_session',
      access_key_id: 'a',
      secret_access_key: new Secret('s1'),
      session_token: new Secret('s2'),
      expiration: '2026-11-24T09:30:00Z',
    },
    { type: 'fields', fields: { first: new Secret('s1'), second: new Secret('s2') } },
  ]

  test.each(credentials)('shows a $type once and never again', (credential) => {
    const names = Object.keys(secretsOf(credential))
    const shown = JSON.stringify(reveal(credential))
    expect(names.map((_, at) => shown.includes(`"s${at + 1}"`))).toEqual(names.map(() => true))
    expect(() => reveal(credential)).toThrow('already opened')
    expect(JSON.stringify(credential)).not.toMatch(/"s\d"/)
  })
})

const moment = new Date('2026-11-24T09:30:00Z')
const task: Task = {
  id: newId('task'),
  state: 'open',
  kind: 'invoice-sync',
  agent: 'invoice-bot',
  owner: 'finance@example.com',
  actor: {
    issuer: 'corp',
    profile: 'oidc',
    subject: 's',
    trustDomain: undefined,
    attributes: {},
    token: { digest: '0', jti: 'j', kid: 'k', alg: 'ES256', expiresAt: 0 },
  },
  purpose: 'p',
  labels: { run: '8841' },
  openedAt: moment,
  deadline: moment,
  outcome: null,
  cause: null,
  reason: null,
  endedBy: null,
  revokedIn: null,
  closingAt: null,
  endedAt: null,
  liveLeases: 1,
  announcedLeases: 1,
}
const lease: Lease = {
  id: newId('lease'),
  taskId: task.id,
  decisionId: newId('dec'),
  agent: 'invoice-bot',
  owner: 'finance@example.com',
  grant: 'ledger-read',
  provider: 'vault',
  providerKind: 'http',
  local: false,
  revocation: 'provider',
  standing: false,
  outlivesRevocation: [],
  state: 'active',
  parameters: {},
  ttl: 60_000,
  handles: [{ accessor: 'not for the wire' }],
  reservedAt: moment,
  issuedAt: moment,
  expiresAt: moment,
  cause: null,
  reason: null,
  endedBy: null,
  revokedIn: null,
  closingAt: null,
  endedAt: null,
  evidence: null,
  error: null,
  stuckSince: null,
  attempts: 0,
  dueAt: moment,
}

/** By an agent. */
const asked = { roles: new Set<never>() }

describe('a view', () => {
  test('has what applies and leaves out what does not', () => {
    expect(Object.keys(viewTask(task, asked)).toSorted()).toEqual(
      ['agent', 'deadline', 'id', 'kind', 'labels', 'opened_at', 'owner', 'purpose', 'state'].toSorted(),
    )
    expect(Object.keys(viewLease(lease, asked)).toSorted()).toEqual(
      ['agent', 'expires_at', 'grant', 'id', 'issued_at', 'owner', 'parameters', 'provider', 'revocation', 'state', 'task'].toSorted(),
    )
  })

  test('of a lease that is stuck says since when and why', () => {
    const stuck: Lease = {
      ...lease,
      state: 'revoking',
      cause: 'completed',
      error: 'vault gave no answer in time',
      stuckSince: moment,
      standing: true,
    }
    expect(viewLease(stuck, asked)).toMatchObject({
      state: 'revoking',
      cause: 'completed',
      error: 'vault gave no answer in time',
      stuck_since: '2026-11-24T09:30:00.000Z',
      standing: true,
    })
  })

  test('of a lease says what goes on when its credential is dead', () => {
    expect(viewLease({ ...lease, outlivesRevocation: ['rds-db:connect'] }, asked)).toMatchObject({ outlives_revocation: ['rds-db:connect'] })
  })

  test('of a lease that has ended shows the evidence', () => {
    const evidence = { by: 'provider', statement: 'DELETE answered 204', at: '2026-11-24T09:30:01Z' } as const
    const ended: Lease = { ...lease, state: 'revoked', cause: 'revoked', reason: 'leaked', endedBy: 'operator:o', endedAt: moment, evidence }
    expect(viewLease(ended, asked)).toMatchObject({ evidence, reason: 'leaked', ended_by: 'operator:o', ended_at: '2026-11-24T09:30:00.000Z' })
  })

  test('has no room for handles, digests or the place in the queue', () => {
    expect(JSON.stringify([viewLease(lease, asked), viewTask(task, asked)])).not.toMatch(/accessor|handles|digest|due|attempts|actor/)
  })
})

describe('the ledger', () => {
  const entry = {
    id: newId('ent'),
    at: '2026-11-24T09:30:00+00:00',
    kind: 'task.opened',
    agent: '=cmd|calc',
    task_id: newId('task'),
    lease_id: null,
    decision_id: null,
    body: { purpose: '=1+1', said: 'a "b"\r\n' },
  }
  const house = buildHouse({ ledger: async () => [{ item: entry }, { item: { ...entry, id: newId('ent') } }] })
  const ask = (accept: string, query = '?limit=1') => house.ask(`/ledger${query}`, { token: 'reviewer', headers: { accept } })

  test('is a JSON page with the cursor of the next one', async () => {
    const page = (await (await ask('application/json')).json()) as object
    expect(page).toEqual({
      items: [{ id: entry.id, at: '2026-11-24T09:30:00.000Z', kind: 'task.opened', agent: '=cmd|calc', task: entry.task_id, body: entry.body }],
      next: entry.id,
    })
  })

  test('is a JSON text a line for whoever asks for it, with the next page in a link', async () => {
    const answer = await ask('application/x-ndjson', '?limit=1&kind=task.opened')
    const lines = (await answer.text()).split('\n')
    expect(answer.headers.get('content-type')).toBe('application/x-ndjson')
    // Without a path, for a proxy may have put one before it.
    expect(answer.headers.get('link')).toBe(`<?limit=1&kind=task.opened&cursor=${entry.id}>; rel="next"`)
    expect(lines).toHaveLength(2)
    expect(JSON.parse(lines[0]!)).toMatchObject({ id: entry.id, body: entry.body })
  })

  test('is CSV in which no cell starts a formula', async () => {
    const answer = await ask('text/csv')
    const [header, row, ...rest] = (await answer.text()).split('\r\n')
    expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8; header=present')
    expect(answer.headers.get('content-disposition')).toContain('attachment')
    expect(header).toBe('id,at,kind,agent,task,lease,decision,body')
    expect(row).toBe(
      `"${entry.id}","2026-11-24T09:30:00.000Z","task.opened","'=cmd|calc","${entry.task_id}","","","{""purpose"":""=1+1"",""said"":""a \\""b\\""\\r\\n""}"`,
    )
    expect(rest).toEqual([''])
  })

  test.each(['*/*', 'text/html', 'application/json;q=0.1, text/html', ''])('is JSON for whoever accepts %s', async (accept) => {
    expect((await ask(accept)).headers.get('content-type')).toBe('application/json')
  })

  test.each(['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1', '\n=1', '＝1+1'])('keeps the cell %j from being a formula', (value) => {
    expect(cell(value)).toBe(`"'${value}"`)
  })

  test('has a header line even when there is nothing in it', () => {
    expect(asCsv([])).toBe('id,at,kind,agent,task,lease,decision,body\r\n')
  })
})

describe('how long to wait for the ends', () => {
  const app = new Hono().get('/', (c) => c.text(String(waitSeconds(c))))
  const ask = async (prefer?: string) => {
    const answer = await app.request('/', prefer === undefined ? {} : { headers: { prefer } })
    return [Number(await answer.text()), answer.headers.get('preference-applied')]
  }

  test.each([
    ['wait=0', 0],
    ['wait=12', 12],
    ['wait="7"', 7],
    ['respond-async, wait=9', 9],
    ['Wait = 9', 9],
    ['wait=9; foo=bar', 9],
    ['wait=31', 30],
    ['wait=999999', 30],
  ])('is what %s asks for, within 30 seconds, and is said back', async (prefer, seconds) => {
    expect(await ask(prefer)).toEqual([seconds, `wait=${seconds}`])
  })

  test.each([undefined, '', 'wait', 'wait=', 'wait=-1', 'wait=1.5', 'await=3', 'wait=9999999', 'respond-async'])(
    'is five seconds for %s, and nothing is said',
    async (prefer) => {
      expect(await ask(prefer)).toEqual([5, null])
    },
  )
})
