import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { inspect } from 'node:util'
import { type CryptoKey, exportSPKI, importJWK } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { stopwatch, systemClock } from '../../../src/base/time.ts'
import { ProviderError } from '../../../src/providers/provider.ts'
import { type Ask, createAsk, type VaultAnswer } from '../../../src/providers/vault/client.ts'
import { answersFromOldState, createIdentity, type Identity } from '../../../src/providers/vault/identity.ts'
import { type VaultSettings, vaultSettings } from '../../../src/providers/vault/settings.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { frontVault, pairs, type VaultFront } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { reservationOf } from '../reservation.ts'

const publicUrl = 'https://broker.example.com'
const patient = new AbortController().signal

describe.runIf(vaultRuns)('the broker as Vault knows it', () => {
  let vault: RunningVault
  let front: VaultFront
  /** Milliseconds. */
  let now = 0

  beforeAll(async () => {
    vault = await startVault()
    front = await frontVault(vault.address)
    await vault.root('POST', 'sys/auth/approle', { type: 'approle' })
    await vault.root('POST', 'auth/approle/role/mayfly', { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_ttl: '20m' })
    await vault.root('POST', 'sys/auth/jwt', { type: 'jwt' })
  })
  afterAll(async () => {
    await front.stop()
    await vault.stop()
  })
  afterEach(() => {
    vi.useRealTimers()
    front.clear()
    front.forget()
  })

  const settingsWith = (auth: object): VaultSettings => vaultSettings.parse({ address: front.address, auth, token_role: 'mayfly-task' })
  async function approle(): Promise<VaultSettings> {
    const secret = (await vault.root('POST', 'auth/approle/role/mayfly/secret-id', {})).body.data['secret_id']!
    const file = join(vault.folder, 'secret-id')
    await writeFile(file, `${secret}\n`, { mode: 0o600 })
    const { role_id } = (await vault.root('GET', 'auth/approle/role/mayfly/role-id')).body.data
    return settingsWith({ method: 'approle', role_id, secret_id_file: file })
  }
  const identityOf = (settings: VaultSettings): Identity =>
    createIdentity(
      'vault',
      settings,
      createAsk(settings, () => {}),
      undefined,
      () => now,
    )
  const self = async (identity: Identity): Promise<string> => {
    const { status, body } = await identity.ask({ path: 'auth/token/lookup-self' }, patient)
    expect(status).toBe(200)
    return (body as { data: { accessor: string } }).data.accessor
  }
  const logins = (): number => front.requests().filter(({ what }) => what === 'log in').length
  const revoke = (accessor: string) => vault.root('POST', 'auth/token/revoke-accessor', { accessor })

  test('logs in once for everybody who asks at the same time, with an AppRole', async () => {
    const identity = identityOf(await approle())
    expect(new Set(await Promise.all(Array.from({ length: 8 }, () => self(identity)))).size).toBe(1)
    expect(logins()).toBe(1)
  })

  test('logs in once more where somebody has revoked its token, and not in a loop where that does not help', async () => {
    const identity = identityOf(await approle())
    const first = await self(identity)
    await revoke(first)
    // A token that was made a moment ago and is refused would be refused again.
    await expect(self(identity)).rejects.toMatchObject({ fault: 'unavailable', message: expect.stringContaining('a moment ago') })
    expect(logins()).toBe(1)

    now += 5_000
    expect(await self(identity)).not.toBe(first)
    expect(logins()).toBe(2)
  })

  test('does not take a policy that is too small for a token that is dead', async () => {
    const identity = identityOf(await approle())
    await self(identity)
    now += 5_000
    expect((await identity.ask({ path: 'sys/policies/acl/mayfly-broker' }, patient)).status).toBe(403)
    expect(logins()).toBe(1)
  })

  test('lets nobody try again for a moment after a login failed', async () => {
    const identity = identityOf(await approle())
    front.next('log in', 'fails')
    await expect(self(identity)).rejects.toMatchObject({ minted: 'no' })
    await expect(self(identity)).rejects.toMatchObject({ fault: 'unavailable', message: expect.stringContaining('a moment ago') })
    expect(logins()).toBe(1)
    now += 1_000
    await self(identity)
    expect(logins()).toBe(2)
  })

  test('follows a token file that was replaced', async () => {
    const file = join(vault.folder, 'a-token')
    const made = async () =>
      (await vault.root('POST', 'auth/token/create-orphan', { policies: ['mayfly-broker'], no_default_policy: true, ttl: '1h' })).body.auth
    const [first, second] = [await made(), await made()]
    await writeFile(file, first.client_token)
    const identity = identityOf(settingsWith({ method: 'token', token_file: file }))
    expect(await self(identity)).toBe(first.accessor)
    await revoke(first.accessor)
    await writeFile(file, `${second.client_token}\n`)
    now += 5_000
    expect(await self(identity)).toBe(second.accessor)
  })

  const byFile = async () => settingsWith({ method: 'token', token_file: vault.tokenFile })

  describe.each([
    ['check', approle],
    ['log in', approle],
    ['look up own token', byFile],
  ] as const)('a login whose "%s"', (what, settings) => {
    test.each(pairs)(
      '$how (done: $done) is an outage for whoever asks, who minted nothing, and is made up for a moment later',
      async ({ how, done }) => {
        const { auth, ...rest } = await settings()
        const identity = identityOf({ auth, ...rest })
        front.next(what, how, { done })
        const asking = self(identity).catch((error: unknown) => error)
        if (how === 'hangs') {
          await front.hanging(what)
          await front.release()
        }
        const failed = await asking
        expect(failed).toBeInstanceOf(ProviderError)
        expect(failed).toMatchObject({ minted: 'no', fault: expect.stringMatching(/^(?!refused)/) })
        const secret = await readFile(auth.method === 'approle' ? auth.secret_id_file : vault.tokenFile, 'utf8')
        const everything = inspect(failed, { depth: 10, showHidden: true })
        expect(everything).not.toContain(secret.trim())
        expect(everything).not.toMatch(/\bs\.[A-Za-z0-9]{20}/)
        now += 1_000
        await self(identity)
      },
    )
  })

  test.each(pairs)('a renewal that $how (done: $done) keeps nobody from asking, and is made up for by a login', async ({ how, done }) => {
    const settings = await approle()
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const identity = identityOf(settings)
    const first = await self(identity)
    front.next('renew own token', how, { done })
    vi.advanceTimersByTime(20 * 60_000)
    vi.useRealTimers()
    if (how === 'hangs') {
      await front.hanging('renew own token')
      expect(await self(identity)).toBe(first)
      await front.release()
    }
    while (logins() < 2) await self(identity)
    expect(await self(identity)).not.toBe(first)
    expect(logins()).toBe(2)
  })

  const again = 'a renewal of a token from a file that $how (done: $done) is tried again while it lives, by itself, and the token goes on'
  test.each(pairs.filter(({ how }) => how !== 'refuses' && how !== 'does not know the token'))(again, async ({ how, done }) => {
    const file = join(vault.folder, 'renewed-token')
    const made = await vault.root('POST', 'auth/token/create-orphan', { policies: ['mayfly-broker'], no_default_policy: true, ttl: '1h' })
    await writeFile(file, made.body.auth.client_token)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const identity = identityOf(settingsWith({ method: 'token', token_file: file }))
    const pass = (minutes: number): void => {
      now += minutes * 60_000
      vi.advanceTimersByTime(minutes * 60_000)
    }
    const until = async (isSo: () => boolean): Promise<void> => {
      for (const elapsed = stopwatch(); !isSo(); await nextTurn()) expect(elapsed(), 'milliseconds of waiting').toBeLessThan(20_000)
    }
    const accessor = await self(identity)
    front.next('renew own token', how, { done })
    front.forget()

    pass(40)
    if (how === 'hangs') {
      await front.hanging('renew own token')
      await front.release()
    }
    // What comes next is set when the broker has heard how the first one went.
    await until(() => vi.getTimerCount() > 0)
    pass(14)
    await until(() => front.requests()[1]?.status === 200)

    expect(front.requests().map(({ what }) => what)).toEqual(['renew own token', 'renew own token'])
    vi.useRealTimers()
    expect(await self(identity)).toBe(accessor)
  })

  // Before any other identity here has a token that is soon renewed.
  test('keeps a login that took the place of another one whose renewal was under way', async () => {
    await vault.root('POST', 'auth/approle/role/mayfly', { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_ttl: '10s' })
    front.next('renew own token', 'held')
    const identity = identityOf(await approle())
    const first = await self(identity)
    await vault.root('POST', 'auth/approle/role/mayfly', { token_ttl: '20m' })
    await front.hanging('renew own token')
    await revoke(first)
    now += 5_000
    const second = await self(identity)

    await front.release()
    const renewals = () => front.requests().filter(({ what }) => what === 'renew own token')
    while (renewals()[0]?.status === undefined) await vault.root('GET', 'sys/health')
    // The broker hears of it a moment later: so many questions take much longer than that.
    for (let look = 0; look < 20; look++) await vault.root('GET', 'sys/health')

    expect(renewals()[0]!.status).toBe(403)
    expect(await self(identity)).toBe(second)
    expect(logins()).toBe(2)
  })

  test('renews its token before it ends', async () => {
    await vault.root('POST', 'auth/approle/role/mayfly', { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_ttl: '10s' })
    const identity = identityOf(await approle())
    const accessor = await self(identity)
    while (!front.requests().some(({ what, status }) => what === 'renew own token' && status === 200)) await vault.root('GET', 'sys/health')
    expect(await self(identity)).toBe(accessor)
    await vault.root('POST', 'auth/approle/role/mayfly', { token_ttl: '20m' })
  })

  test('is sealed off with words where Vault is sealed, and goes on when it is not', async () => {
    const identity = identityOf(await approle())
    front.next('check', 'is sealed')
    await expect(self(identity)).rejects.toMatchObject({ fault: 'unavailable', message: expect.stringContaining('sealed') })
    now += 1_000
    await self(identity)
  })

  test('names itself by JWTs of its own, which are no access tokens, and whose keys it publishes', async () => {
    const settings = vaultKind.settings.parse({ address: front.address, auth: { method: 'jwt', role: 'mayfly' }, token_role: 'mayfly-task' })
    const provider = await vaultKind.connect('self', settings, { publicUrl, keys: vault.folder, clock: systemClock })
    const keys = await Promise.all((await provider.tokens!.keys()).map(async (jwk) => exportSPKI((await importJWK(jwk, 'ES256')) as CryptoKey)))
    await vault.root('POST', 'auth/jwt/config', { jwt_validation_pubkeys: keys, bound_issuer: publicUrl })
    await vault.root('POST', 'auth/jwt/role/mayfly', {
      role_type: 'jwt',
      user_claim: 'sub',
      bound_subject: publicUrl,
      bound_audiences: ['vault'],
      token_policies: ['mayfly-broker'],
      token_no_default_policy: true,
      token_ttl: '20m',
    })
    await provider.check(patient)
    expect(logins()).toBe(1)
    const grant = vaultKind.grant.parse({ path: 'secret/data/app', policy: 'mayfly-task-app-settings' })
    await expect(provider.mint(reservationOf(grant, { parameters: {} }), async () => {}, patient)).resolves.toMatchObject({
      credential: { type: 'fields' },
    })
  })
})

describe('a 403', () => {
  test.each([
    ['OpenBao says of a token that is dead', { errors: ['permission denied'] }, 2],
    ["HashiCorp's Vault says of one", { errors: ['2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n'] }, 2],
    ['both say of a policy that is too small', { errors: ['1 error occurred:\n\t* permission denied\n\n'] }, 1],
    [
      'either may say of several faults that are none of the token',
      { errors: ['2 errors occurred:\n\t* permission denied\n\t* no such role\n\n'] },
      1,
    ],
    ['a proxy before them says in HTML', undefined, 1],
    ['a proxy before them says in JSON', { message: 'Forbidden' }, 1],
  ])('as %s is met with the login that it needs', async (_, body, logins) => {
    const tokenFile = join(await mkdtemp(join(tmpdir(), 'mayfly-identity-')), 'token')
    await writeFile(tokenFile, 'hvs.token', { mode: 0o600 })
    let lookedUp = 0
    const answers: Record<string, () => VaultAnswer> = {
      'sys/health': () => ({ status: 200, body: { initialized: true, sealed: false, standby: false, version: '2.1.0', server_time_utc: 0 } }),
      'auth/token/lookup-self': () => ({ status: 200, body: { data: { ttl: 0, n: lookedUp++ } } }),
    }
    const settings = vaultSettings.parse({
      address: 'https://vault:8200',
      auth: { method: 'token', token_file: tokenFile },
      token_role: 'mayfly-task',
    })
    let now = 0
    const ask: Ask = async ({ path }) => answers[path]?.() ?? { status: 403, body }
    const identity = createIdentity('vault', settings, ask, undefined, () => (now += 5_000))
    expect((await identity.ask({ path: 'sys/leases/renew' }, patient)).status).toBe(403)
    expect(lookedUp).toBe(logins)
    await rm(dirname(tokenFile), { recursive: true })
  })
})

describe('a token from a file, of an hour', () => {
  afterEach(() => void vi.useRealTimers())

  test.each([
    ['sealed', { status: 503, body: { errors: ['Vault is sealed'] } }, 8],
    ['behind a proxy that says 403', { status: 403, body: undefined }, 8],
    ['saying itself that it does not renew it', { status: 403, body: { errors: ['1 error occurred:\n\t* permission denied\n\n'] } }, 1],
  ])('that Vault, %s, does not renew is asked for ever sooner and to its end alone', async (_, refusal, times) => {
    const tokenFile = join(await mkdtemp(join(tmpdir(), 'mayfly-identity-')), 'token')
    await writeFile(tokenFile, 'hvs.token', { mode: 0o600 })
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
    const began = Date.now()
    const minutes = (): number => (Date.now() - began) / 60_000
    const asked: number[] = []
    const answers: Record<string, VaultAnswer> = {
      'sys/health': { status: 200, body: { initialized: true, sealed: false, standby: false, version: '2.7.2', server_time_utc: 0 } },
      'auth/token/lookup-self': { status: 200, body: { data: { ttl: 3_600, renewable: true } } },
    }
    const settings = vaultSettings.parse({
      address: 'https://vault:8200',
      auth: { method: 'token', token_file: tokenFile },
      token_role: 'mayfly-task',
    })
    const ask: Ask = async ({ path }) => {
      if (path === 'auth/token/renew-self') asked.push(minutes())
      return answers[path] ?? refusal
    }
    await createIdentity('vault', settings, ask, undefined, () => Date.now()).ask({ path: 'auth/token/lookup-self' }, patient)

    await vi.advanceTimersByTimeAsync(2 * 3_600_000)

    expect(asked).toHaveLength(times)
    expect(asked[0]).toBeCloseTo(40, 3)
    expect(asked.at(-1)).toBeLessThan(60)
    await rm(dirname(tokenFile), { recursive: true })
  })
})

describe('a standby', () => {
  const standby = { initialized: true, sealed: false, standby: true, server_time_utc: 0 }

  test.each([
    ['2.4.4', false],
    ['2.5.0', true],
    ['2.5.5', true],
    ['2.6.0', true],
    ['2.6.1', true],
    ['2.6.2', false],
    ['2.7.2', false],
  ])('of OpenBao %s answers from old state: %s', (version, old) => {
    expect(answersFromOldState({ ...standby, version })).toBe(old)
  })

  test.each([
    ['1.18.3', false, false],
    ['2.5.0', false, false],
    ['2.5.0+ent', true, false],
    ['1.18.3+ent', true, true],
    ['1.15.6+ent', undefined, true],
    ['1.15.6', undefined, false],
  ])("of HashiCorp's %s (enterprise %s) answers from old state where it is a performance standby: %s", (version, enterprise, performs) => {
    expect(answersFromOldState({ ...standby, version, enterprise, performance_standby: performs })).toBe(performs)
  })

  test.each([
    ['OpenBao', { version: '2.6.1' }, /ask its active node, or run 2\.6\.2 or newer$/],
    ['Vault Enterprise', { version: '2.1.0+ent', enterprise: true, performance_standby: true }, /ask its active node$/],
    ['Vault Enterprise before 1.16', { version: '1.15.6+ent', performance_standby: true }, /ask its active node$/],
  ])('of %s that answers from old state is asked nothing but its health', async (_, health, message) => {
    const asked: string[] = []
    const ask = async ({ path }: { readonly path: string }) => {
      asked.push(path)
      return { status: 429, body: { ...standby, ...health } }
    }
    const settings = vaultSettings.parse({
      address: 'https://vault:8200',
      auth: { method: 'token', token_file: '/token' },
      token_role: 'mayfly-task',
    })
    const identity = createIdentity('vault', settings, ask, undefined, () => 0)
    await expect(identity.ask({ path: 'sys/leases/revoke' }, patient)).rejects.toMatchObject({ message: expect.stringMatching(message) })
    expect(asked).toEqual(['sys/health'])
  })
})
