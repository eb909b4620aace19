import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { text as textOf } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { OpenedTask } from '../../src/http/contract.ts'
import { createSigner } from '../../src/proof/note.ts'
import { command, makeSite, mayfly, type RunningBroker, type Site, startMayfly } from '../support/program.ts'
import { openEmbedded, type OpenedStore } from '../support/stores.ts'
import { createTestWitness, serveWitness, witnessedAt } from '../support/witness.ts'

let store: OpenedStore
let site: Site
let broker: RunningBroker
let key: string
let environment: Record<string, string>
let witness: Awaited<ReturnType<typeof serveWitness>>
const { key: witnessKey, ...peer } = createTestWitness('witness.example/w1', 'any')

beforeAll(async () => {
  store = await openEmbedded()
  witness = await serveWitness({ ...peer, key: witnessKey })
  site = await makeSite({ store: store.settings, extra: `anchors: [{ witness: "${witness.url}", key: "${witnessKey.text}", file: ./cosigned }]\n` })
  broker = await site.start()
  environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: await site.token('operator:ops') }
  const ask = (at: string) => fetch(`${broker.url}${at}`, { headers: { authorization: `Bearer ${environment['MAYFLY_TOKEN']}` } })
  await vi.waitUntil(async () => (await ask('/checkpoint')).status === 200, { timeout: 60_000 })
  key = (await (await ask('/ledger/key')).text()).trim()
})
afterAll(async () => {
  await broker.stop()
  await witness[Symbol.asyncDispose]()
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

test.each([['export'], ['list']])('%s ends without a word where nobody reads on, and does not say that it was done', async (verb) => {
  const { process: child, ended } = startMayfly(['ledger', verb], environment)
  child.stdout!.destroy()
  expect(await ended).toMatchObject({ status: 1, stderr: '' })
})

test('what cannot be written is said', async () => {
  const full = await open('/dev/full', 'w')
  try {
    const child = spawn(process.execPath, [command, 'ledger', 'list'], {
      env: { ...process.env, ...environment },
      stdio: ['ignore', full.fd, 'pipe'],
    })
    const stderr = textOf(child.stderr!)
    expect(await once(child, 'close')).toEqual([1, null])
    expect(await stderr).toContain('ENOSPC')
  } finally {
    await full.close()
  }
})

test('a checkpoint that a witness has cosigned is kept by the broker, and proves what the ledger was', async () => {
  await vi.waitUntil(() => existsSync(at('cosigned')), { timeout: 60_000 })
  const check = (...more: string[]) => mayfly(['ledger', 'verify', '--export', at('export'), '--key', key, ...more])
  const told = `witness     witness.example/w1 had seen the pinned checkpoint by ${new Date(witnessedAt * 1_000).toISOString()}, and no other history`
  const cosigned = await check('--since', at('cosigned'), '--witness', witnessKey.text)
  expect(cosigned).toMatchObject({ status: 0, stdout: expect.stringContaining(told) as string })

  const bare = await check('--since', at('pinned'), '--witness', witnessKey.text, '--json')
  expect(bare.status).toBe(1)
  expect(JSON.parse(bare.stdout)).toMatchObject({
    witnessed: [],
    faults: [{ message: 'the pinned checkpoint is not cosigned by witness.example/w1' }],
  })
  expect(await check('--witness', witnessKey.text)).toMatchObject({ status: 2, stderr: expect.stringContaining('--since') as string })
  expect(await check('--since', at('cosigned'), '--witness', key)).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('--witness: not') as string,
  })
})

test('one that was changed is told with its place, and its checkpoint is not kept', async () => {
  const text = await readFile(at('export'), 'utf8')
  await writeFile(at('changed'), text.replace('"policy.activated"', '"policy.activatee"'))
  const changed = await mayfly(['ledger', 'verify', '--export', at('changed'), '--key', key, '--keep', at('kept')])
  expect(changed).toMatchObject({ status: 1, stdout: expect.stringMatching(/entry 0 \(ent_\w+\): is not what the log has/) as string })
  await expect(readFile(at('kept'))).rejects.toThrow('ENOENT')
})

test('a key that Vault keeps is not rotated, which is said before anything is touched', async () => {
  const vault = '  - { name: vault, kind: vault, address: "https://vault", auth: { method: token, token_file: t }, token_role: r }\n'
  const text = (await readFile(site.config(), 'utf8')).replace(/^providers:\n/m, `log_key: { provider: vault, key: mayfly-log }\n$&${vault}`)
  await writeFile(at('vault.yaml'), text)
  for (const lost of [[], ['--lost']]) {
    const refused = await mayfly(['ledger', 'rotate-key', '--config', at('vault.yaml'), ...lost])
    expect(refused).toMatchObject({ stdout: '', stderr: expect.stringContaining('log_key: Vault keeps the key of this log') as string })
    expect(refused.status).not.toBe(0)
  }
  expect(await readdir(at('keys'))).not.toContain('log.next.key')
})

test('the key is rotated while no broker has the store, and the ledger is verified across it', { timeout: 300_000 }, async () => {
  const rotate = () => mayfly(['ledger', 'rotate-key', '--config', site.config()])
  expect(await rotate()).toMatchObject({ status: 1, stderr: expect.stringContaining('in use by another broker') as string })
  await broker.stop()
  const rotated = await rotate()
  expect(rotated, rotated.stderr).toMatchObject({ status: 0, stdout: expect.stringMatching(/^closed +\S+, 1 entry,/) as string })
  const newKey = /^key +(\S+)$/m.exec(rotated.stdout)![1]!
  expect(await readdir(at('keys'))).toEqual(expect.arrayContaining(['log.key', 'log.1.key']))
  expect(await readdir(at('keys'))).not.toContain('log.next.key')

  // As whoever was killed between the commit and the files would have left it.
  await rename(at('keys/log.key'), at('keys/log.next.key'))
  await rename(at('keys/log.1.key'), at('keys/log.key'))
  expect((await rotate()).stdout).toBe(rotated.stdout)

  broker = await site.start()
  environment = { ...environment, MAYFLY_URL: broker.url }
  const ask = (path: string) => fetch(`${broker.url}${path}`, { headers: { authorization: `Bearer ${environment['MAYFLY_TOKEN']}` } })
  await vi.waitUntil(async () => ((await (await ask('/ledger/logs')).json()) as { items: { size: number }[] }).items[1]?.size === 2, {
    timeout: 60_000,
  })
  expect((await (await ask('/ledger/key')).text()).trim()).toBe(newKey)
  await writeFile(at('keys.pub'), `${key}\n${newKey}\n`)
  const whole = await mayfly(['ledger', 'verify', '--key', key, '--key', newKey, '--since', at('pinned'), '--keep', at('kept')], environment)
  expect(whole, whole.stdout).toMatchObject({ status: 0, stdout: expect.stringContaining('complete and unaltered') as string })
  const { stdout } = await mayfly(['ledger', 'export'], environment)
  await writeFile(at('both'), stdout)
  const half = await mayfly(['ledger', 'verify', '--export', at('both'), '--key', key, '--keep', at('nothing')])
  expect(half).toMatchObject({
    status: 1,
    stdout: expect.stringMatching(
      /entry 1: the log by the name of \S+\/log\/2 begins here, for which no key was given[^]+all is as it should be: entries 0 to 0\. Nothing else/,
    ) as string,
  })
  const later = await mayfly(['ledger', 'verify', '--export', at('both'), '--key', at('keys.pub'), '--since', at('kept'), '--json'])
  expect(JSON.parse(later.stdout)).toMatchObject({
    ok: true,
    entries: 3,
    logs: [
      { first: 0, proven: 1 },
      { first: 1, proven: 2 },
    ],
  })
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

test.each([
  ['in the middle of a line', (text: string) => text.slice(0, -20), /line \d+ is not one of a ledger's export: the file was cut there/],
  ['in the middle of its first line', (text: string) => text.slice(0, 60), /line 1 is not one of a ledger's export: the file was cut there/],
  ['between two lines', (text: string) => text.slice(0, text.trimEnd().lastIndexOf('\n') + 1), undefined],
  ['before it began', () => '', /the export is empty/],
])('an export that was cut %s is a bad ledger, and no mistake of whoever asks', async (_, cut, words) => {
  await writeFile(at('cut'), cut(await readFile(at('export'), 'utf8')))
  const { status, stdout, stderr } = await mayfly(['ledger', 'verify', '--export', at('cut'), '--key', key, '--json'])
  expect([status, (JSON.parse(stdout) as { code?: string }).code]).toEqual([1, words && 'failed'])
  if (words) expect(stderr).toMatch(words)
})

test('what was given as a key, and is none, is not repeated', async () => {
  const { status, stderr } = await mayfly(['ledger', 'verify', '--export', at('export'), '--key', 'PRIVATE+KEY+1a2b3c4d+secret'])
  expect([status, stderr]).toEqual([2, expect.stringContaining('neither a verifier key')])
  expect(stderr).not.toContain('secret')
})

test('an option behind -- belongs to the command that exec runs', async () => {
  const bot = { ...environment, MAYFLY_TOKEN: await site.token('agent:bot') }
  const run = await mayfly(['exec', '--kind', 'work', '--grant', 'api', '--', 'echo', '--json'], bot)
  expect(run).toMatchObject({ status: 0, stdout: '--json\n' })
})

test('an export as CSV is said to be none that can be verified', async () => {
  const { stdout } = await mayfly(['ledger', 'export', '--format', 'csv'], environment)
  await writeFile(at('export.csv'), stdout)
  const { status, stderr } = await mayfly(['ledger', 'verify', '--export', at('export.csv'), '--key', key])
  expect([status, stderr]).toEqual([2, expect.stringContaining('without a filter')])
})

describe('the receipts of an answer', () => {
  const check = (...args: readonly string[]) => mayfly(['ledger', 'check-receipts', ...args], environment)

  /** Of the log that is open, which is another one than where the ledger began. */
  let newest: string

  beforeAll(async () => {
    const asked = await fetch(`${broker.url}/ledger/key`, { headers: { authorization: `Bearer ${environment['MAYFLY_TOKEN']}` } })
    newest = (await asked.text()).trim()
    await writeFile(at('keys.pub'), `${key}\n${newest}\n`)
    const opened = await mayfly(['task', 'open', '--kind', 'work', '--grant', 'api', '--json'], {
      ...environment,
      MAYFLY_TOKEN: await site.token('agent:bot'),
    })
    expect(opened).toMatchObject({ status: 0 })
    await writeFile(at('answer'), opened.stdout)
    await vi.waitUntil(async () => (await check(at('answer'), '--key', at('keys.pub'))).status === 0, { timeout: 60_000 })
  })

  test('are proven by the broker, and offline by the proofs that were kept of it', async () => {
    const asked = await check(at('answer'), '--key', at('keys.pub'), '--keep', at('proofs'))
    expect(asked).toMatchObject({ status: 0, stdout: expect.stringMatching(/^proven {2}ent_\w+ {2}task\.opened: number \d+ of \d+ in /) as string })
    const offline = await mayfly(['ledger', 'check-receipts', at('answer'), '--key', key, '--key', newest, '--proofs', at('proofs'), '--json'])
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
    const { status, stdout } = await check(at('strange'), '--key', at('keys.pub'), '--keep', at('some'))
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

  test('are proven only of the entry that they name, and of its kind', async () => {
    const { receipts } = JSON.parse(await readFile(at('answer'), 'utf8')) as OpenedTask
    const [first, second] = receipts
    const proof = await readFile(at(`proofs/${second!.entry}`), 'utf8')
    // What a broker that cheats tells of an entry, and then answers when it is asked for its proof.
    const told = { entry: first!.entry, kind: 'lease.revoked', leaf_hash: second!.leaf_hash }
    const answered = async (receipt: object, text: string) => {
      await mkdir(at('answered'), { recursive: true })
      await writeFile(at('told'), JSON.stringify([receipt]))
      await writeFile(at(`answered/${(receipt as typeof told).entry}`), text)
      const { status, stdout } = await check(at('told'), '--key', at('keys.pub'), '--proofs', at('answered'))
      return [status, stdout.trim()]
    }
    const fault = (words: string): unknown => [1, expect.stringMatching(new RegExp(`^FAULT .*${words}`))]
    expect(await answered(told, proof)).toEqual(fault(`what stands in the log with its hash is ${second!.entry}, decision\\.made$`))
    expect(await answered({ ...second!, kind: 'lease.revoked' }, proof)).toEqual(fault(`is ${second!.entry}, decision\\.made$`))
    expect(await answered(second!, proof.replace(/^extra .*\n/m, ''))).toEqual(fault('its proof lacks the entry'))
    const another = Buffer.from(JSON.stringify({ id: told.entry, kind: told.kind })).toString('base64')
    expect(await answered(told, proof.replace(/^extra .*$/m, `extra ${another}`))).toEqual(fault('its proof has another entry in its place'))
  })

  test('rest on the key of whoever checks them', async () => {
    const [name] = newest.split('+')
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
      at('keys.pub'),
      ...args.map((arg) => (/^[a-z]/.test(arg) && !arg.includes(':') ? at(arg) : arg)),
    )
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).not.toContain('task_token')
  })
})
