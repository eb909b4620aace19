import { expect, test } from 'vitest'
import { librariesOf, modulesOf, ownModules } from '../support/loaded-modules.ts'

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
