import { describe, expect, test } from 'vitest'
import type { Issuer } from '../../src/identity/issuer.ts'
import { attributesOf } from '../../src/identity/profiles.ts'
import { parseSpiffeId } from '../../src/identity/spiffe.ts'
import { audience, type Gate, gateFor, now, publisher, type SigningKey, signed, signingKey, start } from './given.ts'

const key = signingKey('svid-1')
const next = signingKey('svid-2')
const id = 'spiffe://prod.example.com/agents/invoice-bot'
const claims = { sub: id, aud: [audience], exp: now + 300, iat: now - 10 }
const minute = 60_000

const forSvid = ({ jwk: { alg: _alg, ...jwk } }: SigningKey) => ({ ...jwk, use: 'jwt-svid' })
const bundle = (sequence: number | undefined, ...keys: SigningKey[]) => ({
  keys: keys.map(forSvid),
  spiffe_sequence: sequence,
  spiffe_refresh_hint: 60,
})
const spire = (more: Partial<Issuer> = {}): Issuer => ({
  name: 'spire',
  profile: 'spiffe',
  trustDomain: 'prod.example.com',
  keys: { jwks: bundle(1, key) },
  ...more,
})
const header = { alg: 'ES256', kid: 'svid-1' }
const svid = signed(key, claims, header)

describe('A SPIFFE ID', () => {
  test.each([
    ['spiffe://prod.example.com/agents/invoice-bot', 'prod.example.com', '/agents/invoice-bot'],
    ['spiffe://prod', 'prod', ''],
    ['spiffe://a_b-c.1/X.y_z-0/...', 'a_b-c.1', '/X.y_z-0/...'],
  ])('%s is read to the letter', (text, trustDomain, path) => {
    expect(parseSpiffeId(text)).toEqual({ trustDomain, path })
  })

  test.each([
    'SPIFFE://prod/a',
    'spiffe://Prod/a',
    'spiffe:/prod/a',
    'spiffe:///a',
    'https://prod/a',
    'spiffe://prod:8443/a',
    'spiffe://user@prod/a',
    'spiffe://prod/a/',
    'spiffe://prod/',
    'spiffe://prod//a',
    'spiffe://prod/./a',
    'spiffe://prod/a/..',
    'spiffe://prod/%61',
    'spiffe://prod/a?b',
    'spiffe://prod/a#b',
    'spiffe://prod/a b',
    'spiffe://prod/ä',
    'spiffe://prod/a\n',
    ` spiffe://prod/a`,
    `spiffe://prod/${'a'.repeat(2_048)}`,
    '',
    17,
    undefined,
  ])('is not %s', (text) => {
    expect(parseSpiffeId(text)).toBeUndefined()
  })
})

describe('A JWT-SVID', () => {
  test('proves a SPIFFE ID of its trust domain', async () => {
    const actor = await gateFor(spire()).accept(svid)
    expect(actor).toMatchObject({
      issuer: 'spire',
      profile: 'spiffe',
      subject: id,
      trustDomain: 'prod.example.com',
      attributes: { sub: id, 'spiffe/trust_domain': 'prod.example.com', 'spiffe/path': '/agents/invoice-bot' },
    })
    expect(Object.keys(actor.attributes).toSorted()).toEqual([...attributesOf(spire())].toSorted())
  })

  test('needs no time of issue, and must end within the hour all the same', async () => {
    const { accept, refusal } = gateFor(spire())
    await accept(signed(key, { sub: id, aud: audience, exp: now + 3_600 }, header))
    expect(await refusal(signed(key, { sub: id, aud: audience, exp: now + 3_601 }, header))).toEqual({ reason: 'lives_too_long', issuer: 'spire' })
  })

  test.each([
    ['another trust domain', { ...claims, sub: 'spiffe://test.example.com/a' }, header, 'unknown_issuer', 'unknown'],
    ['a subject that is no SPIFFE ID', { ...claims, sub: 'spiffe://prod.example.com/a/../b' }, header, 'unknown_issuer', 'unknown'],
    ['two audiences', { ...claims, aud: [audience, 'x'] }, header, 'wrong_audience', 'spire'],
    ['no end', { sub: id, aud: audience }, header, 'no_expiry', 'spire'],
    ['a header more than the standard has', claims, { ...header, x5t: 'x' }, 'wrong_type', 'spire'],
    ['another type', claims, { ...header, typ: 'at+jwt' }, 'wrong_type', 'spire'],
    ['the type of a workload identity token', claims, { ...header, typ: 'wit+jwt' }, 'wrong_type', 'spire'],
    ['no kid', claims, { alg: 'ES256' }, 'unknown_key', 'spire'],
  ])('with %s is refused', async (_, payload, head, reason, issuer) => {
    expect(await gateFor(spire()).refusal(signed(key, payload, head))).toEqual({ reason, issuer })
  })

  test('cannot be signed with EdDSA', async () => {
    const edwards = signingKey('svid-1', 'EdDSA')
    expect((await gateFor(spire()).refusal(signed(edwards, claims)))?.reason).toBe('algorithm_not_allowed')
  })

  test('of one trust domain is not vouched for by the bundle of another', async () => {
    const other: Issuer = {
      name: 'test',
      profile: 'spiffe',
      trustDomain: 'test.example.com',
      keys: { jwks: bundle(1, { ...next, jwk: { ...next.jwk, kid: 'svid-1' } }) },
    }
    const { refusal } = gateFor(spire(), other)
    expect(await refusal(signed(next, claims, header))).toEqual({ reason: 'bad_signature', issuer: 'spire' })
  })

  test('that names an issuer we know otherwise is judged by the rules of that issuer', async () => {
    const oidc: Issuer = { name: 'corp', profile: 'oidc', issuer: 'https://login.example.com', keys: { jwks: { keys: [next.jwk] } } }
    const { refusal } = gateFor(spire(), oidc)
    expect(await refusal(signed(key, { ...claims, iss: 'https://login.example.com' }, header))).toEqual({ reason: 'unknown_key', issuer: 'corp' })
  })
})

describe('A SPIFFE bundle', () => {
  async function served(...keys: SigningKey[]) {
    const endpoint = await publisher()
    endpoint.answers('/bundle', bundle(5, ...keys))
    const gate = gateFor(spire({ keys: { url: `${endpoint.url}/bundle` } }))
    return { endpoint, gate, asks: () => endpoint.asked.get('/bundle') ?? 0 }
  }
  const tokenAt = (gate: Gate, by = key): string =>
    signed(by, { ...claims, iat: gate.now / 1_000, exp: gate.now / 1_000 + 300 }, { alg: 'ES256', kid: by.kid })

  test.each([
    ['for certificates', { use: 'x509-svid' }],
    ['for signatures in general', { use: 'sig' }],
    ['for nothing it would say', { use: undefined }],
  ])('has keys of other uses that vouch for nothing: %s', async (_, { use }) => {
    const { endpoint, gate } = await served()
    endpoint.answers('/bundle', { ...bundle(5, next), keys: [forSvid(next), { ...forSvid(key), use }] })
    expect(await gate.refusal(tokenAt(gate))).toEqual({ reason: 'unknown_key', issuer: 'spire' })
    await gate.accept(tokenAt(gate, next))
  })

  test('is fetched again when its hint says so', async () => {
    const { endpoint, gate, asks } = await served(key)
    await gate.accept(tokenAt(gate))
    gate.now = start + 50_000
    await gate.accept(tokenAt(gate))
    expect(asks()).toBe(1)
    gate.now = start + minute
    await gate.accept(tokenAt(gate))
    await endpoint.askedFor('/bundle', 2)
  })

  test('that was emptied ends everything at once, and its old keys do not come back by an outage', async () => {
    const { endpoint, gate } = await served(key)
    await gate.accept(tokenAt(gate))
    endpoint.answers('/bundle', bundle(6))
    gate.now = start + 3 * minute
    expect((await gate.refusal(tokenAt(gate)))?.reason).toBe('unknown_key')
    expect(gate.verifier.ready()).toEqual([{ issuer: 'spire', ok: false, detail: '0 keys' }])

    await endpoint.close()
    gate.now = start + 6 * minute
    expect((await gate.refusal(tokenAt(gate)))?.reason).toBe('unknown_key')
  })

  test.each([
    ['an older sequence', bundle(4, next)],
    ['no sequence any more', bundle(undefined, next)],
    ['a sequence that is no number', { ...bundle(6, next), spiffe_sequence: '6' }],
  ])('does not go back: one with %s is not taken', async (_, older) => {
    const { endpoint, gate } = await served(key)
    await gate.accept(tokenAt(gate))
    endpoint.answers('/bundle', older)
    gate.now = start + 3 * minute
    expect((await gate.refusal(tokenAt(gate, next)))?.reason).toBe('unknown_key')
    await gate.accept(tokenAt(gate))
    expect(gate.fetches.at(-1)).toEqual({ issuer: 'spire', outcome: 'failed' })

    endpoint.answers('/bundle', bundle(6, next))
    gate.now = start + 6 * minute
    await gate.accept(tokenAt(gate, next))
  })
})
