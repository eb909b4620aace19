import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Container, type ContainerCredentials, serveContainer } from '../../src/cli/aws/container.ts'
import { serveSession } from '../../src/cli/aws/serve.ts'
import { runWithTask } from '../../src/cli/exec.ts'
import { createClient } from '../../src/client/client.ts'
import { type FakeBroker, problem, resetAfter, startFakeBroker } from '../support/fake-broker.ts'
import { command, mayfly, startMayfly } from '../support/program.ts'

let scratch: string
let broker: FakeBroker
let told: string[]
/** Milliseconds that a session lives from its issue. */
let life: number
let minted: number

beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'mayfly-aws-'))
  broker = await startFakeBroker()
  told = []
  life = 60_000
  minted = 0
  broker.mint = () => ({
    type: 'aws_session',
    access_key_id: `ASIA${++minted}`,
    secret_access_key: `secret-of-${minted}`,
    session_token: `secret-of-session-${minted}`,
    expiration: new Date(Date.now() + life).toISOString(),
  })
})
afterEach(async () => {
  await broker.close()
  expect(readdirSync(scratch).filter((name) => name.startsWith('mayfly-'))).toEqual([])
  expect(told.join('\n')).not.toContain('secret-of')
  rmSync(scratch, { recursive: true })
})

const session: ContainerCredentials = { AccessKeyId: 'ASIA', SecretAccessKey: 'secret', Token: 'session', Expiration: '2100-01-01T00:00:00Z' }

/** One request as it is, with the Host header that it is given. */
function ask(uri: string, headers: Record<string, string>, method = 'GET'): Promise<{ status: number; cache: unknown; body: unknown }> {
  return new Promise((resolve, reject) => {
    request(uri, { method, headers }, (response) => {
      void text(response).then((body) =>
        resolve({ status: response.statusCode!, cache: response.headers['cache-control'], body: body === '' ? undefined : JSON.parse(body) }),
      )
    })
      .on('error', reject)
      .end()
  })
}

describe('the endpoint', () => {
  let container: Container
  let current: ContainerCredentials | string
  beforeEach(async () => {
    current = session
    container = await serveContainer(() => current)
  })
  afterEach(() => container.close())
  const known = () => ({ authorization: container.token })

  test('gives the credentials to whoever holds its token, and forbids that they are kept', async () => {
    expect(container.uri).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/credentials$/)
    expect(await ask(container.uri, known())).toEqual({ status: 200, cache: 'no-store', body: session })
    expect(await ask(container.uri, { ...known(), host: `localhost:${new URL(container.uri).port}` })).toMatchObject({ status: 200 })
  })

  test('gives nothing without the token', async () => {
    for (const headers of [
      {},
      { authorization: 'wrong' },
      { authorization: `Bearer ${container.token}` },
      { authorization: container.token + 'x' },
    ]) {
      expect(await ask(container.uri, headers as Record<string, string>)).toEqual({
        status: 401,
        cache: 'no-store',
        body: { Code: 'Unauthorized', Message: expect.any(String) as unknown },
      })
    }
  })

  test('gives nothing under a name that is not its address', async () => {
    const { port } = new URL(container.uri)
    for (const host of ['attacker.example', `attacker.example:${port}`, '127.0.0.1', `127.0.0.1:1`, `127.0.0.2:${port}`]) {
      expect(await ask(container.uri, { ...known(), host }), host).toMatchObject({ status: 403, body: { Code: 'Forbidden' } })
    }
  })

  test('knows one path and one method', async () => {
    expect(await ask(new URL('/', container.uri).href, known())).toMatchObject({ status: 404 })
    expect(await ask(`${container.uri}?x`, known())).toMatchObject({ status: 404 })
    for (const method of ['POST', 'PUT', 'DELETE', 'HEAD']) expect((await ask(container.uri, known(), method)).status, method).toBe(405)
  })

  test('says why there is nothing to give any more', async () => {
    current = 'The task was ended'
    expect(await ask(container.uri, known())).toEqual({
      status: 403,
      cache: 'no-store',
      body: { Code: 'CredentialsEnded', Message: 'The task was ended' },
    })
  })
})

/** A look that no test comes to see, unless it says so. */
const pace = { look: 60_000, grace: 10_000, shortest: 20 }
const forever = 'setInterval(() => undefined, 1000)\n'

/** Runs a script under a task. There, `leave` writes into the scratch folder, and `get()` asks the endpoint as an SDK does. */
function run(script: string, environment: Record<string, string> = {}, timing: Partial<typeof pace> = {}): Promise<number> {
  const prelude = `const fs = require('fs'), env = process.env
    const leave = (name, value = '') => { fs.writeFileSync('${scratch}/.half', JSON.stringify(value)); fs.renameSync('${scratch}/.half', '${scratch}/' + name) }
    const get = async () => {
      const authorization = fs.readFileSync(env.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, 'utf8')
      const answer = await fetch(env.AWS_CONTAINER_CREDENTIALS_FULL_URI, { headers: { authorization } })
      return { status: answer.status, body: await answer.json() }
    }
    const wait = async (ready) => { for (;;) { const got = await get(); if (ready(got)) return got; await new Promise(setImmediate) } }
    const exists = (name) => fs.existsSync('${scratch}/' + name)
    ;(async () => {${script}})()\n`
  return runWithTask(
    createClient({ url: broker.url, token: 'workload-token', patience: 50 }),
    {
      kind: 'sync',
      grants: [{ name: 's3-read', parameters: {} }],
      env: new Map(),
      command: [process.execPath, '-e', prelude],
      environment: { PATH: process.env['PATH'], XDG_RUNTIME_DIR: scratch, ...environment },
    },
    (line) => told.push(line),
    { ...pace, ...timing },
  )
}
const left = (name: string): unknown => JSON.parse(readFileSync(join(scratch, name), 'utf8'))
const put = (name: string): void => {
  writeFileSync(join(scratch, '.put'), '')
  renameSync(join(scratch, '.put'), join(scratch, name))
}
const appears = (name: string): Promise<void> => expect.poll(() => existsSync(join(scratch, name)), { interval: 5, message: name }).toBe(true)

describe('a command under a task with an AWS session', () => {
  test('gets it from the endpoint, with a token that is in a private file', async () => {
    await run(
      `const file = env.AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE
       leave('seen', { got: await get(), mode: (fs.statSync(file).mode & 0o777).toString(8), inside: file.startsWith(env.MAYFLY_CREDENTIALS) })`,
    )
    expect(left('seen')).toEqual({
      got: {
        status: 200,
        body: { AccessKeyId: 'ASIA1', SecretAccessKey: 'secret-of-1', Token: 'secret-of-session-1', Expiration: expect.any(String) as unknown },
      },
      mode: '600',
      inside: true,
    })
    expect(broker.count('complete')).toBe(1)
  })

  test('finds no other AWS credentials in its environment', async () => {
    const credentials = [
      'AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_SECURITY_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE AWS_ROLE_ARN AWS_ROLE_SESSION_NAME',
      'AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CONTAINER_AUTHORIZATION_TOKEN',
      'AWS_BEARER_TOKEN_BEDROCK AWS_CREDENTIAL_FILE AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE AWS_EC2_METADATA_SERVICE_ENDPOINT AWS_OF_TOMORROW',
    ].flatMap((line) => line.split(' '))
    const kept = { AWS_REGION: 'eu-central-1', AWS_DEFAULT_REGION: 'eu-west-1', AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1', OTHER: 'x' }
    await run(
      `leave('seen', { env, empty: ['AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE', 'BOTO_CONFIG'].map((name) => fs.readFileSync(env[name], 'utf8')) })`,
      {
        ...Object.fromEntries(credentials.map((name) => [name, 'of-somebody-else'])),
        AWS_EC2_METADATA_DISABLED: 'false',
        ...kept,
      },
    )
    const seen = left('seen') as { env: Record<string, string>; empty: string[] }
    expect(JSON.stringify(seen)).not.toContain('of-somebody-else')
    expect(seen.env).toMatchObject({ ...kept, AWS_EC2_METADATA_DISABLED: 'true' })
    expect(seen.empty).toEqual(['', '', ''])
    expect(
      Object.keys(seen.env)
        .filter((name) => name.startsWith('AWS_'))
        .toSorted(),
    ).toEqual(
      [
        'AWS_CONFIG_FILE AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_DEFAULT_REGION AWS_EC2_METADATA_DISABLED',
        'AWS_ENDPOINT_URL_STS AWS_REGION AWS_SHARED_CREDENTIALS_FILE',
      ].flatMap((line) => line.split(' ')),
    )
  })

  test('keeps its environment where its credential is another', async () => {
    broker.mint = () => ({ type: 'bearer_token', token: 'secret-of-api' })
    await run(`leave('seen', env)`, { AWS_PROFILE: 'mine' })
    expect(left('seen')).toMatchObject({ AWS_PROFILE: 'mine' })
    expect(left('seen')).not.toHaveProperty('AWS_CONTAINER_CREDENTIALS_FULL_URI')
  })

  test('is answered from memory while the broker is away', async () => {
    const running = run(`leave('ready'); while (!exists('away')) await new Promise(setImmediate); leave('seen', await get())`)
    await appears('ready')
    await broker.close()
    put('away')
    expect(await running).toBe(0)
    expect(left('seen')).toMatchObject({ status: 200, body: { AccessKeyId: 'ASIA1' } })
  })

  test('is told no end beyond its task, and no end beyond its session', async () => {
    life = 3_600_000
    await run(`leave('seen', await get())`)
    expect(left('seen')).toMatchObject({ body: { Expiration: broker.task.deadline } })
    life = 30_000
    await run(`leave('seen', await get())`)
    const { Expiration } = (left('seen') as { body: { Expiration: string } }).body
    expect(Date.parse(Expiration)).toBeLessThan(Date.parse(broker.task.deadline) - 20_000)
  })

  test('is given a fresh session long before the lease ends, where the session is shorter', async () => {
    life = 600
    expect(await run(`leave('seen', await wait(({ body }) => body.AccessKeyId && body.AccessKeyId !== 'ASIA1'))`)).toBe(0)
    expect(left('seen')).toMatchObject({ status: 200, body: { AccessKeyId: expect.stringMatching(/^ASIA\d+$/) as unknown } })
    expect(broker.count('refresh')).toBeGreaterThanOrEqual(1)
  })

  test('is given nothing when its session is over and there is no fresh one', async () => {
    life = 100
    broker.fresh = false
    expect(await run(`leave('seen', await wait(({ status }) => status !== 200))`)).toBe(0)
    expect(left('seen')).toMatchObject({ status: 403, body: { Message: expect.stringContaining('The credentials ended at') as unknown } })
  })

  test('is given a fresh session by a broker that was away for longer than the session lived', async () => {
    life = 200
    broker.fail('refresh', ...Array.from({ length: 10_000 }, () => problem(503, 'store_unavailable', 'later')))
    const running = run(
      `await wait(({ status }) => status !== 200); leave('over'); leave('seen', await wait(({ status }) => status === 200))`,
      {},
      { look: 20 },
    )
    await appears('over')
    broker.heal('refresh')
    expect(await running).toBe(0)
    expect(left('seen')).toMatchObject({ status: 200 })
  })

  describe('whose lease has ended by itself while its task is open', () => {
    test.each(['lease_expired', 'limit'])('goes on with another lease of the same grant, under the same name: %s', async (cause) => {
      life = 2_000
      const running = run(
        `leave('ready'); while (!exists('replaced')) await new Promise(setImmediate)
         const file = () => JSON.parse(fs.readFileSync(env.MAYFLY_CREDENTIALS + '/s3-read.json')).access_key_id
         leave('seen', await wait(({ status, body }) => status === 200 && body.AccessKeyId === file()))`,
        {},
        { look: 20 },
      )
      await appears('ready')
      broker.endLeases(cause)
      await expect.poll(() => broker.count('lease'), { interval: 5 }).toBe(1)
      put('replaced')
      expect(await running).toBe(0)
      expect(left('seen')).toMatchObject({ status: 200 })
      expect(broker.heard.findLast(({ action }) => action === 'lease')?.body).toEqual({ name: 's3-read', parameters: {} })
    })

    test('goes on with it though the broker was away for longer than the session lived, and lost the answer to the first try', async () => {
      life = 200
      broker.life.lease = 200
      const away = Array.from({ length: 10_000 }, () => problem(503, 'store_unavailable', 'later'))
      broker.fail('refresh', ...away)
      broker.fail('lease', resetAfter)
      const running = run(
        `await wait(({ status }) => status !== 200); leave('over'); leave('seen', await wait(({ status }) => status === 200))`,
        {},
        { look: 20 },
      )
      await appears('over')
      broker.endLeases('lease_expired')
      broker.heal('refresh')
      expect(await running).toBe(0)
      expect(broker.count('lease')).toBeGreaterThanOrEqual(2)
    })

    test('is given nothing where somebody revoked that lease', async () => {
      life = 600
      const running = run(`leave('ready'); leave('seen', await wait(({ status }) => status !== 200))`)
      await appears('ready')
      broker.endLeases('revoked')
      expect(await running).toBe(0)
      expect(broker.count('lease')).toBe(0)
    })

    test('is not replaced for ever: eight in a row that were never refreshed are enough', async () => {
      life = 60
      broker.life.lease = 60
      broker.fresh = false
      const running = run(
        `while (!exists('enough')) await new Promise((on) => setTimeout(on, 5)); leave('seen', await wait(({ status }) => status !== 200))`,
        {},
        { shortest: 1, look: 20 },
      )
      await expect.poll(() => broker.count('lease'), { interval: 5 }).toBe(8)
      put('enough')
      expect(await running).toBe(0)
      expect(left('seen')).toMatchObject({ status: 403 })
      expect(broker.count('lease')).toBe(8)
    })

    test('is told at once that the task has ended, where that is why, and so is whoever called', async () => {
      life = 400
      // Its session may be over before it is asked for again, where the machine stands still.
      const running = run(`leave('ready'); leave('seen', await wait(({ body }) => body.Message === 'The task was ended')); process.exit(0)`)
      await appears('ready')
      broker.endLeases('completed')
      broker.revoke('leaked')
      expect(await running).toBe(1)
      expect(left('seen')).toEqual({ status: 403, body: { Code: 'CredentialsEnded', Message: 'The task was ended' } })
      expect(told.filter((line) => line.startsWith('the task was ended'))).toEqual(['the task was ended (revoked: leaked), and this ends with it'])
    })
  })

  test('is given nothing once its task was ended', async () => {
    const running = run(
      `process.on('SIGTERM', async () => { leave('seen', await get()); process.exit(0) }); leave('ready'); ${forever}`,
      {},
      { look: 20 },
    )
    await appears('ready')
    broker.revoke('leaked')
    expect(await running).toBe(1)
    expect(left('seen')).toEqual({ status: 403, body: { Code: 'CredentialsEnded', Message: 'The task was ended' } })
  })
})

describe('mayfly aws process', () => {
  const called = () => mayfly(['aws', 'process', '--kind', 'sync', '--grant', 's3-read'], { MAYFLY_URL: broker.url, MAYFLY_TOKEN: 'workload-token' })

  test('prints the session as the SDKs read it from a credential_process, and nothing else', async () => {
    const { status, stdout, stderr } = await called()
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual({
      Version: 1,
      AccessKeyId: 'ASIA1',
      SecretAccessKey: 'secret-of-1',
      SessionToken: 'secret-of-session-1',
      Expiration: expect.any(String) as unknown,
    })
    expect(broker.count('complete')).toBe(0)
  })

  test('completes its task where nobody takes the session', async () => {
    const { process: child, ended } = startMayfly(['aws', 'process', '--kind', 'sync', '--grant', 's3-read'], {
      MAYFLY_URL: broker.url,
      MAYFLY_TOKEN: 'workload-token',
    })
    child.stdout!.destroy()
    expect(await ended).toMatchObject({ status: 1, stderr: '' })
    expect(broker.count('complete')).toBe(1)
  })

  test('completes its task where the credential is of another type', async () => {
    broker.mint = () => ({ type: 'bearer_token', token: 'secret-of-api' })
    const { status, stdout, stderr } = await called()
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).not.toContain('secret-of')
    expect(broker.count('complete')).toBe(1)
  })
})

describe('mayfly aws serve', () => {
  const serve = (changes: object = {}) => {
    let variables: Record<string, string | undefined> | undefined
    const ended = serveSession(
      createClient({ url: broker.url, token: 'workload-token', patience: 50 }),
      { kind: 'sync', grants: [{ name: 's3-read', parameters: {} }], port: 0, environment: { XDG_RUNTIME_DIR: scratch }, ...changes },
      (told) => (variables = { ...told }),
      (line) => told.push(line),
      { ...pace, look: 20 },
    )
    const ready = () => vi.waitFor(() => (expect(variables).toBeDefined(), variables!), { interval: 5, timeout: 30_000 })
    return { ended, ready }
  }
  const fetched = (variables: Record<string, string | undefined>) =>
    ask(variables['AWS_CONTAINER_CREDENTIALS_FULL_URI']!, {
      authorization: readFileSync(variables['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE']!, 'utf8'),
    })

  test('serves the session until a signal comes, completes the task, and takes the endpoint and its token away', async () => {
    const { ended, ready } = serve()
    const variables = await ready()
    expect(await fetched(variables)).toMatchObject({ status: 200, body: { AccessKeyId: 'ASIA1' } })
    process.emit('SIGTERM')
    expect(await ended).toBe(0)
    expect(broker.count('complete')).toBe(1)
    await expect(ask(variables['AWS_CONTAINER_CREDENTIALS_FULL_URI']!, {})).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(existsSync(variables['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE']!)).toBe(false)
  })

  test('prints what a shell reads to have this session and no other AWS identity', async () => {
    const strange =
      'AWS_OF_TOMORROW AWS_ACCESS_KEY_ID AWS_ROLE_ARN AWS_CONTAINER_AUTHORIZATION_TOKEN AWS_SHARED_CREDENTIALS_FILE AWS_X;echo${IFS}mine'
    const serving = `'${process.execPath}' '${command}' aws serve --kind sync --grant s3-read`
    // What it has and what is to use the session need not be called from one shell.
    const script = `
      ${serving} > session & until [ -s session ]; do sleep 0.1; done
      export AWS_PROFILE=mine AWS_BEARER_TOKEN_BEDROCK=mine AWS_REGION=eu-central-1
      . ./session
      env > seen; cat "$AWS_CONFIG_FILE" "$AWS_SHARED_CREDENTIALS_FILE" "$BOTO_CONFIG" > empty
      kill $!; wait $!`
    const child = spawn('sh', ['-c', script], {
      cwd: scratch,
      env: {
        PATH: process.env['PATH'],
        MAYFLY_URL: broker.url,
        MAYFLY_TOKEN: 'workload-token',
        XDG_RUNTIME_DIR: scratch,
        ...Object.fromEntries(strange.split(' ').map((name) => [name, 'mine'])),
      },
      stdio: 'inherit',
    })
    expect(await once(child, 'close')).toEqual([0, null])
    const seen = readFileSync(join(scratch, 'seen'), 'utf8').split('\n')
    expect(seen.filter((line) => /^AWS_\w+=mine/.test(line))).toEqual([])
    expect(seen).toEqual(expect.arrayContaining(['AWS_REGION=eu-central-1', 'AWS_EC2_METADATA_DISABLED=true']))
    expect(seen).toContainEqual(expect.stringMatching(/^AWS_CONTAINER_CREDENTIALS_FULL_URI=http:\/\/127\.0\.0\.1:\d+\/credentials$/))
    expect(readFileSync(join(scratch, 'empty'), 'utf8')).toBe('')
    expect(readFileSync(join(scratch, 'session'), 'utf8')).not.toContain('mine')
    expect(broker.count('complete')).toBe(1)
  })

  test('with --json says null for what must not be set', async () => {
    const { process: child, ended } = startMayfly(['aws', 'serve', '--kind', 'sync', '--grant', 's3-read', '--json'], {
      MAYFLY_URL: broker.url,
      MAYFLY_TOKEN: 'workload-token',
      XDG_RUNTIME_DIR: scratch,
    })
    child.stdout!.once('data', () => child.kill('SIGTERM'))
    const { status, stdout } = await ended
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      AWS_PROFILE: null,
      AWS_ACCESS_KEY_ID: null,
      AWS_EC2_METADATA_DISABLED: 'true',
      AWS_CONTAINER_CREDENTIALS_FULL_URI: expect.stringContaining('http://127.0.0.1:') as unknown,
    })
  })

  test('serves the session of another lease where its own has ended by itself', async () => {
    life = 400
    const { ended, ready } = serve()
    const variables = await ready()
    broker.endLeases('lease_expired')
    const before = minted
    const served = async () => {
      const { status, body } = await fetched(variables)
      return status === 200 ? Number((body as ContainerCredentials).AccessKeyId.slice('ASIA'.length)) : 0
    }
    await expect.poll(served, { interval: 10 }).toBeGreaterThan(before)
    process.emit('SIGTERM')
    expect(await ended).toBe(0)
    expect(broker.count('lease')).toBe(1)
  })

  test('stops with status 1 where the task was ended by somebody else', async () => {
    const { ended, ready } = serve()
    await ready()
    broker.revoke('leaked')
    expect(await ended).toBe(1)
  })

  test('completes its task where the port is taken, or the credential is of another type', async () => {
    const { ended, ready } = serve()
    const { port } = new URL((await ready())['AWS_CONTAINER_CREDENTIALS_FULL_URI']!)
    await expect(serve({ port: Number(port) }).ended).rejects.toThrow(`--port ${port}: is taken`)
    process.emit('SIGTERM')
    await ended
    broker.mint = () => ({ type: 'bearer_token', token: 'secret-of-api' })
    await expect(serve().ended).rejects.toThrow('AWS session')
    expect(broker.count('complete')).toBe(3)
  })
})
