import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { connectAs } from './login.ts'
import { type Openbao, openbao, startOpenbao } from './openbao.ts'
import { postgresIsInstalled, startPostgres, type TestPostgres } from './postgres.ts'
import { type FaultyWire, faultyWire } from './wire.ts'

const run = promisify(execFile)

/** What operators apply, and tests as it stands. */
export const deployed = path.join(import.meta.dirname, '../../deploy/vault')

/** A login that OpenBao made in the database. */
export interface VaultLogin {
  readonly name: string
  /** Whether Postgres would let it in: it may log in, and its time is not over. */
  readonly open: boolean
}

/** A session of somebody with the database. One that was cut, and whose login still works, begins anew at its next query. */
export interface Session {
  query(statement: string): Promise<readonly postgres.Row[]>
  /** Whether Postgres still has the one that was first opened, as the superuser sees it. */
  alive(): Promise<boolean>
  close(): Promise<void>
}

/** The database behind OpenBao: `ledger`, with a table `bookings`, in a cluster of its own. */
export interface VaultDatabase {
  /** The superuser's. */
  readonly url: string
  readonly superuser: postgres.Sql
  /** Between OpenBao's connection `ledger` and the database. Nothing is between it and `ledger-2`. */
  readonly wire: FaultyWire
  /** @throws the refusal of Postgres: 28P01 where the login is gone or over, 28000 where it may not log in any more */
  login(username: string, password: string): Promise<Session>
  /** Whether Postgres lets a login in. @throws whatever else went wrong: only its own refusal shows that one is dead */
  letsIn(username: string, password: string): Promise<boolean>
  /** Those that exist, by name. */
  logins(): Promise<readonly VaultLogin[]>
}

/**
 * A real OpenBao before a real Postgres, set up by deploy/vault/setup.sh. With policies of these names, each for one path:
 *
 * - `mayfly-task-ledger-read`: `database/creds/ledger-read`, over the connection `ledger`; `mayfly-task-ledger-read-2`: the same over `ledger-2`
 * - `mayfly-task-app-settings`: `secret/data/app`, KV version 2, `{ colour: "green" }`
 * - `mayfly-task-service-certificate`: `pki/issue/service`, without a lease; `mayfly-task-leased-certificate`: `pki/issue/leased`, with one
 * - `mayfly-task-deploy-ssh`: `ssh/sign/deploy`
 */
export interface RunningVault extends Openbao {
  /** Has the broker's token, of the policy `mayfly-broker` alone, for a day. */
  readonly tokenFile: string
  readonly database: VaultDatabase
  /** Runs deploy/vault/setup.sh once more. @param changes of its environment. @param folder a copy of deploy/vault. @returns what it printed */
  setUp(changes?: Readonly<Record<string, string>>, folder?: string): Promise<string>
}

/** Whether `startVault` can do it here: for `describe.runIf`. What is missing is said on stderr, and is an error in CI. */
export const vaultRuns = openbao !== undefined && postgresIsInstalled

export async function startVault({ storage = 'memory' }: { readonly storage?: 'memory' | 'raft' } = {}): Promise<RunningVault> {
  const begun = await Promise.allSettled([startPostgres({ own: true }), startOpenbao(storage)])
  const [cluster, bao] = begun.map((one) => (one.status === 'fulfilled' ? one.value : undefined)) as [TestPostgres?, Openbao?]
  const stops: (() => Promise<unknown>)[] = [async () => await bao?.stop(), async () => await cluster?.stop()]
  try {
    if (!cluster || !bao) throw new Error('no OpenBao with a Postgres', { cause: begun.find((one) => one.status === 'rejected')?.reason })
    return await setUpVault(cluster, bao, stops)
  } catch (error) {
    for (const stop of stops) await stop()
    throw error
  }
}

/** @param stops what stops what is there already, in the order in which that is done; whatever is added here comes before it */
async function setUpVault(cluster: TestPostgres, bao: Openbao, stops: (() => Promise<unknown>)[]): Promise<RunningVault> {
  const admin = postgres(cluster.url, { max: 1, onnotice: () => {} })
  await admin`create database ledger`
  await admin.end()
  const url = Object.assign(new URL(cluster.url), { pathname: '/ledger' })
  const superuser = postgres(url.href, { max: 2, onnotice: () => {} })
  stops.unshift(() => superuser.end())
  await superuser`create table bookings as select id, id * 100 as cents from generate_series(1, 3) as id`
  const wire = await faultyWire(url.href)
  stops.unshift(() => wire.stop())
  const tokenFile = path.join(bao.folder, 'broker-token')
  const connection = (port: string): string => `postgresql://{{username}}:{{password}}@127.0.0.1:${port}/ledger?sslmode=disable`
  const environment = {
    PATH: `${path.dirname(openbao!)}:${process.env['PATH']}`,
    HOME: bao.folder,
    BAO_ADDR: bao.address,
    BAO_TOKEN: bao.rootToken,
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: 'postgres',
    PGDATABASE: 'ledger',
    CONNECTION_URL: connection(new URL(wire.url).port),
    BROKER_TOKEN_FILE: tokenFile,
  }
  const setUp = async (changes: Readonly<Record<string, string>> = {}, folder = deployed): Promise<string> =>
    (await run(path.join(folder, 'setup.sh'), { env: { ...environment, ...changes } })).stdout

  async function write(at: string, body: object): Promise<void> {
    const { status, body: answer } = await bao.root('POST', at, body)
    if (status >= 300) throw new Error(`POST ${at}: ${status} ${JSON.stringify(answer)}`)
  }

  /** A second connection to the same database, with a login of its own, as docs/vault.md makes it: one connection makes and drops one login at a time. */
  async function secondConnection(): Promise<void> {
    const commands = `set -e
      od -An -N24 -tx1 /dev/urandom | tr -d ' \\n' >"$HOME/password"
      (printf "\\\\\\\\set vault_password '%s'\\n" "$(cat "$HOME/password")"; sed 's/mayfly_vault/&_2/g' postgres.sql) | psql -X -q
      sed 's/mayfly_vault/&_2/; s/ledger-read/&-2/' database-config.json | bao write database/config/ledger-2 - password=@"$HOME/password" connection_url="$CONNECTION_URL"
      sed 's/"ledger"/"ledger-2"/' database-role.json | bao write database/roles/ledger-read-2 -
      sed 's/ledger-read/&-2/' mayfly-task-ledger-read.hcl | bao policy write mayfly-task-ledger-read-2 -`
    await run('sh', ['-c', commands], { cwd: deployed, env: { ...environment, CONNECTION_URL: connection(url.port) } })
  }

  async function otherEngines(): Promise<void> {
    await write('sys/mounts/secret', { type: 'kv', options: { version: '2' } })
    await write('sys/mounts/pki', { type: 'pki' })
    await write('sys/mounts/ssh', { type: 'ssh' })
    await write('pki/root/generate/internal', { common_name: 'test root', ttl: '24h', key_type: 'ec' })
    const role = { allow_any_name: true, key_type: 'ec', ttl: '10m', max_ttl: '1h' }
    await write('pki/roles/service', role)
    await write('pki/roles/leased', { ...role, generate_lease: true })
    const leased = (await readFile(path.join(deployed, 'mayfly-task-service-certificate.hcl'), 'utf8')).replace('issue/service', 'issue/leased')
    await write('sys/policies/acl/mayfly-task-leased-certificate', { policy: leased })
    await write('ssh/config/ca', { generate_signing_key: true, key_type: 'ed25519' })
    const signs = { key_type: 'ca', allow_user_certificates: true, allowed_users: 'deploy', default_user: 'deploy', ttl: '10m', max_ttl: '1h' }
    await write('ssh/roles/deploy', { ...signs, allow_user_key_ids: true })
    // It refuses until it has made itself ready for versions.
    while ((await bao.root('POST', 'secret/data/app', { data: { colour: 'green' } })).status !== 200);
  }

  await Promise.all([setUp().then(secondConnection), otherEngines()])

  async function login(username: string, password: string): Promise<Session> {
    const client = connectAs(url.href, { username, password })
    const [mine] = await client<[{ pid: number }]>`select pg_backend_pid() as pid`
    return {
      query: (statement) => client.unsafe(statement),
      alive: async () => (await superuser`select from pg_stat_activity where pid = ${mine.pid}`).length > 0,
      close: () => client.end({ timeout: 0 }),
    }
  }

  async function letsIn(username: string, password: string): Promise<boolean> {
    try {
      await (await login(username, password)).close()
      return true
    } catch (error) {
      if (['28P01', '28000'].includes((error as { code?: string }).code ?? '')) return false
      throw error
    }
  }

  return {
    ...bao,
    tokenFile,
    setUp,
    database: {
      url: url.href,
      superuser,
      wire,
      login,
      letsIn,
      logins: () => superuser<VaultLogin[]>`
        select rolname as name, rolcanlogin and coalesce(rolvaliduntil > now(), true) as open from pg_roles where rolname ~ '^mf-' order by rolname`,
    },
    async stop() {
      for (const stop of stops) await stop()
    },
  }
}
