import { readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { makeSite, mayfly, type RunningBroker, type Site } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'

let store: OpenedStore
let site: Site
let broker: RunningBroker
let key: string
let environment: Record<string, string>

beforeAll(async () => {
  store = await openEmbedded()
  site = await makeSite({ store: store.settings })
  broker = await site.start()
  environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:ops') }
  const ask = (at: string) => fetch(`${broker.url}${at}`, { headers: { authorization: `Bearer ${environment['MAYFLY_TOKEN']}` } })
  await vi.waitUntil(async () => (await ask('/checkpoint')).status === 200, { timeout: 10_000 })
  key = (await (await ask('/ledger/key')).text()).trim()
})
afterAll(async () => {
  await broker.stop()
  await site.remove()
  await store.dispose()
})

const at = (file: string): string => path.join(site.folder, file)

test('a ledger is verified where it is, and in its export, against a checkpoint that was kept', async () => {
  const there = await mayfly(['ledger', 'verify', '--url', broker.url, '--key', key, '--keep', at('pinned')], { ...environment, MAYFLY_URL: '' })
  expect(there).toMatchObject({ status: 0, stdout: expect.stringContaining('complete and unaltered') as string })
  const { stdout } = await mayfly(['ledger', 'export'], environment)
  await writeFile(at('export'), stdout)
  await writeFile(at('key'), `${key}\n`)
  const here = await mayfly(['ledger', 'verify', '--export', at('export'), '--key', at('key'), '--since', at('pinned'), '--json'])
  expect(here.status).toBe(0)
  expect(JSON.parse(here.stdout)).toMatchObject({ ok: true, found: 0, checkpoint: { size: 1 } })
})

test('one that was changed is told with its place, and its checkpoint is not kept', async () => {
  const text = await readFile(at('export'), 'utf8')
  await writeFile(at('changed'), text.replace('"policy.activated"', '"policy.activatee"'))
  const changed = await mayfly(['ledger', 'verify', '--export', at('changed'), '--key', key, '--keep', at('kept')])
  expect(changed).toMatchObject({ status: 1, stdout: expect.stringMatching(/entry 0 \(ent_\w+\): is not what the log has/) as string })
  await expect(readFile(at('kept'))).rejects.toThrow('ENOENT')
})

test.each([
  ['without a key', ['--export', 'export']],
  ['with a key that is none', ['--export', 'export', '--key', 'mayfly.yaml']],
  ['of two at once', ['--export', 'export', '--url', 'http://127.0.0.1:1', '--key', 'key']],
  ['of a file that is not there', ['--export', 'nothing', '--key', 'key']],
  ['of a file that is no export', ['--export', 'catalogue.yaml', '--key', 'key']],
])('a verification %s is a mistake of whoever asks', async (_, args) => {
  const files = args.map((arg) => (/^(export|key|mayfly.yaml|nothing|catalogue.yaml)$/.test(arg) ? at(arg) : arg))
  expect((await mayfly(['ledger', 'verify', ...files])).status).toBe(2)
})
