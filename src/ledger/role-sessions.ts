import { sql, type SQL } from 'drizzle-orm'
import { BrokerError } from '../base/errors.ts'
import type { LeaseId } from '../base/ids.ts'
import type { DeniedSession, Reserved, RoleSessions } from '../base/role-sessions.ts'
import { openCohorts } from './cohorts.ts'
import type { Ledger } from './connect.ts'
import { forgottenAfter, openRoles, namedHandles, takeNames } from './session-names.ts'
import { together } from './together.ts'

/** When the kill list of its role may forget a session of `lease`. */
export const forgetAt: SQL = forgottenAfter(sql`lease.expires_at`)

/** Statements with which one name is asked for: a role whose cohort is too old costs one, and so does a number that somebody else drew. */
const rounds = 6

/** The names of sessions that brokers take and deny, in the store. */
export const roleSessions = (ledger: Ledger): RoleSessions => ({
  reserve: (provider, lease, roles) => reserve(ledger, provider, lease, roles),
  deny: (provider, lease) => deny(ledger, { provider, lease }),
})

/**
 * Takes a name that no session of its role has, and journals it as a handle of the lease, in one commit. Of the roles that are not shut, the one with
 * the fewest denied sessions.
 *
 * @throws BrokerError `store_unavailable` where others were faster again and again
 */
async function reserve(ledger: Ledger, provider: string, lease: LeaseId, roles: readonly string[]): Promise<Reserved> {
  for (let round = 0; round < rounds; round++) {
    const found = await takeName(ledger, provider, lease, roles)
    if (found.name !== null) return { outcome: 'reserved', session: { role: found.open!, name: found.name } }
    if (found.chosen === null) return { outcome: 'full' }
    if (found.open !== null && !found.minting) return { outcome: 'ended' }
    if (found.open === null) await openCohorts(ledger, provider, roles)
  }
  throw new BrokerError('store_unavailable', 'No name of a session could be taken', { retryAfter: 1 })
}

/** How far it came: a role is chosen, its cohort is open, the lease is being minted, the name was free. */
interface Found {
  readonly chosen: string | null
  readonly open: string | null
  readonly minting: boolean
  readonly name: string | null
}

/** A kill list first, then the lease, as everywhere in this room. */
async function takeName(ledger: Ledger, provider: string, lease: LeaseId, roles: readonly string[]): Promise<Found> {
  const [row] = await ledger.run<Found>(sql`
    with ${openRoles([{ id: lease, provider, roles }])},
    minting as (
      select lease.id, ${forgetAt} as forget_at from open join leases as lease on lease.id = open.id where lease.state = 'reserved' for update of lease
    ),
    ${takeNames(sql`minting`)},
    journaled as (update leases as lease set handles = lease.handles || ${namedHandles} from named where lease.id = named.lease_id)
    select (select role from chosen) as chosen, (select role from open) as open, exists (select from minting) as minting, (select name from named) as name`)
  return row!
}

/** A lease and who minted its sessions. */
interface Denial {
  readonly provider: string
  readonly lease: LeaseId
}

/**
 * Marks all sessions of a lease as to be denied, in a commit that it may share with others, and tells how far each is. Asked again it only reads. The
 * lease is not reserved any more by then: no further name is taken for it.
 */
const deny: (ledger: Ledger, denial: Denial) => Promise<readonly DeniedSession[]> = together(denyAll, 'first')

async function denyAll(ledger: Ledger, all: readonly Denial[]): Promise<readonly (readonly DeniedSession[])[]> {
  const rows = await ledger.run<{ provider: string; lease: string; session: SessionRow }>(sql`
    with asked as materialized (
      select distinct provider, lease from json_to_recordset(${JSON.stringify(all)}::text::json) as asked(provider text, lease text)
    ),
    living as (
      select session.provider, session.role, session.name from asked join role_sessions as session on session.lease_id = asked.lease and session.provider = asked.provider
      where session.lease_id = any(array(select lease from asked)) and session.denied_at is null
      order by session.provider, session.role, session.name for update of session
    ),
    denied as (
      update role_sessions as session set denied_at = now() from living
      where session.provider = living.provider and session.role = living.role and session.name = living.name and session.denied_at is null
    )
    select asked.provider, asked.lease, json_build_object('role', session.role, 'name', session.name, 'ends_at', lease.expires_at,
      'left', (extract(epoch from lease.expires_at - now()) * 1000)::double precision,
      'generation', session.generation, 'written_at', session.written_at, 'confirmed_at', session.confirmed_at) as session
    from asked join role_sessions as session on session.lease_id = asked.lease and session.provider = asked.provider
    join leases as lease on lease.id = session.lease_id order by session.reserved_at, session.name`)
  return all.map(({ provider, lease }) =>
    rows.filter((row) => row.lease === lease && row.provider === provider).map(({ session }) => sessionOf(session)),
  )
}

interface SessionRow {
  readonly role: string
  readonly name: string
  readonly left: number
  readonly ends_at: string
  readonly generation: number | null
  readonly written_at: string | null
  readonly confirmed_at: string | null
}

const sessionOf = ({ role, name, left, ends_at, generation, written_at, confirmed_at }: SessionRow): DeniedSession => ({
  role,
  name,
  left,
  endsAt: new Date(ends_at),
  generation: generation ?? undefined,
  writtenAt: written_at === null ? undefined : new Date(written_at),
  confirmedAt: confirmed_at === null ? undefined : new Date(confirmed_at),
})
