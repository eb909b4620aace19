import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chown, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { freePort } from './port.ts'

const run = promisify(execFile)

/** Where Debian keeps what it does not put on the path. */
const versions = '/usr/lib/postgresql'

/** Whether one of our own could be started. */
export const postgresIsInstalled = existsSync(versions)

export interface TestPostgres {
  /** A superuser's, to the database `postgres`. */
  readonly url: string
  stop(): Promise<void>
}

/**
 * A real Postgres for the tests: `TEST_DATABASE_URL` where it is set, else one of our own from Debian's binaries, on loopback and gone afterwards.
 * Undefined where there is neither; in CI that is an error, since no test with a real peer may be skipped there.
 *
 * @param durable whether one of our own waits for the disk at each commit, as it does by default: a test need not, a measurement must
 * @param own one of our own in any case, whose logins need their passwords, the superuser's apart
 */
export async function startPostgres({ durable = false, own = false } = {}): Promise<TestPostgres | undefined> {
  const given = own ? undefined : process.env['TEST_DATABASE_URL']
  if (given !== undefined) return { url: given, stop: async () => {} }
  const binaries = await findBinaries()
  if (binaries !== undefined) return await startOwn(binaries, durable, own)
  const advice = `no Postgres: install one (\`apt-get install postgresql\`)${own ? '' : ' or set TEST_DATABASE_URL'}`
  if (process.env['CI'] !== undefined) throw new Error(advice)
  process.stderr.write(`tests on a real Postgres are left out: ${advice}\n`)
  return undefined
}

async function findBinaries(): Promise<string | undefined> {
  const found = await readdir(versions).catch(() => [])
  const newest = found.toSorted((one, other) => Number(other) - Number(one))[0]
  return newest === undefined ? undefined : path.join(versions, newest, 'bin')
}

async function startOwn(binaries: string, durable: boolean, passwords: boolean): Promise<TestPostgres> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-postgres-'))
  const isRoot = process.getuid?.() === 0
  if (isRoot) {
    const { stdout } = await run('id', ['-u', 'postgres'])
    await chown(folder, Number(stdout), -1)
  }
  // Postgres refuses to run as root.
  const as = (program: string, args: readonly string[]) => {
    const command = path.join(binaries, program)
    return isRoot ? run('runuser', ['-u', 'postgres', '--', command, ...args]) : run(command, [...args])
  }
  const port = await freePort()
  const cluster = path.join(folder, 'cluster')
  await as('initdb', ['--no-sync', '-A', 'trust', '-U', 'postgres', '-D', cluster])
  if (passwords) await writeFile(path.join(cluster, 'pg_hba.conf'), 'host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n')
  const settings = `-p ${port} -k ${folder} -c listen_addresses=127.0.0.1 -c fsync=${durable ? 'on' : 'off'} -c max_connections=200`
  await as('pg_ctl', ['-w', '-D', cluster, '-o', settings, '-l', path.join(folder, 'log'), 'start'])
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    async stop() {
      await as('pg_ctl', ['-w', '-D', cluster, '-m', 'immediate', 'stop'])
      await rm(folder, { recursive: true, force: true })
    },
  }
}
