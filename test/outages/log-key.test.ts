import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { latestCheckpoint } from '../../src/ledger/checkpoints.ts'
import { parseVerifierKey } from '../../src/proof/note.ts'
import { type Fleet, startFleet, until } from '../support/fleet.ts'
import { auditLog, everyEntryPlaced } from '../support/log.ts'
import { logVault } from '../support/log-vault.ts'
import { openbao, type Openbao, startOpenbao } from '../support/openbao.ts'
import { mayfly, type RunningBroker } from '../support/program.ts'
import { stores } from '../support/stores.ts'
import { vaultProvider } from '../support/vault-site.ts'

describe.runIf(openbao !== undefined && stores.some(({ name }) => name === 'Postgres'))('the key of the log at Vault', () => {
  let vault: Openbao
  let tokenFile: string
  let fleet: Fleet

  beforeAll(async () => {
    vault = await startOpenbao('raft')
    tokenFile = await logVault(vault)
    fleet = await startFleet(2, { providers: configured() })
  })
  afterEach(async () => {
    expect(await fleet.findings()).toEqual([])
    const token = await readFile(tokenFile, 'utf8')
    for (const broker of fleet.brokers) expect(broker.log()).not.toContain(token)
  })
  afterAll(async () => {
    await fleet.stop()
    await vault.stop()
  })

  const configured = (key = 'mayfly-log'): string =>
    `${vaultProvider({ address: vault.address, tokenFile })}log_key: { provider: vault, key: ${key} }\n`
  const text = async (broker: RunningBroker, at: string) => {
    const answer = await fetch(broker.url + at, { headers: { authorization: `Bearer ${fleet.tokens.ops}` } })
    return { status: answer.status, text: await answer.text() }
  }
  const readiness = async (broker: RunningBroker) => JSON.parse((await text(broker, '/readyz')).text) as object
  const metric = async (broker: RunningBroker, name: string) =>
    new RegExp(`^mayfly_log_${name} (.+)$`, 'm').exec((await text(broker, '/metrics')).text)?.[1]

  /** A whole life, whatever becomes of the log. */
  async function live(broker: RunningBroker): Promise<void> {
    const task = await fleet.declare(broker, ['api'])
    expect((await fleet.complete(broker, task)).status).toBe(200)
  }

  test('signs one log for every broker, which whoever has its public half verifies, and no broker has a file with another', async () => {
    for (const broker of fleet.brokers) await live(broker)
    await everyEntryPlaced(fleet.ledger)
    const [one, other] = await Promise.all(fleet.brokers.map((broker) => text(broker, '/ledger/key')))
    expect(one).toEqual(other)
    expect(await auditLog(fleet.ledger, parseVerifierKey(one!.text.trim())!)).toEqual([])
    expect(existsSync(path.join(fleet.site.folder, 'keys/log.key'))).toBe(false)

    await fleet.site.write('log.pub', one!.text)
    const verified = await mayfly(['ledger', 'verify', '--url', fleet.brokers[0]!.url, '--key', path.join(fleet.site.folder, 'log.pub')], {
      MAYFLY_TOKEN: fleet.tokens.ops,
    })
    expect([verified.status, verified.stdout]).toEqual([0, expect.stringContaining('complete and unaltered')])
  })

  test('stops nothing but the log while Vault is sealed, and the log catches up', async () => {
    await vault.seal()
    for (const broker of fleet.brokers) await live(broker)
    const { size } = (await latestCheckpoint(fleet.ledger))!
    for (const broker of fleet.brokers) {
      await until('it says that its log waits', async () => (await metric(broker, 'key_up')) === '0')
      expect(await readiness(broker)).toMatchObject({ status: 'ready', log: { state: 'failing' } })
      expect(await metric(broker, 'refused')).toBe('0')
      await expect.poll(() => broker.log()).toMatch(/"level":"error".*"reason":"key away".*sealed.*the log is not signed any further/)
    }
    expect((await latestCheckpoint(fleet.ledger))!.size).toBe(size)

    await vault.unseal()
    await everyEntryPlaced(fleet.ledger)
    for (const broker of fleet.brokers) await until('it says that all is well', async () => (await metric(broker, 'key_up')) === '1')
    expect(await readiness(fleet.brokers[0]!)).toMatchObject({ log: { state: 'ok' } })
  })

  test('is not needed for a start, and signs when it can be reached', async () => {
    await vault.kill()
    const started = await fleet.site.start()
    await live(started)
    expect(await text(started, '/ledger/key')).toMatchObject({ status: 503, text: expect.stringContaining('provider_unavailable') })
    await expect.poll(() => started.log()).toContain('the key of the log does not answer: the broker starts')
    await vault.start()
    await until('the key answers', async () => (await text(started, '/ledger/key')).status === 200)
    await everyEntryPlaced(fleet.ledger)
    expect(await started.stop()).toBe(0)
  })

  test.each([
    ['exportable', { type: 'ed25519', exportable: true }, 'is exportable, which cannot be undone'],
    ['curved', { type: 'ecdsa-p256' }, 'is not of type ed25519'],
  ])('ends the start of a broker where it is not fit: %s', async (key, settings, words) => {
    await vault.root('POST', `transit/keys/${key}`, settings)
    await vault.root('POST', 'sys/policies/acl/more', { policy: `path "transit/keys/${key}" { capabilities = ["read"] }` })
    const more = await logVault(vault, { file: path.join(vault.folder, key), more: ['more'] })
    const providers = `${vaultProvider({ address: vault.address, tokenFile: more })}log_key: { provider: vault, key: ${key} }\n`
    await expect(fleet.site.start({ extra: providers })).rejects.toThrow(`log_key: vault: the key transit/keys/${key} ${words}`)
  })

  test('is tried by `mayfly provider check`, which has its verifier key for the reviewers', async () => {
    const checked = await mayfly(['provider', 'check', 'vault', '--config', fleet.site.config()])
    const [, word = ''] = /^vault +ok +log key +signs\. .*: (\S+)$/m.exec(checked.stdout) ?? []
    expect(`${word}\n`).toBe((await text(fleet.brokers[0]!, '/ledger/key')).text)
  })

  test('ends the start of a broker that may not see it', async () => {
    await expect(fleet.site.start({ extra: configured('somebody-elses') })).rejects.toThrow(
      'log_key: vault gave no word about the key transit/keys/somebody-elses: permission denied',
    )
  })
})
