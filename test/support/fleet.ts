import postgres from 'postgres'
import type { ClosedTask, OpenedTask } from '../../src/http/contract.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { auditTold, type Finding } from './audit.ts'
import { type Lab, startLab } from './lab.ts'
import { makeSite, type RunningBroker, type Site, type SiteOptions } from './program.ts'
import { openDatabase } from './stores.ts'

/** One answer of a broker. Its body is what the caller expects it to be, or a problem. */
export interface Answer<Body = unknown> {
  readonly status: number
  readonly body: Body & { readonly code?: string }
}

/** What a declaration handed out. */
export interface Held {
  readonly id: string
  readonly token: string
  readonly leases: OpenedTask['leases']
  /** Of each grant: the credential that came for it. */
  readonly secrets: Readonly<Record<string, string>>
}

/** Built brokers that share one Postgres and one lab, and everything that a test needs to watch them. */
export interface Fleet {
  readonly site: Site
  readonly lab: Lab
  /** A connection of the database's owner, who can move rows in time. */
  readonly owner: postgres.Sql
  readonly ledger: Ledger
  readonly storeUrl: string
  /** In the order of their start; a test may replace one. */
  readonly brokers: RunningBroker[]
  readonly tokens: { readonly bot: string; readonly ops: string; readonly api: string }
  call<Body>(broker: RunningBroker, token: string, method: string, path: string, body?: object, headers?: Headers): Promise<Answer<Body>>
  /** Asks for grants; the answer may be a refusal. Secrets are remembered: none may stand in the database or in a log. */
  ask(broker: RunningBroker, grants: readonly string[], headers?: Headers, token?: string): Promise<Answer<OpenedTask>>
  /** Asks, and fails where that is refused. */
  declare(broker: RunningBroker, grants: readonly string[], headers?: Headers): Promise<Held>
  complete(broker: RunningBroker, task: Held, headers?: Headers): Promise<Answer<ClosedTask>>
  /** Whether the broker says that this token is active. */
  active(broker: RunningBroker, token: string): Promise<boolean>
  /** How many of these brokers call this token active: a stale answer each, where its end was answered before. */
  activeAt(brokers: readonly RunningBroker[], token: string): Promise<number>
  /** Lets the brokers look at the store at once, instead of within a second. */
  wake(): Promise<void>
  /** Resolves when every lease of the store is either active or has ended. */
  settled(): Promise<void>
  /** The story of a task in the ledger: kinds of its entries, oldest first. */
  story(task: string): Promise<readonly string[]>
  /** What is wrong by the ledger, by the lab's own truth, and in the logs. */
  findings(): Promise<Finding[]>
  stop(): Promise<void>
}

type Headers = Readonly<Record<string, string>>

/** Room for bursts: what these tests race for is never the rate of a caller. */
const noRates = 'burst: 100000, requests_per_second: 100000'

const customer = { customer: 'acme' }

export const heldOf = ({ task, task_token, leases }: OpenedTask): Held => ({
  id: task.id,
  token: task_token,
  leases,
  secrets: Object.fromEntries(leases.map(({ grant, credential }) => [grant, secretOf(credential)])),
})

/** Polls until something is so. Bounded by time only so that a test fails with words. */
export async function until(what: string, condition: () => Promise<boolean>, seconds = 60): Promise<void> {
  const end = Date.now() + seconds * 1_000
  while (!(await condition())) if (Date.now() > end) throw new Error(`it never came about that ${what}`)
}

/**
 * @param limits further keys of `limits` in the configuration
 * @param providers further entries of `providers`, as YAML
 * @param catalogue what to make of the site's catalogue
 */
export async function startFleet(
  count: number,
  options: Pick<SiteOptions, 'replay'> & { readonly limits?: string; readonly providers?: string; readonly catalogue?: string } = {},
): Promise<Fleet> {
  const [store, lab] = await Promise.all([openDatabase(), startLab()])
  const { url: storeUrl } = store.settings as { url: string }
  const { replay = 'reusable', limits = '', providers = '' } = options
  const site = await makeSite({
    store: store.settings,
    lab: lab.url,
    replay,
    extra: `${providers}limits: { ${noRates}${limits && `, ${limits}`} }\n`,
  })
  if (options.catalogue !== undefined) await site.write('catalogue.yaml', options.catalogue)
  const brokers = await Promise.all(Array.from({ length: count }, () => site.start()))
  const everyBroker = new Set(brokers)
  const ledger = await connect(store.settings)
  const owner = postgres(storeUrl, { max: 4, onnotice: () => {} })
  const [bot, ops, api] = await Promise.all(['agent:bot', 'operator:ops', 'resource:api'].map((sub) => site.token(sub)))
  const tokens = { bot: bot!, ops: ops!, api: api! }
  const secrets: string[] = Object.values(tokens)

  const fleet: Fleet = {
    site,
    lab,
    owner,
    ledger,
    storeUrl,
    brokers,
    tokens,
    async call<Body>(
      broker: RunningBroker,
      token: string,
      method: string,
      path: string,
      body?: object,
      headers: Headers = {},
    ): Promise<Answer<Body>> {
      everyBroker.add(broker)
      const answer = await fetch(broker.url + path, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }), ...headers },
        ...(body && { body: JSON.stringify(body) }),
      })
      const content = (await answer.json()) as Body & { code?: string }
      secrets.push(...secretsIn(content))
      return { status: answer.status, body: content }
    },
    ask(broker, grants, headers = {}, token = tokens.bot) {
      const declaration = {
        kind: 'work',
        purpose: 'a race',
        duration: '10m',
        grants: grants.map((name) => (name === 'crm' ? { name, parameters: customer } : { name })),
      }
      return fleet.call(broker, token, 'POST', '/tasks', declaration, headers)
    },
    async declare(broker, grants, headers = {}) {
      const { status, body } = await fleet.ask(broker, grants, headers)
      if (status !== 201) throw new Error(`declared: ${status} ${JSON.stringify(body)}`)
      return heldOf(body)
    },
    complete: (broker, task, headers = { prefer: 'wait=30' }) => fleet.call(broker, task.token, 'POST', `/tasks/${task.id}/complete`, {}, headers),
    async active(broker, token) {
      const answer = await fetch(`${broker.url}/introspect`, {
        method: 'POST',
        headers: { authorization: `Bearer ${tokens.api}` },
        body: new URLSearchParams({ token }),
      })
      if (answer.status !== 200) throw new Error(`introspected: ${answer.status}`)
      return ((await answer.json()) as { active: boolean }).active
    },
    async activeAt(some, token) {
      return (await Promise.all(some.map((broker) => fleet.active(broker, token)))).filter(Boolean).length
    },
    wake: async () => void (await owner`select pg_notify('mayfly_due', '')`),
    settled: () =>
      until('every lease is active or has ended', async () => {
        const [row] = await owner`select exists (select from leases where state in ('reserved', 'revoking')) as busy`
        return row!['busy'] === false
      }),
    async story(task) {
      const rows = await owner<{ kind: string }[]>`select kind from entries where task_id = ${task} order by xid, id`
      return rows.map(({ kind }) => kind)
    },
    async findings() {
      // Of those that a test has not stopped, frozen or killed.
      const metrics = await Promise.all(
        brokers.map(({ url }) =>
          fetch(`${url}/metrics`, { signal: AbortSignal.timeout(5_000) })
            .then((answer) => answer.text())
            .catch(() => ''),
        ),
      )
      const told = [...[...everyBroker].map((broker) => broker.log()), ...metrics].join('')
      return [...(await auditTold(ledger, secrets, told)), ...(await strangersAt(lab, owner))]
    },
    async stop() {
      await Promise.all(brokers.map((broker) => broker.stop()))
      await Promise.all([owner.end(), ledger.close(), lab.stop()])
      await site.remove()
      await store.dispose()
    },
  }
  return fleet
}

/** What the lab and the ledger disagree about: a credential that works without a live lease, or an active lease whose credential does not work. */
async function strangersAt(lab: Lab, owner: postgres.Sql): Promise<Finding[]> {
  const alive = (await lab.alive()).map(({ lease }) => lease)
  const leases = await owner<{ id: string; state: string; live: boolean }[]>`
    select id, state, due_at is not null as live from leases where provider = 'lab'`
  const live = new Set(leases.filter((lease) => lease.live).map(({ id }) => id))
  return [
    ...alive.filter((id) => !live.has(id)).map((id) => `a credential works whose lease has ended, or never was: ${id}`),
    ...leases.filter(({ id, state }) => state === 'active' && !alive.includes(id)).map(({ id }) => `an active lease is dead at the backend: ${id}`),
  ]
}

function secretOf(credential: object): string {
  const { token, session_token = token, password = session_token } = credential as { token?: string; session_token?: string; password?: string }
  if (password === undefined) throw new Error('a credential of another type')
  return password
}

/** Every secret that an answer handed out, wherever it stands. */
export function secretsIn(content: unknown): string[] {
  const { task_token, lease, leases = [] } = content as Partial<OpenedTask> & { lease?: { credential?: object } }
  const credentials = [...leases, ...(lease ? [lease] : [])].flatMap(({ credential }) => (credential ? [secretOf(credential)] : []))
  return [...(task_token === undefined ? [] : [task_token]), ...credentials]
}
