import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/base/errors.ts'
import { createVerifier } from '../../src/identity/verify.ts'
import { audience, corp, gateFor, goodClaims, now, patient, publisher, signed, signingKey, start } from './given.ts'

const key = signingKey('k1')
const token = signed(key, goodClaims)
const { jti: _, ...nameless } = goodClaims

/** The order of P-256. */
const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

/** The other signature that verifies the same text: anyone can compute it, without any key. */
function twinOf(token: string): string {
  const [head, body, mark = ''] = token.split('.')
  const bytes = Buffer.from(mark, 'base64url')
  const s = BigInt(`0x${bytes.subarray(32).toString('hex')}`)
  const other = Buffer.from((n - s).toString(16).padStart(64, '0'), 'hex')
  return [head, body, Buffer.concat([bytes.subarray(0, 32), other]).toString('base64url')].join('.')
}

describe('A single-use token', () => {
  const gate = () => gateFor(corp(key, { replay: 'single-use' }))

  test('is accepted once', async () => {
    const { accept, refusal } = gate()
    await accept(token)
    expect(await refusal(token)).toEqual({ reason: 'replayed', issuer: 'corp' })
    await accept(signed(key, { ...goodClaims, jti: 'two' }))
  })

  test('is not lost when it is refused for something else', async () => {
    const gate = gateFor(corp(key, { replay: 'single-use' }))
    gate.now = start - 120_000
    expect((await gate.refusal(token))?.reason).toBe('issued_in_future')
    gate.now = start
    await gate.accept(token)
    expect(gate.spent.size).toBe(1)
  })

  test.each([
    ['a jti', goodClaims],
    ['no jti', nameless],
  ])('with %s is not fresh again in the guise of its twin signature', async (_, claims) => {
    const { accept, refusal } = gate()
    const first = signed(key, claims)
    const twin = twinOf(first)
    expect(twin).not.toBe(first)
    // It is a token in its own right for whoever does not remember the first.
    await gate().accept(twin)

    await accept(first)
    expect((await refusal(twin))?.reason).toBe('replayed')
  })

  test('is not spent for whom nobody knows, and is fresh for them once somebody does', async () => {
    const { verifier, spent, accept, refusal } = gate()
    const told: string[] = []
    for (let times = 0; times < 2; times++) await verifier.verify(token, patient, ({ subject }) => (told.push(subject), false))
    expect([told, spent.size]).toEqual([[goodClaims.sub, goodClaims.sub], 0])

    await verifier.verify(token, patient, () => true)

    expect(spent.size).toBe(1)
    expect((await refusal(token))?.reason).toBe('replayed')
    await expect(accept(token)).rejects.toMatchObject({ code: 'invalid_token' })
  })

  test('is known by its jti whatever else it says, and by its text where it has none', async () => {
    const { accept, refusal } = gate()
    await accept(token)
    expect((await refusal(signed(key, { ...goodClaims, exp: now + 601 })))?.reason).toBe('replayed')
    await accept(signed(key, nameless))
    await accept(signed(key, { ...nameless, exp: now + 601 }))
  })

  test('is used once even when it arrives twice at the same time', async () => {
    const { accept } = gate()
    const outcomes = await Promise.allSettled([accept(token), accept(token), accept(token)])
    expect(outcomes.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected', 'rejected'])
  })

  test('is remembered until nobody accepts it any more', async () => {
    const { accept, spent } = gate()
    await accept(token)
    const [remembered] = [...spent.values()]
    expect(remembered?.getTime()).toBeGreaterThanOrEqual((goodClaims.exp + 30) * 1_000)
  })

  test('leaves a digest behind, and nothing of the token', async () => {
    const { accept, spent } = gate()
    await accept(token)
    expect([...spent.keys()].join()).toMatch(/^[0-9a-f]{64}$/)
  })

  test('of one issuer is not used up by a token of another that has the same jti', async () => {
    const issuers = [corp(key, { replay: 'single-use' }), corp(key, { name: 'partner', issuer: 'https://partner.example.com', replay: 'single-use' })]
    const { accept } = gateFor(...issuers)
    await accept(token)
    expect((await accept(signed(key, { ...goodClaims, iss: 'https://partner.example.com' }))).issuer).toBe('partner')
  })

  test.each([
    ['a BrokerError', new BrokerError('store_unavailable', 'The ledger is full')],
    ['any error', new Error('connection refused')],
  ])('is not accepted while the ledger answers with %s', async (_, failure) => {
    const refused: string[] = []
    const spend = () => Promise.reject(failure)
    const verifier = createVerifier([corp(key, { replay: 'single-use' })], {
      audience,
      clock: () => start,
      spend,
      refused: (reason) => refused.push(reason),
    })
    const error: unknown = await verifier.verify(token, patient).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'store_unavailable' })
    expect(failure instanceof BrokerError ? error : (error as BrokerError).cause).toBe(failure)
    expect(refused).toEqual([])
  })
})

describe('A reusable token', () => {
  test('is accepted as often as it comes, and spends nothing', async () => {
    const { accept, spent } = gateFor(corp(key))
    const first = await accept(token)
    expect(await accept(token)).toBe(first)
    expect(spent.size).toBe(0)
  })

  test('that is remembered still ends in time', async () => {
    const gate = gateFor(corp(key))
    await gate.accept(token)
    gate.now = (goodClaims.exp + 29) * 1_000
    await gate.accept(token)
    gate.now = (goodClaims.exp + 30) * 1_000
    expect(await gate.refusal(token)).toEqual({ reason: 'expired', issuer: 'corp' })
  })

  test('that is remembered vouches for no other text, its own twin included', async () => {
    const { accept, refusal } = gateFor(corp(key))
    const first = await accept(token)
    const twin = await accept(twinOf(token))
    expect(twin).not.toBe(first)
    expect(twin).toEqual(first)
    expect((await refusal(`${token.slice(0, -8)}AAAAAAAA`))?.reason).toBeDefined()
  })

  test('that is remembered is refused once its issuer has withdrawn the key', async () => {
    const keys = await publisher()
    keys.answers('/keys', { keys: [key.jwk] })
    const gate = gateFor(corp(key, { keys: { url: `${keys.url}/keys` }, maxLifetime: 3_600_000 }))
    const long = signed(key, { ...goodClaims, exp: now + 3_000 })
    await gate.accept(long)
    keys.answers('/keys', { keys: [signingKey('k2').jwk] })
    gate.now = start + 12 * 60_000
    expect(await gate.refusal(long)).toEqual({ reason: 'unknown_key', issuer: 'corp' })
  })

  test('stays remembered when the same keys are published again, in whatever order', async () => {
    const keys = await publisher()
    const other = signingKey('k2')
    keys.answers('/keys', { keys: [key.jwk, other.jwk] })
    const gate = gateFor(corp(key, { keys: { url: `${keys.url}/keys` } }))
    const long = signed(key, { ...goodClaims, exp: now + 3_000 })
    const first = await gate.accept(long)
    keys.answers('/keys', { keys: [other.jwk, key.jwk] })
    gate.now = start + 12 * 60_000
    await gate.accept(signed(other, goodClaims, { alg: 'ES256', kid: 'k2' })).catch(() => undefined)
    expect(gate.fetches.map(({ outcome }) => outcome)).toEqual(['changed', 'unchanged'])
    expect(await gate.accept(long)).toBe(first)
  })
})
