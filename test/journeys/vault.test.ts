import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectAs, type Login } from '../support/login.ts'
import { openbao } from '../support/openbao.ts'
import { freePort } from '../support/port.ts'
import { mayfly } from '../support/program.ts'
import { type Terminal, terminal } from '../support/terminal.ts'
import { deployed, vaultRuns } from '../support/vault.ts'

const program = path.join(import.meta.dirname, '../../dist/cli/mayfly.js')

describe.runIf(vaultRuns)('whoever follows docs/vault.md', () => {
  let folder: string
  let stack: Terminal
  let broker: Terminal
  /** What the stack tells to export. */
  let told: Record<'BAO_ADDR' | 'BROKER_TOKEN_FILE', string>
  let database: string
  let agent: Record<string, string>
  let reviewer: Record<string, string>
  /** What must stand in no log and no export. */
  const secrets = new Set<string>()
  const printed: string[] = []

  const root = async (method: string, at: string): Promise<Response> => {
    const token = await readFile(path.join(path.dirname(told.BROKER_TOKEN_FILE), 'root-token'), 'utf8')
    return await fetch(`${told.BAO_ADDR}/v1/${at}`, { method, headers: { 'x-vault-token': token } })
  }
  const run = async (args: readonly string[], environment: Record<string, string> = agent) => {
    const ran = await mayfly(args, environment)
    printed.push(ran.stdout, ran.stderr)
    return ran
  }
  /** Logs in and asks for something. @throws the refusal of Postgres */
  async function bookings(login: Login): Promise<number> {
    const client = connectAs(database, login)
    try {
      return (await client`select * from bookings`).length
    } finally {
      await client.end()
    }
  }
  /** The accessors of all tokens that live. */
  async function accessors(): Promise<readonly string[]> {
    const { data } = (await (await root('LIST', 'auth/token/accessors')).json()) as { data: { keys: string[] } }
    return data.keys
  }

  async function startBroker(data: string, port: number, options: readonly string[]): Promise<Terminal> {
    const started = terminal(process.execPath, [program, 'dev', '--data', data, '--port', String(port), ...options], told)
    await started.prints('the broker is listening')
    return started
  }

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-newcomer-'))
    const [bao, ledger, port] = [await freePort(), await freePort(), await freePort()]
    const ports = { BAO_PORT: String(bao), LEDGER_PORT: String(ledger) }
    stack = terminal(path.join(deployed, 'stack.sh'), [], { ...ports, PATH: `${path.dirname(openbao!)}:${process.env['PATH']}` })
    await stack.prints('Ctrl-C stops both')
    const exported = /export BAO_ADDR=(\S+) BROKER_TOKEN_FILE=(\S+)/.exec(stack.text())!
    told = { BAO_ADDR: exported[1]!, BROKER_TOKEN_FILE: exported[2]! }
    database = `postgresql://127.0.0.1:${ledger}/ledger`

    broker = await startBroker(folder, port, ['--config', path.join(deployed, 'example/mayfly.yaml')])
    const tokenOf = async (...who: string[]) => (await mayfly(['dev', 'token', ...who, '--data', folder])).stdout.trim()
    const url = { MAYFLY_URL: `http://127.0.0.1:${port}` }
    agent = { ...url, MAYFLY_TOKEN: await tokenOf('--agent', 'invoice-bot') }
    reviewer = { ...url, MAYFLY_TOKEN: await tokenOf('--operator', 'ops') }
    secrets.add(await readFile(told.BROKER_TOKEN_FILE, 'utf8'))
    // Three programs, one after the other, on a machine that may be busy.
  }, 120_000)
  afterAll(async () => {
    await broker?.interrupt()
    await stack?.interrupt()
    await rm(folder, { recursive: true, force: true })
  })

  test('finds the token of the broker readable by nobody else', async () => {
    expect((await stat(told.BROKER_TOKEN_FILE)).mode & 0o777).toBe(0o600)
    expect((await stat(path.dirname(told.BROKER_TOKEN_FILE))).mode & 0o066).toBe(0)
  })

  test('logs in while the task is open, and is refused when it is completed', async () => {
    const opened = await mayfly(['task', 'open', '--kind', 'invoice-sync', '--grant', 'ledger-read', '--json'], agent)
    const { task, leases } = JSON.parse(opened.stdout) as { task: { id: string }; leases: [{ revocation: string; credential: Login }] }
    const [{ credential }] = leases
    expect(leases[0].revocation).toBe('provider')
    secrets.add(credential.password)
    expect(await bookings(credential)).toBe(3)
    for (const accessor of await accessors()) secrets.add(accessor)

    const completed = await run(['task', 'complete', task.id])

    expect(completed).toMatchObject({ status: 0 })
    expect(completed.stdout).toContain('revoked')
    await expect(bookings(credential)).rejects.toMatchObject({ code: '28P01' })
  })

  test('runs a command with a login that is dead when the command has ended', async () => {
    const file = path.join(folder, 'kept.json')
    const script =
      'cp "$MAYFLY_CREDENTIALS/ledger-read.json" "$KEPT"; PGUSER=$(node -p "require(process.env.KEPT).username") psql -X -A -t -c "$1" "$2"'
    const command = ['sh', '-c', script, 'sh', 'select sum(cents) from bookings', database]
    const ran = await run(['exec', '--kind', 'invoice-sync', '--grant', 'ledger-read', '--env', 'ledger-read=PGPASSWORD', '--', ...command], {
      ...agent,
      KEPT: file,
    })

    expect(ran).toMatchObject({ status: 0, stdout: '600\n' })
    const credential = JSON.parse(await readFile(file, 'utf8')) as Login
    secrets.add(credential.password)
    await expect(bookings(credential)).rejects.toMatchObject({ code: '28P01' })
  })

  test('sees in `mayfly demo --vault` a session cut and a login refused, whoever ends the task', async () => {
    const { MAYFLY_URL } = agent as { MAYFLY_URL: string }
    const demo = await run(['demo', '--vault', database, '--data', folder], { MAYFLY_URL })

    expect(demo).toMatchObject({ status: 0, stderr: '' })
    const steps = demo.stdout.split('\n').filter((line) => /^(ok|FAIL) /.test(line))
    expect(steps.map((line) => line.replace(/^(\w+) +[\d.]+ ms +/, '$1 ').replace(/ {2,}/, ': '))).toEqual([
      expect.stringMatching(/^ok somebody logs in to the database with a guess: refused: password authentication failed/),
      expect.stringMatching(/^ok agent invoice-bot declares a task: task_\w+, permitted by finance-reads-ledger$/),
      expect.stringMatching(/^ok it logs in to the database \(ledger-read, 29\ds\): a session as mf-token-lease-/),
      expect.stringMatching(/^ok it completes the task in the middle of a query: completed, revoked \(task token gone since .*answered 204/),
      'ok the session: cut: terminating connection due to administrator command',
      expect.stringMatching(/^ok it logs in again: refused: /),
      expect.stringMatching(/^ok an operator ends another task by its id: revoked by operator:local\/operator:ops$/),
      'ok its session: cut: terminating connection due to administrator command',
      'ok nobody ends a third one, of five seconds: cut: terminating connection due to administrator command',
      expect.stringMatching(/^ok its login: refused: /),
      expect.stringMatching(/^ok its agent completes it, too late: completed, revoked /),
    ])
    expect(demo.stdout.match(/lease\.revoked/g)).toHaveLength(3)
    // A session that nobody cuts is waited for.
  })

  test('is told by the demo what is missing, before it declares anything', async () => {
    const demo = (where: string, environment: Record<string, string> = {}) =>
      mayfly(['demo', '--vault', where, '--data', folder], { ...agent, ...environment })
    expect(await demo(database, { PATH: folder })).toMatchObject({ status: 2, stderr: expect.stringContaining('psql is not on the PATH') as unknown })
    expect(await demo('postgresql://me:secret@127.0.0.1/ledger')).toMatchObject({ status: 2, stdout: '' })
    const away = await demo(`postgresql://127.0.0.1:${await freePort()}/ledger`)
    expect(away).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('Connection refused') as unknown })
  })

  test('sees the plain demo before the configuration of `npm start`, and is told which one a database needs', async () => {
    const [data, port] = [path.join(folder, 'plain'), await freePort()]
    const plain = await startBroker(data, port, [])
    const demo = (...options: string[]) => mayfly(['demo', '--data', data, ...options], { MAYFLY_URL: `http://127.0.0.1:${port}` })

    const tokens = await demo()
    expect(tokens).toMatchObject({ status: 0, stderr: '' })
    expect(tokens.stdout.match(/^ok .*/gm)).toHaveLength(9)
    const missing = await demo('--vault', database)
    expect(missing).toMatchObject({ status: 2, stderr: expect.stringContaining('deploy/vault/example/mayfly.yaml') as unknown })
    await plain.interrupt()
  })

  test('leaves no login in the database and no secret, token or accessor in a log or an export', async () => {
    // The superuser comes through the socket in the stack's own folder.
    const socket = path.join(path.dirname(told.BROKER_TOKEN_FILE), 'postgres')
    const superuser = postgres({ host: socket, port: Number(new URL(database).port), username: 'postgres', database: 'ledger', max: 1 })
    expect(await superuser`select rolname from pg_roles where rolname ~ '^mf-'`).toEqual([])
    await superuser.end()

    const exported = [await run(['ledger', 'export'], reviewer), await run(['ledger', 'export', '--format', 'csv'], reviewer)]
    for (const { stdout } of exported) expect(stdout).toContain('sys/leases/revoke answered 204')
    const leases = await run(['lease', 'list', '--json'], reviewer)
    expect(leases.stdout).toContain('ledger-read')

    // But for the link into the console, which is printed for whoever started the broker, and works once.
    const all = [broker.text(), stack.text(), ...printed].join('\n').replaceAll(/\/console\/enter\?key=\S+/g, '')
    expect(broker.text()).toContain('a lease has ended')
    expect(secrets.size).toBeGreaterThan(4)
    for (const secret of secrets) expect(all).not.toContain(secret)
    // What a token of OpenBao, a task token and a JWT look like.
    expect(all).not.toMatch(/\bs\.[A-Za-z0-9]{24}|mft_[\w-]{20}|eyJ[\w-]{20}/)
  })

  test('stops both with Ctrl-C, and nothing of them is left', async () => {
    expect(await stack.interrupt()).toBe(0)
    expect(existsSync(path.dirname(told.BROKER_TOKEN_FILE))).toBe(false)
    await expect(root('GET', 'sys/health')).rejects.toThrow()
    await expect(bookings({ username: 'somebody', password: '' })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })
})
