import { sql } from 'drizzle-orm'
import { vi } from 'vitest'
import type { StoreSettings } from '../../src/ledger/connect.ts'
import { digestOf } from '../../src/providers/aws-sts/kill-list/world.ts'
import type { Broker } from '../../src/tasks/task.ts'
import { audit, type Finding } from './audit.ts'
import { bound } from './aws/deny-site.ts'
import type { GivenSession } from './aws/given.ts'
import { startAwsPeer } from './aws/peer.ts'
import { type AwsSite, prepareSite } from './aws/site.ts'
import { type Declared, type House, never, startHouse } from './house.ts'

/** A house whose agents get sessions of an AWS of our own, with a role whose boundary denies those that ended. */
export interface AwsHouse {
  readonly house: House
  readonly site: AwsSite
  readonly boundary: string
  /** Lets time pass for a task, and for what AWS gave to it. */
  pass(task: Declared, minutes: number): Promise<void>
  /** Whether a session of the task reads what its grant is for. */
  reads(task: Declared): boolean
  /** What a provider does unasked each second. Rejects where it is not done yet. */
  tend(on?: Broker): Promise<void>
  /** Requests of an action that reached AWS. */
  asked(action: string): number
  /** What ledger and AWS disagree about, every invariant of the ledger, and each secret of AWS that stands where none may. */
  findings(): Promise<Finding[]>
  stop(): Promise<void>
}

const alive = ['reserved', 'active', 'revoking', 'lapsing']

/** @param ahead milliseconds by which AWS's clock is ahead of the machine's, as it decides when sessions end */
export async function startAwsHouse(store: StoreSettings | 'embedded', settings: object = {}, ahead = 0): Promise<AwsHouse> {
  const site = await prepareSite(await startAwsPeer({ clock: () => Date.now() + ahead }))
  const { peer } = site
  const boundary = await bound(site)
  for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
  const house = await startHouse(store, {
    kind: 'aws-sts',
    name: 'aws',
    settings: {
      region: peer.region,
      account: peer.account,
      endpoint: peer.url,
      iam_endpoint: peer.url,
      external_id: site.externalId,
      mode: 'direct',
      kill_list: {},
      // Longer than a machine stands still; an end that AWS does not take is tried for as long.
      timeout: '5s',
      ...settings,
    },
    grants: { bucket: `role: ${site.role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }]` },
  })
  /** Minutes that have passed, by task: AWS is asked about so much later a moment. */
  const passed = new Map<string, number>()
  const sessions = (): GivenSession[] => peer.given().filter(({ name }) => !name.startsWith('@'))
  const readsAt = (session: GivenSession, task: string): boolean =>
    session.may('s3:GetObject', 'arn:aws:s3:::invoices/acme/1', peer.now() + (passed.get(task) ?? 0) * 60_000)

  async function strangers(): Promise<Finding[]> {
    const rows = await house.ledger.run<{ name: string; task: string; lease: string; state: string; confirmed: boolean }>(sql`
      select handle ->> 'session_name' as name, task_id as task, lease.id as lease, state, coalesce(session.confirmed_at is not null, false) as confirmed
      from leases as lease cross join jsonb_array_elements(handles) as handle
      left join role_sessions as session on session.lease_id = lease.id and session.name = handle ->> 'session_name' where handle ? 'session_name'`)
    const known = new Map(rows.map((row) => [row.name, row]))
    return sessions().flatMap((session) => {
      const lease = known.get(session.name)
      if (!lease) return [`a session that the ledger does not know: ${session.name}`]
      if (!readsAt(session, lease.task)) return []
      if (lease.confirmed) return [`a session works that was seen denied: ${session.name}`]
      return alive.includes(lease.state) ? [] : [`a session works whose lease is ${lease.state}: ${lease.lease}`]
    })
  }

  async function lostDocument(): Promise<Finding[]> {
    const [list] = await house.ledger.run<{ digest: string | null }>(
      sql`select digest from kill_lists where generation > 0 and generation = written_generation`,
    )
    if (!list || list.digest === null || digestOf(peer.document(boundary)) === list.digest) return []
    return ['the document that AWS has is not the one that was written last']
  }

  return {
    house,
    site,
    boundary,
    async pass(task, minutes) {
      await house.backdate(task.id, `${minutes} minutes`)
      passed.set(task.id, (passed.get(task.id) ?? 0) + minutes)
    },
    reads({ id, leases }) {
      const names = leases.flatMap(({ handles }) => handles.map((handle) => handle['session_name']))
      return sessions().some((session) => names.includes(session.name) && readsAt(session, id))
    },
    tend: (on = house.broker) => on.targets.get('aws')!.upkeep(never),
    asked: (action) => peer.calls.filter((call) => call.action === action).length,
    async findings() {
      const secrets = [site.environment['AWS_SECRET_ACCESS_KEY']!, ...peer.given().flatMap((session) => session.secrets)]
      const logged = house.log()
      return [
        ...(await house.audit()),
        ...(await audit(house.ledger, secrets)),
        ...(await strangers()),
        ...(await lostDocument()),
        ...secrets.filter((secret) => logged.includes(secret)).map(() => 'a secret of AWS was logged'),
      ]
    },
    async stop() {
      await house.stop()
      await peer.stop()
      vi.unstubAllEnvs()
    },
  }
}
