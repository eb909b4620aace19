import { describe, expect, test } from 'vitest'
import { ConfigurationError } from '../../src/base/errors.ts'
import { mayConnect } from '../../src/identity/address.ts'
import { type Issuer, type IssuerFault, issuerFaults, rulesOf } from '../../src/identity/issuer.ts'
import { readKeys } from '../../src/identity/jwk.ts'
import { createVerifier } from '../../src/identity/verify.ts'
import { audience, corp, signingKey, start } from './given.ts'

const key = signingKey('k1')
const rsa = signingKey('r1', 'RS256')
const discovery = { discovery: true } as const

describe('An issuer needs no more than its name, its profile, where it is, and its keys', () => {
  const jwks = { keys: [{ ...key.jwk, use: 'jwt-svid' }] }
  const least: readonly Issuer[] = [
    { name: 'spire', profile: 'spiffe', trustDomain: 'prod.example.com', keys: { jwks } },
    { name: 'cluster', profile: 'kubernetes', issuer: 'https://kubernetes.default.svc', keys: discovery },
    { name: 'ci', profile: 'github-actions', keys: discovery },
    { name: 'corp', profile: 'oidc', issuer: 'https://login.example.com', keys: discovery },
  ]

  test('and the profile decides the rest', () => {
    expect(issuerFaults(least)).toEqual([])
    expect(least.map(rulesOf).map(({ replay }) => replay)).toEqual(['reusable', 'reusable', 'single-use', 'reusable'])
    expect(least.map(rulesOf).map(({ maxLifetime }) => maxLifetime)).toEqual([3_600_000, 3_600_000, 3_600_000, 3_600_000])
    expect(least.map(rulesOf).map(({ algorithms }) => algorithms.filter((algorithm) => /^(HS|none)/.test(algorithm)))).toEqual([[], [], [], []])
    expect(rulesOf({ name: 'ci', profile: 'github-actions', keys: discovery }).issuer).toBe('https://token.actions.githubusercontent.com')
  })
})

describe('An issuer is refused at the start', () => {
  const oidc = { name: 'corp', profile: 'oidc', issuer: 'https://login.example.com', keys: discovery } as const
  const spiffe = { name: 'spire', profile: 'spiffe', trustDomain: 'prod.example.com', keys: { url: 'https://bundle.example.com' } } as const
  test.each<readonly [string, Issuer, IssuerFault['key'], RegExp]>([
    ['with an HMAC algorithm', { ...oidc, algorithms: ['HS256'] }, 'algorithms', /asymmetric ones only .* not HS256$/],
    ['with alg none', { ...oidc, algorithms: ['RS256', 'none'] }, 'algorithms', /asymmetric ones only .* not none$/],
    ['with no algorithm', { ...oidc, algorithms: [] }, 'algorithms', /must not be empty/],
    ['with no issuer', { ...oidc, issuer: undefined }, 'issuer', /is missing/],
    ['with an issuer that cannot be asked for keys', { ...oidc, issuer: 'urn:corp' }, 'keys', /no https URL at which keys could be discovered/],
    ['with keys in clear text', { ...oidc, keys: { url: 'http://login.example.com/keys' } }, 'keys', /an https URL/],
    ['with keys in a file that it would be asked for', { ...oidc, keys: { url: 'file:///keys.json' } }, 'keys', /an https URL/],
    ['with credentials in an address', { ...oidc, keys: { url: 'https://user:word@login.example.com/keys' } }, 'keys', /without credentials/],
    ['with an endless life', { ...oidc, maxLifetime: Infinity }, 'max_lifetime', /positive duration/],
    ['with a name that stands for strangers', { ...oidc, name: 'unknown' }, 'name', /stands for all strangers/],
    ['with a trust domain where there is none', { ...oidc, trustDomain: 'prod.example.com' }, 'trust_domain', /for spiffe only/],
    ['with claims that its profile does not look at', { ...spiffe, require: { team: 'x' } }, 'require', /for oidc only/],
    ['with SPIFFE and no trust domain', { ...spiffe, trustDomain: undefined }, 'trust_domain', /is missing/],
    ['with SPIFFE and a trust domain that is none', { ...spiffe, trustDomain: 'prod.example.com/path' }, 'trust_domain', /must be a trust domain/],
    ['with SPIFFE and an issuer', { ...spiffe, issuer: 'https://login.example.com' }, 'issuer', /is not for spiffe/],
    ['with SPIFFE and discovery', { ...spiffe, keys: discovery }, 'keys', /address of the bundle/],
    [
      'with GitHub elsewhere',
      { name: 'ci', profile: 'github-actions', issuer: 'https://ghe.example.com', keys: discovery },
      'issuer',
      /another one is oidc/,
    ],
    ['with no pinned key that can be used', corp(key, { keys: { jwks: { keys: [] } } }), 'keys', /none of the pinned keys/],
    ['with a pinned set that is none', corp(key, { keys: { jwks: [] } }), 'keys', /none of the pinned keys/],
  ])('%s', (_, issuer, key, words) => {
    expect(issuerFaults([issuer])).toEqual([{ at: 0, key, message: expect.stringMatching(words) as string }])
  })

  test('with another of its name or origin, and with all faults at once', () => {
    const twice = [oidc, { ...oidc }, { ...oidc, name: 'other' }, { ...spiffe, trustDomain: 'X' }]
    const parts = { audience, clock: () => start, spend: async () => true, refused: () => {} }
    let error: unknown
    try {
      createVerifier(twice, parts)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ConfigurationError)
    expect((error as ConfigurationError).faults).toEqual([
      'issuer corp: name: is the name of an issuer above',
      'issuer corp: issuer: is that of an issuer above',
      'issuer other: issuer: is that of an issuer above',
      'issuer spire: trust_domain: must be a trust domain such as prod.example.com',
    ])
  })
})

describe('A published key is used', () => {
  const rules = { profile: 'oidc', algorithms: ['ES256', 'RS256', 'PS256', 'EdDSA'] } as const
  const kidsOf = (...keys: unknown[]) => readKeys({ keys }, rules).map(({ kid, alg }) => `${kid} ${alg}`)
  const even = (number: unknown): string => {
    const bytes = Buffer.from(String(number), 'base64url')
    bytes[bytes.length - 1] = 0
    return bytes.toString('base64url')
  }

  test('for one algorithm: its own, or the first of the issuer that it can do', () => {
    const edwards = signingKey('e1', 'EdDSA')
    expect(kidsOf(key.jwk, rsa.jwk, edwards.jwk)).toEqual(['k1 ES256', 'r1 RS256', 'e1 EdDSA'])
    expect(kidsOf({ ...rsa.jwk, alg: 'PS256' })).toEqual(['r1 PS256'])
    expect(kidsOf({ ...rsa.jwk, alg: undefined }, { ...key.jwk, alg: undefined, use: undefined })).toEqual(['r1 RS256', 'k1 ES256'])
  })

  test.each([
    ['with a small modulus', signingKey('r1', 'RS256', 1_024).jwk],
    ['with exponent 1', { ...rsa.jwk, e: 'AQ' }],
    ['with exponent 3', { ...rsa.jwk, e: 'Aw' }],
    ['with an even exponent', { ...rsa.jwk, e: 'AQAC' }],
    ['with an even modulus', { ...rsa.jwk, n: even(rsa.jwk['n']) }],
    ['with an exponent that costs', { ...rsa.jwk, e: rsa.jwk['n'] }],
    ['with its private part', { ...key.privateKey.export({ format: 'jwk' }), kid: 'k1', alg: 'ES256' }],
    ['that is a shared secret', { kty: 'oct', k: 'c2VjcmV0', kid: 'k1', alg: 'HS256' }],
    ['for encryption', { ...key.jwk, use: 'enc' }],
    ['for wrapping keys', { ...key.jwk, key_ops: ['wrapKey'] }],
    ['for an algorithm that the issuer does not use', signingKey('k1', 'ES384').jwk],
    ['for an algorithm of another type of key', { ...key.jwk, alg: 'RS256' }],
    ['for HMAC', { ...rsa.jwk, alg: 'HS256' }],
    ['without a name', { ...key.jwk, kid: undefined }],
    ['with a NUL in its name, which the ledger could not keep', { ...key.jwk, kid: 'k1\0' }],
    ['with half a surrogate pair in its name', { ...key.jwk, kid: 'k1\ud83e' }],
    ['on another curve', { ...key.jwk, crv: 'secp256k1' }],
    ['that is no key', 'key'],
  ])('unless it is one %s; the others stay', (_, unfit) => {
    expect(kidsOf(unfit, { ...key.jwk, kid: 'fit' })).toEqual(['fit ES256'])
  })

  test('unless another has its name; a mere repetition does no harm', () => {
    expect(kidsOf(key.jwk, signingKey('k1').jwk, rsa.jwk)).toEqual(['r1 RS256'])
    expect(kidsOf(key.jwk, key.jwk)).toEqual(['k1 ES256'])
  })
})

describe('Keys are fetched', () => {
  const name = 'login.example.com'
  test.each(['93.184.216.34', '2606:2800:220:1::1'])('from %s', (address) => {
    expect(mayConnect(address, name, false)).toBe(true)
  })

  test.each(['10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.0.1', '100.64.0.1', 'fd12::1', '64:ff9b::a00:1', '::ffff:10.0.0.1'])(
    'from %s only where private addresses are allowed',
    (address) => {
      expect(mayConnect(address, name, false)).toBe(false)
      expect(mayConnect(address, name, true)).toBe(true)
    },
  )

  test.each(['127.0.0.1', '127.1.2.3', '::1', '::ffff:127.0.0.1'])('from %s only where the address itself says so', (address) => {
    expect(mayConnect(address, name, true)).toBe(false)
    expect(mayConnect(address, 'localhost', false)).toBe(true)
    expect(mayConnect(address, '[::1]', false)).toBe(true)
  })

  test.each([
    '169.254.169.254',
    '::ffff:169.254.169.254',
    'fe80::1',
    'fd00:ec2::254',
    '0.0.0.0',
    '::',
    '224.0.0.1',
    '255.255.255.255',
    'ff02::1',
    'name',
  ])('from %s never', (address) => {
    expect(mayConnect(address, name, true)).toBe(false)
    expect(mayConnect(address, 'localhost', true)).toBe(false)
  })
})
