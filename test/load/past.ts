import type postgres from 'postgres'

/** Names as the rows of the past have them: half of the rows have `busy`, the other half a hundred others, and nobody has `none`. */
export const nameOf = (column: string, which: 'busy' | 'other' | 'none'): string => `${column}-${which === 'other' ? 7 : which}`

/** Ids that are nobody's, and older than any. */
export const noTask = `task_${'0'.repeat(26)}` as const
export const noLease = `lease_${'0'.repeat(26)}` as const

/**
 * Writes tasks that ended in the last 30 days into a database, from the `first` to the one numbered `rows`: a lease, a decision and five entries
 * each, and keys and spent tokens besides.
 */
export async function writePast(owner: postgres.Sql, rows: number, first = 1): Promise<void> {
  const step = 100_000
  await owner.unsafe(idAt)
  for (let from = first; from <= rows; from += step) await owner.begin((sql) => writeSome(sql, from, Math.min(rows, from + step - 1), rows))
  await owner`drop function id_at`
  await owner`vacuum analyze`
}

/** What a row has in a column of names. Columns are independent of each other: they repeat after different numbers of rows. */
const some = (sql: postgres.Sql | postgres.TransactionSql, column: string, every: number) =>
  sql.unsafe(`case when n % ${every} < ${every / 2} then '${column}-busy' else '${column}-' || (n::bigint * 7919) % 100 end`)

async function writeSome(sql: postgres.TransactionSql, from: number, to: number, rows: number): Promise<void> {
  const numbers = sql`(select n, now() - interval '30 days' + n * interval '30 days' / ${rows}::int as at from generate_series(${from}::int, ${to}::int) as n) as numbers`
  const id = (noun: string) => sql`id_at(${noun}::text, at, n)`
  const state = sql`case when n % 20 = 0 then 'expired' when n % 33 = 0 then 'revoked' when n % 47 = 0 then 'denied' when n % 5000 = 1 then 'failed' else 'completed' end`
  const outcome = sql`case when n % 47 <> 0 or n % 20 = 0 or n % 33 = 0 then ${state} end`
  /** Minutes, and for some a day: those are what makes it hard to say who had something at a moment. */
  const life = sql`case when n % 200 = 3 then interval '1 day' else interval '5 minutes' end`
  const late = sql`case when n % 50 = 7 then interval '1 minute' else interval '0' end`
  const policies = sql`case when n % 3 = 0 then '[]' when n % 400 = 0 then '["policy-other"]' else '["policy-busy"]' end::jsonb`
  /** Where they permitted something, and nothing permitted the rest. */
  const besides = sql`n / 8 % 7 < 3`
  const answers = sql`jsonb_build_array(
    jsonb_build_object('outcome', case when ${besides} then 'permit' else 'deny' end, 'policies', ${policies}, 'diagnostics', '[]'::jsonb, 'input', repeat('asked ', 50)),
    jsonb_build_object('outcome', 'deny', 'policies', case when ${besides} then '[]'::jsonb else ${policies} end, 'diagnostics', '[]'::jsonb, 'input', repeat('asked ', 50)))`
  // What ended is not checked again, row by row.
  await sql`set local session_replication_role = replica`
  await sql`
    insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, token_hash, opened_at, deadline, outcome, cause, ended_by, closing_at, ended_at, announced_leases)
    select ${id('task')}, ${state},
      ${some(sql, 'kind', 10)}, ${some(sql, 'agent', 14)}, ${some(sql, 'owner', 22)}, '{}', 'long ago', '{}', 'past-' || n, at, at + interval '10 minutes',
      ${outcome}, 'completed', 'broker', at, at + ${life}, 1 from ${numbers}`
  await sql`
    insert into leases (id, task_id, decision_id, agent, owner, grant_name, provider, local, revocation, standing, state, parameters, ttl, reserved_at, issued_at, expires_at, cause, closing_at, ended_at, evidence)
    select ${id('lease')}, ${id('task')}, ${id('dec')}, ${some(sql, 'agent', 14)}, ${some(sql, 'owner', 22)}, ${some(sql, 'grant', 10)}, ${some(sql, 'provider', 22)}, n % 2 = 0, 'provider', n % 41 = 0,
      case when n % 20 = 0 then 'expired' when n % 5000 = 1 then 'failed' else 'revoked' end, '{}', 60000, at, at, at + interval '1 day',
      'completed', at + ${life} - ${late}, at + ${life}, '{}' from ${numbers}`
  await sql`
    insert into decisions (id, task_id, agent, kind, action, outcome, policies, policy_digest, obligations, answers, decided_at)
    select ${id('dec')}, ${id('task')}, ${some(sql, 'agent', 14)}, ${some(sql, 'kind', 10)}, 'issue', case when n % 8 = 0 then 'deny' else 'permit' end, ${policies}, '', '{}', ${answers}, at from ${numbers}`
  await sql`
    insert into entries (id, at, kind, agent, task_id, lease_id, body)
    select id_at('ent', at, n * 5 + k), at, (array['task.opened', 'decision.made', 'lease.issued', 'lease.revoked', 'task.ended'])[k], ${some(sql, 'agent', 14)},
      ${id('task')}, case when k in (3, 4) then ${id('lease')} end,
      case when k = 5 and n % 33 = 0 then '{"by": "operator:corp/busy"}' when k = 5 and n % 1000 = 0 then '{"by": "operator:corp/other"}' when k = 5 then '{"by": "broker"}' else '{}' end::jsonb from ${numbers}, generate_series(1, 5) as k`
  await sql`insert into idempotency_keys (key, request_digest, task_id, expires_at) select 'past-' || n, '', '', now() + interval '1 hour' from ${numbers}`
  await sql`
    insert into role_sessions (provider, role, name, lease_id, reserved_at, forget_at, denied_at, generation, written_at, confirmed_at)
    select 'past-' || n % 100, 'role-' || n % 2000, lpad(n::text, 8, '0'), ${id('lease_')}, at, now() + interval '1 hour', at, 1, at, at from ${numbers}`
  await sql`
    insert into kill_lists (provider, role, cohort, generation, written_generation, confirmed_generation)
    select 'past-' || n % 100, 'role-' || n % 2000, 0, 1, 1, 1 from ${numbers} where n <= 2000`
  await sql`insert into spent_tokens (key, expires_at) select 'past-' || n, now() + interval '1 hour' from ${numbers}`
}

/**
 * Writes open tasks with one active lease each, which end tomorrow. Unless they are `counted`, Postgres believes that nothing is alive, as it does until
 * its autovacuum comes by, a tenth of the table later.
 */
export async function writeLiving(owner: postgres.Sql, rows: number, counted: boolean): Promise<void> {
  for (const table of ['tasks', 'leases']) await owner`alter table ${owner(table)} set (autovacuum_enabled = ${owner.unsafe(String(counted))})`
  const numbers = owner`generate_series(1, ${rows}::int) as n`
  // Wider than those of the past, so that they stand together, and not each in what was left free on a page of the past.
  const wide = owner`jsonb_build_object('pad', repeat('x', 200))`
  const tomorrow = owner`now() + interval '1 day' + n * interval '1 second'`
  await owner`
    insert into tasks (id, state, kind, agent, owner, actor, purpose, labels, token_hash, deadline, live_leases, announced_leases)
    select 'task_1' || lpad(n::text, 25, '0'), 'open', ${some(owner, 'kind', 10)}, ${some(owner, 'agent', 14)}, ${some(owner, 'owner', 22)}, '{}', repeat('now', 60), '{}', 'living-' || n, ${tomorrow}, 1, 1 from ${numbers}`
  await owner`
    insert into leases (id, task_id, decision_id, agent, owner, grant_name, provider, local, revocation, standing, state, parameters, ttl, expires_at, due_at)
    select 'lease_1' || lpad(n::text, 25, '0'), 'task_1' || lpad(n::text, 25, '0'), '', ${some(owner, 'agent', 14)}, ${some(owner, 'owner', 22)}, ${some(owner, 'grant', 10)}, ${some(owner, 'provider', 22)}, n % 2 = 0, 'provider', n % 50 = 0, 'active', ${wide}, 60000, ${tomorrow}, ${tomorrow}
    from ${numbers}`
  if (counted) await owner`analyze`
}

/** A TypeID over a UUIDv7 begins with its time, in ten characters of base 32. */
const idAt = `
  create function id_at(noun text, at timestamptz, n bigint) returns text language sql immutable as $$
    select noun || '_' || string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', ((extract(epoch from at) * 1000)::bigint >> (45 - 5 * place) & 31)::int + 1, 1), '' order by place)
      || lpad(n::text, 16, '0') from generate_series(0, 9) as place
  $$`
