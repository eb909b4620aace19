import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, symlink, unlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeProtectedHeader } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConfigurationError } from '../../src/base/errors.ts'
import { keyFile } from '../../src/providers/jwt/keyfile.ts'
import { openKeyring } from '../../src/providers/jwt/keyring.ts'
import { newKey } from '../../src/providers/jwt/ring.ts'
import { jwtKind } from '../../src/providers/jwt/jwt.ts'
import { type Provider, ProviderError } from '../../src/providers/provider.ts'
import { reservationOf } from './reservation.ts'

const minute = 60_000
const hour = 60 * minute
const patient = new AbortController().signal
let folder: string
let ring: string
/** Behind the machine's clock, so that no test runs ahead of the times that the file system writes. */
let now: number

beforeEach(async () => {
  folder = join(await mkdtemp(join(tmpdir(), 'mayfly-ring-')), 'keys')
  ring = join(folder, 'tokens.json')
  now = Date.now() - 30 * 24 * hour
})
afterEach(() => rm(join(folder, '..'), { recursive: true }))

const broker = (settings: object = {}): Promise<Provider> =>
  jwtKind.connect('tokens', jwtKind.settings.parse(settings), { publicUrl: 'https://broker.example.com', keys: folder, clock: () => now })

async function tokenOf(provider: Provider, life = 24 * hour): Promise<string> {
  const settings = { audience: 'https://invoices.example.com', scope: 'invoices:read' }
  const reservation = reservationOf(settings, { issuedAt: new Date(now), expiresAt: new Date(now + life) })
  const { credential } = await provider.mint(reservation, async () => {}, patient)
  if (credential.type !== 'bearer_token') throw new Error('not a token')
  return credential.token.open()
}

const signerOf = async (provider: Provider) => decodeProtectedHeader(await tokenOf(provider)).kid
const keysOf = async (provider: Provider) => (await provider.tokens?.keys())?.map((key) => key['kid']) ?? []
const reads = async (provider: Provider, token: string) => (await provider.tokens?.read(token)) !== undefined

/** Moves the clock in steps of a minute, with a look at the keys after each, as a broker in use would. */
async function pass(milliseconds: number, ...brokers: Provider[]) {
  for (const end = now + milliseconds; now < end; now = Math.min(end, now + minute)) for (const provider of brokers) await keysOf(provider)
  for (const provider of brokers) await keysOf(provider)
}

describe('a key ring', () => {
  test('starts with one key that signs at once, in a file for the broker alone', async () => {
    const tokens = await broker()
    expect(await keysOf(tokens)).toEqual([await signerOf(tokens)])
    expect((await stat(ring)).mode & 0o777).toBe(0o600)
    expect((await stat(folder)).mode & 0o777).toBe(0o700)
    expect(await readdir(folder)).toEqual(['tokens.json'])
  })

  test('outlives the broker', async () => {
    const token = await tokenOf(await broker())
    expect(await reads(await broker(), token)).toBe(true)
  })

  test('publishes a new key ten minutes before it signs', async () => {
    const tokens = await broker()
    const first = await signerOf(tokens)
    await pass(24 * hour, tokens)
    const [known, next, ...others] = await keysOf(tokens)
    expect([known, others]).toEqual([first, []])
    await pass(10 * minute - 1, tokens)
    expect(await signerOf(tokens)).toBe(first)
    now += 1
    expect(await signerOf(tokens)).toBe(next)
    expect(next).not.toBe(first)
  })

  test('keeps the old key until its last token has ended', async () => {
    const tokens = await broker({ rotate_every: '100h' })
    await pass(100 * hour + 10 * minute - 1, tokens)
    const token = await tokenOf(tokens)
    const old = decodeProtectedHeader(token).kid
    now += 1
    expect(await signerOf(tokens)).not.toBe(old)
    await pass(24 * hour - 1_001, tokens)
    expect(await reads(tokens, token)).toBe(true)
    expect(await keysOf(tokens)).toContain(old)
    now += 1_001
    expect(await keysOf(tokens)).not.toContain(old)
  })

  test('drops dead keys from the file when it rotates', async () => {
    const tokens = await broker({ rotate_every: '1h' })
    await pass(60 * hour, tokens)
    const kept = (JSON.parse(await readFile(ring, 'utf8')) as { keys: object[] }).keys.length
    expect(kept).toBeGreaterThanOrEqual(24)
    expect(kept).toBeLessThanOrEqual(27)
  })

  test('moves to another algorithm without a token that cannot be read', async () => {
    const before = await broker()
    const token = await tokenOf(before)
    now += 2 * minute
    const after = await broker({ algorithm: 'EdDSA' })
    await pass(12 * minute, after)
    const fresh = await tokenOf(after)
    expect(decodeProtectedHeader(fresh).alg).toBe('EdDSA')
    expect(await reads(after, token)).toBe(true)
    expect(await reads(before, fresh)).toBe(true)
  })
})

describe('the file of a ring', () => {
  const clock = () => now
  const ringOf = async () => ({ keys: [await newKey('ES256', now, now)] })

  test('is written by one of two first starters, however they meet', async () => {
    const [mine, theirs] = [await ringOf(), await ringOf()]
    await keyFile(ring, clock).create(async () => {
      await keyFile(ring, clock).create(async () => theirs)
      return mine
    })
    expect(await keyFile(ring, clock).read()).toEqual(theirs)
    expect(await readdir(folder)).toEqual(['tokens.json'])
  })

  test('is not replaced by a broker whose draft was taken for stale, and the new draft stays', async () => {
    const file = keyFile(ring, clock)
    const before = await ringOf()
    await file.create(async () => before)
    await file.replace(async () => {
      await unlink(`${ring}.next`)
      await writeFile(`${ring}.next`, 'of another broker', { mode: 0o600 })
      return ringOf()
    })
    expect(await file.read()).toEqual(before)
    expect(await readFile(`${ring}.next`, 'utf8')).toBe('of another broker')
  })

  test('gets no second key from a broker that saw the old ring and waited for the lock', async () => {
    const other = await broker()
    const file = keyFile(ring, clock)
    const late = {
      ...file,
      replace: async (next: Parameters<typeof file.replace>[0]) => {
        await other.check(patient)
        await file.replace(next)
      },
    }
    const keyring = await openKeyring(late, { algorithm: 'ES256', rotateEvery: 24 * hour }, clock)
    now += 24 * hour
    expect(await keyring.published()).toHaveLength(2)
  })
})

describe('several brokers with one ring', () => {
  test('agree on the first key when they start at once', async () => {
    const brokers = await Promise.all(Array.from({ length: 8 }, () => broker()))
    const rings = await Promise.all(brokers.map(keysOf))
    expect(new Set(rings.flat()).size).toBe(1)
    expect(await readdir(folder)).toEqual(['tokens.json'])
  })

  test('make one new key when all of them see that it is time', async () => {
    const brokers = await Promise.all(Array.from({ length: 8 }, () => broker()))
    now += 24 * hour
    await Promise.all(brokers.map(keysOf))
    now += minute
    const rings = await Promise.all(brokers.map(keysOf))
    for (const keys of rings) expect(keys).toEqual(rings[0])
    expect(rings[0]).toHaveLength(2)
    expect(await readdir(folder)).toEqual(['tokens.json'])
  })

  test('know each other’s new key long before it signs', async () => {
    const [one, two] = [await broker(), await broker()]
    now += 24 * hour
    const rotated = await keysOf(one)
    now += minute
    expect(await keysOf(two)).toEqual(rotated)
  })

  test('read a token of a key that they have not seen yet, by one look a second', async () => {
    const [one, two] = [await broker(), await broker()]
    await unlink(ring)
    const three = await broker()
    const token = await tokenOf(three)
    now += 500
    expect(await reads(two, token)).toBe(false)
    now += 500
    expect(await reads(two, token)).toBe(true)
    now += 59_000
    expect(await keysOf(one)).toEqual(await keysOf(three))
  })

  test('add a key every ten minutes at most while they disagree about the algorithm', async () => {
    const brokers = [await broker(), await broker({ algorithm: 'EdDSA' })]
    await pass(9 * minute, ...brokers)
    for (const tokens of brokers) expect(await keysOf(tokens)).toHaveLength(2)
  })

  test('leave a rotation that is under way to whoever began it', async () => {
    const tokens = await broker()
    now += 24 * hour
    await writeFile(`${ring}.next`, '', { mode: 0o600 })
    await utimes(`${ring}.next`, now / 1_000, now / 1_000)
    expect(await keysOf(tokens)).toHaveLength(1)
    expect(await readdir(folder)).toContain('tokens.json.next')
  })

  test('take over a rotation that died', async () => {
    const tokens = await broker()
    now += 24 * hour
    await writeFile(`${ring}.next`, '{"keys":', { mode: 0o600 })
    await utimes(`${ring}.next`, now / 1_000 - 61, now / 1_000 - 61)
    await pass(minute, tokens)
    expect(await keysOf(tokens)).toHaveLength(2)
    expect(await readdir(folder)).toEqual(['tokens.json'])
  })

  test('leave rotation to somebody else where the file is read-only', async () => {
    await broker()
    await chmod(ring, 0o400)
    const tokens = await broker()
    now += 25 * hour
    expect(await keysOf(tokens)).toHaveLength(1)
    await expect(tokens.check(patient)).resolves.toBeUndefined()
    expect(await reads(tokens, await tokenOf(tokens))).toBe(true)
  })
})

/** The faults with which a start is refused. */
const refused = async () => {
  const error: unknown = await broker().catch((error: unknown) => error)
  expect(error).toBeInstanceOf(ConfigurationError)
  return (error as ConfigurationError).faults.join()
}

describe('a ring that cannot be trusted', () => {
  test('stops the start where others can read the file', async () => {
    await broker()
    await chmod(ring, 0o640)
    expect(await refused()).toMatch('chmod 600')
  })

  test('stops the start where others can look into the folder', async () => {
    await broker()
    await chmod(folder, 0o755)
    expect(await refused()).toMatch('chmod 700')
  })

  test('stops the start where the file is a link', async () => {
    await broker()
    await rename(ring, join(folder, 'elsewhere'))
    await symlink(join(folder, 'elsewhere'), ring)
    expect(await refused()).toMatch('symbolic link')
  })

  test.each([
    ['is empty', ''],
    ['has no keys', '{"keys":[]}'],
    ['is cut off', '{"keys":[{"alg":"ES256","d":"the-private-part'],
    ['is far too large', ' '.repeat(200_000)],
  ])('stops the start where it %s, and shows nothing of it', async (_, text) => {
    await mkdir(folder, { mode: 0o700 })
    await writeFile(ring, text, { mode: 0o600 })
    expect(await refused()).not.toContain('the-private-part')
  })

  test('stops the start where a key is not on its curve', async () => {
    await broker()
    const { keys } = JSON.parse(await readFile(ring, 'utf8')) as { keys: Record<string, string>[] }
    await writeFile(ring, JSON.stringify({ keys: keys.map((key) => ({ ...key, x: 'A'.repeat(43) })) }))
    expect(await refused()).toMatch('provider tokens')
  })

  test('stops no issuance while the broker runs, and shows in its check', async () => {
    const tokens = await broker()
    await unlink(ring)
    now += 2 * minute
    expect(await reads(tokens, await tokenOf(tokens))).toBe(true)
    await expect(tokens.check(patient)).rejects.toBeInstanceOf(ProviderError)
    expect(await readdir(folder)).toEqual([])
  })
})
