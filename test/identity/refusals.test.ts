import { createHmac } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { audience, corp, encoded, gateFor, goodClaims, now, signed, signingKey } from './given.ts'

const key = signingKey('k1')
const rsa = signingKey('r1', 'RS256')
const stranger = signingKey('k1')
const header = { alg: 'ES256', kid: 'k1', typ: 'JWT' }

const gate = () => gateFor(corp(key, { keys: { jwks: { keys: [key.jwk, rsa.jwk] } } }))
const without = (name: keyof typeof goodClaims) => Object.fromEntries(Object.entries(goodClaims).filter(([claim]) => claim !== name))
const good = signed(key, goodClaims)
const [head = '', body = '', mark = ''] = good.split('.')

/** A segment with one of the bits behind its last byte set: other text, same bytes for a reader who does not look. */
function withTrailingBit(segment: string): string {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  const last = letters.indexOf(segment.at(-1) ?? '')
  const other = segment.slice(0, -1) + letters.charAt(last ^ 1)
  expect(Buffer.from(other, 'base64url')).toEqual(Buffer.from(segment, 'base64url'))
  return other
}

test('A good token proves who its bearer is, and leaves behind what finds it in the log of its issuer', async () => {
  const actor = await gate().accept(good)
  expect(actor).toEqual({
    issuer: 'corp',
    profile: 'oidc',
    subject: 'invoice-bot',
    trustDomain: undefined,
    attributes: { iss: 'https://login.example.com', sub: 'invoice-bot' },
    token: { digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string, jti: 'one', kid: 'k1', alg: 'ES256', expiresAt: now + 600 },
  })
})

test.each(['ES256', 'ES384', 'RS256', 'PS256', 'EdDSA'] as const)('A token signed with %s is verified with a key for it', async (alg) => {
  const own = signingKey('own', alg)
  expect((await gateFor(corp(own)).accept(signed(own, goodClaims))).subject).toBe('invoice-bot')
})

describe('Every bad token gets the very same answer, and its own reason in the log', () => {
  const from = 'corp'
  const hmac = (secret: string | Buffer): string => {
    const input = `${encoded({ ...header, alg: 'HS256' })}.${encoded(goodClaims)}`
    return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
  }
  const cases: readonly (readonly [what: string, token: string, reason: string, issuer?: string])[] = [
    ['none at all', '', 'missing'],
    ['one character more than 8 KiB', 'a'.repeat(8_193), 'too_large'],
    ['a long but well-formed one', signed(key, { ...goodClaims, note: 'x'.repeat(8_000) }), 'too_large'],
    ['text that is no token', 'mayfly', 'malformed'],
    ['two segments', `${head}.${body}`, 'malformed'],
    ['four segments', `${good}.${mark}`, 'malformed'],
    ['five segments, as an encrypted token has', `${head}.${body}.${mark}.${mark}.${mark}`, 'malformed'],
    ['an empty header', `.${body}.${mark}`, 'malformed'],
    ['an empty payload', `${head}..${mark}`, 'malformed'],
    ['a space in front', ` ${good}`, 'malformed'],
    ['a space inside', `${head}. ${body}.${mark}`, 'malformed'],
    ['a line break behind', `${good}\n`, 'malformed'],
    ['padding', `${head}.${body}.${mark}==`, 'malformed'],
    ['the other base64 alphabet', `${head}.${body}.${mark.slice(0, -4)}+/+/`, 'malformed'],
    ['bits behind the end of its signature', `${head}.${body}.${withTrailingBit(mark)}`, 'malformed'],
    ['a lone letter that is no byte', `${head}.${body}.${mark}AAA`, 'malformed'],
    ['a header that is not JSON', `${encoded('{')}.${body}.${mark}`, 'malformed'],
    ['a header that is a list', `${encoded('[]')}.${body}.${mark}`, 'malformed'],
    ['a header that names a key twice', signed(key, goodClaims, '{"alg":"ES256","kid":"k1","kid":"k2"}'), 'malformed'],
    ['a header that is not UTF-8', `${Buffer.from('7b22616c67223a22ff227d', 'hex').toString('base64url')}.${body}.${mark}`, 'malformed'],
    ['a byte order mark', signed(key, `\uFEFF${JSON.stringify(goodClaims)}`), 'malformed'],
    ['a payload that is text', signed(key, '"text"'), 'malformed'],
    ['a payload that is null', signed(key, 'null'), 'malformed'],
    ['a header without alg', signed(key, goodClaims, { kid: 'k1' }), 'malformed'],
    ['a kid that is a number', signed(key, goodClaims, { alg: 'ES256', kid: 1 }), 'malformed'],
    ['a NUL in its kid, which the ledger could not keep', signed(key, goodClaims, { ...header, kid: 'k1\0' }), 'malformed'],
    ['half a surrogate pair in its kid', signed(key, goodClaims, { ...header, kid: 'k1\ud83e' }), 'malformed'],
    ['its own key in the header', signed(stranger, goodClaims, { ...header, jwk: stranger.jwk }), 'header_not_allowed'],
    ['the address of its own key', signed(stranger, goodClaims, { ...header, jku: 'https://evil.example' }), 'header_not_allowed'],
    ['its own certificate', signed(stranger, goodClaims, { ...header, x5c: ['MII'] }), 'header_not_allowed'],
    ['the address of its own certificate', signed(key, goodClaims, { ...header, x5u: 'https://evil.example' }), 'header_not_allowed'],
    ['a critical header', signed(key, goodClaims, { ...header, crit: ['exp'] }), 'header_not_allowed'],
    ['an unencoded payload', signed(key, goodClaims, { ...header, b64: false }), 'header_not_allowed'],
    ['compression', signed(key, goodClaims, { ...header, zip: 'DEF' }), 'header_not_allowed'],
    ['a header of no known name', signed(key, goodClaims, { ...header, cty: 'JWT' }), 'header_not_allowed'],
    ['alg none and no signature', `${encoded({ ...header, alg: 'none' })}.${body}.`, 'algorithm_not_allowed'],
    ['alg none and a signature', signed(key, goodClaims, { ...header, alg: 'none' }), 'algorithm_not_allowed'],
    ['alg nOnE', signed(key, goodClaims, { ...header, alg: 'nOnE' }), 'algorithm_not_allowed'],
    ['an HMAC with the public key as its secret', hmac(key.publicKey.export({ type: 'spki', format: 'pem' })), 'algorithm_not_allowed'],
    ['an HMAC with the published key as its secret', hmac(JSON.stringify(key.jwk)), 'algorithm_not_allowed'],
    ['no issuer', signed(key, without('iss')), 'unknown_issuer'],
    ['another issuer', signed(key, { ...goodClaims, iss: 'https://login.example.org' }), 'unknown_issuer'],
    ['an issuer with a slash too many', signed(key, { ...goodClaims, iss: `${goodClaims.iss}/` }), 'unknown_issuer'],
    ['an issuer in capitals', signed(key, { ...goodClaims, iss: goodClaims.iss.toUpperCase() }), 'unknown_issuer'],
    ['an issuer that is a list', signed(key, { ...goodClaims, iss: [goodClaims.iss] }), 'unknown_issuer'],
    ['the type of a proof', signed(key, goodClaims, { ...header, typ: 'dpop+jwt' }), 'wrong_type', from],
    ['the type of a logout token', signed(key, goodClaims, { ...header, typ: 'logout+jwt' }), 'wrong_type', from],
    ['no kid', signed(key, goodClaims, { alg: 'ES256' }), 'unknown_key', from],
    ['an unknown kid', signed(key, goodClaims, { ...header, kid: 'k2' }), 'unknown_key', from],
    ['a kid that is a path', signed(key, goodClaims, { ...header, kid: '../../dev/null' }), 'unknown_key', from],
    ['a kid that every object has', signed(key, goodClaims, { ...header, kid: '__proto__' }), 'unknown_key', from],
    ['the kid of a key for another algorithm', signed(key, goodClaims, { ...header, kid: 'r1' }), 'algorithm_not_allowed', from],
    ['an RSA key used with another padding', signed({ ...rsa, alg: 'PS256' }, goodClaims), 'algorithm_not_allowed', from],
    ['the key of a stranger under a known name', signed(stranger, goodClaims), 'bad_signature', from],
    ['no signature', `${head}.${body}.`, 'bad_signature', from],
    ['a signature of zeros', `${head}.${body}.${Buffer.alloc(64).toString('base64url')}`, 'bad_signature', from],
    ['the signature of another token', `${head}.${encoded({ ...goodClaims, sub: 'operator' })}.${mark}`, 'bad_signature', from],
    ['two subjects', signed(key, JSON.stringify(goodClaims).replace('{', '{"sub":"operator",')), 'duplicate_key', from],
    [
      'two subjects, one spelt with an escape',
      signed(key, JSON.stringify(goodClaims).replace('{', '{"\\u0073ub":"operator",')),
      'duplicate_key',
      from,
    ],
    ['two values deep inside', signed(key, JSON.stringify({ ...goodClaims, a: 0 }).replace('"a":0', '"a":{"b":1,"b":2}')), 'duplicate_key', from],
    [
      'a payload of a hundred levels',
      signed(key, JSON.stringify({ ...goodClaims, a: 0 }).replace('"a":0', `"a":${'['.repeat(100)}${']'.repeat(100)}`)),
      'duplicate_key',
      from,
    ],
    ['no subject', signed(key, without('sub')), 'malformed', from],
    ['an empty subject', signed(key, { ...goodClaims, sub: '' }), 'malformed', from],
    ['a NUL in its subject, which the ledger could not keep', signed(key, { ...goodClaims, sub: 'invoice\0bot' }), 'malformed', from],
    ['half a surrogate pair in its subject', signed(key, { ...goodClaims, sub: 'invoice-\ud83e' }), 'malformed', from],
    ['an escape sequence of terminals in its subject', signed(key, { ...goodClaims, sub: '\u001b[2Jbot' }), 'malformed', from],
    ['a NUL in its id', signed(key, { ...goodClaims, jti: '\0' }), 'malformed', from],
    ['an end that is text', signed(key, { ...goodClaims, exp: `${now + 600}` }), 'malformed', from],
    ['an end after all dates', signed(key, { ...goodClaims, exp: 1e300 }), 'malformed', from],
    ['no audience', signed(key, without('aud')), 'wrong_audience', from],
    ['another audience', signed(key, { ...goodClaims, aud: 'https://other.example.com' }), 'wrong_audience', from],
    ['an audience with a slash too many', signed(key, { ...goodClaims, aud: `${audience}/` }), 'wrong_audience', from],
    ['two audiences', signed(key, { ...goodClaims, aud: [audience, 'https://other.example.com'] }), 'wrong_audience', from],
    ['our audience twice', signed(key, { ...goodClaims, aud: [audience, audience] }), 'wrong_audience', from],
    ['a list of no audience', signed(key, { ...goodClaims, aud: [] }), 'wrong_audience', from],
    ['no end', signed(key, without('exp')), 'no_expiry', from],
    ['an end in the past', signed(key, { ...goodClaims, exp: now - 30 }), 'expired', from],
    ['a beginning in the future', signed(key, { ...goodClaims, nbf: now + 31 }), 'not_yet_valid', from],
    ['no time of issue', signed(key, without('iat')), 'no_issue_time', from],
    ['a time of issue in the future', signed(key, { ...goodClaims, iat: now + 31 }), 'issued_in_future', from],
    ['a life of more than an hour', signed(key, { ...goodClaims, iat: now - 3_000, exp: now + 601 }), 'lives_too_long', from],
    ['a life of a year', signed(key, { ...goodClaims, exp: now + 31_536_000 }), 'lives_too_long', from],
  ]

  for (const [what, token, reason, issuer = 'unknown'] of cases) {
    test(what, async () => {
      expect(await gate().refusal(token)).toEqual({ reason, issuer })
    })
  }
})

test('A list with our audience alone is our audience', async () => {
  expect((await gate().accept(signed(key, { ...goodClaims, aud: [audience] }))).subject).toBe('invoice-bot')
})

test('Clocks may differ by thirty seconds, and by no second more', async () => {
  const { accept } = gate()
  await accept(signed(key, { ...goodClaims, exp: now - 29 }))
  await accept(signed(key, { ...goodClaims, iat: now + 30, nbf: now + 30 }))
  await accept(signed(key, { ...goodClaims, iat: now - 3_000, exp: now + 600 }))
})

test('The longest life of a token is a matter of the configuration', async () => {
  const { refusal, accept } = gateFor(corp(key, { maxLifetime: 120_000 }))
  await accept(signed(key, { ...goodClaims, iat: now - 60, exp: now + 60 }))
  expect(await refusal(signed(key, { ...goodClaims, iat: now - 60, exp: now + 61 }))).toEqual({ reason: 'lives_too_long', issuer: 'corp' })
})

test('An algorithm that the issuer does not use is refused although a key of the set is for it', async () => {
  const { refusal } = gateFor(corp(key, { algorithms: ['RS256'], keys: { jwks: { keys: [key.jwk, rsa.jwk] } } }))
  expect(await refusal(good)).toEqual({ reason: 'algorithm_not_allowed', issuer: 'corp' })
})

test('A key vouches for its own issuer only: the key of another, under the same name, is of no use', async () => {
  const other = signingKey('k1')
  const issuers = [corp(key), corp(other, { name: 'partner', issuer: 'https://partner.example.com' })]
  const { refusal, accept } = gateFor(...issuers)
  expect(await refusal(signed(other, goodClaims))).toEqual({ reason: 'bad_signature', issuer: 'corp' })
  expect((await accept(signed(other, { ...goodClaims, iss: 'https://partner.example.com' }))).issuer).toBe('partner')
})

test('The first fault is the one that is told', async () => {
  const { refusal } = gate()
  const wrongInEveryWay = { ...goodClaims, aud: 'x', exp: 0, iat: now + 900 }
  expect((await refusal(signed(stranger, wrongInEveryWay)))?.reason).toBe('bad_signature')
  expect((await refusal(signed(key, wrongInEveryWay)))?.reason).toBe('wrong_audience')
  expect((await refusal(signed(key, { ...wrongInEveryWay, aud: audience })))?.reason).toBe('expired')
})
