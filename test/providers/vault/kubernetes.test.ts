import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import type { Minted, Provider, Reservation } from '../../../src/providers/provider.ts'
import { createAsk } from '../../../src/providers/vault/client.ts'
import { createIdentity, type Identity } from '../../../src/providers/vault/identity.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { type Kubernetes, startKubernetes } from '../../support/kubernetes.ts'
import { frontVault, type VaultFront } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal
const broker = { namespace: 'mayfly', name: 'broker' }

describe.runIf(vaultRuns)('Kubernetes behind Vault', () => {
  let vault: RunningVault
  let front: VaultFront
  let cluster: Kubernetes

  beforeAll(async () => {
    vault = await startVault()
    ;[front, cluster] = await Promise.all([frontVault(vault.address), startKubernetes(vault)])
  })
  afterAll(async () => {
    await front?.stop()
    await cluster?.stop()
    await vault?.stop()
  })
  afterEach(() => {
    front.clear()
    front.forget()
    cluster.forget()
  })

  async function told(method: string, at: string, body?: object) {
    const answer = await vault.root<Record<string, unknown>>(method, at, body)
    if (answer.status >= 300) throw new Error(`${method} ${at}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const settingsOf = (auth: object) => vaultKind.settings.parse({ address: front.address, auth, token_role: 'mayfly-task' })

  describe('a broker that its pod names', () => {
    /** Milliseconds. */
    let now = 0

    beforeAll(async () => {
      for (const account of [broker, { namespace: 'vault', name: 'reviewer' }]) cluster.account(account)
      await told('POST', 'sys/auth/kubernetes', { type: 'kubernetes' })
      await told('POST', 'auth/kubernetes/config', {
        kubernetes_host: cluster.address,
        kubernetes_ca_cert: cluster.ca,
        disable_local_ca_jwt: true,
        token_reviewer_jwt: cluster.issue({ namespace: 'vault', name: 'reviewer' }, 'https://kubernetes.default.svc'),
      })
      await told('POST', 'auth/kubernetes/role/mayfly', {
        bound_service_account_names: [broker.name],
        bound_service_account_namespaces: [broker.namespace],
        audience: 'vault',
        token_policies: ['mayfly-broker'],
        token_no_default_policy: true,
        token_ttl: '20m',
      })
    })

    const file = () => join(vault.folder, 'pod-token')
    const auth = () => ({ method: 'kubernetes', role: 'mayfly', token_file: file() })
    /** As the platform does before the old one ends. */
    async function rotate(account = broker, audience = 'vault'): Promise<string> {
      const token = cluster.issue(account, audience)
      await writeFile(file(), token)
      return token
    }
    const newIdentity = (): Identity =>
      createIdentity(
        'vault',
        settingsOf(auth()),
        createAsk(settingsOf(auth()), () => {}),
        undefined,
        () => now,
      )
    async function accessorOf(identity: Identity): Promise<string> {
      const { status, body } = await identity.ask({ path: 'auth/token/lookup-self' }, patient)
      expect(status).toBe(200)
      return (body as { data: { accessor: string } }).data.accessor
    }
    const logins = (): number => front.requests().filter(({ what }) => what === 'log in').length
    const reviews = (): number => cluster.requests().filter(({ path }) => path.endsWith('/tokenreviews')).length

    test('is let in with the token of its pod, which Kubernetes reviews, and mints', async () => {
      await rotate()
      const provider = await vaultKind.connect('vault', settingsOf(auth()), {
        publicUrl: 'https://broker.example.com',
        keys: vault.folder,
        clock: systemClock,
      })
      await provider.check(patient)
      const grant = vaultKind.grant.parse({ path: 'secret/data/app', policy: 'mayfly-task-app-settings' })
      const minted = await provider.mint(reservationOf(grant, { parameters: {} }), async () => {}, patient)
      expect(minted.credential).toMatchObject({ type: 'fields' })
      expect([logins(), reviews()]).toEqual([1, 1])
    })

    test('logs in once more where somebody has revoked its token, with the one that the platform has written since', async () => {
      const old = await rotate()
      const identity = newIdentity()
      const first = await accessorOf(identity)
      await rotate()
      cluster.withdraw(old)
      expect(await accessorOf(identity)).toBe(first)

      await told('POST', 'auth/token/revoke-accessor', { accessor: first })
      now += 5_000
      expect(await accessorOf(identity)).not.toBe(first)
      expect([logins(), reviews()]).toEqual([2, 2])
    })

    test.each<[string, () => Promise<string>]>([
      [
        'that the review refuses',
        async () => {
          const token = await rotate()
          cluster.withdraw(token)
          return token
        },
      ],
      ['of another account', () => rotate({ namespace: 'vault', name: 'reviewer' })],
      ['for another audience', () => rotate(broker, 'https://kubernetes.default.svc')],
    ])('says in one error that it is not let in with a token %s, and asks no more for a moment', async (_, given) => {
      const token = await given()
      const identity = newIdentity()
      const errors = await Promise.all(Array.from({ length: 8 }, () => accessorOf(identity).catch((error: unknown) => error)))
      expect(new Set(errors.map(String))).toEqual(new Set(['ProviderError: vault gave no login to the broker: permission denied']))
      expect(errors[0]).toMatchObject({ fault: 'unavailable', minted: 'no' })
      expect(String(errors[0])).not.toContain(token)
      await expect(accessorOf(identity)).rejects.toMatchObject({ message: expect.stringContaining('a moment ago') })
      expect(logins()).toBe(1)

      await rotate()
      now += 1_000
      await accessorOf(identity)
      expect(logins()).toBe(2)
    })
  })

  describe('a token of a service account', () => {
    let provider: Provider
    const journaled = new Map<string, Handle[]>()
    const apps = 'apps'
    const engine = { namespace: 'vault', name: 'engine' }
    /** The engine's own token. */
    let own: string
    async function letEngineIn(): Promise<void> {
      own = cluster.issue(engine, 'https://kubernetes.default.svc')
      await told('POST', 'kubernetes/config', {
        kubernetes_host: cluster.address,
        kubernetes_ca_cert: cluster.ca,
        disable_local_ca_jwt: true,
        service_account_jwt: own,
      })
    }

    beforeAll(async () => {
      const deployer = { namespace: apps, name: 'deployer' }
      for (const account of [engine, deployer]) cluster.account(account)
      await told('POST', 'sys/mounts/kubernetes', { type: 'kubernetes' })
      await letEngineIn()
      const common = { allowed_kubernetes_namespaces: [apps], token_max_ttl: '24h' }
      const rules = { rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }] }
      await told('POST', 'kubernetes/roles/with-its-own-rules', { ...common, generated_role_rules: JSON.stringify(rules) })
      await told('POST', 'kubernetes/roles/under-a-role', { ...common, kubernetes_role_name: 'reader' })
      await told('POST', 'kubernetes/roles/lent', { ...common, service_account_name: deployer.name })
      await told('POST', 'sys/policies/acl/mayfly-task-kubernetes', { policy: 'path "kubernetes/creds/*" { capabilities = ["update"] }' })
      const settings = settingsOf({ method: 'token', token_file: vault.tokenFile })
      provider = await vaultKind.connect('vault', settings, { publicUrl: 'https://broker.example.com', keys: vault.folder, clock: systemClock })
    })
    afterEach(() => cluster.limit(Number.POSITIVE_INFINITY))

    const grantOf = (role: string, endedBy: string) =>
      vaultKind.grant.parse({
        path: `kubernetes/creds/${role}`,
        policy: 'mayfly-task-kubernetes',
        engine: 'kubernetes',
        ended_by: endedBy,
        data: { kubernetes_namespace: apps },
      })
    /** @param life milliseconds */
    const reserve = (role: string, endedBy: string, life = 1_800_000): Reservation =>
      reservationOf(grantOf(role, endedBy), { parameters: {}, expiresAt: new Date(Date.now() + life) })
    const mint = (reservation: Reservation): Promise<Minted> =>
      provider.mint(
        reservation,
        async (handle) => void journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle]),
        patient,
      )
    const end = ({ lease, task }: Reservation) => provider.revoke({ lease, task, age: 0, handles: journaled.get(lease) ?? [] }, patient)
    function tokenOf({ credential }: Minted): string {
      if (credential.type !== 'bearer_token') throw new Error('not a token')
      return credential.token.open()
    }
    /** What was made for a lease: everything that OpenBao makes begins with a v. */
    const made = (): string[] =>
      cluster
        .objects()
        .filter((object) => object.includes(`/${apps}/v-`))
        .map((object) => object.split('/')[0]!)
        .toSorted()
    const endOf = (token: string): number => (JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { exp: number }).exp * 1_000

    test.each([
      ['with-its-own-rules', ['rolebindings', 'roles', 'serviceaccounts']],
      ['under-a-role', ['rolebindings', 'serviceaccounts']],
    ])('of an account that is made for it is dead, and everything gone that was made, when its lease is revoked: %s', async (role, objects) => {
      const reservation = reserve(role, 'lease')
      expect(provider.revocation(reservation.settings)).toBe('provider')
      const token = tokenOf(await mint(reservation))
      expect(cluster.accepts(token)).toBe(true)
      expect(made()).toEqual(objects)

      await expect(end(reservation)).resolves.toMatchObject({ by: 'provider', statement: expect.stringContaining('sys/leases/revoke answered 204') })
      expect(cluster.accepts(token)).toBe(false)
      expect(made()).toEqual([])
    })

    test('of an account that is made for it has a lease that ends at Vault with its task, for which no broker is needed', async () => {
      const reservation = reserve('with-its-own-rules', 'lease', 660_000)
      const minted = await mint(reservation)
      expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(reservation.expiresAt.getTime())
      const leaseId = journaled.get(reservation.lease)!.flatMap((handle) => ('lease_id' in handle ? [handle['lease_id']] : []))[0]
      const { body } = await vault.root('POST', 'sys/leases/lookup', { lease_id: leaseId })
      expect(Date.parse(body.data['expire_time']!)).toBeLessThanOrEqual(reservation.expiresAt.getTime())
      await end(reservation)
    })

    test('is not said to be revoked while Kubernetes refuses to delete its account, and is when that is mended', async () => {
      const reservation = reserve('under-a-role', 'lease')
      const token = tokenOf(await mint(reservation))
      cluster.withdraw(own)
      await expect(end(reservation)).rejects.toMatchObject({ fault: 'downstream', message: 'vault could not end it: the backend behind it failed' })
      expect(cluster.accepts(token)).toBe(true)

      await letEngineIn()
      await expect(end(reservation)).resolves.toMatchObject({ by: 'provider' })
      expect(cluster.accepts(token)).toBe(false)
      expect(made()).toEqual([])
    })

    test('is revoked with evidence where somebody has deleted its account by hand', async () => {
      const reservation = reserve('under-a-role', 'lease')
      await mint(reservation)
      for (const object of cluster.objects().filter((one) => one.includes(`/${apps}/v-`))) cluster.remove(object)
      await expect(end(reservation)).resolves.toMatchObject({ by: 'provider' })
    })

    test('of an account that stays says expiry and its own end, and is accepted until then', async () => {
      const reservation = reserve('lent', 'time')
      expect(provider.revocation(reservation.settings)).toBe('expiry')
      const minted = await mint(reservation)
      const token = tokenOf(minted)
      // Both count whole seconds, so a token may end that much before, and never after.
      expect(endOf(token)).toBeLessThanOrEqual(minted.expiresAt.getTime())
      expect(endOf(token)).toBeGreaterThan(minted.expiresAt.getTime() - 3_000)
      expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(reservation.expiresAt.getTime())
      expect(made()).toEqual([])

      await end(reservation)
      expect(cluster.accepts(token)).toBe(true)
    })

    test('that Kubernetes makes shorter than asked is a shorter lease, from when it was asked for and not from when it was journaled', async () => {
      cluster.limit(900)
      const reservation = reserve('lent', 'time')
      const begun = Date.now()
      const minted = await provider.mint(
        reservation,
        async (handle) => {
          while ('lease_id' in handle && Date.now() < begun + 1_500) await vault.root('GET', 'sys/health')
        },
        patient,
      )
      expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(endOf(tokenOf(minted)) + 1_000)
      expect(minted.expiresAt.getTime()).toBeGreaterThan(begun + 890_000)
    })

    test.each([
      ['lent', 'time'],
      ['under-a-role', 'lease'],
    ])('is not made for a task of less than ten minutes, which it would outlive: %s', async (role, endedBy) => {
      const reservation = reserve(role, endedBy, 590_000)
      await expect(mint(reservation)).rejects.toMatchObject({ fault: 'refused', minted: 'no', message: expect.stringContaining('less than 600 s') })
      expect([front.requests(), cluster.requests()].map((seen) => seen.length)).toEqual([0, 0])
    })

    describe('in provider check', () => {
      const examined = (role: string, endedBy: string, minutes = 30) =>
        provider.examine!([{ name: 'deployer', settings: grantOf(role, endedBy), maxTtl: minutes * 60_000, parameters: {} }]).then((findings) =>
          findings.filter(({ subject }) => subject.startsWith('grant')).map(({ level, message }) => `${level}: ${message}`),
        )

      test.each<[string, string, string, number, readonly (string | RegExp)[]]>([
        ['is made and ended', 'under-a-role', 'lease', 30, ['ok: made, revoked and gone (provider)']],
        ['only time ends', 'lent', 'time', 30, ['ok: made. Nothing but its time ends it (expiry)']],
        ['no end of a lease ends', 'lent', 'lease', 30, [/^fault: lends a service account that stays/, 'ok: made, revoked and gone (provider)']],
        ['its lease could end', 'under-a-role', 'time', 30, [/^warning: makes a service account for each lease/, /^ok: made/]],
        ['outlives any task', 'lent', 'time', 10, [/^fault: makes tokens that live for 600 s at least/, /^fault: Kubernetes makes no token/]],
      ])('that %s', async (_, role, endedBy, minutes, findings) => {
        expect(await examined(role, endedBy, minutes)).toEqual(findings.map((one) => (typeof one === 'string' ? one : expect.stringMatching(one))))
      })
    })
  })
})
