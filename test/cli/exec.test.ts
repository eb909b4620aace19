import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { namesOf } from '../../src/cli/exec/credential-files.ts'
import { type ExecOptions, runWithTask } from '../../src/cli/exec.ts'
import { UsageError } from '../../src/cli/failure.ts'
import { createClient, MayflyProblem } from '../../src/client/client.ts'
import { type FakeBroker, type Fault, problem, resetAfter, startFakeBroker } from '../support/fake-broker.ts'
import { typing } from '../support/program.ts'

/** Where commands leave what they saw, and where credential folders are made. */
let scratch: string
let broker: FakeBroker
let told: string[]

beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'mayfly-exec-'))
  broker = await startFakeBroker()
  told = []
})
afterEach(async () => {
  vi.useRealTimers()
  await broker.close()
  // The only thing that a command under a task leaves is what it wrote itself.
  expect(readdirSync(scratch).filter((name) => name.startsWith('mayfly-'))).toEqual([])
  expect(told.join('\n')).not.toContain('secret-of')
  for (const [signal, count] of listenersBefore) expect(process.listenerCount(signal), signal).toBe(count)
  rmSync(scratch, { recursive: true })
})
const listenersBefore = new Map(
  ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'].map((signal) => [signal, process.listenerCount(signal)]),
)

const grant = (name: string) => ({ name, parameters: {} })
/** A look that no test comes to see, unless it says so. */
const pace = { look: 60_000, grace: 10_000, shortest: 20 }

/**
 * Runs a script as the command of a task. `leave(name, text)` is there for it to write into the scratch folder. What people are told who wait for the
 * broker is left out: a machine that stands still for three seconds lets anybody wait.
 */
function run(script: string, options: Partial<ExecOptions> = {}, client: { patience?: number; timing?: Partial<typeof pace> } = {}): Promise<number> {
  const prelude = `const fs = require('fs'), folder = process.env.MAYFLY_CREDENTIALS
    const leave = (name, text = '') => { fs.writeFileSync('${scratch}/.half', text); fs.renameSync('${scratch}/.half', '${scratch}/' + name) }
    const credential = (name) => fs.readFileSync(folder + '/' + name, 'utf8')\n`
  const asked: ExecOptions = {
    kind: 'sync',
    grants: [grant('api')],
    env: new Map(),
    command: [process.execPath, '-e', prelude + script],
    environment: { PATH: process.env['PATH'], XDG_RUNTIME_DIR: scratch },
    ...options,
  }
  return runWithTask(
    createClient({ url: broker.url, token: 'workload-token', patience: client.patience ?? 60_000 }),
    asked,
    (line) => void (line.startsWith('waiting for the broker') || told.push(line)),
    {
      ...pace,
      ...client.timing,
    },
  )
}
const left = (name: string): string => readFileSync(join(scratch, name), 'utf8')
const appears = (name: string): Promise<void> => expect.poll(() => existsSync(join(scratch, name)), { interval: 5, message: name }).toBe(true)
const forever = 'setInterval(() => undefined, 1000)\n'
/** A script that goes on until `enough` is called, and ends with a status. */
const untilEnough = (status: number): string => `setInterval(() => fs.existsSync('${join(scratch, 'enough')}') && process.exit(${status}), 5)\n`
const enough = (): void => writeFileSync(join(scratch, 'enough'), '')
/** Lets time pass: so many further looks of a command that looks every 20 ms. */
async function looks(count: number): Promise<void> {
  const before = broker.count('show')
  await expect.poll(() => broker.count('show'), { interval: 5 }).toBeGreaterThanOrEqual(before + count)
}
const looking = { timing: { look: 20 } }

describe('a command under a task', () => {
  test('has its status passed on, and its task completed with the token of the task', async () => {
    expect(await run('process.exit(7)', { purpose: 'a test', duration: '5m' })).toBe(7)
    expect(broker.heard.map(({ action }) => action)).toEqual(['open', 'complete'])
    expect(broker.heard[0]!.body).toEqual({ kind: 'sync', grants: [grant('api')], purpose: 'a test', duration: '5m' })
    expect(broker.heard[1]!.headers.authorization).toBe(`Bearer mft_${broker.task.id}`)
    expect(told).toEqual([])
  })

  test('finds its credentials in private files of a private folder, which is gone afterwards', async () => {
    broker.mint = (name) =>
      name === 'db' ? { type: 'username_password', username: 'u', password: 'secret-of-db' } : { type: 'bearer_token', token: `secret-of-${name}` }
    await run(
      `const mode = (path) => (fs.statSync(path).mode & 0o777).toString(8)
       leave('seen', JSON.stringify({ folder, modes: [mode(folder), ...fs.readdirSync(folder).map((name) => name + ' ' + mode(folder + '/' + name))],
         api: JSON.parse(credential('api.json')), token: credential('api.token'), db: JSON.parse(credential('db.json')) }))`,
      { grants: [grant('api'), grant('db'), grant('api')] },
    )
    const seen = JSON.parse(left('seen')) as { folder: string }
    expect(seen).toEqual({
      folder: expect.stringContaining(join(scratch, 'mayfly-')) as unknown,
      modes: ['700', 'api-2.json 600', 'api-2.token 600', 'api.json 600', 'api.token 600', 'db.json 600'],
      api: { type: 'bearer_token', token: 'secret-of-api' },
      token: 'secret-of-api',
      db: { type: 'username_password', username: 'u', password: 'secret-of-db' },
    })
    expect(existsSync(seen.folder)).toBe(false)
  })

  test('finds them in the folder for temporary files where the runtime folder is not usable', async () => {
    for (const unusable of [join(scratch, 'missing'), 'relative', undefined]) {
      await run(`leave('seen', folder)`, { environment: { PATH: process.env['PATH'], XDG_RUNTIME_DIR: unusable } })
      expect(left('seen').startsWith(join(tmpdir(), 'mayfly-'))).toBe(true)
      expect(existsSync(left('seen'))).toBe(false)
    }
  })

  test('has in its environment what was asked for and nothing else', async () => {
    const environment = { PATH: process.env['PATH'], XDG_RUNTIME_DIR: scratch, GREETING: 'hello', UNSET: undefined }
    await run(`leave('seen', JSON.stringify(process.env))`, { env: new Map([['api', 'API_TOKEN']]), environment })
    expect(JSON.parse(left('seen'))).toEqual({
      PATH: process.env['PATH'],
      XDG_RUNTIME_DIR: scratch,
      GREETING: 'hello',
      API_TOKEN: 'secret-of-api-1',
      MAYFLY_CREDENTIALS: expect.stringContaining('mayfly-') as unknown,
    })
  })

  test('ends with 127 when it is not found, and 126 when it cannot be run', async () => {
    const plain = join(scratch, 'plain.txt')
    writeFileSync(plain, 'x', { mode: 0o600 })
    expect(await run('', { command: ['no-such-command-here', 'argument'] })).toBe(127)
    expect(await run('', { command: [plain] })).toBe(126)
    expect(broker.count('complete')).toBe(2)
    expect(told).toEqual(['no-such-command-here: command not found', `${plain}: cannot be run (EACCES)`])
  })

  test('is not started when the broker refuses', async () => {
    broker.fail('open', problem(403, 'denied', 'no'))
    await expect(run(`leave('started')`)).rejects.toThrow(MayflyProblem)
    expect(existsSync(join(scratch, 'started'))).toBe(false)
    expect(broker.count('complete')).toBe(0)
  })

  for (const [words, env] of [
    ['of a grant that was not asked for', [['other', 'X']]],
    ['of a grant that was asked for twice', [['twice', 'X']]],
    ['with a name that no variable has', [['api', 'A=B']]],
    ['that names the folder', [['api', 'MAYFLY_CREDENTIALS']]],
    [
      'that has another secret already',
      [
        ['api', 'X'],
        ['db', 'X'],
      ],
    ],
  ] as const) {
    test(`is not started for a variable ${words}, and nothing is opened`, async () => {
      const grants = ['api', 'db', 'twice', 'twice'].map(grant)
      await expect(run('', { grants, env: new Map<string, string>(env) })).rejects.toThrow(UsageError)
      expect(broker.heard).toEqual([])
    })
  }

  test('is not started for a variable whose credential has no one secret, and the task is completed', async () => {
    broker.mint = () => ({ type: 'fields', fields: { a: 'secret-of-a', b: 'secret-of-b' } })
    await expect(run(`leave('started')`, { env: new Map([['api', 'X']]) })).rejects.toThrow('read it from its file')
    expect(existsSync(join(scratch, 'started'))).toBe(false)
    expect(broker.count('complete')).toBe(1)
  })
})

describe('signals', () => {
  for (const [signal, number] of [
    ['SIGINT', 2],
    ['SIGTERM', 15],
    ['SIGHUP', 1],
  ] as const)
    test(`${signal} is passed on, and the command may end as it likes`, async () => {
      const running = run(`process.on('${signal}', () => process.exit(40)); leave('ready'); ${forever}`)
      await appears('ready')
      process.kill(process.pid, signal)
      expect(await running).toBe(40)

      const untouched = run(`leave('again'); ${forever}`)
      await appears('again')
      process.kill(process.pid, signal)
      expect(await untouched).toBe(128 + number)
      expect(broker.count('complete')).toBe(2)
    })

  for (const signal of ['SIGUSR1', 'SIGUSR2'] as const)
    test(`${signal} is passed on while the command runs, and ends nothing before and after it`, async () => {
      const meanwhile: Fault = (response, work) => {
        process.emit(signal)
        process.emit(signal)
        const [status, body] = work()
        response.writeHead(status).end(JSON.stringify(body))
      }
      broker.fail('open', meanwhile)
      broker.fail('complete', meanwhile)
      const running = run(`process.on('${signal}', () => process.exit(40)); leave('ready'); ${forever}`)
      await appears('ready')
      process.kill(process.pid, signal)
      expect(await running).toBe(40)
      expect(broker.task.state).toBe('completed')
      expect(told).toEqual([])
    })

  test.each([
    ['whose input is the terminal', ''],
    ['whose input is not', '</dev/null'],
  ])('at a terminal the first SIGINT is left to the terminal, and the next is passed on, to a command %s', async (_, redirected) => {
    const script = `const seen = [], exec = process.ppid
      process.on('SIGUSR1', () => { seen.push('USR1'); process.kill(exec, 'SIGINT') })
      process.on('SIGINT', () => { seen.push('INT'); if (seen.includes('USR1')) { console.log(seen.join(' ')); process.exit(40) } })
      ${forever}
      process.kill(exec, 'SIGINT'); process.kill(exec, 'SIGUSR1')`
    const environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: 'workload-token', XDG_RUNTIME_DIR: scratch }
    const asked = ['exec', '--kind', 'sync', '--grant', 'api', '--', process.execPath, '-e', script]
    expect(await typing('', asked, environment, redirected)).toEqual({ status: 40, screen: expect.stringMatching(/^USR1 INT\r$/m) as unknown })
    expect(broker.task.state).toBe('completed')
  })

  test('a command that was killed is reported, and its status is 137', async () => {
    expect(await run(`process.kill(process.pid, 'SIGKILL'); ${forever}`)).toBe(137)
    expect(broker.task.state).toBe('completed')
  })

  test('one that comes while the broker is away ends the waiting, and the command is not started', async () => {
    await broker.close()
    const running = run(`leave('started')`, {}, { patience: 60_000 })
    setTimeout(() => process.kill(process.pid, 'SIGINT'), 50)
    expect(await running).toBe(130)
    expect(existsSync(join(scratch, 'started'))).toBe(false)
    expect(told).toEqual([expect.stringContaining('stopped before the command was started')])
  })

  test('the second one that comes while completion cannot be reported leaves the task to its deadline', async () => {
    const running = run(`leave('ready'); ${forever}`, {}, { patience: 60_000 })
    await appears('ready')
    await broker.close()
    process.kill(process.pid, 'SIGTERM')
    // Once the command has ended, the next one is about its completion.
    while (told.length === 0) {
      await new Promise(setImmediate)
      process.emit('SIGTERM')
    }
    process.emit('SIGTERM')
    expect(await running).toBe(143)
    expect(told).toEqual([
      'completion is being reported; another signal leaves the task to its deadline',
      expect.stringContaining(`so it ends at ${broker.task.deadline}`),
    ])
  })
})

describe('a broker that is away', () => {
  test('at the beginning is waited for', async () => {
    await broker.close()
    const running = run('process.exit(3)')
    setTimeout(() => void broker.reopen(), 150)
    expect(await running).toBe(3)
    expect(broker.count('complete')).toBe(1)
  })

  test('at the end is waited for', async () => {
    const running = run(`process.on('SIGTERM', () => process.exit(3)); leave('ready'); ${forever}`)
    await appears('ready')
    await broker.close()
    process.kill(process.pid, 'SIGTERM')
    setTimeout(() => void broker.reopen(), 150)
    expect(await running).toBe(3)
    expect(broker.task.state).toBe('completed')
  })

  test('for longer than that costs the report, not the status', async () => {
    const running = run(`leave('ready'); ${forever}`, {}, { patience: 50 })
    await appears('ready')
    await broker.close()
    process.kill(process.pid, 'SIGTERM')
    expect(await running).toBe(143)
    expect(told).toEqual([expect.stringMatching(/^the completion of task_\w+ could not be reported, so it ends at .*: no answer from/)])
  })

  test('with the answer lost, is told again', async () => {
    broker.fail('open', resetAfter)
    broker.fail('complete', resetAfter)
    expect(await run('process.exit(0)')).toBe(0)
    expect([broker.count('open'), broker.count('complete')]).toEqual([2, 2])
  })

  test('while the command runs does not stop it', async () => {
    const running = run(`leave('ready'); ${forever}`, {}, { patience: 200, timing: { look: 10 } })
    await appears('ready')
    await broker.close()
    await expect.poll(() => told, { interval: 5 }).toEqual([expect.stringContaining('cannot see whether the task is still open')])
    await broker.reopen()
    process.kill(process.pid, 'SIGTERM')
    expect(await running).toBe(143)
    expect(broker.task.state).toBe('completed')
  })
})

describe('a task that is ended early', () => {
  test('stops its command, and the status is 1', async () => {
    const running = run(
      `process.on('SIGTERM', () => { leave('terminated'); process.exit(0) }); leave('ready'); ${forever}`,
      {},
      { timing: { look: 20 } },
    )
    await appears('ready')
    broker.revoke('leaked')
    expect(await running).toBe(1)
    expect(existsSync(join(scratch, 'terminated'))).toBe(true)
    expect(told).toEqual(['the task was ended (revoked: leaked), and this ends with it'])
    expect(broker.count('complete')).toBe(0)
  })

  test('kills a command that does not stop', async () => {
    const running = run(`process.on('SIGTERM', () => leave('terminated')); leave('ready'); ${forever}`, {}, looking)
    await appears('ready')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    broker.revoke('leaked')
    await appears('terminated')
    vi.advanceTimersByTime(pace.grace)
    expect(await running).toBe(1)
  })
})

describe('what is kept alive', () => {
  test('a lease is refreshed before it ends, and its files are replaced', async () => {
    broker.life = { task: 60_000, lease: 300 }
    const watching = `const inode = fs.statSync(folder + '/api.token').ino, first = credential('api.token')
      setInterval(() => {
        const token = credential('api.token')
        if (token !== first) {
          leave('seen', JSON.stringify({ token, moved: fs.statSync(folder + '/api.token').ino !== inode, files: fs.readdirSync(folder).filter((name) => !name.startsWith('.')) }))
          process.exit(0)
        }
      }, 5)`
    expect(await run(watching, { env: new Map([['api', 'API_TOKEN']]) })).toBe(0)
    expect(JSON.parse(left('seen'))).toEqual({
      token: expect.stringMatching(/^secret-of-api-\d+$/) as unknown,
      moved: true,
      files: ['api.json', 'api.token'],
    })
    expect(told).toEqual(['the fresh credential of api is in its file; API_TOKEN keeps the first one'])
    const { headers } = broker.heard.find(({ action }) => action === 'refresh')!
    expect(headers.authorization).toBe(`Bearer mft_${broker.task.id}`)
  })

  test('a lease whose provider has no fresh credentials is not asked for again', async () => {
    broker.life = { task: 60_000, lease: 100 }
    broker.fresh = false
    const running = run(untilEnough(0), {}, looking)
    await expect.poll(() => told).toHaveLength(1)
    await looks(10)
    enough()
    expect(await running).toBe(0)
    expect(broker.count('refresh')).toBe(1)
    expect(told).toEqual([expect.stringMatching(/^the credential of api is not refreshed and ends at .*no fresh credentials/)])
  })

  test('a lease that lasts as long as its task is not refreshed', async () => {
    broker.life = { task: 200, lease: 60_000 }
    broker.fail('renew', problem(403, 'denied', 'no'))
    const running = run(untilEnough(0), {}, looking)
    await expect.poll(() => told).toHaveLength(1)
    await looks(10)
    enough()
    expect(await running).toBe(0)
    expect(broker.count('renew')).toBe(1)
    expect(broker.count('refresh')).toBe(0)
  })

  test('a task is renewed before its deadline, by the workload token and for as long as was asked', async () => {
    broker.life = { task: 200, lease: 60_000 }
    const running = run(untilEnough(0), { duration: '5m' })
    await expect.poll(() => broker.count('renew')).toBeGreaterThanOrEqual(2)
    enough()
    expect(await running).toBe(0)
    const renewals = broker.heard.filter(({ action }) => action === 'renew')
    expect(renewals[0]).toMatchObject({ headers: { authorization: 'Bearer workload-token' }, body: { duration: '5m' } })
    expect(told).toEqual([])
  })

  // What is asked for while no time is left is not asked for again: half of these lives is longer than a machine stands still.
  const long = 8_000

  test('a task is renewed again where the broker does not say when it gave its time', async () => {
    broker.life.task = 2_000
    const older: Fault = (response, work) => {
      const [status, { task }] = work() as [number, { task?: object }]
      response.writeHead(status).end(JSON.stringify({ task }))
    }
    broker.fail('renew', older, older)
    const running = run(untilEnough(0))
    await expect.poll(() => broker.count('renew'), { timeout: 10_000 }).toBeGreaterThanOrEqual(3)
    enough()
    expect(await running).toBe(0)
  })

  test('a lease that ends with its task is refreshed once that is renewed', async () => {
    broker.life = { task: long, lease: 60_000 }
    const running = run(untilEnough(0))
    await expect.poll(() => broker.count('refresh')).toBeGreaterThanOrEqual(1)
    enough()
    expect(await running).toBe(0)
    const asked = broker.heard.map(({ action }) => action)
    expect(asked.indexOf('refresh')).toBeGreaterThan(asked.indexOf('renew'))
    expect(told).toEqual([])
  })

  test('a task whose renewal is refused goes on to its deadline', async () => {
    broker.life = { task: 150, lease: 60_000 }
    broker.fail('renew', problem(403, 'denied', 'no'))
    const running = run(untilEnough(5), {}, looking)
    await expect.poll(() => told).toHaveLength(1)
    await looks(10)
    enough()
    expect(await running).toBe(5)
    expect(broker.count('renew')).toBe(1)
    expect(told).toEqual([expect.stringMatching(/^the task is not renewed and ends at .*denied/)])
  })

  test('a renewal that meets trouble is tried again', async () => {
    broker.life = { task: long, lease: 60_000 }
    broker.fail('renew', problem(401, 'invalid_token', 'new_token'))
    const running = run(untilEnough(0))
    await expect.poll(() => broker.count('renew')).toBeGreaterThanOrEqual(2)
    enough()
    expect(await running).toBe(0)
    expect(told).toEqual([expect.stringContaining('invalid_token')])
  })
})

test('files are named by grants, and each lease has names of its own', () => {
  const named = (...grants: string[]) => [...namesOf(grants.map((grant, index) => ({ id: `lease_${index}` as const, grant }))).values()]
  expect(named('a', 'b')).toEqual(['a', 'b'])
  expect(named('a', 'a', 'a')).toEqual(['a', 'a-2', 'a-3'])
  expect(named('a', 'a', 'a-2')).toEqual(['a', 'a-3', 'a-2'])
  expect(named('../../etc/passwd')).toEqual(['..%2F..%2Fetc%2Fpasswd'])
})
