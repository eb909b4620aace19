import { verify } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { SigningKey } from '../../../src/base/signing-key.ts'
import { verifierKeyOf } from '../../../src/proof/note.ts'
import { openbao, type Openbao, startOpenbao } from '../../support/openbao.ts'
import { logVault, vaultKey, vaultTimeout } from '../../support/log-vault.ts'
import { frontVault, type VaultFault, type VaultFront } from '../../support/vault-front.ts'

const message = Buffer.from('log.example.com\n1\nroot\n')
const patient = new AbortController().signal

describe.runIf(openbao !== undefined)('a key that Vault keeps', () => {
  let vault: Openbao
  let front: VaultFront
  let tokenFile: string
  let others: string
  let asked: string[] = []

  beforeAll(async () => {
    vault = await startOpenbao()
    front = await frontVault(vault.address)
    // For keys of the tests' own.
    await vault.root('POST', 'sys/policies/acl/others', {
      policy: 'path "transit/sign/+" { capabilities = ["update"] }\npath "transit/keys/+" { capabilities = ["read"] }',
    })
    ;[tokenFile, others] = [await logVault(vault), await logVault(vault, { file: path.join(vault.folder, 'others'), more: ['others'] })]
  })
  afterEach(async () => {
    vi.useRealTimers()
    front.clear()
    front.forget()
    await front.release()
  })
  afterAll(async () => {
    await front.stop()
    await vault.stop()
  })

  /** As a broker has it, over the front. */
  function keyOf(settings: object = {}): Promise<SigningKey> {
    asked = []
    const told = (request: string, outcome: string): void => void asked.push(`${request} ${outcome}`)
    return vaultKey(front, 'key' in settings ? others : tokenFile, settings, { told })
  }

  async function verifies(key: SigningKey, signature: Uint8Array): Promise<boolean> {
    return verify(null, message, verifierKeyOf('log.example.com', await key.publicKey(patient)).publicKey, signature)
  }

  /** Of a key besides. */
  const make = (name: string, settings: object) => vault.root('POST', `transit/keys/${name}`, settings)

  test('signs, with signatures that its public half verifies, and is asked for that once', async () => {
    const key = await keyOf()
    expect(await verifies(key, await key.sign(message, patient))).toBe(true)
    expect(await verifies(key, await key.sign(message, patient))).toBe(true)
    expect(asked.filter((one) => one.startsWith('transit/'))).toEqual(['transit/sign 200', 'transit/keys 200', 'transit/sign 200'])
  })

  test('signs with the version that it was told when another has come, and says so when it may not any more', async () => {
    await make('turned', { type: 'ed25519' })
    const first = await keyOf({ key: 'turned' })
    const before = await first.publicKey(patient)
    await vault.root('POST', 'transit/keys/turned/rotate')
    const again = await keyOf({ key: 'turned' })
    expect(await again.publicKey(patient)).toEqual(before)
    expect(await verifies(again, await again.sign(message, patient))).toBe(true)
    const second = await keyOf({ key: 'turned', version: 2 })
    expect(await second.publicKey(patient)).not.toEqual(before)
    expect(await verifies(second, await second.sign(message, patient))).toBe(true)

    await vault.root('POST', 'transit/keys/turned/config', { min_encryption_version: 2 })
    await expect(again.sign(message, patient)).rejects.toMatchObject({ fault: 'refused', message: expect.stringContaining('min_encryption_version') })
    await vault.root('POST', 'transit/keys/turned/config', { min_decryption_version: 2 })
    await expect((await keyOf({ key: 'turned' })).publicKey(patient)).rejects.toMatchObject({ message: expect.stringContaining('has no version 1') })
  })

  test.each([
    ['of another type', { type: 'ecdsa-p256' }, 'is not of type ed25519'],
    ['that encrypts', { type: 'aes256-gcm96' }, 'is not of type ed25519'],
    ['that is another for each context', { type: 'ed25519', derived: true }, 'is derived'],
    ['that can be exported', { type: 'ed25519', exportable: true }, 'is exportable'],
    ['that can be backed up in plain text', { type: 'ed25519', allow_plaintext_backup: true }, 'may be backed up in plain text'],
  ])('%s is refused', async (name, settings, words) => {
    const key = name.replaceAll(' ', '-')
    await make(key, settings)
    await expect((await keyOf({ key })).publicKey(patient)).rejects.toMatchObject({ fault: 'refused', message: expect.stringContaining(words) })
  })

  test('that does not exist is refused, and so is a version that there is not', async () => {
    await make('some', { type: 'ed25519' })
    await expect((await keyOf({ key: 'none' })).publicKey(patient)).rejects.toMatchObject({
      fault: 'refused',
      message: expect.stringContaining('does not exist'),
    })
    const third = await keyOf({ key: 'some', version: 3 })
    await expect(third.publicKey(patient)).rejects.toMatchObject({ fault: 'refused', message: expect.stringContaining('has no version 3') })
    await expect(third.sign(message, patient)).rejects.toMatchObject({ name: 'ProviderError' })
  })

  test.each([
    ['is sealed', 'unavailable'],
    ['refuses', 'refused'],
    ['has a quota', 'unavailable'],
    ['resets', 'unavailable'],
    ['hangs', 'timed_out'],
    ['garbage', 'garbage'],
    ['answers nothing', 'garbage'],
    ['half', 'unavailable'],
    ['floods', 'garbage'],
    ['redirects', 'garbage'],
  ] as const)('gives no signature where Vault %s, and one the next time', async (how: VaultFault, fault) => {
    const key = await keyOf()
    await key.publicKey(patient)
    front.next('read transit/sign/mayfly-log', how)
    if (how === 'hangs') vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const signing = key.sign(message, patient).catch((error: unknown) => error)
    if (how === 'hangs') {
      await front.hanging('read transit/sign/mayfly-log')
      vi.advanceTimersByTime(vaultTimeout)
      vi.useRealTimers()
    }
    const refused = await signing
    expect(refused).toMatchObject({ name: 'ProviderError', fault })
    expect((refused as Error).message).not.toContain(await readFile(tokenFile, 'utf8'))
    expect(await verifies(key, await key.sign(message, patient))).toBe(true)
  })

  test('is let go of as soon as whoever asked gives up', async () => {
    const key = await keyOf()
    await key.publicKey(patient)
    front.next('read transit/sign/mayfly-log', 'hangs')
    const given = new AbortController()
    const signing = key.sign(message, given.signal)
    await front.hanging('read transit/sign/mayfly-log')
    given.abort()
    await expect(signing).rejects.toMatchObject({ fault: 'timed_out' })
  })

  test.each([
    ['POST', 'transit/keys/mayfly-log', { type: 'ed25519' }],
    ['POST', 'transit/keys/mayfly-log/rotate'],
    ['POST', 'transit/keys/mayfly-log/config', { exportable: true }],
    ['DELETE', 'transit/keys/mayfly-log'],
    ['GET', 'transit/export/signing-key/mayfly-log'],
    ['GET', 'transit/backup/mayfly-log'],
    ['GET', 'transit/keys?list=true'],
    ['GET', 'transit/keys/another'],
    ['POST', 'transit/sign/another', { input: 'aGVsbG8=' }],
    ['POST', 'transit/sign/mayfly-log/sha2-256', { input: 'aGVsbG8=' }],
    ['POST', 'transit/verify/mayfly-log', { input: 'aGVsbG8=', signature: 'vault:v1:' }],
    ['POST', 'transit/hmac/mayfly-log', { input: 'aGVsbG8=' }],
    ['POST', 'transit/restore/another', { backup: 'aGVsbG8=' }],
  ])('is all that deploy/vault/mayfly-log.hcl opens: not %s %s', async (method, at, body?: object) => {
    expect((await vault.as(await readFile(tokenFile, 'utf8'), method, at, body)).status).toBe(403)
  })
})
