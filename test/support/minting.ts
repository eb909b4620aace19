import { sql } from 'drizzle-orm'
import { newId } from '../../src/base/ids.ts'
import type { Actor } from '../../src/identity/actor.ts'
import { announceLeases, announceTask, type LeaseLimits, type NewLease } from '../../src/ledger/announce.ts'
import type { Ledger } from '../../src/ledger/connect.ts'
import type { NewDecision } from '../../src/ledger/entries.ts'
import { confirmLeases } from '../../src/ledger/extend.ts'
import type { KeyClaim } from '../../src/ledger/keys.ts'
import { archivePolicySet } from '../../src/ledger/policy-sets.ts'
import type { Lease } from '../../src/ledger/records.ts'

const policyDigest = 'sha256:minting'

const actor: Actor = {
  issuer: 'local',
  profile: 'oidc',
  subject: 'agent:bot',
  trustDomain: undefined,
  attributes: {},
  token: { digest: '', jti: undefined, kid: '', alg: 'EdDSA', expiresAt: 0 },
}

/** Keeps the policy set on which every decision of this file rests. */
export const preparePolicy = (ledger: Ledger) => archivePolicySet(ledger, policyDigest, {})

const newDecision = (): NewDecision => ({
  id: newId('dec'),
  agent: 'bot',
  kind: 'work',
  action: 'issue',
  made: { outcome: 'permit', policies: [], policyDigest, obligations: {}, answers: [] },
})

const newLease = (ttl: number, pool: readonly string[]): NewLease => ({
  id: newId('lease'),
  grant: 'bucket',
  provider: 'aws',
  providerKind: 'aws',
  local: false,
  revocation: 'deny',
  standing: false,
  outlivesRevocation: [],
  parameters: {},
  lasts: ttl,
  ttl,
  pool,
})

const limits: LeaseLimits = { perAgent: 10_000, perTask: 16 }

/**
 * A lease of a task of its own, announced and about to be minted by a provider called `aws`.
 *
 * @param ttl milliseconds
 * @param pool roles of one of which its session is named with it
 */
export async function announceMint(ledger: Ledger, ttl = 600_000, pool: readonly string[] = [], claim?: KeyClaim): Promise<Lease> {
  const id = newId('task')
  const answer = await announceTask(ledger, {
    task: {
      id,
      kind: 'work',
      agent: 'bot',
      owner: 'owner@example.com',
      actor,
      purpose: 'a test',
      labels: {},
      tokenHash: id,
      duration: 3_600_000,
      deadline: undefined,
    },
    decision: newDecision(),
    leases: [newLease(ttl, pool)],
    limits,
    claim,
  })
  if (answer.outcome !== 'announced') throw new Error(answer.outcome)
  return answer.leases[0]!
}

/** Further leases of the task of a lease, as many as there are pools. */
export async function announceFurther(ledger: Ledger, { taskId }: Lease, ...pools: readonly (readonly string[])[]): Promise<readonly Lease[]> {
  const leases = pools.map((pool) => newLease(600_000, pool))
  const answer = await announceLeases(ledger, taskId, newDecision(), leases, limits, {})
  if (answer.outcome !== 'announced') throw new Error(answer.outcome)
  return answer.leases
}

/** What was minted for a lease is confirmed: reserved -> active. */
export async function confirmMint(ledger: Ledger, lease: Lease): Promise<void> {
  const { leases: moved } = await confirmLeases(ledger, lease.taskId, [{ id: lease.id, expiresAt: lease.expiresAt, digests: {} }], undefined)
  if (moved.length !== 1) throw new Error('the lease is not reserved any more')
}

/** Lets so many seconds pass for a lease, its task and its sessions. */
export const passFor = (ledger: Ledger, lease: Lease, seconds: number) => {
  const by = sql`make_interval(secs => ${seconds})`
  return ledger.run(sql`
    with tasks as (update tasks set opened_at = opened_at - ${by}, deadline = deadline - ${by} where id = ${lease.taskId}),
    sessions as (update role_sessions set reserved_at = reserved_at - ${by}, forget_at = forget_at - ${by} where lease_id = ${lease.id})
    update leases set reserved_at = reserved_at - ${by}, issued_at = issued_at - ${by}, expires_at = expires_at - ${by}, due_at = due_at - ${by} where id = ${lease.id}`)
}
