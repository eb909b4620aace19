import { Command } from 'commander'
import { isId, type LeaseId } from '../base/ids.ts'
import { type Client, MayflyProblem } from '../client/client.ts'
import type { LeaseView } from '../http/contract.ts'
import { UsageError } from './failure.ts'
import { hasEnded } from './lease-lines.ts'
import { table } from './output.ts'
import type { OutputOf } from './program.ts'
import { connect } from './session.ts'

/** Most lines, and most characters of one, that are read: more roles than any database has use for, and longer than Postgres lets a name be. */
const mostLines = 10_000
const longestLine = 1_024
/** Leases that are asked for at once: what one broker answers beside its work. */
const asked = 8

/** A login of the database, of the lease that its name tells. */
interface Login {
  readonly role: string
  readonly lease: LeaseId
}

/** What the ledger makes of logins. Only those of a lease that has ended are lost: the rest may be somebody's. */
interface Sweep {
  readonly lost: readonly (Login & { readonly state: string; readonly ended_at: string | undefined })[]
  /** Of leases that this ledger never had: another broker's, or of a check that was killed. */
  readonly unknown: readonly Login[]
  /** Of leases that live, or belong to another provider. */
  readonly kept: number
  /** Names that no lease was ever given. */
  readonly others: number
}

/** `mayfly provider sweep`: which logins of a database no living lease answers for. It sees neither the database nor the store: names come in by a pipe. */
export const sweepCommand = (outputOf: OutputOf): Command =>
  new Command('sweep')
    .description('read names of database roles from stdin and say which are of leases that have ended (operators and reviewers)')
    .argument('<name>', 'the provider whose leases they are')
    .option('--sql', 'print what drops them, for psql')
    .addHelpText('after', `\npsql -Atc "select rolname from pg_roles where rolname like 'mf-%'" | mayfly provider sweep vault`)
    .action(async (provider: string, { sql }: { sql?: boolean }, command: Command) => {
      const names = await readNames(process.stdin)
      const client = connect()
      // Whoever may not see every lease would be told of each that it is unknown.
      await client.listLeases({ provider, limit: 1 })
      const found = await sweep(client, provider, names)
      const output = outputOf(command)
      if (sql && !output.json) {
        if (found.lost.length > 0) console.log([ownFunctions, ...found.lost.map(dropOf)].join('\n'))
        output.note(inWords(found))
      } else output.result(found, () => [...(found.lost.length + found.unknown.length > 0 ? [listOf(found)] : []), inWords(found)].join('\n'))
    })

async function sweep(client: Pick<Client, 'showLease'>, provider: string, names: readonly string[]): Promise<Sweep> {
  const logins = names.flatMap((role) => loginOf(role) ?? [])
  const leases = new Map<LeaseId, LeaseView | undefined>()
  const wanted = new Set(logins.map(({ lease }) => lease)).values()
  const ask = async (): Promise<void> => {
    for (const id of wanted) leases.set(id, await leaseOf(client, id))
  }
  await Promise.all(Array.from({ length: asked }, ask))
  const sorted = logins.map((login) => ({ ...login, found: leases.get(login.lease) }))
  const lost = sorted.flatMap(({ found, ...login }) =>
    found && found.provider === provider && hasEnded(found) ? [{ ...login, state: found.state, ended_at: found.ended_at }] : [],
  )
  const unknown = sorted.flatMap(({ found, ...login }) => (found ? [] : [login]))
  return { lost, unknown, kept: logins.length - lost.length - unknown.length, others: names.length - logins.length }
}

/** The lease of a login that was named by the `username_template` of deploy/vault/database-config.json. Vault writes `-` where its id has `_`. */
export function loginOf(role: string): Login | undefined {
  const lease = `lease_${/^mf-token-lease-([0-9a-z]{26})-[A-Za-z0-9]{8}$/.exec(role)?.[1]}`
  return isId('lease', lease) ? { role, lease } : undefined
}

async function leaseOf(client: Pick<Client, 'showLease'>, id: LeaseId): Promise<LeaseView | undefined> {
  try {
    return await client.showLease(id)
  } catch (error) {
    if (error instanceof MayflyProblem && error.code === 'not_found') return undefined
    throw error
  }
}

/** Or somebody else's function in `public` that fits better would run with the rights of whoever sweeps. */
const ownFunctions = 'SET search_path = pg_catalog;'

/**
 * In the order in which nobody can come in again in between: as the `revocation_statements` of deploy/vault/database-role.json, which docs/vault.md explains.
 * The name holds nothing that would have to be quoted.
 */
const dropOf = ({ role, lease, state }: Sweep['lost'][number]): string =>
  [
    `-- ${lease} ${state}`,
    'BEGIN;',
    // Who holds a lock on the role, as whoever grants it something does, holds up the others for no longer.
    `SET LOCAL lock_timeout = '5s';`,
    // A session of its own may hold the row that NOLOGIN writes to.
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}';`,
    `ALTER ROLE "${role}" NOLOGIN;`,
    'COMMIT;',
    // Those that are being opened have no name yet, and no other login may end them but their own.
    `DO $$ DECLARE opening int; BEGIN FOR opening IN SELECT pid FROM pg_locks WHERE locktype = 'virtualxid' EXCEPT SELECT pid FROM pg_stat_activity WHERE usesysid IS NOT NULL LOOP BEGIN SET LOCAL lock_timeout = '5s'; GRANT "${role}" TO CURRENT_USER; SET LOCAL ROLE "${role}"; PERFORM pg_terminate_backend(opening, 10000); RAISE insufficient_privilege; EXCEPTION WHEN insufficient_privilege OR undefined_object THEN NULL; END; END LOOP; END $$;`,
    `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '${role}';`,
    'BEGIN;',
    `SET LOCAL lock_timeout = '5s';`,
    // A login without a role works on, and nobody finds it again.
    `DO $$ BEGIN IF EXISTS (SELECT FROM pg_stat_activity WHERE usename = '${role}') THEN RAISE 'a session of ${role} is left'; END IF; END $$;`,
    `DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '${role}' AND rolcanlogin) THEN RAISE '${role} can still log in'; END IF; END $$;`,
    // What it made goes with it, for which one has to be a member: until the role is gone in the same transaction.
    `GRANT "${role}" TO CURRENT_USER; DROP OWNED BY "${role}"; DROP ROLE "${role}";`,
    'COMMIT;',
  ].join('\n')

const listOf = ({ lost, unknown }: Sweep): string =>
  table(
    ['ROLE', 'LEASE', 'STATE'],
    [...lost.map(({ role, lease, state }) => [role, lease, state]), ...unknown.map(({ role, lease }) => [role, lease, 'unknown to this ledger'])],
  )

const inWords = ({ lost, unknown, kept, others }: Sweep): string =>
  `${lost.length} lost, ${unknown.length} unknown to this ledger, ${kept} kept for their leases, ${others} not ours`

/** The lines of a stream. @throws UsageError where nothing is piped in, or more than anybody could mean */
export async function readNames(input: AsyncIterable<Buffer | string> & { readonly isTTY?: boolean }): Promise<string[]> {
  if (input.isTTY) throw new UsageError('pipe the names of roles into this command, one a line (add --help for how)')
  let text = ''
  const chunks = new TextDecoder()
  for await (const chunk of input) {
    text += typeof chunk === 'string' ? chunk : chunks.decode(chunk, { stream: true })
    if (text.length > mostLines * longestLine) break
  }
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
  if (lines.length > mostLines || text.length > mostLines * longestLine) throw new UsageError(`too many names: at most ${mostLines} at once`)
  if (lines.some((line) => line.length > longestLine)) throw new UsageError(`a name is longer than ${longestLine} characters: these are no roles`)
  return lines
}
