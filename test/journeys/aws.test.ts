import { GetObjectCommand } from '@aws-sdk/client-s3'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { OpenedTask } from '../../src/http/contract.ts'
import { clientsOf } from '../support/aws/clients.ts'
import { freePort } from '../support/port.ts'
import { command, mayfly } from '../support/program.ts'
import { type Terminal, terminal } from '../support/terminal.ts'

const root = path.join(import.meta.dirname, '../..')

describe('whoever follows docs/aws.md from nothing', () => {
  let folder: string
  let stack: Terminal
  let broker: Terminal
  let session: string
  /** What the stack says to export for the broker. */
  let told: Record<string, string>
  let agent: Record<string, string>

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'mayfly-newcomer-'))
    const [peer, port] = [await freePort(), await freePort()]
    stack = terminal(process.execPath, [path.join(root, 'deploy/aws/stack.mjs')], { AWS_PEER_PORT: String(peer) })
    await stack.prints('Ctrl-C ends it')
    session = / {2}\. (\S+)/.exec(stack.text())![1]!
    told = Object.fromEntries([...(await readFile(session, 'utf8')).matchAll(/export (\w+)='(.*)'/g)].map(([, name, value]) => [name!, value!]))

    const config = path.join(root, 'deploy/aws/example/mayfly.yaml')
    broker = terminal(process.execPath, [command, 'dev', '--data', folder, '--port', String(port), '--config', config], told)
    await broker.prints('the broker is listening')
    const token = (await mayfly(['dev', 'token', '--agent', 'invoice-bot', '--data', folder])).stdout.trim()
    agent = { MAYFLY_URL: `http://127.0.0.1:${port}`, MAYFLY_TOKEN: token }
  }, 120_000)
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  test('reads what the task may and nothing else, and not even that when the task has ended', async () => {
    const asked = ['--kind', 'invoice-sync', '--grant', 'invoices-bucket', '--param', 'customer=acme']
    const { task, leases } = JSON.parse((await mayfly(['task', 'open', ...asked, '--json'], agent)).stdout) as OpenedTask
    const { credential } = leases[0]!
    if (credential.type !== 'aws_session') throw new Error(`a credential of type ${credential.type}`)
    const keys = { accessKeyId: credential.access_key_id, secretAccessKey: credential.secret_access_key, sessionToken: credential.session_token }
    const { s3 } = clientsOf({ url: told['AWS_PEER']!, region: 'us-east-1' }, keys)
    const read = async (Key: string) => (await s3.send(new GetObjectCommand({ Bucket: 'invoices', Key }))).Body?.transformToString()
    expect(await read('acme/1')).toBe('acme/1')
    await expect(read('globex/1')).rejects.toThrow('no session policy allows')

    const { status, stdout } = await mayfly(['task', 'complete', task.id, '--wait', '30'], agent)
    expect(stdout).toMatch(/revoked .* denied by generation 1 of the kill list of mayfly\/invoices/)
    expect(status).toBe(0)
    await expect(read('acme/1')).rejects.toThrow('explicit deny in a permissions boundary')
  })

  test('ends all of it with Ctrl-C, and nothing is left of it', async () => {
    expect([await broker.interrupt(), await stack.interrupt()]).toEqual([0, 0])
    expect(existsSync(path.dirname(session))).toBe(false)
  })
})
