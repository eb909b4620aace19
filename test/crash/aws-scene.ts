import { CreatePolicyVersionCommand, DeletePolicyVersionCommand, ListPolicyVersionsCommand } from '@aws-sdk/client-iam'
import { vi } from 'vitest'
import { nameOfAwsRequest } from '../support/aws-requests.ts'
import { awsCatalogue, awsProvider } from '../support/aws-site.ts'
import { bound } from '../support/aws/deny-site.ts'
import type { GivenSession } from '../support/aws/given.ts'
import { inProduction, type AwsSite, policyOf, startAwsSite } from '../support/aws/site.ts'
import { wireHttp } from '../support/tripwire.ts'
import type { Held, HeldLease } from './held.ts'
import { setStage, type Stage } from './stage.ts'

/** A stage before an AWS of our own. What the broker asks of STS and IAM crosses the tripwire; what an agent asks does not. */
export interface AwsScene extends Stage {
  readonly site: AwsSite
  /** Whether a session that was given for a lease reads what its grant is for. */
  works(lease: HeldLease): Promise<boolean>
  /** Sessions that AWS gave and that may read, or may at any time after the end of their leases as the ledger has it, but for one second; in words. */
  overdue(): Promise<readonly string[]>
  /** Leases whose sessions read. */
  alive(): Promise<readonly string[]>
  /** Sessions that AWS gave under a name that no lease has among its handles. */
  unknown(): Promise<readonly string[]>
  /** Lets time pass for a task, for its sessions at AWS too. @param minutes whole ones */
  pass(task: string, minutes: number): Promise<unknown>
  /** Lets names be given out in the cohort that is open, puts off what is compared in between, and leaves so many versions of the boundary, so that what is to come is the same each time. */
  tidy(versions?: number): Promise<void>
}

export const bucket = ({ leases }: Held): HeldLease => leases.find(({ grant }) => grant === 'bucket')!

export async function openAwsScene(mode: 'direct' | 'children'): Promise<AwsScene> {
  const site = await startAwsSite()
  const { peer, owner } = site
  const boundary = await bound(site)
  for (const [name, value] of Object.entries(await inProduction(site))) vi.stubEnv(name, value)
  // A canary is nobody's, and a parent never leaves the broker.
  const sessions = (): readonly GivenSession[] => peer.given().filter(({ name }) => !name.startsWith('@'))
  const held = () => sessions().filter(({ isChild }) => isChild === (mode === 'children'))

  /** Milliseconds that have passed by the ledger's rows, by task: for its sessions AWS has to be asked about a later moment. */
  const passed = new Map<string, number>()

  /** Leases by the names of their sessions. */
  async function leases() {
    const rows = await stage.owner<{ name: string; id: string; task: string; state: string; ends: Date }[]>`
      select handle ->> 'session_name' as name, id, task_id as task, state, expires_at as ends
      from leases, jsonb_array_elements(handles) as handle where handle ? 'session_name'`
    return new Map(rows.map((row) => [row.name, { ...row, ahead: passed.get(row.task) ?? 0 }]))
  }

  const reads = (session: GivenSession, lease: { readonly ahead: number } | undefined, moment = peer.now()): boolean =>
    session.may('s3:GetObject', 'arn:aws:s3:::invoices/acme/1', moment + (lease?.ahead ?? 0))

  /** A session that no lease knows goes by its own name. */
  async function alive(): Promise<readonly string[]> {
    const known = await leases()
    const working = held().filter((session) => reads(session, known.get(session.name)))
    return [...new Set(working.map(({ name }) => known.get(name)?.id ?? name))]
  }

  const stage: Stage = await setStage(async (tripwire) => {
    const wire = await wireHttp(peer.url, tripwire, nameOfAwsRequest)
    return {
      site: { extra: awsProvider(site, wire.url, mode) },
      catalogue: awsCatalogue(site),
      alive,
      lingers: `coalesce(error, '') like '%ends by itself%'`,
      get secrets() {
        return [site.environment['AWS_SECRET_ACCESS_KEY']!, ...peer.given().flatMap(({ secrets }) => secrets)]
      },
      clear: () => {},
      async stop() {
        await wire.stop()
        await peer.stop()
        vi.unstubAllEnvs()
      },
    }
  })

  // As by an earlier task, so that the first of a test is like any other.
  await stage.owner`insert into kill_lists (provider, role, cohort) values ('aws', ${site.role}, 0)`

  return {
    ...stage,
    site,
    alive,
    /** Until it has compared what was written, too, as every broker does soon after its start. */
    async recover() {
      const before = await stage.owner<{ role: string; at: Date }[]>`select role, check_at as at from kill_lists where check_at > now()`
      await stage.recover()
      await stage.until(
        () => stage.owner`
          select 1 where not exists (
            select from kill_lists as list join json_to_recordset(${JSON.stringify(before)}::text::json) as before(role text, at timestamptz) on before.role = list.role
            where list.check_at = before.at or list.check_at <= now() or list.held_by is not null or list.confirmed_generation < list.written_generation)`,
      )
    },
    async works(lease) {
      const known = await leases()
      return held().some((session) => known.get(session.name)?.id === lease.id && reads(session, known.get(session.name)))
    },
    async overdue() {
      const known = await leases()
      return held().flatMap((session) => {
        const lease = known.get(session.name)
        if (!lease) return [`${session.name}: unknown`]
        const isOver = !['reserved', 'active', 'revoking'].includes(lease.state)
        if (isOver && reads(session, lease)) return [`${session.name}: its lease is ${lease.state}`]
        return reads(session, lease, lease.ends.getTime() + 1_000) ? [`${session.name}: reads after the end of its lease`] : []
      })
    },
    async unknown() {
      const known = await leases()
      return sessions().flatMap(({ name }) => (known.has(name) ? [] : [name]))
    },
    async pass(task, minutes) {
      passed.set(task, (passed.get(task) ?? 0) + minutes * 60_000)
      return await stage.owner`
        with it as (update tasks set opened_at = opened_at - by, deadline = deadline - by from make_interval(mins => ${minutes}) as by where id = ${task}),
        sessions as (
          update role_sessions as session set reserved_at = session.reserved_at - by, forget_at = forget_at - by
          from leases, make_interval(mins => ${minutes}) as by where lease_id = leases.id and task_id = ${task}
        )
        update leases set reserved_at = reserved_at - by, issued_at = issued_at - by, expires_at = expires_at - by, due_at = due_at - by
        from make_interval(mins => ${minutes}) as by where task_id = ${task}`
    },
    async tidy(versions = 1) {
      // What was never written has nothing to be compared.
      await stage.owner`update kill_lists set cohort_since = now(), check_at = case when check_at is null then null else now() + interval '1 hour' end`
      const { Versions = [] } = await owner.iam.send(new ListPolicyVersionsCommand({ PolicyArn: boundary }))
      for (const { VersionId, IsDefaultVersion } of Versions) {
        if (!IsDefaultVersion) await owner.iam.send(new DeletePolicyVersionCommand({ PolicyArn: boundary, VersionId })).catch(unlessGone)
      }
      const other = { PolicyArn: boundary, PolicyDocument: policyOf({ Effect: 'Allow', Action: '*', Resource: '*' }) }
      for (let made = 1; made < versions; made += 1) await owner.iam.send(new CreatePolicyVersionCommand(other))
    },
  }
}

/** The broker clears up as well. */
function unlessGone(error: unknown): void {
  if ((error as Error).name !== 'NoSuchEntityException') throw error
}
