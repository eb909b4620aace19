import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { expect } from 'vitest'
import { connect, type Ledger, type StoreSettings } from '../../src/ledger/connect.ts'
import { auditTold, type Finding } from '../support/audit.ts'
import { secretsIn } from '../support/fleet.ts'
import { type Lab, startLab } from '../support/lab.ts'
import { makeSite, type RunningBroker, type Site, type SiteOptions } from '../support/program.ts'
import { type OpenedStore } from '../support/stores.ts'

export interface Answer {
  readonly status: number
  /** `retry-after`, in seconds. */
  readonly retryAfter: string | null
  readonly body: Record<string, unknown>
}

/** A task as its agent has it: the ids of its leases, and the secrets, in order of its grants. */
export interface Opened {
  readonly id: string
  readonly token: string
  readonly leases: readonly string[]
  readonly secrets: readonly string[]
}

/** The built broker between dependencies that a test can take away. */
export interface Ground {
  readonly lab: Lab
  readonly site: Site
  readonly broker: RunningBroker
  call(token: string, method: string, path: string, body?: object, headers?: object): Promise<Answer>
  /** Asks for a task. @param as the workload token of the agent `bot` where absent */
  declare(grants: readonly string[], as?: string): Promise<Answer>
  /** A task that is open. Fails where it is refused. */
  open(...grants: readonly string[]): Promise<Opened>
  complete(task: Opened, wait?: number): Promise<Answer>
  /** An operator ends it. @param as the workload token of the operator `ops` where absent */
  revoke(task: Pick<Opened, 'id'>, as?: string, wait?: number): Promise<Answer>
  /** What a resource server is told about a signed token. @param as its workload token */
  introspect(token: string, as?: string): Promise<Answer>
  readyz(): Promise<Answer>
  /** The value of one series of /metrics, such as `mayfly_leases{state="active"}`: NaN where it says so, undefined where it is missing. */
  metric(series: string): Promise<number | undefined>
  /** Another broker of the same site takes the place of this one, which is stopped. */
  restart(environment?: Readonly<Record<string, string>>): Promise<void>
  /** What is wrong by the ledger. No secret that was shown or minted stands in it, in a log or in a metric. */
  findings(ledger: Ledger): Promise<Finding[]>
  /** Ends the broker, and fails where there are findings. */
  stop(): Promise<void>
}

export interface GroundOptions extends Omit<SiteOptions, 'store' | 'lab'> {
  /** Where the broker finds its store. */
  readonly store: StoreSettings
  /** What stands in front of the lab, as the broker knows it. */
  readonly front?: (lab: string) => Promise<string>
  readonly environment?: Readonly<Record<string, string>>
}

const grantOf = (name: string) => (name === 'crm' ? { name, parameters: { customer: 'acme' } } : { name })

export async function startGround({ front = async (lab) => lab, environment = {}, ...options }: GroundOptions): Promise<Ground> {
  const lab = await startLab()
  const site = await makeSite({ ...options, lab: await front(lab.url) })
  let broker = await site.start({}, environment)
  const brokers = [broker]
  const [bot, ops, api] = await Promise.all(['agent:bot', 'operator:ops', 'resource:api'].map((sub) => site.token(sub)))
  const secrets = new Set<string>()

  async function call(token: string, method: string, path: string, body?: object, headers: object = {}): Promise<Answer> {
    secrets.add(token)
    return await ask(method, path, body, { authorization: `Bearer ${token}`, ...headers })
  }
  async function ask(method: string, path: string, body?: object, headers: object = {}): Promise<Answer> {
    const form = body instanceof URLSearchParams
    const answer = await fetch(broker.url + path, {
      method,
      headers: { ...(body && !form && { 'content-type': 'application/json' }), ...headers },
      ...(body && { body: form ? body : JSON.stringify(body) }),
    })
    const content = (await answer.json()) as Answer['body']
    for (const secret of secretsIn(content)) secrets.add(secret)
    return { status: answer.status, retryAfter: answer.headers.get('retry-after'), body: content }
  }
  const metrics = async () => await (await fetch(`${broker.url}/metrics`)).text()

  async function findings(ledger: Ledger, measured: string): Promise<Finding[]> {
    const all = [...secrets, ...(await lab.minted()).map(({ secret }) => secret)]
    return await auditTold(ledger, all, [...brokers.map((each) => each.log()), measured].join(''))
  }
  const declare = (grants: readonly string[], as = bot!) =>
    call(as, 'POST', '/tasks', { kind: 'work', purpose: 'an outage', duration: '5m', grants: grants.map(grantOf) })

  return {
    lab,
    site,
    get broker() {
      return broker
    },
    call,
    declare,
    async open(...grants) {
      const { status, body } = await declare(grants)
      expect(status, JSON.stringify(body)).toBe(201)
      const { task, task_token, leases } = body as {
        task: { id: string }
        task_token: string
        leases: { id: string; credential: { token: string } }[]
      }
      return { id: task.id, token: task_token, leases: leases.map(({ id }) => id), secrets: leases.map(({ credential }) => credential.token) }
    },
    complete: (task, wait = 0) => call(task.token, 'POST', `/tasks/${task.id}/complete`, {}, { prefer: `wait=${wait}` }),
    revoke: (task, as = ops!, wait = 0) => call(as, 'POST', `/tasks/${task.id}/revoke`, { reason: 'an outage' }, { prefer: `wait=${wait}` }),
    introspect: (token, as = api!) => call(as, 'POST', '/introspect', new URLSearchParams({ token })),
    readyz: () => ask('GET', '/readyz'),
    async metric(series) {
      const line = (await metrics()).split('\n').find((found) => found.startsWith(`${series} `))
      return line === undefined ? undefined : Number(line.slice(series.length + 1).replace('Nan', 'NaN'))
    },
    async restart(again = environment) {
      await broker.stop()
      broker = await site.start({}, again)
      brokers.push(broker)
    },
    findings: async (ledger) => await findings(ledger, await metrics()),
    async stop() {
      const measured = await metrics()
      expect(await broker.stop()).toBe(0)
      const ledger = await connect(options.store)
      expect(await findings(ledger, measured)).toEqual([])
      await ledger.close()
      await lab.stop()
      await site.remove()
    },
  }
}

/** The clock of one broker, in the hands of a test. */
export interface ShiftedClock {
  /** For the broker to be started with. */
  readonly environment: Readonly<Record<string, string>>
  /** Sets it, while the broker runs. @param ahead milliseconds ahead of the machine's */
  set(ahead: number): Promise<void>
  remove(): Promise<void>
}

export async function shiftedClock(): Promise<ShiftedClock> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-clock-'))
  const file = path.join(folder, 'ahead')
  const set = (ahead: number) => writeFile(file, String(ahead))
  await set(0)
  const preload = path.join(import.meta.dirname, '../support/shifted-clock.mjs')
  return { environment: { NODE_OPTIONS: `--import=${preload}`, SHIFTED_CLOCK: file }, set, remove: () => rm(folder, { recursive: true }) }
}

/** What a test does to the store behind the broker's back: on Postgres only, for the embedded store belongs to its broker alone. */
export interface Backstage {
  readonly sql: postgres.Sql
  /** Moves everything that has not ended, and what else is of its tasks, into the past, so that time has passed that nobody has waited for. */
  age(interval: string): Promise<void>
  /** How many leases have to be ended, or looked after, and are not; and how many tasks have outlived their deadline. */
  owed(): Promise<number>
  audit(): Promise<Finding[]>
  stop(): Promise<void>
}

export async function backstageOf(store: OpenedStore, ground: Ground): Promise<Backstage> {
  const sql = postgres((store.settings as { url: string }).url, { max: 2, onnotice: () => {} })
  const ledger = await connect(store.settings)
  return {
    sql,
    async age(interval) {
      await sql`update tasks set opened_at = opened_at - ${interval}::interval, deadline = deadline - ${interval}::interval, closing_at = closing_at - ${interval}::interval
        where state in ('open', 'closing')`
      await sql`update leases set reserved_at = reserved_at - ${interval}::interval, issued_at = issued_at - ${interval}::interval, expires_at = expires_at - ${interval}::interval,
        closing_at = closing_at - ${interval}::interval, due_at = due_at - ${interval}::interval
        where due_at is not null or task_id in (select id from tasks where state in ('open', 'closing'))`
      await sql`update idempotency_keys set busy_until = busy_until - ${interval}::interval`
    },
    async owed() {
      const [row] = await sql<
        { owed: number }[]
      >`select (select count(*) from leases where state in ('reserved', 'revoking') or (due_at <= now()))::int
        + (select count(*) from tasks where state = 'open' and deadline <= now())::int as owed`
      return row!.owed
    },
    audit: () => ground.findings(ledger),
    async stop() {
      await Promise.all([sql.end(), ledger.close()])
    },
  }
}

/** Looks again and again, as long as the test has time. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  // Looking costs the broker and this process what they need to get there.
  while (!(await condition())) await pause(25)
}

/**
 * How long it takes from a recovery to the last end that is owed: measured from before `recover` to when the condition holds, told, and held against the
 * five seconds that are promised. They are counted in tenths, between which broker and store answer: for as long as the machine stands still nothing is
 * answered, and a busy one answers slowly. By the clock it is three times as long at most.
 */
export async function secondsAfter(ground: Ground, what: string, recover: () => Promise<void>, done: () => Promise<boolean>): Promise<number> {
  const began = performance.now()
  await recover()
  let tenths = 0
  while (!(await done())) {
    await pause(100)
    await ground.readyz()
    tenths++
  }
  const seconds = (performance.now() - began) / 1_000
  console.log(`${what}: everything due was done ${seconds.toFixed(2)} s after recovery`)
  expect(tenths, `after ${what}`).toBeLessThanOrEqual(50)
  expect(seconds, `after ${what}`).toBeLessThan(15)
  return seconds
}
