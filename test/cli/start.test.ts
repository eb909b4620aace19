import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { librariesOf, loadedBy, modulesOf, ownModules } from '../support/loaded-modules.ts'
import { command, makeSite, mayfly, type Site } from '../support/program.ts'
import { onDatabase, oneMoreMigration, openDatabase, type OpenedStore } from '../support/stores.ts'

const run = promisify(execFile)

describe('a broker that starts', () => {
  let store: OpenedStore
  let site: Site

  beforeAll(async () => {
    store = await openDatabase()
    site = await makeSite({ store: store.settings, lab: 'http://127.0.0.1:9' })
    await site.write('policies/cases.yaml', 'cases: []\n')
  })
  afterAll(async () => {
    await site.remove()
    await store.dispose()
  })

  test('on Postgres loads no other store, no backend that is not configured, no console that nobody can enter and no other command', async () => {
    const modules = await loadedBy(async (environment) => {
      const broker = await site.start({}, environment)
      expect(await broker.stop()).toBe(0)
    })
    const [own, libraries] = [ownModules(modules), librariesOf(modules)]
    expect(own).toEqual(expect.arrayContaining(['cli/serve', 'main', 'http/app', 'ledger/postgres', 'providers/http/http', 'reaper']))
    expect(libraries).toEqual(expect.arrayContaining(['postgres', 'drizzle-orm', 'pino']))

    expect(libraries.filter((name) => /pglite|aws-sdk|smithy|node-vault|axios|openid-client/.test(name))).toEqual([])
    const others = /^(ledger\/embedded|console\/(console|pages|sign-in)|providers\/(vault|aws-sts)\/(client|identity|mint|end|deny|examine\/.*))$/
    expect(own.filter((file) => others.test(file))).toEqual([])
    expect(own.filter((file) => file.startsWith('cli/')).toSorted()).toEqual([
      'cli/failure',
      'cli/mayfly',
      'cli/output',
      'cli/program',
      'cli/serve',
      'cli/signals',
    ])
  })

  test('leaves functions of the policy engine as they are that it calls no more: none is compiled for speed', async () => {
    const args = [command, 'policy', 'check', '--config', site.config()]
    const { stdout } = await run(process.execPath, ['--trace-wasm-compilation-times', ...args], { maxBuffer: 16 * 1_024 * 1_024 })
    expect(stdout).toMatch(/2 policies, 0 of 0 cases as expected/)
    expect(stdout).toMatch(/^Compiled function .* using Liftoff/m)
    expect(stdout.match(/^Compiled function .* using TurboFan/gm) ?? []).toEqual([])
  })

  test('opens no debugger for SIGUSR1, and goes on', async () => {
    const broker = await site.start()
    broker.process.kill('SIGUSR1')
    await broker.ready()
    expect(await broker.stop()).toBe(0)
    expect(broker.log()).not.toContain('Debugger')
  })

  test('warns where a newer version has changed its store, and nowhere else', async () => {
    const saysSo = async (): Promise<boolean> => {
      const broker = await site.start()
      await broker.stop()
      return broker.log().includes('a newer version has changed the store')
    }
    expect(await saysSo()).toBe(false)
    await onDatabase(store.settings, oneMoreMigration)
    expect(await saysSo()).toBe(true)
  })
})

test('migrate says whether a newer version has changed the store', async () => {
  const store = await openDatabase()
  const site = await makeSite({ store: store.settings })
  const migrate = async (...more: string[]) => (await mayfly(['migrate', '--config', site.config(), ...more])).stdout.trim()
  expect(await migrate()).toBe('the schema is up to date')
  await onDatabase(store.settings, oneMoreMigration)
  expect(await migrate()).toContain('a newer version has changed this store')
  expect(JSON.parse(await migrate('--json'))).toEqual({ migrated: false })
  await site.remove()
  await store.dispose()
})

test('a command that only asks a broker loads no configuration, and nothing of other commands or of the broker', async () => {
  const { status, stderr, modules } = await modulesOf(['task', 'list', '--help'])
  expect(status, stderr).toBe(0)
  const own = ownModules(modules)
  expect(own).toEqual(expect.arrayContaining(['cli/task', 'client/client', 'config/environment']))
  expect(own.filter((file) => /^(main|config|http\/|ledger\/|providers\/|policy\/|cli\/(serve|exec|aws|ledger|demo))/.test(file))).toEqual([
    'config/environment',
  ])
  expect(librariesOf(modules)).not.toContain('yaml')
})

test.each([
  ['the help', ['--help'], 0],
  ['a name that is no command', ['taks'], 2],
])('%s knows every command', async (_, args, expected) => {
  const { status, stdout, stderr, modules } = await modulesOf(args)
  expect(status).toBe(expected)
  const commands = ['serve', 'dev', 'demo', 'task', 'lease', 'revoke', 'issuing', 'ledger', 'policy', 'provider', 'migrate', 'aws', 'exec-command']
  expect(ownModules(modules)).toEqual(expect.arrayContaining(commands.map((name) => `cli/${name}`)))
  expect(stdout + stderr).toMatch(expected === 0 ? /revocations/ : /Did you mean task\?/)
})
