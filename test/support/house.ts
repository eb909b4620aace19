import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Writable } from 'node:stream'
import { sql } from 'drizzle-orm'
import type { Actor } from '../../src/identity/actor.ts'
import { connect, type Ledger, type StoreSettings } from '../../src/ledger/connect.ts'
import { killLists } from '../../src/ledger/kill-lists.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import type { Lease } from '../../src/ledger/records.ts'
import { roleSessions } from '../../src/ledger/role-sessions.ts'
import { attributesOf } from '../../src/identity/profiles.ts'
import { loadCatalogue } from '../../src/policy/catalogue.ts'
import { loadPolicySet } from '../../src/policy/document.ts'
import { secretsOf } from '../../src/providers/credential.ts'
import { providerKinds } from '../../src/providers/kinds.ts'
import type { ProviderSurroundings } from '../../src/providers/provider.ts'
import { createTarget, type Target } from '../../src/providers/target.ts'
import { lap } from '../../src/reaper.ts'
import { createBackground } from '../../src/tasks/background.ts'
import { completeTask, revokeLease, revokeTask, type TaskEnd } from '../../src/tasks/close.ts'
import { addLease } from '../../src/tasks/lease.ts'
import type { IssuedLease } from '../../src/tasks/mint.ts'
import { type OpenedTask, openTask } from '../../src/tasks/open.ts'
import { refreshLease } from '../../src/tasks/refresh.ts'
import { renewTask } from '../../src/tasks/renew.ts'
import type { ActivePolicy, Broker, Caller, Declaration } from '../../src/tasks/task.ts'
import { createTelemetry, type Telemetry } from '../../src/telemetry.ts'
import { auditTold, type Finding } from './audit.ts'
import { type Lab, startLab } from './lab.ts'

/** A broker in this process over a real store, with both providers, a lab behind `lab`, and nothing that runs by itself. */
export interface House {
  readonly broker: Broker
  readonly ledger: Ledger
  readonly lab: Lab
  /** The broker's clock, in milliseconds ahead of the machine's. */
  skew: number
  /** Declares as an agent; secrets are opened and remembered, so that the audit can look for them everywhere. */
  declare(grants: readonly string[], options?: DeclareOptions): Promise<Declared>
  caller(agent: string): Caller
  readonly operator: Caller
  /** Goes round with the reaper until nothing is due, and waits for what it began. By itself, or as another broker of the store. */
  reap(on?: Broker): Promise<void>
  /** Moves a task with its leases into the past, so that time passes without waiting. */
  backdate(task: string, interval: string): Promise<void>
  /** Everything that was logged so far. */
  log(): string
  /**
   * A second broker on the same store, with providers and limits of its own; on Postgres with connections and queues of its own too, as another process has.
   * @param timeout how long it waits for the lab
   */
  neighbour(timeout?: string): Promise<Broker>
  use(policy: ActivePolicy): void
  audit(): Promise<Finding[]>
  stop(): Promise<void>
}

export interface DeclareOptions {
  readonly agent?: string
  readonly duration?: number
  readonly key?: string
  readonly purpose?: string
  readonly parameters?: Readonly<Record<string, string>>
  readonly broker?: Broker
}

export interface Declared {
  readonly opened: OpenedTask
  readonly id: OpenedTask['task']['id']
  readonly token: string
  /** The secret of each lease, in order; of several the first. */
  readonly secrets: readonly string[]
  /** All secrets of each lease, by their names. */
  readonly boxes: readonly Readonly<Record<string, string>>[]
  readonly leases: readonly Lease[]
  /** The same task, spoken to at another broker. */
  at(broker: Broker): Declared
  complete(wait?: number): Promise<TaskEnd>
  revoke(wait?: number): Promise<TaskEnd>
  add(grant: string): Promise<IssuedLease>
  refresh(lease: Lease): Promise<IssuedLease>
  renew(duration: number): Promise<OpenedTask['task']>
  revokeLease(lease: Lease, wait?: number): Promise<{ lease: Lease; ended: boolean }>
}

/** Seconds for an answer of the lab, or for an end: a busy machine takes its time, and nobody waits for longer than that takes. */
const patience = 20

/** A key of no importance, long enough to be one. */
const digestKey = new Uint8Array(32).fill(7)

export const never = new AbortController().signal

/** What a house has besides its own: a provider, and grants of it, which every kind of task may ask for. */
export interface Annex {
  readonly kind: string
  readonly name: string
  readonly settings: object
  /** By name, the rest of each entry in the catalogue. */
  readonly grants: Readonly<Record<string, string>>
}

const catalogueText = (extra: string, annex: Annex | undefined) => `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
  rival: { issuer: local, match: { sub: "agent:rival" }, owner: rival@example.com, groups: [robots] }
  stranger: { issuer: local, match: { sub: "agent:stranger" }, owner: stranger@example.com, groups: [] }
  small: { issuer: local, match: { sub: "agent:small" }, owner: small@example.com, groups: [robots], max_live_leases: 3 }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [${['api', 'api-for', 'slow-api', 'crm', 'crm-for', 'gone-by-itself', 'lent', ...Object.keys(annex?.grants ?? {})].join(', ')}] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  api-for: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m, parameters: { customer: { pattern: "[a-z]{1,8}" } } }
  slow-api: { provider: tokens, audience: "https://slow.example.com", scope: "read", max_ttl: 30m }
  crm: { provider: lab, max_ttl: 20m }
  crm-for: { provider: lab, max_ttl: 20m, parameters: { customer: { pattern: "[a-z]{1,8}" } } }
  gone-by-itself: { provider: lapsing, max_ttl: 20m }
  lent: { provider: lapsing, max_ttl: 20m, standing: true }
${Object.entries(annex?.grants ?? {})
  .map(([name, rest]) => `  ${name}: { provider: ${annex?.name}, max_ttl: 20m, ${rest} }\n`)
  .join('')}${extra}`

const policyText = `
@id("robots-work")
permit(principal in Group::"robots", action in [Action::"issue", Action::"renew"], resource in Kind::"work");

@id("robots-declare")
permit(principal in Group::"robots", action == Action::"declare", resource == Kind::"work");
`

export async function startHouse(store: StoreSettings | 'embedded', annex?: Annex): Promise<House> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-house-'))
  const lab = await startLab()
  const settings = store === 'embedded' ? { embedded: path.join(folder, 'store') } : store
  const ledger = await connect(settings)
  const lines: string[] = []
  const secrets: string[] = []
  const state = { skew: 0, policy: await loadPolicy(folder, {}, annex) }
  await archivePolicySet(ledger, state.policy.set.digest, state.policy.set.document)

  async function newBroker(at: Ledger, timeout = `${patience}s`): Promise<Broker> {
    const destination = new Writable({ write: (chunk: Buffer, _, done) => (lines.push(chunk.toString()), done()) })
    const telemetry = createTelemetry({ level: 'debug', destination })
    const clock = () => Date.now() + state.skew
    return {
      ledger: at,
      targets: await connectTargets(at, lab, timeout, path.join(folder, 'keys'), clock, telemetry, annex),
      policy: () => state.policy,
      telemetry,
      clock,
      limits: { leasesPerTask: 16, stuckAfter: 5 * 60_000 },
      digestKey,
      background: createBackground(telemetry.log),
    }
  }
  const broker = await newBroker(ledger)
  const brokers = [broker]

  function open(issued: IssuedLease): Record<string, string> {
    const opened = Object.fromEntries(Object.entries(secretsOf(issued.credential)).map(([name, box]) => [name, box.open()]))
    secrets.push(...Object.values(opened))
    return opened
  }

  function spokenTo(on: Broker, caller: Caller, facts: Pick<Declared, 'opened' | 'id' | 'token' | 'secrets' | 'boxes' | 'leases'>): Declared {
    const { id } = facts
    return {
      ...facts,
      at: (other) => spokenTo(other, caller, facts),
      complete: (wait = patience) => completeTask(on, caller, id, wait, never),
      revoke: (wait = patience) => revokeTask(on, house.operator, id, 'a test says so', wait, never),
      async add(grant) {
        const { lease } = await addLease(on, caller, id, { name: grant, parameters: {} }, never)
        open(lease)
        return lease
      },
      refresh: async (lease) => (await refreshLease(on, caller, lease.id, never)).lease,
      renew: async (duration) => (await renewTask(on, caller, id, { duration })).task,
      revokeLease: (lease, wait = patience) => revokeLease(on, caller, lease.id, undefined, wait, never),
    }
  }

  const house: House = {
    broker,
    ledger,
    lab,
    operator: callerOf('operator:ops', undefined, ['operator', 'reviewer']),
    get skew() {
      return state.skew
    },
    set skew(ahead) {
      state.skew = ahead
    },
    caller: (agent) => callerOf(`agent:${agent}`, state.policy.catalogue.agents.get(agent), []),
    async declare(grants, options = {}) {
      const on = options.broker ?? broker
      const declaration: Declaration = {
        kind: 'work',
        purpose: options.purpose ?? 'a test',
        labels: {},
        duration: options.duration ?? 60_000,
        grants: grants.map((name) => ({ name, parameters: name === 'crm-for' ? (options.parameters ?? { customer: 'acme' }) : {} })),
      }
      const caller = house.caller(options.agent ?? 'bot')
      const opened = await openTask(on, caller, declaration, options.key, never)
      const token = opened.taskToken.open()
      secrets.push(token)
      const boxes = opened.leases.map(open)
      return spokenTo(on, caller, {
        opened,
        id: opened.task.id,
        token,
        boxes,
        secrets: boxes.map((box) => Object.values(box)[0]!),
        leases: opened.leases.map(({ lease }) => lease),
      })
    },
    async reap(on = broker) {
      while (await lap(on));
      await on.background.settled()
    },
    async backdate(task, interval) {
      const by = sql`${interval}::text::interval`
      // As in closing a task: what was announced while this waited for the task is not in its snapshot, so it looks again.
      const move = sql`
        with chosen as (
          select task.id from tasks as task join tasks as seen on seen.id = task.id and seen.announced_leases = task.announced_leases
          where task.id = ${task} for update of task
        ),
        moved as (
          update tasks as task set opened_at = opened_at - ${by}, deadline = deadline - ${by}, closing_at = closing_at - ${by}
          from chosen where task.id = chosen.id returning task.id
        ),
        with_it as (
          update leases as lease set reserved_at = reserved_at - ${by}, issued_at = issued_at - ${by}, expires_at = expires_at - ${by},
            closing_at = closing_at - ${by}, due_at = due_at - ${by} from chosen where lease.task_id = chosen.id
        )
        select id from moved`
      while ((await ledger.run(move)).length === 0);
    },
    log: () => lines.join(''),
    async neighbour(timeout) {
      // A folder has one process.
      const neighbour = await newBroker(ledger.embedded ? ledger : await connect(settings), timeout)
      brokers.push(neighbour)
      return neighbour
    },
    use(policy) {
      state.policy = policy
    },
    async audit() {
      for (const each of brokers) await each.background.settled()
      return await auditTold(ledger, secrets, lines.join(''))
    },
    async stop() {
      for (const each of brokers) await each.background.drain(20_000)
      for (const each of new Set(brokers.map((one) => one.ledger))) await each.close()
      await lab.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
  return house
}

/** The policy of the house, with further lines for catalogue and policies, or with lines of the catalogue changed. */
export async function loadPolicy(
  folder: string,
  extra: { catalogue?: string; policies?: string; edited?: (catalogue: string) => string } = {},
  annex?: Annex,
): Promise<ActivePolicy> {
  const policies = await mkdtemp(path.join(folder, 'policies-'))
  const catalogue = path.join(folder, 'catalogue.yaml')
  const text = catalogueText(extra.catalogue ?? '', annex)
  await writeFile(catalogue, extra.edited?.(text) ?? text)
  await writeFile(path.join(policies, 'house.cedar'), policyText + (extra.policies ?? ''))
  const shapes = new Map([
    ['tokens', providerKinds.get('jwt')!],
    ['lab', providerKinds.get('http')!],
    ['lapsing', providerKinds.get('http')!],
    ...(annex ? [[annex.name, providerKinds.get(annex.kind)!] as const] : []),
  ])
  const issuers = new Map(['local', 'other'].map((name) => [name, attributesOf({ profile: 'oidc', claims: ['env'] })]))
  return { catalogue: await loadCatalogue(catalogue, shapes, issuers), set: await loadPolicySet(policies) }
}

async function connectTargets(
  ledger: Ledger,
  lab: Lab,
  timeout: string,
  keys: string,
  clock: () => number,
  { log }: Telemetry,
  annex: Annex | undefined,
): Promise<Map<string, Target>> {
  const kept = { sessions: roleSessions(ledger), killLists: killLists(ledger) }
  const noticed: ProviderSurroundings['noticed'] = (provider, level, event, detail) => log[level]({ provider, event, ...detail }, 'noticed')
  const surroundings = { publicUrl: 'https://broker.example.com', keys, clock, noticed, ...kept }
  const connected = [
    await connectOne('jwt', 'tokens', {}),
    await connectOne('http', 'lab', { url: lab.url, revocation: 'provider', timeout }),
    await connectOne('http', 'lapsing', { url: lab.url, revocation: 'expiry', timeout }),
    ...(annex ? [await connectOne(annex.kind, annex.name, annex.settings)] : []),
  ]
  return new Map(connected.map((target) => [target.provider.name, target]))

  async function connectOne(kind: string, name: string, settings: object): Promise<Target> {
    const found = providerKinds.get(kind)!
    const provider = await found.connect(name, found.settings.parse(settings), surroundings)
    return createTarget(provider, { clock, observe: () => {} })
  }
}

/** Somebody whose workload token was verified. */
export const actorNamed = (subject: string): Actor => ({
  issuer: 'local',
  profile: 'oidc',
  subject,
  trustDomain: undefined,
  attributes: { sub: subject },
  token: { digest: 'ab', jti: undefined, kid: 'k', alg: 'ES256', expiresAt: 0 },
})

function callerOf(subject: string, agent: Caller['agent'], roles: readonly ('operator' | 'reviewer')[]): Caller {
  return { actor: actorNamed(subject), agent, task: undefined, roles: new Set(roles) }
}
