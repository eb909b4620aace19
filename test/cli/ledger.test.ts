import { readdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { OpenedTask } from '../../src/http/contract.ts'
import { createSigner } from '../../src/proof/note.ts'
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

describe('the receipts of an answer', () => {
  const check = (...args: readonly string[]) => mayfly(['ledger', 'check-receipts', ...args], environment)

  beforeAll(async () => {
    const opened = await mayfly(['task', 'open', '--kind', 'work', '--grant', 'api', '--json'], {
      ...environment,
      MAYFLY_TOKEN: await site.token('agent:bot'),
    })
    expect(opened).toMatchObject({ status: 0 })
    await writeFile(at('answer'), opened.stdout)
    await vi.waitUntil(async () => (await check(at('answer'), '--key', key)).status === 0, { timeout: 20_000 })
  })

  test('are proven by the broker, and offline by the proofs that were kept of it', async () => {
    const asked = await check(at('answer'), '--key', key, '--keep', at('proofs'))
    expect(asked).toMatchObject({ status: 0, stdout: expect.stringMatching(/^proven {2}ent_\w+ {2}task\.opened: number \d+ of \d+ in /) as string })
    const offline = await mayfly(['ledger', 'check-receipts', at('answer'), '--key', key, '--proofs', at('proofs'), '--json'])
    const { receipts } = JSON.parse(await readFile(at('answer'), 'utf8')) as OpenedTask
    expect(offline.status).toBe(0)
    expect(JSON.parse(offline.stdout)).toMatchObject({ ok: true, receipts: receipts.map((receipt) => ({ ...receipt, ok: true })) })
  })

  test('that say something else than the log, or that no log has, are told one by one', async () => {
    const { receipts } = JSON.parse(await readFile(at('answer'), 'utf8')) as OpenedTask
    const [first, second] = receipts
    const strange = [
      { ...first, leaf_hash: second!.leaf_hash },
      second,
      { ...first, entry: 'ent_01m8c6xhj3e0184qtkvyyd00kf' },
      { ...first, leaf_hash: 'AA==' },
    ]
    await writeFile(at('strange'), JSON.stringify(strange))
    const { status, stdout } = await check(at('strange'), '--key', key, '--keep', at('some'))
    expect([status, stdout.split('\n').map((line) => line.replace(/ent_\w+/, '…'))]).toEqual([
      1,
      [
        'FAULT   …  task.opened: this is not what stands in the log: the broker has written something else than it told',
        expect.stringMatching(/^proven {2}… {2}decision\.made: number/),
        'FAULT   …  task.opened: There is no such entry',
        'FAULT   …  task.opened: its leaf hash is none',
        '',
      ],
    ])
    expect(await readdir(at('some'))).toEqual([second!.entry])
  })

  test('rest on the key of whoever checks them', async () => {
    const [name] = key.split('+')
    const other = createSigner(name!, new Uint8Array(32).fill(9)).key.text
    const { status, stdout } = await check(at('answer'), '--key', other)
    expect([status, stdout]).toEqual([1, expect.stringContaining('is not signed by this key')])
  })

  test.each([
    ['of a file without any', ['mayfly.yaml']],
    ['of a file that is not there', ['nothing']],
    ['of which one names another file', ['outside', '--proofs', '.']],
    ['whose proofs are not where they should be', ['answer', '--proofs', 'mayfly.yaml']],
    ['of a broker and of a folder at once', ['answer', '--proofs', 'proofs', '--url', 'http://127.0.0.1:1']],
  ])('%s are a mistake of whoever asks, and nothing of the answer is shown', async (_, [file, ...args]) => {
    await writeFile(at('outside'), JSON.stringify([{ entry: '../answer', kind: 'k', leaf_hash: 'AA==' }]))
    const { status, stdout, stderr } = await check(
      at(file!),
      '--key',
      key,
      ...args.map((arg) => (/^[a-z]/.test(arg) && !arg.includes(':') ? at(arg) : arg)),
    )
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).not.toContain('task_token')
  })
})
