import { lookup } from 'node:dns/promises'
import type { ServerResponse } from 'node:http'
import { hostname } from 'node:os'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { mayConnect } from '../../src/identity/address.ts'
import { corp, type Gate, gateFor, goodClaims, now, publisher, type SigningKey, signed, signingKey, start } from './given.ts'

const key = signingKey('k1')
const next = signingKey('k2')
const minute = 60_000
const hour = 60 * minute

/** Where the name of this machine points to, if that is where an issuer must not be. */
const own = await lookup(hostname()).catch(() => undefined)
const ownAddress = own && !mayConnect(own.address, hostname(), false) ? own.address : undefined

/** A token that is good at the clock of the gate, so that only its key can be at fault. */
const tokenBy = (key: SigningKey, gate: Gate): string => {
  const iat = gate.now / 1_000 - 5
  return signed(key, { ...goodClaims, iat, exp: iat + 600, jti: `${iat}` })
}

async function published(more: Parameters<typeof corp>[1] = {}) {
  const issuer = await publisher()
  issuer.answers('/keys', { keys: [key.jwk] })
  const gate = gateFor(corp(key, { keys: { url: `${issuer.url}/keys` }, ...more }))
  return { issuer, gate, asks: () => issuer.asked.get('/keys') ?? 0 }
}

describe('Keys that are fetched', () => {
  test('are asked for at the start, and by one request however many tokens wait for them', async () => {
    const { gate, asks } = await published()
    expect(gate.verifier.ready()).toEqual([{ issuer: 'corp', ok: false, detail: 'no keys: not fetched yet' }])
    await Promise.all(Array.from({ length: 50 }, () => gate.accept(tokenBy(key, gate))))
    expect(asks()).toBe(1)
    expect(gate.verifier.ready()).toEqual([{ issuer: 'corp', ok: true, detail: '1 keys' }])
  })

  test('are not asked for again while they are fresh, and renewed in the background when they are due', async () => {
    const { issuer, gate, asks } = await published()
    await gate.accept(tokenBy(key, gate))
    gate.now = start + 8 * minute
    await gate.accept(tokenBy(key, gate))
    expect(asks()).toBe(1)

    gate.now = start + 10 * minute
    let answer: (() => void) | undefined
    issuer.answers('/keys', (response) => (answer = () => void response.end(JSON.stringify({ keys: [key.jwk] }))))
    // Answered with the old set while the new one is on its way.
    await gate.accept(tokenBy(key, gate))
    await issuer.askedFor('/keys', 2)
    answer?.()
  })

  test('are renewed although no token comes, until the verifier is closed', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    for (const times of [2, 3, 4]) {
      gate.now += 10 * minute
      vi.advanceTimersToNextTimer()
      await issuer.askedFor('/keys', times)
      await gate.accept(tokenBy(key, gate))
    }
    gate.verifier.close()
    expect(vi.getTimerCount()).toBe(0)
  })

  test('are waited for when they grew old unseen, as on a machine that slept', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    issuer.answers('/keys', { keys: [next.jwk] })
    gate.now = start + 50 * minute
    expect(await gate.refusal(tokenBy(key, gate))).toEqual({ reason: 'unknown_key', issuer: 'corp' })
    await gate.accept(tokenBy(next, gate))
  })

  test('are renewed at once where the clock was ahead and is set back', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    issuer.answers('/keys', { keys: [next.jwk] })
    gate.now = start - 2 * hour
    await gate.accept(tokenBy(key, gate))
    await issuer.askedFor('/keys', 2)
    await gate.accept(tokenBy(next, gate))
    gate.now += minute
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('unknown_key')
  })

  test('are renewed when their time comes where the issuer failed while the clock was set back', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    issuer.answers('/keys', (response) => void response.writeHead(503).end())
    gate.now = start - 2 * hour
    await gate.accept(tokenBy(key, gate))
    await vi.waitFor(() => expect(gate.fetches.map(({ outcome }) => outcome)).toEqual(['changed', 'failed']), { timeout: 20_000 })
    issuer.answers('/keys', { keys: [next.jwk] })
    gate.now += 10 * minute
    await gate.accept(tokenBy(key, gate))
    await issuer.askedFor('/keys', 3)
  })

  test('rotate: an unknown key is looked for once, found, and the old one is gone with its set', async () => {
    const { issuer, gate, asks } = await published()
    await gate.accept(tokenBy(key, gate))
    issuer.answers('/keys', { keys: [next.jwk] })
    gate.now = start + 31_000
    await gate.accept(tokenBy(next, gate))
    expect(asks()).toBe(2)
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('unknown_key')
    expect(gate.fetches.map(({ outcome }) => outcome)).toEqual(['changed', 'changed'])
  })

  test('are asked for once in thirty seconds, however many tokens name invented ones', async () => {
    const { gate, asks } = await published()
    await gate.accept(tokenBy(key, gate))
    const storm = (at: number) =>
      Promise.all(
        Array.from({ length: 100 }, (_, kid) => gate.refusal(signed(key, goodClaims, { alg: 'ES256', kid: `${at}-${kid}` })).catch(() => undefined)),
      )
    await storm(0)
    expect(asks()).toBe(1)
    for (let second = 1; second <= 60; second++) {
      gate.now = start + second * 1_000
      await storm(second)
    }
    expect(asks()).toBe(3)
  })

  test('are not asked for by tokens of strangers, or of an algorithm that nobody uses', async () => {
    const { gate, asks } = await published({ algorithms: ['ES256'] })
    await gate.accept(tokenBy(key, gate))
    gate.now = start + minute
    await gate.refusal(signed(next, { ...goodClaims, iss: 'https://elsewhere.example.com' }))
    await gate.refusal(signed(signingKey('r', 'RS256'), goodClaims))
    expect(asks()).toBe(1)
  })

  test('leave a caller who gives up, and arrive for the others', async () => {
    const { issuer, gate } = await published()
    let answer: (() => void) | undefined
    issuer.answers('/keys', (response) => (answer = () => void response.end(JSON.stringify({ keys: [key.jwk] }))))
    const impatient = new AbortController()
    const left = gate.verifier.verify(tokenBy(key, gate), impatient.signal)
    const stays = gate.accept(tokenBy(key, gate))
    await issuer.askedFor('/keys', 1)
    impatient.abort()
    await expect(left).rejects.toMatchObject({ code: 'timed_out' })
    answer?.()
    expect((await stays).subject).toBe('invoice-bot')
  })
})

describe('An issuer that does not give its keys', () => {
  test('keeps some who bring unknown keys waiting while it hangs, and refuses the others at once', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    gate.now += minute
    issuer.answers('/keys', () => undefined)
    // The two seconds of a fetch are over when the test says so.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const strangers = Promise.allSettled(Array.from({ length: 200 }, () => gate.accept(tokenBy(next, gate))))
    while (gate.refusals.length < 136) await new Promise(setImmediate)
    await gate.accept(tokenBy(key, gate))
    expect(gate.refusals).toHaveLength(136)
    vi.advanceTimersByTime(2_000)
    expect((await strangers).filter(({ status }) => status === 'rejected')).toHaveLength(200)
  })

  const faults: readonly (readonly [string, (response: ServerResponse) => void, RegExp])[] = [
    ['answers with an error', (response) => void response.writeHead(500).end('{"keys":[]}'), /status 500/],
    ['sends elsewhere', (response) => void response.writeHead(302, { location: '/elsewhere' }).end(), /status 302/],
    ['answers garbage', (response) => void response.end('<html>'), /not JSON/],
    ['answers another JSON', (response) => void response.end('[]'), /not a JWK set/],
    ['names its keys twice', (response) => void response.end(`{"keys":[],"keys":[${JSON.stringify(key.jwk)}]}`), /names a key twice/],
    [
      'has no key that can be used',
      (response) => void response.end(JSON.stringify({ keys: [{ ...key.jwk, use: 'enc' }] })),
      /no key that can be used/,
    ],
    ['answers without end', (response) => void response.end(JSON.stringify({ keys: [key.jwk], more: 'x'.repeat(70_000) })), /larger than 65536/],
    ['publishes too many keys', (response) => void response.end(JSON.stringify({ keys: Array.from({ length: 65 }, () => key.jwk) })), /at most 64/],
    [
      'breaks off',
      (response) => void response.writeHead(200, { 'content-length': 5_000 }).write('{"keys":', () => response.destroy()),
      /connection|aborted|hang up/,
    ],
    ['never answers', () => undefined, /no answer within 2000 ms/],
    ['never finishes its answer', (response) => void response.writeHead(200).write('{"keys":['), /no answer within 2000 ms/],
  ]

  test.each(faults)('and %s gets no token accepted', async (_, fault, words) => {
    const { issuer, gate } = await published()
    issuer.answers('/elsewhere', { keys: [key.jwk] })
    issuer.answers('/keys', fault)
    expect(await gate.refusal(tokenBy(key, gate))).toEqual({ reason: 'keys_unavailable', issuer: 'corp' })
    expect(gate.verifier.ready()).toEqual([{ issuer: 'corp', ok: false, detail: expect.stringMatching(words) as string }])
    expect(issuer.asked.get('/elsewhere')).toBeUndefined()
  })

  test('is asked ever more rarely while its last keys are good, and heard again when it is back', async () => {
    const { issuer, gate, asks } = await published()
    await gate.accept(tokenBy(key, gate))
    issuer.answers('/keys', (response) => void response.writeHead(503).end())
    const due = start + 10 * minute
    for (let second = 0; second < 600; second++) {
      gate.now = due + second * 1_000
      await gate.accept(tokenBy(key, gate))
    }
    // Pauses of 1, 2, 4, … 60 s, of which up to half is taken off: the first, and at most the 26 of half of each. Nobody waits for them, so there may be fewer.
    await issuer.askedFor('/keys', 2)
    expect(asks()).toBeLessThanOrEqual(29)

    issuer.answers('/keys', { keys: [key.jwk, next.jwk] })
    gate.now += minute
    await gate.accept(tokenBy(next, gate))
  })

  test('is asked every few seconds while there are no keys, and accepted two seconds after it is back at the latest', async () => {
    const { issuer, gate, asks } = await published()
    issuer.answers('/keys', (response) => void response.writeHead(503).end())
    for (let second = 0; second < 600; second++) {
      gate.now = start + second * 1_000
      await gate.refusal(tokenBy(key, gate))
    }
    // Pauses of 2 s, of which up to half is taken off, and looked at once a second.
    expect(asks()).toBeGreaterThanOrEqual(295)
    expect(asks()).toBeLessThanOrEqual(600)

    issuer.answers('/keys', { keys: [key.jwk] })
    gate.now += 2_000
    await gate.accept(tokenBy(key, gate))
  })

  test('is trusted by its last keys for an hour after they were due, and no longer', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    await issuer.close()
    gate.now = start + 11 * minute
    await gate.accept(tokenBy(key, gate)).catch(() => undefined)
    gate.now = start + hour
    await gate.accept(tokenBy(key, gate))
    expect(gate.verifier.ready()[0]).toMatchObject({ ok: true, detail: expect.stringContaining('fetching fails') as string })
    gate.now = start + 10 * minute + hour
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('keys_unavailable')
    expect(gate.verifier.ready()[0]).toMatchObject({ ok: false })
  })

  test('while the clock is ahead is asked as soon as it is right', async () => {
    const { issuer, gate } = await published()
    issuer.answers('/keys', (response) => void response.writeHead(503).end())
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('keys_unavailable')
    issuer.answers('/keys', { keys: [key.jwk] })
    gate.now = start - 2 * hour
    await gate.accept(tokenBy(key, gate))
  })

  test('is trusted by its last keys no longer where the clock was ahead and is set back', async () => {
    const { issuer, gate } = await published()
    await gate.accept(tokenBy(key, gate))
    await issuer.close()
    gate.now = start - 2 * hour
    await gate.accept(tokenBy(key, gate)).catch(() => undefined)
    gate.now += 10 * minute + hour
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('keys_unavailable')
  })

  test('keeps its tokens out of the memory too once its keys are too old', async () => {
    const { issuer, gate } = await published()
    const long = signed(key, { ...goodClaims, iat: now, exp: now + 3_600 })
    await gate.accept(long)
    await issuer.close()
    gate.now = start + 20 * minute
    await gate.accept(long)
    gate.now = start + 10 * minute + hour
    // Two refusals: neither is answered from what was verified before.
    expect((await gate.refusal(long))?.reason).toBe('keys_unavailable')
    expect((await gate.refusal(long))?.reason).toBe('keys_unavailable')
  })

  test('is asked nothing any more after the verifier was closed', async () => {
    const { gate, asks } = await published()
    await gate.accept(tokenBy(key, gate))
    gate.verifier.close()
    gate.now = start + 30 * minute
    await gate.accept(tokenBy(key, gate))
    expect(asks()).toBe(1)
  })

  test('lets a request that is under way go when the verifier is closed', async () => {
    const { issuer, gate } = await published()
    issuer.answers('/keys', () => undefined)
    const waits = gate.refusal(tokenBy(key, gate))
    await issuer.askedFor('/keys', 1)
    gate.verifier.close()
    expect((await waits)?.reason).toBe('keys_unavailable')
  })
})

describe('An issuer inside of a private network', () => {
  test.each(['http://10.0.0.1/keys', 'https://192.168.1.1/keys', 'https://[fd00::1]/keys', 'https://169.254.169.254/keys'])(
    'is not asked at %s',
    async (url) => {
      const gate = gateFor(corp(key, { keys: { url }, allowHttp: true }))
      expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('keys_unavailable')
      expect(gate.verifier.ready()[0]?.detail).toMatch(/private network/)
    },
  )

  test.skipIf(ownAddress === undefined)('is not reached by a name that points there', async () => {
    const issuer = await publisher('0.0.0.0')
    issuer.answers('/keys', { keys: [key.jwk] })
    const url = `${issuer.url.replace('127.0.0.1', hostname())}/keys`
    const gate = gateFor(corp(key, { keys: { url }, allowHttp: true }))
    expect((await gate.refusal(tokenBy(key, gate)))?.reason).toBe('keys_unavailable')
    expect(gate.verifier.ready()[0]?.detail).toMatch(/private network/)
    expect(issuer.asked.size).toBe(0)
  })
})

describe('Discovery', () => {
  async function discovered(document: (url: string) => object) {
    const issuer = await publisher()
    issuer.answers('/.well-known/openid-configuration', document(issuer.url))
    issuer.answers('/keys', { keys: [key.jwk] })
    const gate = gateFor(corp(key, { issuer: issuer.url, keys: { discovery: true } }))
    return { issuer, gate, token: signed(key, { ...goodClaims, iss: issuer.url }) }
  }

  test('finds the keys once, and is pinned then', async () => {
    const { issuer, gate, token } = await discovered((url) => ({ issuer: url, jwks_uri: `${url}/keys` }))
    await gate.accept(token)
    issuer.answers('/.well-known/openid-configuration', { issuer: issuer.url, jwks_uri: `${issuer.url}/others` })
    gate.now = start + 30 * minute
    await gate.accept(signed(key, { ...goodClaims, iss: issuer.url, iat: now + 1_700, exp: now + 2_000 }))
    expect(Object.fromEntries(issuer.asked)).toEqual({ '/.well-known/openid-configuration': 1, '/keys': 2 })
  })

  test.each([
    ['is of another issuer', (url: string) => ({ issuer: `${url}/`, jwks_uri: `${url}/keys` }), /another issuer/],
    ['points to another host', (url: string) => ({ issuer: url, jwks_uri: 'https://keys.example.com/keys' }), /another host/],
    ['points to another port', (url: string) => ({ issuer: url, jwks_uri: 'http://127.0.0.1:1/keys' }), /another host/],
    ['points to a file', (url: string) => ({ issuer: url, jwks_uri: 'file:///etc/passwd' }), /not an https URL/],
    ['has no keys', (url: string) => ({ issuer: url }), /no jwks_uri/],
  ])('is not followed where the document %s', async (_, document, words) => {
    const { gate, token, issuer } = await discovered(document)
    expect((await gate.refusal(token))?.reason).toBe('keys_unavailable')
    expect(gate.verifier.ready()[0]?.detail).toMatch(words)
    expect(issuer.asked.get('/keys')).toBeUndefined()
  })
})
