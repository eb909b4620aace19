import { generateKeyPairSync, randomBytes, sign } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { Writable } from 'node:stream'
import { sql } from 'drizzle-orm'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import type { SigningKey } from '../../src/base/signing-key.ts'
import { connect, type Ledger } from '../../src/ledger/connect.ts'
import { logKeyOf, remoteLogKey } from '../../src/ledger/log-key.ts'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { rotateLog } from '../../src/ledger/rotation.ts'
import { startSequencer } from '../../src/ledger/sequencer.ts'
import { type KnownHead, type SignedLog, type Step, stepLog } from '../../src/ledger/signing.ts'
import { createTelemetry } from '../../src/telemetry.ts'
import { auditLog, growAll, settled } from '../support/log.ts'
import { logVault, vaultKey, vaultTimeout } from '../support/log-vault.ts'
import { openbao, type Openbao, startOpenbao } from '../support/openbao.ts'
import { type OpenedStore, stores } from '../support/stores.ts'
import { frontVault, type VaultFront } from '../support/vault-front.ts'

const origin = 'broker.example.com'
const signing = 'read transit/sign/mayfly-log'

/** Inserts, and waits until that is settled. */
async function write(ledger: Ledger, count: number): Promise<void> {
  await ledger.run(sql`insert into entries (kind, agent, body) select 'policy.activated', null, json_build_object('at', at)
    from generate_series(1, ${count}::int) as at`)
  await settled(ledger)
}

/** Polls until something is so; bounded by the test's own time. */
async function until(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setImmediate(resolve))
}

// Long, for what another test of the same cluster holds back.
describe.each(stores)('a log on $name whose key is elsewhere', { timeout: 150_000 }, ({ open }) => {
  let store: OpenedStore
  let ledger: Ledger

  beforeEach(async () => {
    store = await open()
    ledger = await connect(store.settings)
  })
  afterEach(async () => {
    await ledger.close()
    await store.dispose()
  })

  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const honest: SigningKey = { publicKey: async () => raw, sign: async (message) => sign(null, message, privateKey) }
  const other = Buffer.from(`${origin}\n0\n${randomBytes(32).toString('base64')}\n`)

  test.each<[string, Partial<SigningKey>]>([
    ['random bytes', { sign: async () => randomBytes(64) }],
    ['too few of them', { sign: async () => randomBytes(63) }],
    ['nothing', { sign: async () => Buffer.alloc(0) }],
    ['its signature of another text', { sign: async () => sign(null, other, privateKey) }],
    ['the signature of another key', { sign: async (message) => sign(null, message, generateKeyPairSync('ed25519').privateKey) }],
  ])('keeps nothing of what it was given %s for', async (_, lies) => {
    const memory: KnownHead = { head: undefined }
    const log: SignedLog = { ledger, key: remoteLogKey(honest), origin }
    await write(ledger, 5)
    await growAll(log, memory)
    await write(ledger, 300)
    const before = memory.head

    expect(await stepLog({ ...log, key: remoteLogKey({ ...honest, ...lies }) }, memory)).toMatchObject({ outcome: 'refused', why: 'wrong signature' })

    expect(await latestCheckpoint(ledger)).toMatchObject({ size: 5 })
    expect(memory.head).toEqual(before)
    const [kept] = await ledger.run<{ leaves: number }>(
      sql`select (select count(*) from leaves)::int + (select count(*) from subtrees)::int as leaves`,
    )
    expect(kept).toEqual({ leaves: 5 })
    await growAll(log, memory)
    expect(await auditLog(ledger, (await log.key.signerFor(origin))!.key)).toEqual([])
  })

  test('goes on under a key file where the key elsewhere is gone for good', async () => {
    const [away, file] = [remoteLogKey(honest), logKeyOf(new Uint8Array(32).fill(7))]
    await write(ledger, 3)
    await growAll({ ledger, key: away, origin })
    const { closed, opened } = await rotateLog({ ledger, key: undefined, next: file })
    await write(ledger, 3)
    await growAll({ ledger, key: file, origin })
    const keys = [(await away.signerFor(closed.origin))!.key, (await file.signerFor(opened.origin))!.key]
    expect(await auditLog(ledger, keys)).toEqual([])
    expect(await stepLog({ ledger, key: away, origin }, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'closed log' })
  })

  test('is no log where nothing can be called as it is', async () => {
    expect(await remoteLogKey(honest).signerFor('a b')).toBeUndefined()
  })

  describe.runIf(openbao !== undefined)('at Vault', () => {
    let vault: Openbao
    let front: VaultFront
    let tokenFile: string

    beforeAll(async () => {
      vault = await startOpenbao('raft')
      front = await frontVault(vault.address)
      tokenFile = await logVault(vault)
    })
    afterEach(async () => {
      front.clear()
      await front.release()
    })
    afterAll(async () => {
      await front.stop()
      await vault.stop()
    })

    const logOf = async (settings: object = {}): Promise<SignedLog> => {
      const key = remoteLogKey(await vaultKey(front, tokenFile, settings))
      return { ledger, key, origin }
    }
    /** A step whose question hangs until its time has passed. */
    async function stepInVain(log: SignedLog): Promise<Step> {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
      try {
        const step = stepLog(log, { head: undefined })
        await front.hanging(signing)
        vi.advanceTimersByTime(vaultTimeout)
        return await step
      } finally {
        vi.useRealTimers()
      }
    }
    const audit = async (log: SignedLog) => expect(await auditLog(ledger, (await log.key.signerFor(origin))!.key)).toEqual([])

    test('goes on after a restart of its broker, and of Vault', async () => {
      await write(ledger, 3)
      await growAll(await logOf())
      await vault.kill()
      await vault.start()
      await write(ledger, 300)
      await growAll(await logOf())
      await audit(await logOf())
    })

    test('is one log when two brokers sign it with the one key', async () => {
      const logs = await Promise.all([logOf(), logOf(), logOf()])
      for (let round = 0; round < 6; round++) {
        await write(ledger, 20)
        const steps = await Promise.all(logs.map((log, at) => stepLog(log, { head: undefined }, 5 + at)))
        for (const { outcome } of steps) expect(['appended', 'overtaken']).toContain(outcome)
      }
      await growAll(logs[0])
      await audit(logs[1])
    })

    test('is signed with the version that it began with when Vault has rotated the key, and is left alone by a broker that names another', async () => {
      await write(ledger, 3)
      await growAll(await logOf())
      await vault.root('POST', 'transit/keys/mayfly-log/rotate')
      await write(ledger, 3)
      expect(await stepLog(await logOf({ version: 2 }), { head: undefined })).toMatchObject({ outcome: 'refused', why: 'another key' })
      expect((await latestCheckpoint(ledger))?.size).toBe(3)
      await growAll(await logOf())
      await audit(await logOf())
    })

    test('has nothing of what a Vault signed that lies, and goes on when it does not', async () => {
      const log = await logOf()
      await write(ledger, 3)
      front.next(signing, 'gives another signature', { done: true })
      expect(await stepLog(log, { head: undefined })).toMatchObject({ outcome: 'refused', why: 'wrong signature' })
      expect(await latestCheckpoint(ledger)).toBeUndefined()
      await growAll(log)
      await audit(log)
    })

    test.each(['is sealed', 'resets', 'hangs', 'fails', 'refuses', 'garbage'] as const)('waits where Vault %s, and says why', async (how) => {
      const log = await logOf()
      await write(ledger, 3)
      await log.key.signerFor(origin)
      front.next(signing, how)
      const step = how === 'hangs' ? stepInVain(log) : stepLog(log, { head: undefined })
      expect(await step).toMatchObject({
        outcome: 'refused',
        why: 'key away',
        lag: { entries: 3 },
        error: expect.stringMatching(/does not answer \(vault .+\)$/) as unknown,
      })
      await growAll(log)
      await audit(log)
    })

    test('is behind while Vault is sealed, which is said in words and figures, and catches up by itself', async () => {
      const lines: string[] = []
      const destination = new Writable({ write: (chunk: Buffer, _, done) => (lines.push(chunk.toString()), done()) })
      const telemetry = createTelemetry({ level: 'debug', destination })
      const metric = async (name: string) => new RegExp(`^mayfly_log_${name} (.+)$`, 'm').exec(await telemetry.metrics.registry.metrics())?.[1]
      await write(ledger, 3)
      await using sequencer = startSequencer(await logOf(), telemetry)
      await until(async () => (await latestCheckpoint(ledger))?.size === 3)
      expect([await metric('key_up'), await metric('refused')]).toEqual(['1', '0'])

      await vault.seal()
      await write(ledger, 600)
      await until(() => sequencer.refusal() === 'key away' && lines.length > 0)
      expect([await metric('key_up'), await metric('refused'), await metric('lag_entries')]).toEqual(['0', '0', '600'])
      expect(lines.map((line) => JSON.parse(line) as object)).toMatchObject([
        {
          level: 'error',
          reason: 'key away',
          error: expect.stringContaining('sealed') as unknown,
          msg: expect.stringContaining('kept elsewhere and does not answer') as unknown,
        },
      ])
      expect((await latestCheckpoint(ledger))?.size).toBe(3)

      await vault.unseal()
      await until(async () => (await latestCheckpoint(ledger))?.size === 603 && sequencer.refusal() === undefined)
      expect([await metric('key_up'), await metric('refused'), await metric('size')]).toEqual(['1', '0', '603'])
      expect(lines.join('')).not.toContain(await readFile(tokenFile, 'utf8'))
      await audit(await logOf())
    })

    test('does not hold up the end of its broker, and is not called an alarm then', async () => {
      const lines: string[] = []
      const destination = new Writable({ write: (chunk: Buffer, _, done) => (lines.push(chunk.toString()), done()) })
      await write(ledger, 3)
      front.next(signing, 'hangs')
      const sequencer = startSequencer(await logOf(), createTelemetry({ level: 'debug', destination }))
      await front.hanging(signing)
      await sequencer.stop()
      expect(lines).toEqual([])
      expect(await latestCheckpoint(ledger)).toBeUndefined()
    })
  })
})
