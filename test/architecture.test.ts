import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { importsOf, violations } from './support/architecture.ts'

const source = path.join(import.meta.dirname, '../src')

async function house(): Promise<{ path: string; text: string }[]> {
  const names = (await readdir(source, { recursive: true })).filter((name) => name.endsWith('.ts'))
  return await Promise.all(names.map(async (name) => ({ path: name, text: await readFile(path.join(source, name), 'utf8') })))
}

test('every room stands on its floor, and every library in its room', async () => {
  const files = await house()
  expect(files.length).toBeGreaterThan(100)
  expect(violations(files)).toEqual([])
})

describe('the guard', () => {
  const found = (file: string, text: string) => violations([{ path: file, text }])

  test.each([
    ['an upward import', 'base/a.ts', "import { x } from '../tasks/open.ts'"],
    ['an import between siblings', 'ledger/a.ts', "import { x } from '../providers/target.ts'"],
    ['a type from a sibling', 'ledger/a.ts', "import type { X } from '../providers/target.ts'"],
    ['a value where only types may come', 'ledger/a.ts', "import { decide } from '../policy/decide.ts'"],
    ['a back door from the command line', 'cli/a.ts', "import { x } from '../ledger/connect.ts'"],
    ['an upward re-export', 'policy/a.ts', "export { x } from '../http/app.ts'"],
    ['an upward import at run time', 'base/a.ts', "const x = await import('../main.ts')"],
    ['a library outside its room', 'tasks/a.ts', "import { sql } from 'drizzle-orm'"],
    ['a part of a library outside its room', 'tasks/a.ts', "import { x } from '@cedar-policy/cedar-wasm/nodejs'"],
    ['the environment', 'http/a.ts', 'const port = process.env.PORT'],
    ['a clock', 'tasks/a.ts', 'const now = Date.now()'],
    ['a clock in a constructor', 'tasks/a.ts', 'const now = new Date()'],
    ['printing', 'tasks/a.ts', "console.log('x')"],
    ['an opened secret', 'tasks/a.ts', 'const text = secret.open()'],
    ['a room that nobody planned', 'helpers/a.ts', ''],
  ])('sees %s', (_, file, text) => {
    expect(found(file, text)).toHaveLength(1)
  })

  test.each([
    ['a type of a room below', 'ledger/a.ts', "import { type Decision, type Answer } from '../policy/decide.ts'"],
    ['a comment that speaks of a clock', 'tasks/a.ts', '// Date.now() would be this machine\nconst x = 1'],
    ['a date that is given', 'tasks/a.ts', 'const at = new Date(now)'],
  ])('lets %s pass', (_, file, text) => {
    expect(found(file, text)).toEqual([])
  })

  test('sees a ring of imports, and none where one of them is a type', () => {
    const one = { path: 'tasks/one.ts', text: "import { two } from './two.ts'" }
    expect(violations([one, { path: 'tasks/two.ts', text: "import { one } from './one.ts'" }])).toHaveLength(1)
    expect(violations([one, { path: 'tasks/two.ts', text: "import type { one } from './one.ts'" }])).toEqual([])
  })

  test('reads imports over several lines', () => {
    const text = "import {\n  a,\n  type B,\n} from './a.ts'\nimport './b.ts'"
    expect(importsOf({ path: 'x.ts', text })).toEqual([
      { target: './a.ts', typeOnly: false },
      { target: './b.ts', typeOnly: false },
    ])
  })
})
