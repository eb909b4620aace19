import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, decodeProtectedHeader, exportJWK, generateKeyPair, importJWK, type JWK, jwtVerify, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type JwtGrant, jwtKind } from '../../src/providers/jwt/jwt.ts'
import type { Minted, Provider, Reservation, SignedTokens } from '../../src/providers/provider.ts'
import { reservationOf } from './reservation.ts'

const publicUrl = 'https://broker.example.com'
const patient = new AbortController().signal
const audience = 'https://invoices.example.com'
let now = Date.now()
let folder: string
let provider: Provider
let tokens: SignedTokens

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-keys-'))
  provider = await jwtKind.connect('tokens', jwtKind.settings.parse({}), { publicUrl, keys: folder, clock: () => now })
  if (!provider.tokens) throw new Error('a jwt provider reads its tokens')
  tokens = provider.tokens
})
afterAll(() => rm(folder, { recursive: true }))

const reserve = (changes: Partial<Reservation<JwtGrant>> = {}) =>
  reservationOf(jwtKind.grant.parse({ audience, scope: 'invoices:read invoices:list' }), { parameters: {}, ...changes })
const mint = (reservation: Reservation): Promise<Minted> => provider.mint(reservation, async () => {}, patient)

function open({ credential }: Minted): string {
  if (credential.type !== 'bearer_token') throw new Error('not a token')
  return credential.token.open()
}

describe('a token of the broker', () => {
  test('has the shape of RFC 9068 and verifies against the published keys', async () => {
    const reservation = reserve()
    const token = open(await mint(reservation))
    const keys = await tokens.keys()
    const { payload, protectedHeader } = await jwtVerify(token, createLocalJWKSet({ keys: keys as never }), { issuer: publicUrl, audience })
    expect(protectedHeader).toEqual({ typ: 'at+jwt', alg: 'ES256', kid: keys[0]?.['kid'] })
    expect(payload).toEqual({
      iss: publicUrl,
      sub: reservation.subject,
      aud: audience,
      client_id: 'invoice-bot',
      scope: 'invoices:read invoices:list',
      jti: reservation.lease,
      iat: Math.floor(reservation.issuedAt.getTime() / 1_000),
      exp: Math.floor(reservation.expiresAt.getTime() / 1_000),
      task: reservation.task,
      policy_digest: reservation.policyDigest,
    })
    expect(await tokens.read(token)).toEqual(payload)
  })

  test('says as RFC 9396 does what the parameters of its grant narrow it to', async () => {
    const token = open(await mint(reserve({ grant: 'invoices-export', parameters: { customer: 'acme', region: 'eu' } })))
    expect(await tokens.read(token)).toMatchObject({
      authorization_details: [{ type: 'urn:mayfly:grant', identifier: 'invoices-export', parameters: { customer: 'acme', region: 'eu' } }],
    })
  })

  test('is not signed where its parameters would make it too long to be read', async () => {
    const of = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`p${at}`, '\u{1F98B}'.repeat(128)]))
    expect(await tokens.read(open(await mint(reserve({ parameters: of(8) }))))).toBeDefined()
    await expect(mint(reserve({ parameters: of(16) }))).rejects.toMatchObject({ fault: 'refused', minted: 'no' })
  })

  test('publishes no part of a private key', async () => {
    for (const key of await tokens.keys()) expect(Object.keys(key).toSorted()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'])
  })

  test('ends in the second before its lease, never after it, and not after a day', async () => {
    const issuedAt = new Date(now)
    const odd = await mint(reserve({ issuedAt, expiresAt: new Date(Math.floor(now / 1_000) * 1_000 + 60_999) }))
    expect(odd.expiresAt.getTime()).toBe(Math.floor(now / 1_000) * 1_000 + 60_000)
    const long = await mint(reserve({ issuedAt, expiresAt: new Date(now + 48 * 3_600_000) }))
    expect(long.expiresAt.getTime()).toBe(Math.floor(now / 1_000) * 1_000 + 24 * 3_600_000)
  })

  test('is not signed for less than a second', async () => {
    const issuedAt = new Date(Math.floor(now / 1_000) * 1_000)
    await expect(mint(reserve({ issuedAt, expiresAt: new Date(issuedAt.getTime() + 999) }))).rejects.toMatchObject({ fault: 'refused', minted: 'no' })
  })

  test('is refreshed under the same lease with a later end', async () => {
    const reservation = reserve()
    await mint(reservation)
    const later = { ...reservation, issuedAt: new Date(now + 60_000), expiresAt: new Date(now + 120_000) }
    const fresh = await provider.refresh?.(later, patient)
    if (!fresh) throw new Error('a jwt provider refreshes')
    expect(await tokens.read(open(fresh))).toMatchObject({ jti: reservation.lease, exp: Math.floor((now + 120_000) / 1_000) })
  })

  test('is read whatever the clock of this machine says: the end of a token is for the clock of the store', async () => {
    const reservation = reserve()
    const token = open(await mint(reservation))
    const before = now
    for (const apart of [-300_000, 300_000]) {
      now = reservation.expiresAt.getTime() + apart
      expect(await tokens.read(token)).toBeDefined()
    }
    now = before
  })
})

/** Claims that we would sign ourselves. */
const claims = () => {
  const reservation = reserve()
  const iat = Math.floor(now / 1_000)
  return {
    iss: publicUrl,
    sub: 's',
    aud: audience,
    client_id: 'a',
    scope: 's',
    jti: reservation.lease,
    iat,
    exp: iat + 60,
    task: reservation.task,
    policy_digest: 'd',
  }
}
const kidOf = async () => String((await tokens.keys())[0]?.['kid'])

describe('a token that the broker did not write is nothing to it', () => {
  test.each(['', '.', '..', 'a.b.c', 'x'.repeat(10_000), 'eyJhbGciOiJub25lIn0.e30.', '\u{1F98B}.\u{1F98B}.\u{1F98B}', 'null'])(
    'text %#',
    async (text) => {
      expect(await tokens.read(text)).toBeUndefined()
    },
  )

  test('signed with another key under our key id', async () => {
    const { privateKey } = await generateKeyPair('ES256')
    const forged = await new SignJWT(claims()).setProtectedHeader({ typ: 'at+jwt', alg: 'ES256', kid: await kidOf() }).sign(privateKey)
    expect(await tokens.read(forged)).toBeUndefined()
  })

  test('signed with a key that it brings along', async () => {
    const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true })
    const header = { typ: 'at+jwt', alg: 'ES256', kid: await kidOf(), jwk: await exportJWK(publicKey) }
    expect(await tokens.read(await new SignJWT(claims()).setProtectedHeader(header).sign(privateKey))).toBeUndefined()
  })

  test('authenticated with our public key as if it were a shared secret', async () => {
    const secret = new TextEncoder().encode(JSON.stringify((await tokens.keys())[0]))
    const header = { typ: 'at+jwt', alg: 'HS256', kid: await kidOf() }
    expect(await tokens.read(await new SignJWT(claims()).setProtectedHeader(header).sign(secret))).toBeUndefined()
  })

  test('signed with our own key, but not as an access token', async () => {
    const { keys } = JSON.parse(await readFile(join(folder, 'tokens.json'), 'utf8')) as { keys: JWK[] }
    const key = await importJWK(keys[0] ?? {}, 'ES256')
    const sign = async (typ: string) => new SignJWT(claims()).setProtectedHeader({ typ, alg: 'ES256', kid: await kidOf() }).sign(key)
    expect(await tokens.read(await sign('at+jwt'))).toBeDefined()
    expect(await tokens.read(await sign('JWT'))).toBeUndefined()
  })

  test('changed after it was signed', async () => {
    const [header, , signature] = open(await mint(reserve())).split('.')
    const payload = Buffer.from(JSON.stringify(claims())).toString('base64url')
    expect(await tokens.read(`${header}.${payload}.${signature}`)).toBeUndefined()
  })

  test.each([
    ['of another type', { type: 'payment' }],
    ['with something besides', { actions: ['write'] }],
    ['with a parameter that is no text', { parameters: { customer: ['acme'] } }],
  ])('signed with our own key, with details %s', async (_, changes) => {
    const { keys } = JSON.parse(await readFile(join(folder, 'tokens.json'), 'utf8')) as { keys: JWK[] }
    const key = await importJWK(keys[0] ?? {}, 'ES256')
    const detail = { type: 'urn:mayfly:grant', identifier: 'g', parameters: { customer: 'acme' } }
    const sign = async (details: object) =>
      new SignJWT({ ...claims(), authorization_details: [details] }).setProtectedHeader({ typ: 'at+jwt', alg: 'ES256', kid: await kidOf() }).sign(key)
    expect(await tokens.read(await sign(detail))).toBeDefined()
    expect(await tokens.read(await sign({ ...detail, ...changes }))).toBeUndefined()
  })

  test('signed with the right key by a broker of another name', async () => {
    const other = await jwtKind.connect('tokens', jwtKind.settings.parse({}), {
      publicUrl: 'https://other.example.com',
      keys: folder,
      clock: () => now,
    })
    const token = open(await other.mint(reserve(), async () => {}, patient))
    expect(decodeProtectedHeader(token).kid).toBe(await kidOf())
    expect(await tokens.read(token)).toBeUndefined()
  })
})

describe('a grant of kind jwt', () => {
  test.each([
    ['a relative audience', { audience: 'invoices', scope: 'a' }],
    ['an audience with a fragment', { audience: 'https://a.example#b', scope: 'a' }],
    ['two spaces in its scope', { audience, scope: 'a  b' }],
    ['a quote in its scope', { audience, scope: 'a"b' }],
    ['an empty scope', { audience, scope: '' }],
    ['an unknown key', { audience, scope: 'a', claims: {} }],
  ])('is refused with %s', (_, grant) => {
    expect(jwtKind.grant.safeParse(grant).success).toBe(false)
  })

  test('accepts any absolute URI as its audience', () => {
    expect(jwtKind.grant.safeParse({ audience: 'urn:example:invoices', scope: 'invoices:read' }).success).toBe(true)
  })
})

test('the settings of kind jwt refuse a rotation faster than keys become known', () => {
  expect(jwtKind.settings.parse({})).toEqual({ algorithm: 'ES256', rotate_every: 86_400_000 })
  expect(jwtKind.settings.safeParse({ rotate_every: '5m' }).success).toBe(false)
  expect(jwtKind.settings.safeParse({ algorithm: 'RS256' }).success).toBe(false)
})
