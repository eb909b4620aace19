import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import { secretsOf } from '../../../src/providers/credential.ts'
import { type LeaseReference, type Minted, type Provider, ProviderError, type Reservation } from '../../../src/providers/provider.ts'
import { createTarget } from '../../../src/providers/target.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { frontVault, pairs, type VaultFront } from '../../support/vault-front.ts'
import type { VaultRequest } from '../../support/vault-requests.ts'
import { deployed, type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { failureOf, providerContract } from '../contract.ts'
import { reservationOf } from '../reservation.ts'

const reading = { path: 'database/creds/ledger-read', policy: 'mayfly-task-ledger-read' }
const patient = new AbortController().signal
const publicUrl = 'https://broker.example.com'

const connectTo = (vault: RunningVault, address: string, settings: object = {}): Promise<Provider> =>
  vaultKind.connect(
    'vault',
    vaultKind.settings.parse({ address, auth: { method: 'token', token_file: vault.tokenFile }, token_role: 'mayfly-task', ...settings }),
    { publicUrl, keys: vault.folder, clock: systemClock },
  )

/** Long enough ago that nothing can live of which nobody knows. */
const longAgo = (): Date => new Date(Date.now() - 600_000)

describe.runIf(vaultRuns)('Vault', () => {
  let vault: RunningVault
  let front: VaultFront
  let provider: Provider
  /** What the ledger would know. */
  const journaled = new Map<string, Handle[]>()

  beforeAll(async () => {
    vault = await startVault()
    front = await frontVault(vault.address)
    provider = await connectTo(vault, front.address)
  })
  afterAll(async () => {
    await front.stop()
    await vault.stop()
  })
  afterEach(async () => {
    front.clear()
    await front.release()
    await provider.settled!()
    front.forget()
  })

  const reserve = (own: object = reading, changes: Partial<Reservation> = {}): Reservation =>
    reservationOf(vaultKind.grant.parse(own), { parameters: {}, ...changes })
  const mint = (reservation: Reservation, signal = patient, by: Pick<Provider, 'mint'> = provider): Promise<Minted> =>
    by.mint(reservation, async (handle) => void journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle]), signal)
  const referenceTo = ({ lease, task }: Reservation, age = 600_000): LeaseReference => ({
    lease,
    task,
    age,
    handles: journaled.get(lease) ?? [],
  })

  /** The logins of a lease that Postgres would let in. Vault writes the id into their names, with its own spelling of `_`. */
  async function openLogins({ lease }: Reservation): Promise<readonly string[]> {
    const logins = await vault.database.logins()
    return logins.filter(({ name, open }) => open && name.includes(lease.replace('_', '-'))).map(({ name }) => name)
  }
  /** Looks until there are so many: what is in Vault's own queue is ended soon, and not when it was put there. */
  async function untilLogins(reservation: Reservation, count: number): Promise<void> {
    while ((await openLogins(reservation)).length !== count);
  }
  const login = ({ credential }: Minted) => {
    if (credential.type !== 'username_password') throw new Error('not a login')
    return vault.database.login(credential.username, credential.password.open())
  }
  /** What reads logins of another role, which is as `ledger-read` but for what is changed. */
  async function otherRole(name: string, changed: (role: { readonly creation_statements: readonly string[] }) => object): Promise<typeof reading> {
    const [path, policy] = [`database/creds/${name}`, `mayfly-task-${name}`]
    const role = (await vault.root<Parameters<typeof changed>[0]>('GET', 'database/roles/ledger-read')).body.data
    await vault.root('POST', `database/roles/${name}`, { ...role, ...changed(role) })
    await vault.root('POST', `sys/policies/acl/${policy}`, { policy: `path "${path}" { capabilities = ["read"] }` })
    await vault.root('POST', 'database/config/ledger', { allowed_roles: ['ledger-read', name] })
    return { path, policy }
  }
  /** How many task tokens of a lease Vault knows. */
  async function livingTokens({ lease }: Reservation): Promise<number> {
    const accessors = [...new Set((journaled.get(lease) ?? []).map((handle) => handle['accessor']))]
    const looks = await Promise.all(accessors.map((accessor) => vault.root('POST', 'auth/token/lookup-accessor', { accessor })))
    return looks.filter(({ status }) => status === 200).length
  }
  /** Ends a lease as the broker would, whatever is known of it. */
  async function end(reservation: Reservation): Promise<void> {
    const { minted } = await provider.recover(referenceTo(reservation), patient)
    if (minted) await provider.revoke(referenceTo(reservation), patient)
  }

  describe('a database login', () => {
    test('opens the database, ends with its reservation and dies with its open sessions when it is revoked', async () => {
      const reservation = reserve()
      const minted = await mint(reservation)
      const left = reservation.expiresAt.getTime() - minted.expiresAt.getTime()
      expect(left).toBeGreaterThanOrEqual(0)
      // Vault counts whole seconds, and never past the end.
      expect(left).toBeLessThan(2_000)
      const session = await login(minted)
      expect(await session.query('select count(*)::int as count from bookings')).toMatchObject([{ count: 3 }])

      const evidence = await provider.revoke(referenceTo(reservation, 0), patient)
      expect(evidence).toMatchObject({ by: 'provider', statement: expect.stringContaining('sys/leases/revoke answered 204') })
      expect(await session.alive()).toBe(false)
      expect(await openLogins(reservation)).toEqual([])
    })

    test('is journaled before it is used: first the token, then the lease, then everything lasts to the end', async () => {
      const reservation = reserve()
      const seen: string[] = []
      await provider.mint(
        reservation,
        async (handle) => {
          seen.push(...front.requests().map(({ what }) => what), `journal ${Object.keys(handle).join(' ')}`)
          front.forget()
          journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle])
        },
        patient,
      )
      seen.push(...front.requests().map(({ what }) => what))
      expect(seen.filter((what) => what !== 'check' && what !== 'look up own token')).toEqual([
        'create token',
        'journal cluster_id accessor',
        'read database/creds/ledger-read',
        'journal cluster_id accessor lease_id',
        'renew token',
        'renew lease',
      ])
      await end(reservation)
    })

    test('is not made to last before it is journaled, though its token is', async () => {
      const reservation = reserve()
      const mints = provider.mint(
        reservation,
        async (handle) => {
          if (!('lease_id' in handle)) return
          while (!front.requests().some(({ what, status }) => what === 'renew token' && status === 200)) await vault.database.superuser`select 1`
          throw new Error('the store is away')
        },
        patient,
      )
      await expect(mints).rejects.toThrow('the store is away')
      expect(front.requests().map(({ what }) => what)).not.toContain('renew lease')
      await untilLogins(reservation, 0)
    })

    test('ends with its token by itself at its own end where the broker never comes back', async () => {
      const reservation = reserve(reading, { expiresAt: new Date(Date.now() + 6_000) })
      await mint(reservation)
      await untilLogins(reservation, 0)
      while ((await livingTokens(reservation)) > 0);
      expect(Date.now() - reservation.expiresAt.getTime(), 'both would end by their first life of 45 s').toBeLessThan(30_000)
    })

    test('that Vault makes shorter than asked is a shorter lease', async () => {
      const reservation = reserve(await otherRole('brief', () => ({ max_ttl: '90s' })))
      const minted = await mint(reservation)
      const life = minted.expiresAt.getTime() - reservation.issuedAt.getTime()
      expect(life).toBeLessThanOrEqual(91_000)
      expect(life).toBeGreaterThan(80_000)
      await end(reservation)
    })

    test('of a grant whose policy Vault does not have is refused, and nothing was read', async () => {
      const reservation = reserve({ ...reading, policy: 'mayfly-task-nobody' })
      expect(await failureOf(mint(reservation))).toMatchObject({ fault: 'refused', minted: 'no', message: expect.stringContaining('no policy') })
      expect(front.requests().map(({ what }) => what)).toContain('revoke token')
      expect(await openLogins(reservation)).toEqual([])
    })
  })

  describe('a task token', () => {
    /** Of the token role that is deployed, until the test is over. */
    async function changeRole(changes: object): Promise<void> {
      const role = JSON.parse(await readFile(join(deployed, 'token-role.json'), 'utf8')) as object
      onTestFinished(async () => void (await vault.root('POST', 'auth/token/roles/mayfly-task', { ...role, token_period: 0 })))
      expect((await vault.root('POST', 'auth/token/roles/mayfly-task', changes)).status).toBe(204)
    }
    const asked = (): string[] => front.requests().flatMap(({ what }) => (/^(create|read|revoke)/.test(what) ? [what] : []))

    test('names its task and its lease, and lives for 45 s until it is known', async () => {
      const reservation = reserve()
      let token: object | undefined
      await provider.mint(
        reservation,
        async (handle) => {
          journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle])
          token ??= (await vault.root<object>('POST', 'auth/token/lookup-accessor', { accessor: handle['accessor'] })).body.data
        },
        patient,
      )
      expect(token).toMatchObject({
        meta: { task: reservation.task, lease: reservation.lease },
        creation_ttl: 45,
        policies: [reading.policy],
        orphan: true,
        type: 'service',
      })
      await end(reservation)
    })

    test.each([
      ['dies with the token of the broker', { orphan: false }],
      ['lives on by itself', { token_period: '1h' }],
    ])('that %s, for its role says so, is refused before anything is read with it', async (_, changes) => {
      await changeRole(changes)
      expect(await failureOf(mint(reserve()))).toMatchObject({
        fault: 'refused',
        minted: 'no',
        message: expect.stringContaining('does not make what'),
      })
      expect(asked().filter((what) => what.startsWith('read'))).toEqual([])
    })

    test('that has more policies than were asked for is refused, and ended', async () => {
      front.next('create token', 'gives a token of more policies', { done: true })
      expect(await failureOf(mint(reserve()))).toMatchObject({
        fault: 'refused',
        minted: 'no',
        message: expect.stringContaining('does not make what'),
      })
      expect(asked()).toEqual(['create token', 'revoke token'])
    })

    test('that Vault lets live for less than asked is a shorter lease', async () => {
      await changeRole({ token_explicit_max_ttl: '90s' })
      const reservation = reserve()
      const life = (await mint(reservation)).expiresAt.getTime() - reservation.issuedAt.getTime()
      expect(life).toBeLessThanOrEqual(91_000)
      expect(life).toBeGreaterThan(80_000)
      await end(reservation)
    })

    test('is not made for a lease of which less than a second is left, and reads nothing where that comes to be so', async () => {
      expect(await failureOf(mint(reserve(reading, { elapsed: () => 599_001 })))).toMatchObject({
        fault: 'refused',
        minted: 'no',
        message: 'No time is left for this lease',
      })
      expect(front.requests()).toEqual([])

      let elapsed = 0
      const reservation = reserve(reading, { elapsed: () => elapsed })
      const minting = provider.mint(reservation, async () => void (elapsed = 599_001), patient)
      expect(await failureOf(minting)).toMatchObject({ fault: 'refused', minted: 'maybe', message: 'No time is left for this lease' })
      expect(asked()).toEqual(['create token', 'revoke token'])
    })

    test('that an agent wants for a lease of a second closes the way to nobody, however often it is asked for', async () => {
      const target = createTarget(provider, { clock: systemClock, observe: () => {} })
      const issuedAt = new Date()
      const brief = () => reserve(reading, { issuedAt, expiresAt: new Date(issuedAt.getTime() + 1_000), elapsed: () => 1 })
      for (let time = 0; time < 3; time++) expect(await failureOf(mint(brief(), patient, target))).toMatchObject({ fault: 'refused', minted: 'no' })
      expect(target.failing).toBe(false)
      const reservation = reserve()
      await mint(reservation, patient, target)
      await end(reservation)
    })
  })

  describe('other secrets', () => {
    test('a stored value is lent as fields, only time ends its lease, and its token is gone at once', async () => {
      const reservation = reserve({ path: 'secret/data/app', policy: 'mayfly-task-app-settings' })
      const minted = await mint(reservation)
      expect(provider.revocation(reservation.settings)).toBe('expiry')
      expect(Object.entries(secretsOf(minted.credential)).map(([name, secret]) => [name, secret.open()])).toEqual([['colour', 'green']])
      expect(await livingTokens(reservation)).toBe(0)
    })

    test('a certificate with a lease is on the revocation list when its lease has ended, and the evidence says who has to read that', async () => {
      const own = { path: 'pki/issue/leased', policy: 'mayfly-task-leased-certificate', ended_by: 'lease', data: { common_name: '{host}' } }
      const reservation = reserve(own, { parameters: { host: 'api.example.com' } })
      expect(provider.revocation(reservation.settings)).toBe('provider')
      const serial = secretsOf((await mint(reservation)).credential)['serial_number']!.open()
      const { statement } = await provider.revoke(referenceTo(reservation), patient)
      expect(statement).toMatch(/; sys\/leases\/revoke answered 204 for its lease; relying parties have to read the revocation list$/)
      expect((await vault.root<{ revocation_time: number }>('GET', `pki/cert/${serial}`)).body.data.revocation_time).toBeGreaterThan(0)
    })

    test('a lease that would live long by itself is journaled before even its token is made to last', async () => {
      const own = { path: 'pki/issue/leased', policy: 'mayfly-task-leased-certificate', ended_by: 'lease', data: { common_name: '{host}' } }
      const reservation = reserve(own, { parameters: { host: 'api.example.com' } })
      const mints = provider.mint(
        reservation,
        async (handle) => {
          if (!('lease_id' in handle)) return
          // A renewal beside this would be through long before.
          for (let look = 0; look < 50; look++) await vault.database.superuser`select 1`
          throw new Error('the store is away')
        },
        patient,
      )
      await expect(mints).rejects.toThrow('the store is away')
      expect(front.requests().map(({ what }) => what)).not.toContain('renew token')
    })

    test('a certificate without a lease cannot be taken back, and says when it ends', async () => {
      const own = { path: 'pki/issue/service', policy: 'mayfly-task-service-certificate', data: { common_name: 'api.example.com' } }
      const reservation = reserve(own)
      expect(provider.revocation(reservation.settings)).toBe('expiry')
      const minted = await mint(reservation)
      expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(reservation.expiresAt.getTime())
      expect(minted.credential).toMatchObject({ type: 'fields' })
    })

    describe('a secret with a lease, of a grant that says that only time ends it,', () => {
      const lasting = (own: object) => reserve({ ...reading, engine: 'leased', ended_by: 'time', ...own })

      test('says expiry, and its own end', async () => {
        const reservation = lasting({})
        expect(provider.revocation(reservation.settings)).toBe('expiry')
        const minted = await mint(reservation)
        const [lease] = journaled.get(reservation.lease)!.flatMap((handle) => ('lease_id' in handle ? [handle['lease_id']] : []))
        const { body } = await vault.root('POST', 'sys/leases/lookup', { lease_id: lease })
        expect(Math.abs(Date.parse(body.data['expire_time']!) - minted.expiresAt.getTime())).toBeLessThan(2_000)
        expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(reservation.expiresAt.getTime())
        await end(reservation)
      })

      test('is not handed out where it would outlive its task', async () => {
        const { data } = (await vault.root<object>('GET', 'database/roles/ledger-read')).body
        await vault.root('POST', 'database/roles/lasting', { ...data, default_ttl: '1h' })
        await vault.root('POST', 'sys/policies/acl/mayfly-task-lasting', { policy: 'path "database/creds/lasting" { capabilities = ["read"] }' })
        await vault.root('POST', 'database/config/ledger', { allowed_roles: ['ledger-read', 'brief', 'lasting'] })
        const reservation = lasting({ path: 'database/creds/lasting', policy: 'mayfly-task-lasting' })
        expect(await failureOf(mint(reservation))).toMatchObject({
          fault: 'refused',
          minted: 'maybe',
          message: expect.stringContaining('outlives its lease'),
        })
        await end(reservation)
      })

      test('is not handed out where it has no lease, for nothing else says when it ends', async () => {
        const reservation = lasting({ path: 'secret/data/app', policy: 'mayfly-task-app-settings' })
        expect(await failureOf(mint(reservation))).toMatchObject({
          fault: 'refused',
          message: expect.stringContaining('nothing else says when it ends'),
        })
      })
    })

    test('whether a lease ends what it stands for is said to be unknown by provider check where its path leads to no known role', async () => {
      const examined = async (endedBy: string) => {
        const settings = vaultKind.grant.parse({ path: 'secret/data/app', policy: 'mayfly-task-app-settings', engine: 'leased', ended_by: endedBy })
        const findings = await provider.examine!([{ name: 'keys', settings, maxTtl: 600_000, parameters: {} }])
        return findings.filter(({ level, subject }) => level === 'unchecked' && subject === 'grant keys').map(({ message }) => message)
      }
      expect(await examined('lease')).toEqual([expect.stringContaining('whether what it makes dies with its lease is not known here')])
      expect(await examined('time')).toEqual([])
    })

    describe('a certificate that its serial number ends', () => {
      let revoker: Provider

      beforeAll(async () => {
        await vault.root('POST', 'pki/root/generate/internal', { common_name: 'next root', ttl: '24h', key_type: 'ec', issuer_name: 'next' })
        const [issuing, revoking] = ['pki/issuer/next/issue/service', 'pki/revoke'].map((at) => ({
          policy: `path "${at}" { capabilities = ["update"] }`,
        }))
        await vault.root('POST', 'sys/policies/acl/mayfly-task-next-certificate', issuing)
        await vault.root('POST', 'sys/policies/acl/mayfly-revokes-certificates', revoking)
        const policies = ['mayfly-broker', 'mayfly-revokes-certificates']
        const { body } = await vault.root('POST', 'auth/token/create-orphan', { policies, no_default_policy: true, ttl: '1h' })
        const file = join(vault.folder, 'revoker-token')
        await writeFile(file, body.auth.client_token)
        revoker = await connectTo(vault, front.address, { auth: { method: 'token', token_file: file } })
      })

      const issued = (path: string, policy: string): Reservation =>
        reserve({ path, policy, ended_by: 'serial', data: { common_name: 'api.example.com' } })
      const serialOf = ({ credential }: Minted): string => secretsOf(credential)['serial_number']!.open()
      /** Milliseconds since 1970; 0 where it was not revoked. */
      async function revokedAt(serial: string): Promise<number> {
        return (await vault.root<{ revocation_time: number }>('GET', `pki/cert/${serial}`)).body.data.revocation_time * 1_000
      }
      /** Whether it is on the list that relying parties read. */
      async function isListed(issuer: string, serial: string): Promise<boolean> {
        const { crl } = (await vault.root('GET', `pki/issuer/${issuer}/crl`)).body.data
        return Buffer.from(crl!.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64').includes(Buffer.from(serial.replaceAll(':', ''), 'hex'))
      }

      test.each([
        ['by the default issuer', 'pki/issue/service', 'mayfly-task-service-certificate', 'default'],
        ['by an issuer that its path names', 'pki/issuer/next/issue/service', 'mayfly-task-next-certificate', 'next'],
      ])('and that was signed %s is on its revocation list when its lease has ended', async (_, path, policy, issuer) => {
        const reservation = issued(path, policy)
        expect(revoker.revocation(reservation.settings)).toBe('provider')
        const serial = serialOf(await mint(reservation, patient, revoker))
        expect(journaled.get(reservation.lease)!.at(-1)).toMatchObject({ mount: 'pki', serial_number: serial })
        expect([await revokedAt(serial), await isListed(issuer, serial)]).toEqual([0, false])

        const evidence = await revoker.revoke(referenceTo(reservation, 0), patient)
        expect(evidence).toMatchObject({
          by: 'provider',
          statement: expect.stringContaining('; certificate revoked; relying parties have to read the revocation list'),
        })
        const first = await revokedAt(serial)
        expect(first).toBeGreaterThan(0)
        expect(await isListed(issuer, serial)).toBe(true)
        // The issuer is not what was revoked.
        await expect(mint(issued(path, policy), patient, revoker)).resolves.toMatchObject({ credential: { type: 'fields' } })

        await expect(revoker.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
        expect(await revokedAt(serial)).toBe(first)
      })

      test('is counted under a name of its own when it is revoked', async () => {
        const counted: string[] = []
        const settings = {
          address: front.address,
          auth: { method: 'token', token_file: join(vault.folder, 'revoker-token') },
          token_role: 'mayfly-task',
        }
        const asked = (provider: string, request: string, outcome: string) => void counted.push(`${provider} ${request} ${outcome}`)
        const counting = await vaultKind.connect('vault', vaultKind.settings.parse(settings), {
          publicUrl,
          keys: vault.folder,
          clock: systemClock,
          asked,
        })
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        await mint(reservation, patient, counting)
        await counting.revoke(referenceTo(reservation, 0), patient)
        expect(counted).toEqual(expect.arrayContaining(['vault secret 200', 'vault pki/revoke 200']))
        expect(counted.filter((one) => one.startsWith('vault secret'))).toHaveLength(1)
      })

      test('is not said to be revoked by a broker that may not', async () => {
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        const serial = serialOf(await mint(reservation))
        expect(await failureOf(provider.revoke(referenceTo(reservation, 0), patient))).toMatchObject({
          fault: 'refused',
          message: 'vault could not end it: permission denied',
        })
        expect(await revokedAt(serial)).toBe(0)
        await expect(revoker.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
        expect(await revokedAt(serial)).toBeGreaterThan(0)
      })

      test('and that has expired is said to have ended by time, for Vault does not revoke it any more', async () => {
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        const { expiresAt, credential } = await mint(
          { ...reservation, expiresAt: new Date(reservation.issuedAt.getTime() + 6_000) },
          patient,
          revoker,
        )
        while (Date.now() < expiresAt.getTime()) await vault.root('GET', 'sys/health')

        const evidence = await revoker.revoke(referenceTo(reservation, 0), patient)
        expect(evidence).toMatchObject({ by: 'time', statement: expect.stringContaining('has expired') })
        expect(await revokedAt(serialOf({ credential, expiresAt }))).toBe(0)
      })

      test('and that arrives too late is journaled and revoked, though nobody waits for it', async () => {
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        const impatient = new AbortController()
        front.next('read pki/issue/service', 'held', { done: true })
        const minting = failureOf(mint(reservation, impatient.signal, revoker))
        await front.hanging('read pki/issue/service')
        impatient.abort()
        expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
        await front.release()
        const serial = () => journaled.get(reservation.lease)!.flatMap((handle) => ('serial_number' in handle ? [handle['serial_number']] : []))
        while (serial().length === 0) await vault.root('GET', 'sys/health')
        while ((await revokedAt(serial()[0]!)) === 0);
        await expect(revoker.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
      })

      test.each(pairs)('and whose making $how (done: $done) is revoked with its lease if anybody got it, and leaves no token', async (fault) => {
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        const met = await meet('read pki/issue/service', fault, (signal) => mint(reservation, signal, revoker))
        if (fault.how === 'hangs') await front.release()
        await revoker.settled!()
        const serial = met instanceof ProviderError ? undefined : serialOf(met)
        expect(serial === undefined, inWords(fault)).toBe(fault.how === 'hangs' || fault.how === 'has a quota')
        expect(await livingTokens(reservation)).toBe(0)
        await expect(revoker.revoke(referenceTo(reservation), patient)).resolves.toMatchObject({ by: 'provider' })
        if (serial !== undefined) expect(await revokedAt(serial)).toBeGreaterThan(0)
      })

      // A token that Vault does not know may be cured by a login on the way: identity.test.ts.
      test.each(pairs.filter(({ how }) => how !== 'does not know the token'))(
        'and whose revocation $how (done: $done) is not claimed to be revoked, and is the next time',
        async (fault) => {
          const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
          const serial = serialOf(await mint(reservation, patient, revoker))
          const met = await meet('read pki/revoke', fault, (signal) => revoker.revoke(referenceTo(reservation, 0), signal))
          expect(met, inWords(fault)).toBeInstanceOf(ProviderError)
          if (fault.how === 'hangs') await front.release()
          expect((await revokedAt(serial)) > 0, inWords(fault)).toBe(fault.done)
          await expect(revoker.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
          expect(await revokedAt(serial)).toBeGreaterThan(0)
        },
      )

      test('whose serial number nobody knows is not claimed to be revoked: nobody has it', async () => {
        const reservation = issued('pki/issue/service', 'mayfly-task-service-certificate')
        await mint(reservation, patient, revoker)
        // Where a crash comes before the serial number is known.
        journaled.set(reservation.lease, journaled.get(reservation.lease)!.slice(0, 1))
        const evidence = await revoker.revoke(referenceTo(reservation), patient)
        expect(evidence.statement).toMatch(/; a certificate that pki may have signed reached nobody, and ends at its own time$/)
      })

      test('is made, ended and found by provider check, below a named issuer too', async () => {
        const settings = issued('pki/issuer/next/issue/service', 'mayfly-task-next-certificate').settings
        const findings = await revoker.examine!([{ name: 'next', settings, maxTtl: 600_000, parameters: {} }])
        expect(findings.filter(({ level }) => level !== 'ok' && level !== 'unchecked')).toEqual([])
        expect(findings.find(({ subject }) => subject === 'grant next')?.message).toContain('revoked and gone (provider, by its serial number')
      })
    })

    const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0vHPNd2pKrYb2kSKLPUAgtCqpCSCsgqTdrFHhBWdfx'
    const signing = { path: 'ssh/sign/deploy', policy: 'mayfly-task-deploy-ssh', data: { public_key: key, valid_principals: 'deploy' } }

    test.each(pairs)('a signature whose making $how (done: $done) is asked for by what is left, and leaves no token', async (fault) => {
      let elapsed = 0
      const reservation = reserve(signing, { elapsed: () => (elapsed += 1_000) })
      const met = await meet('read ssh/sign/deploy', fault, (signal) => mint(reservation, signal))
      if (fault.how === 'hangs') await front.release()
      await provider.settled!()
      const asked = front.requests().flatMap(({ what, ttl }) => (what === 'read ssh/sign/deploy' ? [Number.parseInt(ttl!)] : []))
      expect(asked.length, inWords(fault)).toBe(met instanceof ProviderError ? 1 : 2)
      expect(asked.every((seconds, at) => seconds < (asked[at - 1] ?? 600))).toBe(true)
      expect(await livingTokens(reservation)).toBe(0)
    })

    test('a signature lives for what is left since it was announced, also where a read before it hung and failed', async () => {
      let elapsed = 20_000
      const reservation = reserve(signing, { elapsed: () => elapsed })
      front.next('read ssh/sign/deploy', 'hangs')
      const minting = mint(reservation)
      await front.hanging('read ssh/sign/deploy')
      elapsed += 30_000
      await front.release()
      await minting
      expect(front.requests().flatMap(({ what, ttl }) => (what === 'read ssh/sign/deploy' ? [ttl] : []))).toEqual(['580s', '550s'])
    })

    test('a certificate that says it outlives its lease is not handed out', async () => {
      const own = { path: 'pki/issue/service', policy: 'mayfly-task-service-certificate', data: { common_name: 'api.example.com' } }
      front.next('read pki/issue/service', 'says it lives for long', { done: true })
      expect(await failureOf(mint(reserve(own)))).toMatchObject({
        fault: 'refused',
        minted: 'maybe',
        message: expect.stringContaining('outlives its lease'),
      })
    })

    test('a certificate that the catalogue says has a lease, and has none, is not handed out', async () => {
      const own = {
        path: 'pki/issue/service',
        policy: 'mayfly-task-service-certificate',
        ended_by: 'lease',
        data: { common_name: 'api.example.com' },
      }
      expect(await failureOf(mint(reserve(own)))).toMatchObject({
        fault: 'refused',
        minted: 'maybe',
        message: expect.stringContaining('without a lease'),
      })
    })
  })

  const inWords = ({ how, done }: (typeof pairs)[number]) => `${how}, ${done ? 'and it was done' : 'and nothing was done'}`

  /** Lets a verb meet a fault. Nothing secret may be in what it says about it. */
  async function meet<T>(
    what: VaultRequest,
    { how, done }: (typeof pairs)[number],
    verb: (signal: AbortSignal) => Promise<T>,
  ): Promise<T | ProviderError> {
    const impatient = new AbortController()
    front.next(what, how, { done })
    const outcome = verb(impatient.signal).catch((error: unknown) => {
      expect(error).toBeInstanceOf(ProviderError)
      return error as ProviderError
    })
    if (how === 'hangs') {
      await front.hanging(what)
      impatient.abort()
    }
    const met = await outcome
    if (met instanceof ProviderError) {
      const everything = inspect(met, { depth: 10, showHidden: true })
      for (const handle of [...journaled.values()].flat()) expect(everything).not.toContain(handle['accessor'])
      expect(everything).not.toMatch(/\bs\.[A-Za-z0-9]{20}/)
      expect(everything).not.toContain('mf-token')
    }
    return met
  }

  /** Less than the first life of a login, so that one which nobody ended, and which ends by itself, comes too late. */
  const early = { timeout: 40_000 }

  describe.each(['create token', 'read database/creds/ledger-read', 'renew lease', 'renew token'] as const)('a mint whose "%s"', (what) => {
    test.each(pairs)('$how (done: $done) leaves nothing that works once it has been ended', early, async (fault) => {
      const reservation = reserve()
      const met = await meet(what, fault, (signal) => mint(reservation, signal))
      if (fault.how === 'hangs') await front.release()
      if (!(met instanceof ProviderError)) {
        // It started over, with a token of its own: what the first one may have read is ended by Vault meanwhile.
        await untilLogins(reservation, 1)
        await (await login(met)).close()
      } else expect(met.message, inWords(fault)).not.toBe('')
      await end(reservation)
      await untilLogins(reservation, 0)
    })
  })

  const startsOver = 'a read that $how (done: $done) is made once more, with another token, after the first one was contained'
  test.each(pairs.filter(({ how }) => how !== 'hangs' && how !== 'has a quota'))(startsOver, early, async (fault) => {
    const reservation = reserve()
    const met = await meet('read database/creds/ledger-read', fault, (signal) => mint(reservation, signal))
    expect(met).toMatchObject({ credential: { type: 'username_password' } })
    expect(new Set((journaled.get(reservation.lease) ?? []).map((handle) => handle['accessor'])).size).toBe(2)
    const attempt = ['create token', 'read database/creds/ledger-read'] as const
    const asked = front.requests().flatMap(({ what }) => (/^(create|read|revoke)/.test(what) ? [what] : []))
    expect(asked).toEqual([...attempt, 'revoke token', ...attempt])
    await end(reservation)
    await untilLogins(reservation, 0)
  })

  test('a read that meets a rate limit is not made once more, and its error says for how long that would be pointless', async () => {
    const reservation = reserve()
    const met = await meet('read database/creds/ledger-read', { how: 'has a quota', done: false }, (signal) => mint(reservation, signal))
    expect(met).toMatchObject({ fault: 'unavailable', minted: 'maybe', pointlessFor: 7_000 })
    expect(front.requests().flatMap(({ what }) => (/^(create|read|revoke)/.test(what) ? [what] : []))).toEqual([
      'create token',
      'read database/creds/ledger-read',
      'revoke token',
    ])
    await end(reservation)
  })

  test.each(['create token', 'renew token', 'renew lease', 'revoke token', 'revoke lease'] as const)(
    'says for how long it would be pointless to ask again, where Vault does: at "%s"',
    async (what) => {
      const reservation = reserve()
      if (what.startsWith('revoke')) await mint(reservation)
      const met = await meet<unknown>(what, { how: 'has a quota', done: false }, (signal) =>
        what.startsWith('revoke') ? provider.revoke(referenceTo(reservation), signal) : mint(reservation, signal),
      )
      expect(met).toMatchObject({ fault: 'unavailable', pointlessFor: 7_000 })
      await end(reservation)
    },
  )

  describe.each(['revoke token', 'revoke lease'] as const)('an end whose "%s"', (what) => {
    // A token that Vault does not know may be cured by a login on the way: identity.test.ts.
    test.each(pairs.filter(({ how }) => how !== 'does not know the token'))(
      '$how (done: $done) claims nothing, and ends it the next time',
      async (fault) => {
        const reservation = reserve()
        await mint(reservation)
        const met = await meet(what, fault, (signal) => provider.revoke(referenceTo(reservation), signal))
        expect(met, inWords(fault)).toBeInstanceOf(ProviderError)
        if (fault.how === 'hangs') await front.release()
        await expect(provider.revoke(referenceTo(reservation), patient)).resolves.toMatchObject({ by: 'provider' })
        expect(await openLogins(reservation)).toEqual([])
      },
    )
  })

  test('a mint that was given up while its token was journaled reads nothing, and contains the token', async () => {
    const impatient = new AbortController()
    const mints = provider.mint(reserve(), async () => impatient.abort(), impatient.signal)
    expect(await failureOf(mints)).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
    await provider.settled!()
    expect(front.requests().flatMap(({ what, status }) => (what.startsWith('read') || what === 'revoke token' ? [[what, status]] : []))).toEqual([
      ['revoke token', 204],
    ])
  })

  test('of reads that nobody waits for so many go on at one path, and then nothing is made for another one', async () => {
    const few = await connectTo(vault, front.address, { concurrency: 2 })
    const readsSeen = (): number => front.requests().filter(({ what }) => what === 'read database/creds/ledger-read').length
    for (let count = 1; count <= 8; count++) {
      const impatient = new AbortController()
      front.next('read database/creds/ledger-read', 'held')
      const minting = failureOf(mint(reserve(), impatient.signal, few))
      while (readsSeen() < count) await vault.database.logins()
      impatient.abort()
      await minting
      while (front.requests().filter(({ what, status }) => what === 'revoke token' && status === 204).length < count) await vault.database.logins()
    }
    front.forget()
    expect(await failureOf(mint(reserve(), patient, few))).toMatchObject({
      fault: 'downstream',
      minted: 'no',
      message: expect.stringContaining('owes'),
    })
    expect(front.requests()).toEqual([])
    await expect(mint(reserve({ path: 'secret/data/app', policy: 'mayfly-task-app-settings' }), patient, few)).resolves.toMatchObject({
      credential: { type: 'fields' },
    })
  })

  describe('a read that takes too long', () => {
    const contained = (): boolean => front.requests().some(({ what, status }) => what === 'revoke token' && status === 204)

    test('is never broken off: its token is contained meanwhile, and where Vault hears of it after that it brings nothing', async () => {
      const reservation = reserve()
      const impatient = new AbortController()
      front.next('read database/creds/ledger-read', 'held')
      const minting = failureOf(mint(reservation, impatient.signal))
      await front.hanging('read database/creds/ledger-read')
      impatient.abort()
      expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
      while (!contained()) await vault.database.logins()
      expect(front.requests().filter(({ hungUp }) => hungUp)).toEqual([])
      await front.release()
      await provider.settled!()
      expect(front.requests().find(({ what }) => what === 'read database/creds/ledger-read')).toMatchObject({ status: 403, hungUp: false })
      expect(await openLogins(reservation)).toEqual([])
    })

    test('and brings a login that Vault was making by then has its lease journaled and ended', early, async () => {
      const lock = 8_401
      const slow = await otherRole('slow', (role) => ({
        creation_statements: [`SELECT pg_advisory_xact_lock(${lock});`, ...role.creation_statements],
      }))
      const reservation = reserve(slow)
      const impatient = new AbortController()
      front.next('revoke lease', 'held')
      await vault.database.superuser.begin(async (holder) => {
        await holder`select pg_advisory_xact_lock(${lock})`
        const minting = failureOf(mint(reservation, impatient.signal))
        while ((await vault.database.superuser`select from pg_stat_activity where wait_event = 'advisory'`).length === 0);
        impatient.abort()
        expect(await minting).toMatchObject({ fault: 'timed_out', minted: 'maybe' })
        while (!contained()) await vault.database.logins()
        expect(front.requests().find(({ what }) => what === 'read database/creds/slow')).toMatchObject({ status: undefined, hungUp: false })
      })

      await front.hanging('revoke lease')
      expect(front.requests().find(({ what }) => what === 'read database/creds/slow')).toMatchObject({ status: 200 })
      expect(await openLogins(reservation)).toHaveLength(1)
      const { lease_id } = journaled.get(reservation.lease)!.at(-1)!
      // It came after all that hung on the token was ended, and Vault itself would let it live for its own first time.
      const { ttl } = (await vault.root<{ ttl: number }>('POST', 'sys/leases/lookup', { lease_id })).body.data
      expect(ttl).toBeGreaterThan(30)

      await front.release()
      await provider.settled!()
      expect(front.requests().flatMap(({ what, status }) => (what === 'revoke lease' ? [status] : []))).toEqual([204])
      expect(await openLogins(reservation)).toEqual([])
      await expect(provider.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
    })

    test('is told as the silence of what is behind Vault, also where containing takes longer than anybody waits', async () => {
      const hurried = await connectTo(vault, front.address, { timeout: '5s' })
      const target = createTarget(hurried, { clock: systemClock, observe: () => {} })
      front.next('read database/creds/ledger-read', 'held')
      front.next('revoke token', 'held')
      const reservation = reserve()
      const failed = await failureOf(mint(reservation, patient, target))
      expect(failed).toMatchObject({ fault: 'downstream', minted: 'maybe' })
      await front.release()
      await hurried.settled!()
      await end(reservation)
      await untilLogins(reservation, 0)
    })

    test('is waited for by a broker that stops', async () => {
      await provider.settled!()
      const reservation = reserve()
      const impatient = new AbortController()
      front.next('read database/creds/ledger-read', 'held', { done: true })
      const minting = failureOf(mint(reservation, impatient.signal))
      await front.hanging('read database/creds/ledger-read')
      impatient.abort()
      await minting
      const settled = provider.settled!()
      const first = await Promise.race([settled.then(() => 'settled'), vault.database.logins()])
      expect(first).not.toBe('settled')

      await front.release()
      await settled
      expect(await openLogins(reservation)).toEqual([])
      expect(journaled.get(reservation.lease)!.at(-1)).toHaveProperty('lease_id')
    })

    test('and is revoked meanwhile is not claimed to be dead before it is known what it brought', async () => {
      const reservation = reserve()
      const impatient = new AbortController()
      // OpenBao has the login, and the answer that names its lease is on its way.
      front.next('read database/creds/ledger-read', 'held', { done: true })
      const minting = failureOf(mint(reservation, impatient.signal))
      await front.hanging('read database/creds/ledger-read')
      const young = (): LeaseReference => referenceTo(reservation, 0)
      expect(await failureOf(provider.revoke(young(), patient))).toMatchObject({ fault: 'downstream', message: expect.stringContaining('cut off') })
      await front.release()
      await minting
      while (!journaled.get(reservation.lease)!.some((handle) => 'lease_id' in handle)) await vault.database.logins()
      await expect(provider.revoke(young(), patient)).resolves.toMatchObject({ by: 'provider' })
      expect(await openLogins(reservation)).toEqual([])
    })

    test('keeps its lease from being called revoked by the broker that reads, however old it is', async () => {
      const reservation = reserve()
      const impatient = new AbortController()
      front.next('read database/creds/ledger-read', 'held', { done: true })
      const minting = failureOf(mint(reservation, impatient.signal))
      await front.hanging('read database/creds/ledger-read')
      impatient.abort()
      await minting
      expect(await failureOf(provider.revoke(referenceTo(reservation), patient))).toMatchObject({
        fault: 'downstream',
        message: expect.stringContaining('a read is still under way'),
      })
      await front.release()
      await provider.settled!()
      await expect(provider.revoke(referenceTo(reservation), patient)).resolves.toMatchObject({ by: 'provider' })
      expect(await openLogins(reservation)).toEqual([])
    })
  })

  describe('a lease that ended behind our back', () => {
    test.each([
      ['its token was revoked by somebody', async ({ accessor }: Handle) => vault.root('POST', 'auth/token/revoke-accessor', { accessor })],
      ['its lease was revoked by somebody', async ({ lease_id }: Handle) => vault.root('POST', 'sys/leases/revoke', { lease_id, sync: true })],
    ])('is revoked with the evidence that it is gone: %s', async (_, behindOurBack) => {
      const reservation = reserve()
      await mint(reservation)
      await behindOurBack(journaled.get(reservation.lease)!.at(-1)!)
      await expect(provider.revoke(referenceTo(reservation, 0), patient)).resolves.toMatchObject({ by: 'provider' })
      expect(await openLogins(reservation)).toEqual([])
    })
  })

  describe('a database that is down', () => {
    afterEach(async () => {
      // What hung stays silent for ever, and Vault waits for it: only a reset frees its connection.
      await vault.database.wire.cut()
      await vault.database.wire.mend()
    })

    test('is said to be down when it should end a login, after the token was contained, and ends it when it is back', async () => {
      const reservation = reserve()
      await mint(reservation)
      await vault.database.wire.cut()
      const error = await failureOf(provider.revoke(referenceTo(reservation, 0), patient))
      expect(error).toMatchObject({ fault: 'downstream' })
      expect(front.requests().map(({ what }) => what)).toEqual(expect.arrayContaining(['revoke token', 'revoke lease']))
      expect(await openLogins(reservation)).toHaveLength(1)
      await vault.database.wire.mend()
      while ((await provider.revoke(referenceTo(reservation, 0), patient).catch(() => undefined)) === undefined);
      expect(await openLogins(reservation)).toEqual([])
    })

    test('makes no login, and says so', async () => {
      await vault.database.wire.cut()
      const reservation = reserve()
      expect(await failureOf(mint(reservation))).toMatchObject({ fault: 'downstream', minted: 'maybe' })
      await vault.database.wire.mend()
      await end(reservation)
    })

    test('and silent holds some places of a mint and never all, is asked by one at a time from then on, and others are made', async () => {
      const target = createTarget(await connectTo(vault, front.address, { timeout: '10s', concurrency: 4 }), {
        clock: systemClock,
        observe: () => {},
      })
      const minted = (own?: object) => target.mint(reserve(own), async () => {}, patient)
      const asked = (what: VaultRequest): number => front.requests().filter((request) => request.what === what).length
      const other = { path: 'database/creds/ledger-read-2', policy: 'mayfly-task-ledger-read-2' }
      vault.database.wire.hang()

      const hanging = Promise.all([1, 2, 3, 4].map(() => failureOf(minted())))
      while (asked('read database/creds/ledger-read') < 3) await vault.database.logins()
      await expect(minted(other)).resolves.toMatchObject({ credential: { type: 'username_password' } })
      const failures = await hanging
      expect(failures.filter(({ minted: left }) => left === 'no')).toMatchObject([
        { fault: 'downstream', message: expect.stringContaining('may be down') },
      ])
      expect(failures.filter(({ fault, minted: left }) => fault === 'downstream' && left === 'maybe')).toHaveLength(3)
      expect(target.failing).toBe(false)

      front.forget()
      const next = await Promise.all([failureOf(minted()), failureOf(minted()), minted(other)])
      expect(next.flatMap((one) => ('minted' in one ? [one.minted] : [])).toSorted()).toEqual(['maybe', 'no'])
      expect([asked('create token'), asked('read database/creds/ledger-read')]).toEqual([2, 1])
    })

    test('and silent does not hold up containment, nor logins over another connection behind the same Vault', async () => {
      const reservation = reserve()
      await mint(reservation)
      vault.database.wire.hang()
      const impatient = new AbortController()
      const ending = failureOf(provider.revoke(referenceTo(reservation, 0), impatient.signal))
      while (!front.requests().some(({ what, status }) => what === 'revoke token' && status === 204)) await vault.database.logins()

      const other = reserve({ path: 'database/creds/ledger-read-2', policy: 'mayfly-task-ledger-read-2' })
      await mint(other)
      await provider.revoke(referenceTo(other, 0), patient)
      expect(await openLogins(other)).toEqual([])

      impatient.abort()
      expect(await ending).toMatchObject({ fault: 'downstream', message: expect.stringContaining('may be down') })
    })
  })

  describe('a redirect', () => {
    test('is followed to a configured node, with the whole question', async () => {
      const both = await connectTo(vault, front.address, { nodes: [vault.address] })
      await both.check(patient)
      front.next('create token', 'redirects', { to: `${vault.address}/v1/auth/token/create/mayfly-task` })
      const reservation = reserve()
      await (await login(await mint(reservation, patient, both))).close()
      await end(reservation)
    })

    test('to an address that is not configured is not followed, and no token goes there', async () => {
      front.next('create token', 'redirects', { to: `${vault.address}/v1/auth/token/create/mayfly-task` })
      expect(await failureOf(mint(reserve()))).toMatchObject({ fault: 'unavailable', message: expect.stringContaining('not configured') })
    })
  })

  test('text of an agent reaches no other path', async () => {
    const own = { path: 'secret/data/{name}', policy: 'mayfly-task-app-settings' }
    for (const name of ['../app', 'app/../../sys/health', 'app?version=1', '%2e%2e', 'app\n', 'app#x', '', '.', '..', 'a b', 'app/', '&#x2F;']) {
      const error = await failureOf(mint(reserve(own, { parameters: { name } })))
      expect(error, name).toMatchObject({ fault: 'refused', minted: 'no' })
    }
    expect(front.requests()).toEqual([])
    await expect(mint(reserve(own, { parameters: { name: 'app' } }))).resolves.toMatchObject({ credential: { type: 'fields' } })
  })
})

describe.runIf(vaultRuns)('the promise', () => {
  providerContract('vault', undefined, async () => {
    const vault = await startVault()
    const provider = await connectTo(vault, vault.address)
    const usernames: string[] = []
    return {
      provider: {
        ...provider,
        async mint(...asked) {
          const minted = await provider.mint(...asked)
          if (minted.credential.type === 'username_password') usernames.push(minted.credential.username)
          return minted
        },
      },
      reserve: () => reservationOf(vaultKind.grant.parse(reading), { parameters: {}, issuedAt: longAgo() }),
      works: (password) => vault.database.letsIn(usernames.at(-1)!, password),
      stop: () => vault.stop(),
    }
  })
})
