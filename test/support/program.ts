import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { openLocalIssuer } from '../../src/identity/local-issuer.ts'
import type { StoreSettings } from '../../src/ledger/connect.ts'
import { freePort } from './port.ts'

/** The built command, as it is shipped. */
export const command = path.join(import.meta.dirname, '../../dist/cli/mayfly.js')

/** What a run of the command came to. */
export interface Ran {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Runs the built command to its end. @param input what is piped into it @param heard is told what it has written to stderr so far, whenever it writes */
export async function mayfly(
  args: readonly string[],
  environment: Record<string, string> = {},
  input = '',
  heard: (stderr: string) => void = () => {},
): Promise<Ran> {
  return await startMayfly(args, environment, input, heard).ended
}

/** The same, with its process while it goes on. Its status is null where it was killed. */
export function startMayfly(
  args: readonly string[],
  environment: Record<string, string> = {},
  input = '',
  heard: (stderr: string) => void = () => {},
): { readonly process: ChildProcess; readonly ended: Promise<Ran> } {
  const child = spawn(process.execPath, [command, ...args], { env: { ...plainEnvironment(), ...environment }, stdio: 'pipe' })
  // It may end before it has read all.
  child.stdin.on('error', () => {}).end(input)
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)]
  child.stderr.on('data', () => heard(stderr()))
  const ended = once(child, 'close').then(([status]: (number | null)[]) => ({ status: status ?? null, stdout: stdout(), stderr: stderr() }))
  return { process: child, ended }
}

/**
 * Runs the built command at a terminal, as a person would, and types `answer` once it asks. What it writes to either stream is on the one screen.
 * With util-linux's `script`, which every Debian has: Node itself can make no terminal.
 * @param redirected where some of its input and output lead instead, in words of a shell
 */
export async function typing(
  answer: string,
  args: readonly string[],
  environment: Record<string, string> = {},
  redirected = '',
): Promise<{ status: number | null; screen: string }> {
  const quoted = [process.execPath, command, ...args].map((word) => `'${word.replaceAll("'", String.raw`'\''`)}'`).join(' ')
  const env = { ...plainEnvironment(), ...environment }
  const child = spawn('script', ['--quiet', '--return', '--command', `${quoted} ${redirected}`, '/dev/null'], {
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const screen = collect(child.stdout)
  let isAsked = false
  child.stdout.on('data', () => {
    if (isAsked || !screen().includes('\n> ')) return
    isAsked = true
    child.stdin.write(answer)
  })
  const [status] = (await once(child, 'close')) as [number | null]
  return { status, screen: screen() }
}

/** A broker process. */
export interface RunningBroker {
  readonly url: string
  readonly process: ChildProcess
  /** Resolves once it says that it is ready. @throws with its own words where it ends before */
  ready(): Promise<void>
  log(): string
  /** Asks it to stop and waits. @returns its exit status */
  stop(): Promise<number | null>
  kill(): Promise<void>
}

/** A configuration on disk, for any number of brokers that share it. */
export interface Site {
  readonly folder: string
  /** Public keys of its issuer. */
  readonly jwks: object
  /** Signs as somebody, for brokers of this site and for longer than any test takes. @param ahead milliseconds by which the issuer's clock is ahead of the machine's */
  token(sub: string, ahead?: number, lifetimeSeconds?: number): Promise<string>
  /**
   * Starts a broker; one that is to reach store or lab over another wire is told so.
   * @param environment what it finds in its environment besides what every program has
   */
  start(over?: Partial<Pick<SiteOptions, 'store' | 'lab' | 'extra'>>, environment?: Readonly<Record<string, string>>): Promise<RunningBroker>
  /** The same, whose process has just begun and is not ready. */
  launch(over?: Partial<Pick<SiteOptions, 'store' | 'lab' | 'extra'>>, environment?: Readonly<Record<string, string>>): Promise<RunningBroker>
  write(file: string, text: string): Promise<void>
  config(): string
  remove(): Promise<void>
}

export interface SiteOptions {
  readonly store: StoreSettings
  /** A backend of kind http. */
  readonly lab?: string
  /** Whether a workload token is accepted again and again, as it is where this is absent. */
  readonly replay?: 'reusable' | 'single-use'
  /** How long one call to it may take. */
  readonly labTimeout?: string
  /** Settings of that backend besides its address, as YAML: `, ca: ./ca.pem`. */
  readonly labSettings?: string
  /** Another backend of kind http, `other`, with a grant of that name. */
  readonly other?: string
  /** Where the issuer's keys are fetched; pinned where absent. */
  readonly keys?: string
  /** Providers besides these, as lines of YAML. */
  readonly providers?: string
  /** Issuers besides the local one, as lines of YAML. */
  readonly issuers?: string
  /** Operators besides those of the local issuer, as lines of YAML. */
  readonly operators?: string
  /** Agents besides these, as lines of YAML. */
  readonly agents?: string
  readonly extra?: string
}

/** What brokers of a site are called from outside, and the `aud` of tokens for them, wherever they listen. */
export const audience = 'http://127.0.0.1:7420'

/** Writes a configuration with a local issuer, the provider `tokens` and, where a lab is given, `lab`. */
export async function makeSite(options: SiteOptions): Promise<Site> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mayfly-site-'))
  const issuer = await openLocalIssuer(path.join(folder, 'issuer.json'))
  const write = (file: string, text: string) => writeFile(path.join(folder, file), text)
  await write('jwks.json', JSON.stringify(issuer.jwks))
  await write('catalogue.yaml', catalogue(options))
  await mkdir(path.join(folder, 'policies'))
  await write('policies/site.cedar', policies)
  const configFile = path.join(folder, 'mayfly.yaml')

  async function start(...how: Parameters<typeof launch>): Promise<RunningBroker> {
    const broker = await launch(...how)
    await broker.ready()
    return broker
  }

  async function launch(over: Partial<SiteOptions> = {}, environment: Readonly<Record<string, string>> = {}): Promise<RunningBroker> {
    const port = await freePort()
    const file = path.join(folder, `mayfly-${port}.yaml`)
    await writeFile(file, configuration(port, { ...options, ...over }))
    const env = { ...plainEnvironment(), ...environment }
    const child = spawn(process.execPath, [command, 'serve', '--config', file], { env, stdio: ['ignore', 'pipe', 'pipe'] })
    const [out, err] = [collect(child.stdout), collect(child.stderr)]
    const url = `http://127.0.0.1:${port}`
    const closed = once(child, 'close')
    return {
      url,
      process: child,
      ready: () => ready(url, child, err),
      log: () => out() + err(),
      async stop() {
        child.kill('SIGTERM')
        const [status] = (await closed) as [number | null]
        return status
      },
      async kill() {
        child.kill('SIGKILL')
        await closed
      },
    }
  }
  await writeFile(configFile, configuration(7420, options))
  return {
    folder,
    jwks: issuer.jwks,
    token: (sub, ahead = 0, lifetimeSeconds = 3_000) => issuer.sign({ sub, aud: audience, lifetimeSeconds }, Date.now() + ahead),
    start,
    launch,
    write,
    config: () => configFile,
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

function configuration(
  port: number,
  {
    store,
    lab,
    labTimeout = '20s',
    labSettings = '',
    other,
    keys = './jwks.json',
    replay = 'reusable',
    providers = '',
    issuers = '',
    operators = '',
    extra = '',
  }: SiteOptions,
): string {
  return `
public_url: ${audience}
listen: { host: 127.0.0.1, port: ${port} }
store: ${JSON.stringify(store)}
catalogue: ./catalogue.yaml
policies: ./policies
identity:
  - { name: local, profile: oidc, issuer: "urn:mayfly:local-issuer", keys: "${keys}", replay: ${replay} }
${issuers}
operators:
  - { issuer: local, match: { sub: "operator:ops" }, roles: [operator, reviewer] }
  - { issuer: local, match: { sub: "operator:reader" }, roles: [reviewer] }
${operators}
resource_servers:
  - { issuer: local, match: { sub: "resource:api" }, audience: https://api.example.com }
  - { issuer: local, match: { sub: "resource:other" }, audience: https://other.example.com }
providers:
  - { name: tokens, kind: jwt }
${lab === undefined ? '' : `  - { name: lab, kind: http, url: "${lab}", revocation: provider, timeout: ${labTimeout}${labSettings} }`}
${other === undefined ? '' : `  - { name: other, kind: http, url: "${other}", revocation: provider, timeout: 20s }`}
${providers}
${extra}`
}

const catalogue = ({ lab, other, agents = '' }: SiteOptions): string => `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
  rival: { issuer: local, match: { sub: "agent:rival" }, owner: rival@example.com, groups: [robots] }
${agents}
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [api${lab === undefined ? '' : ', crm'}${other === undefined ? '' : ', other'}] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
${lab !== undefined ? '  crm: { provider: lab, max_ttl: 20m, parameters: { customer: { pattern: "[a-z0-9-]{1,32}" } } }' : ''}
${other !== undefined ? '  other: { provider: other, max_ttl: 20m }' : ''}
`

const policies = `
@id("robots-work")
permit(principal in Group::"robots", action in [Action::"issue", Action::"renew"], resource in Kind::"work");
@id("robots-declare")
permit(principal in Group::"robots", action == Action::"declare", resource == Kind::"work");
`

async function ready(url: string, child: ChildProcess, err: () => string): Promise<void> {
  // The first start on an embedded store takes seconds, and on a busy machine many.
  for (let look = 0; look < 1_000; look++) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the broker ended: ${err()}`)
    const answer = await fetch(`${url}/readyz`).catch(() => undefined)
    if (answer?.status === 200) return
    // There is nothing to wait on but the process itself: it says that it is ready by answering.
    await pause(50)
  }
  throw new Error(`the broker is not ready: ${err()}`)
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: string[] = []
  stream?.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
  return () => chunks.join('')
}

/** Without what a developer may have set for a broker of their own. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const {
    MAYFLY_URL: _url,
    MAYFLY_TOKEN: _token,
    MAYFLY_TOKEN_FILE: _file,
    MAYFLY_CLIENT_CERT_FILE: _cert,
    MAYFLY_CLIENT_KEY_FILE: _key,
    ...rest
  } = process.env
  return { ...rest, NO_COLOR: '1' }
}
