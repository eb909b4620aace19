import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type FakeBroker, problem, startFakeBroker } from '../support/fake-broker.ts'
import { command, mayfly, startMayfly, typing } from '../support/program.ts'

let broker: FakeBroker
let environment: Record<string, string>
beforeEach(async () => {
  broker = await startFakeBroker()
  environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: 'workload-token' }
})
afterEach(() => broker.close())

describe('what a broker says of a task', () => {
  const bell = '\u001b]0;mine\u0007\u001b[8m\u001b[2J\u202e'
  const shown = '\ufffd]0;mine\ufffd\ufffd[8m\ufffd[2J\ufffd'

  test.each([
    ['shown', () => ['task', 'show', broker.task.id]],
    ['opened', () => ['task', 'open', '--kind', 'sync', '--grant', 'api']],
    ['completed', () => ['task', 'complete', broker.task.id]],
  ])('cannot make a terminal do anything where it is %s', async (_, args) => {
    broker.task = { ...broker.task, agent: `bot${bell}` }
    broker.mint = () => ({ type: 'bearer_token', token: `secret${bell}` })
    const { stdout } = await mayfly(args(), environment)
    expect(stdout).toContain(shown)
    expect(stdout.replaceAll(/[\n\ufffd]/g, '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
  })

  test('has the colours of the command line at a terminal, and none of its own', async () => {
    broker.task = { ...broker.task, agent: `bot${bell}` }
    const { screen } = await typing('', ['task', 'show', broker.task.id], { ...environment, NO_COLOR: '' })
    expect(screen).toContain(`\u001b[32mopen\u001b[39m`)
    expect(screen).toContain(`bot${shown}`)
  })
})

describe('mayfly task open', () => {
  const opening = ['task', 'open', '--kind', 'sync', '--grant', 'api']

  test('completes its task where nobody takes the credentials', async () => {
    const { process: child, ended } = startMayfly(opening, environment)
    child.stdout!.destroy()
    expect(await ended).toMatchObject({ status: 1, stderr: '' })
    expect(broker.count('complete')).toBe(1)
  })

  test('completes its task where the credentials cannot be written, and says so', async () => {
    const full = await open('/dev/full', 'w')
    try {
      const child = spawn(process.execPath, [command, ...opening, '--json'], {
        env: { ...process.env, ...environment },
        stdio: ['ignore', full.fd, 'pipe'],
      })
      const stderr = text(child.stderr!)
      expect(await once(child, 'close')).toEqual([1, null])
      expect(await stderr).toContain('ENOSPC')
      expect(await stderr).not.toContain('secret-of')
    } finally {
      await full.close()
    }
    expect(broker.count('complete')).toBe(1)
  })

  test('leaves its task open where its credentials were taken', async () => {
    expect((await mayfly(opening, environment)).stdout).toContain('secret-of-api')
    expect(broker.count('complete')).toBe(0)
  })

  test('says with which key the same command heals a task whose answer may have been lost', async () => {
    broker.fail('open', problem(504, 'timed_out', 'same', { 'retry-after': '60' }))
    const { status, stdout, stderr } = await mayfly([...opening, '--json'], environment)
    const key = broker.heard[0]!.headers['idempotency-key'] as string
    expect(status).toBe(1)
    expect(stderr).toContain(`if this opened a task, the same command with --key ${key} heals it\n`)
    expect(JSON.parse(stdout)).toMatchObject({ code: 'timed_out', idempotency_key: key })
  })

  test('says nothing of a key where the broker said no', async () => {
    broker.fail('open', problem(403, 'denied', 'no'))
    expect((await mayfly(opening, environment)).stderr).not.toContain('--key')
  })
})
