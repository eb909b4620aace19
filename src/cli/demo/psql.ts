import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { childEnvironment } from '../../config/environment.ts'
import { UsageError } from '../failure.ts'

/** Somebody who may try to come into a database. */
export interface Login {
  readonly username: string
  readonly password: string
}

/** A session with a database, in the middle of a statement that takes longer than anybody waits. */
export interface Session {
  /** Who the database says it is. */
  readonly user: string
  /** What ended it, in the words of Postgres; undefined where nothing has in time. */
  end(): Promise<string | undefined>
  close(): void
}

/** A database as psql reaches it, Postgres' own client. */
export interface Database {
  /** @returns a session, or the refusal in the words of Postgres. @throws Error where the database cannot be reached */
  login(login: Login): Promise<Session | string>
}

/** Milliseconds after which a session that should be dead counts as alive. */
const patience = 10_000

/** @param url without a name and a password: everybody on this machine can read the arguments of a program. @throws UsageError */
export async function openDatabase(url: string): Promise<Database> {
  refuseOdd(url)
  await promisify(execFile)('psql', ['--version']).catch((cause: NodeJS.ErrnoException) => {
    const how = cause.code === 'ENOENT' ? 'is not on the PATH' : 'cannot be run'
    throw new UsageError(`psql ${how}: the demo logs in with it. apt-get install postgresql-client, or brew install libpq`)
  })
  return {
    async login({ username, password }) {
      // Its answers are read, so they have to be in one language.
      const env = { ...childEnvironment(), PGUSER: username, PGPASSWORD: password, PGAPPNAME: 'mayfly demo', PGCONNECT_TIMEOUT: '10', LC_ALL: 'C' }
      const statements = ['-c', 'select current_user', '-c', 'select pg_sleep(3600)']
      const psql = spawn('psql', ['-X', '-q', '-A', '-t', '-w', ...statements, url], { env, stdio: ['ignore', 'pipe', 'pipe'] })
      return await sessionOf(psql)
    },
  }
}

async function sessionOf(psql: ChildProcess): Promise<Session | string> {
  const words: string[] = []
  psql.stderr!.setEncoding('utf8').on('data', (text: string) => words.push(text))
  const closed = once(psql, 'close')
  const first = await Promise.race([once(psql.stdout!.setEncoding('utf8'), 'data'), closed])
  const [user] = first
  if (typeof user !== 'string') {
    const refusal = saidBy(words)
    if (refusal !== undefined) return refusal
    throw new Error(`psql: ${words.join('').trim() || 'no session'}`)
  }
  return {
    user: user.trim(),
    async end() {
      const late = once(AbortSignal.timeout(patience), 'abort').then(() => undefined)
      const ended = await Promise.race([closed, late])
      return ended && (saidBy(words) ?? 'it ended without a word')
    },
    close: () => void psql.kill(),
  }
}

/** What the server said before it hung up. */
const saidBy = (words: readonly string[]): string | undefined => /FATAL:\s+(.+)/.exec(words.join(''))?.[1]

function refuseOdd(text: string): void {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== 'postgresql:' && url?.protocol !== 'postgres:') throw new UsageError('--vault: must be such as postgresql://host:5432/ledger')
  if (url.username || url.password) throw new UsageError('--vault: must not hold a name or a password: the demo brings its own')
}
