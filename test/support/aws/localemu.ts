import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { dyingWithUs } from '../dying-with-us.ts'
import { freePort } from '../port.ts'
import type { RunningAws } from './peers.ts'

/** Where .ci/run puts it: a virtual environment of its own, and nothing is installed for Python. */
const folder = path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'mayfly/localemu-1.3.2')

/** Its Python. Undefined where it is not installed: unlike other peers also in CI, for it needs Python 3.13, which Debian's releases in use lack. */
export const localemu: string | undefined = existsSync(path.join(folder, 'bin/localemu')) ? path.join(folder, 'bin/python') : undefined

if (localemu === undefined) {
  const advice = `no LocalEmu: with Python 3.13, \`python3.13 -m venv ${folder} && ${folder}/bin/pip install localemu==1.3.2\``
  process.stderr.write(`AWS is tested on our own peer alone: ${advice}\n`)
}

/** Any key that it is told is root's. Nobody's secret: it checks no signatures. */
const root = { accessKeyId: 'AKIALOCALEMUROOT0000', secretAccessKey: 'unchecked' }

/**
 * LocalEmu 1.3.2, which others wrote from AWS's documentation. It enforces trust policies, session policies, boundaries, denies by `aws:userid` and
 * expiry. It has no GetScopedCredentials, and checks no signatures, sizes, maximum durations, `aws:CurrentTime` and source identities.
 */
export async function startLocalemu(): Promise<RunningAws> {
  if (localemu === undefined) throw new Error('there is no LocalEmu')
  const [home, port] = [await mkdtemp(path.join(tmpdir(), 'mayfly-localemu-')), await freePort()]
  const url = `http://127.0.0.1:${port}`
  const command = [...dyingWithUs, localemu, '-m', 'localemu.runtime.main']
  const server = spawn(command[0]!, command.slice(1), {
    cwd: home,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PATH: process.env['PATH'],
      HOME: home,
      TMPDIR: home,
      IAM_ENFORCEMENT: '1',
      ROOT_ACCESS_KEYS: root.accessKeyId,
      SERVICES: 'sts,iam,s3',
      GATEWAY_LISTEN: `127.0.0.1:${port}`,
      // Its other server, Twisted, listens on every interface whatever it is told.
      GATEWAY_SERVER: 'hypercorn',
      SKIP_SSL_CERT_DOWNLOAD: '1',
    },
  })
  const chunks: string[] = []
  for (const stream of [server.stdout, server.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => chunks.push(chunk))
  const closed = once(server, 'close')

  async function stop(): Promise<void> {
    // It keeps nothing, so that there is nothing to end well.
    server.kill('SIGKILL')
    await closed
    await rm(home, { recursive: true, force: true })
  }
  if (!(await answers(url, server))) {
    await stop()
    throw new Error(`LocalEmu is not ready: ${chunks.join('')}`)
  }
  return { url, region: 'us-east-1', account: '000000000000', root, stop, [Symbol.asyncDispose]: stop }
}

/** Three seconds on an idle machine; a minute at most. */
async function answers(url: string, server: ChildProcess): Promise<boolean> {
  for (let look = 0; look < 600 && server.exitCode === null && server.signalCode === null; look++) {
    const answer = await fetch(`${url}/_localemu/health`, { signal: AbortSignal.timeout(5_000) }).catch(() => undefined)
    if (answer?.ok) return true
    // There is nothing to wait on but the process itself: it says that it is ready by answering.
    await pause(100)
  }
  return false
}
