import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { localIssuer, openLocalIssuer } from '../../src/identity/local-issuer.ts'
import { audience, gateFor, start } from './given.ts'

let folder: string
let file: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-local-'))
  file = join(folder, 'local-issuer.json')
})
afterEach(() => rm(folder, { recursive: true }))

const gateOf = (jwks: object, replay?: 'single-use') => gateFor({ name: 'local', profile: 'oidc', issuer: localIssuer, keys: { jwks }, replay })

describe('The local issuer', () => {
  test('signs tokens that a verifier with its keys accepts, with the claims it was given', async () => {
    const local = await openLocalIssuer(file)
    const token = await local.sign({ sub: 'agent:invoice-bot', aud: audience, lifetimeSeconds: 3_600, groups: ['finance'] }, start)
    const actor = await gateOf(local.jwks).accept(token)
    expect(actor).toMatchObject({ issuer: 'local', subject: 'agent:invoice-bot', attributes: { groups: ['finance'] } })
    expect(actor.token.expiresAt).toBe(start / 1_000 + 3_600)
    expect(actor.attributes).not.toHaveProperty('lifetimeSeconds')
  })

  test('gives each token an id of its own', async () => {
    const local = await openLocalIssuer(file)
    const { accept } = gateOf(local.jwks, 'single-use')
    for (let times = 0; times < 3; times++) await accept(await local.sign({ sub: 'agent:a', aud: audience, lifetimeSeconds: 60 }, start))
  })

  test('does not let a claim stand for who signed, or when it ends', async () => {
    const local = await openLocalIssuer(file)
    const claims = { sub: 'agent:a', aud: audience, lifetimeSeconds: 60, iss: 'https://login.example.com', exp: start }
    const actor = await gateOf(local.jwks).accept(await local.sign(claims, start))
    expect(actor.token.expiresAt).toBe(start / 1_000 + 60)
  })

  test('keeps its key in a file that nobody else can read, and publishes none of its private part', async () => {
    const local = await openLocalIssuer(file)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readdir(folder)).toEqual(['local-issuer.json'])
    expect(JSON.stringify(local.jwks)).not.toContain((JSON.parse(await readFile(file, 'utf8')) as { d: string }).d)
    expect((await openLocalIssuer(file)).jwks).toEqual(local.jwks)
  })

  test('is one issuer even when two open it at the same time', async () => {
    const opened = await Promise.all([openLocalIssuer(file), openLocalIssuer(file), openLocalIssuer(file)])
    expect(new Set(opened.map(({ jwks }) => JSON.stringify(jwks))).size).toBe(1)
  })

  test('refuses a key that others can read', async () => {
    await openLocalIssuer(file)
    await chmod(file, 0o640)
    await expect(openLocalIssuer(file)).rejects.toThrow('can be read by others; chmod 600 it')
  })

  test('refuses a link to somewhere else', async () => {
    await writeFile(join(folder, 'other'), '{}', { mode: 0o600 })
    await symlink(join(folder, 'other'), file)
    await expect(openLocalIssuer(file)).rejects.toThrow('is a symbolic link')
  })

  test.each(['', '{', '{}', '{"kty":"EC","d":"hunter2"}', 'x'.repeat(5_000)])(
    'refuses a file that holds no key, and does not repeat what it holds',
    async (text) => {
      await writeFile(file, text, { mode: 0o600 })
      const error: unknown = await openLocalIssuer(file).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(Error)
      expect((error as Error).message).toBe(`${file} is not the key of a local issuer`)
      expect((error as Error).cause).toBeUndefined()
    },
  )
})
