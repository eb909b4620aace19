import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import { checkProviders } from '../../../src/main/provider-check.ts'
import type { LeaseReference, Minted, Provider, Reservation } from '../../../src/providers/provider.ts'
import { vaultKind } from '../../../src/providers/vault/vault.ts'
import { frontVault, type VaultFront } from '../../support/vault-front.ts'
import { type RunningVault, startVault, vaultRuns } from '../../support/vault.ts'
import { failureOf } from '../contract.ts'
import { reservationOf } from '../reservation.ts'
import { type CheckSite, makeCheckSite } from './check-site.ts'

const patient = new AbortController().signal
const reading = vaultKind.grant.parse({ path: 'database/creds/ledger-read', policy: 'mayfly-task-ledger-read' })

/** A reservation of a login. @param life milliseconds */
const reserve = (life = 600_000): Reservation => reservationOf(reading, { parameters: {}, expiresAt: new Date(Date.now() + life) })

describe.runIf(vaultRuns)('a Vault with namespaces', () => {
  let vault: RunningVault
  let front: VaultFront

  beforeAll(async () => {
    vault = await startVault()
    front = await frontVault(vault.address)
    await told('POST', 'sys/namespaces/team')
    await told('POST', 'team/sys/namespaces/sub')
  })
  afterAll(async () => {
    await front?.stop()
    await vault?.stop()
  })
  afterEach(() => {
    front.clear()
    front.forget()
  })

  async function told(method: string, at: string, body?: object) {
    const answer = await vault.root(method, at, body)
    if (answer.status >= 300) throw new Error(`${method} ${at}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer.body
  }
  const connect = (settings: object): Promise<Provider> =>
    vaultKind.connect('vault', vaultKind.settings.parse({ address: front.address, token_role: 'mayfly-task', ...settings }), {
      publicUrl: 'https://broker.example.com',
      keys: vault.folder,
      clock: systemClock,
    })
  /** Where everything was asked that is not the health of the node, which is known outside of namespaces only. */
  const places = (): readonly (string | undefined)[] => [
    ...new Set(
      front
        .requests()
        .filter(({ path: at }) => at !== '/v1/sys/health')
        .map(({ namespace }) => namespace),
    ),
  ]
  async function openLogins({ lease }: Reservation): Promise<readonly string[]> {
    const logins = await vault.database.logins()
    return logins.filter(({ name, open }) => open && name.includes(lease.replace('_', '-'))).map(({ name }) => name)
  }

  describe.each(['team', 'team/sub'])('in %s, set up by deploy/vault as it stands', (namespace) => {
    const journaled = new Map<string, Handle[]>()
    let tokenFile: string
    let provider: Provider

    beforeAll(async () => {
      tokenFile = path.join(vault.folder, `token-of-${namespace.replace('/', '-')}`)
      await vault.setUp({ BAO_NAMESPACE: namespace, BROKER_TOKEN_FILE: tokenFile })
      await told('POST', `${namespace}/sys/auth/approle`, { type: 'approle' })
      const at = `${namespace}/auth/approle/role/mayfly`
      await told('POST', at, { token_policies: ['mayfly-broker'], token_no_default_policy: true, token_ttl: '20m' })
      const { role_id: roleId } = (await told('GET', `${at}/role-id`)).data
      const secretIdFile = `${tokenFile}-secret-id`
      await writeFile(secretIdFile, (await told('POST', `${at}/secret-id`, {})).data['secret_id']!)
      provider = await connect({ namespace, auth: { method: 'approle', role_id: roleId, secret_id_file: secretIdFile } })
    })

    const mint = (reservation: Reservation): Promise<Minted> =>
      provider.mint(
        reservation,
        async (handle) => void journaled.set(reservation.lease, [...(journaled.get(reservation.lease) ?? []), handle]),
        patient,
      )
    /** As the ledger would hand it back. */
    const referenceTo = ({ lease, task }: Reservation, age = 0): LeaseReference => ({
      lease,
      task,
      age,
      handles: JSON.parse(JSON.stringify(journaled.get(lease) ?? [])) as Handle[],
    })
    const login = ({ credential }: Minted) => {
      if (credential.type !== 'username_password') throw new Error('not a login')
      return vault.database.login(credential.username, credential.password.open())
    }

    test('a database login lives and dies with its sessions, and nothing is asked anywhere else', async () => {
      const reservation = reserve()
      const session = await login(await mint(reservation))
      expect(await session.query('select count(*)::int as count from bookings')).toMatchObject([{ count: 3 }])
      expect(journaled.get(reservation.lease)).toEqual([
        { namespace, cluster_id: expect.any(String), accessor: expect.any(String) },
        { namespace, cluster_id: expect.any(String), accessor: expect.any(String), lease_id: expect.any(String) },
      ])

      await expect(provider.revoke(referenceTo(reservation), patient)).resolves.toMatchObject({
        by: 'provider',
        statement: expect.stringContaining('sys/leases/revoke answered 204'),
      })
      expect(await session.alive()).toBe(false)
      expect(await openLogins(reservation)).toEqual([])
      // And once more: what Vault does not know any more is proof enough, if the node that says so is the active one.
      await expect(provider.revoke(referenceTo(reservation), patient)).resolves.toMatchObject({ by: 'provider' })
      expect(front.requests().map(({ what }) => what)).toEqual(expect.arrayContaining(['log in', 'renew token', 'renew lease', 'revoke lease']))
      expect(places()).toEqual([namespace])
    })

    test('a login ends by itself at its own end where the broker never comes back', async () => {
      const reservation = reserve(6_000)
      await mint(reservation)
      while ((await openLogins(reservation)).length > 0);
      expect(Date.now() - reservation.expiresAt.getTime(), 'it would end by its first life of 45 s').toBeLessThan(30_000)
    })

    test('another broker ends what the ledger knows of a mint that was cut off: its token alone', async () => {
      const reservation = reserve()
      await mint(reservation)
      journaled.set(reservation.lease, journaled.get(reservation.lease)!.slice(0, 1))
      const other = await connect({ namespace, auth: { method: 'token', token_file: tokenFile } })
      const age = 600_000
      await expect(other.recover(referenceTo(reservation, age), patient)).resolves.toEqual({ minted: true })
      await expect(other.revoke(referenceTo(reservation, age), patient)).resolves.toMatchObject({ by: 'provider' })
      while ((await openLogins(reservation)).length > 0);
      expect(places()).toEqual([namespace])
    })

    test('a broker that was moved elsewhere asks where the lease is, and claims nothing where it may not end it', async () => {
      const reservation = reserve()
      await mint(reservation)
      front.forget()
      const movedWith = (file: string) => connect({ auth: { method: 'token', token_file: file } })
      const ends = () =>
        front
          .requests()
          .filter(({ what }) => what === 'revoke token' || what === 'revoke lease')
          .map(({ what, namespace: place, status }) => `${what} in ${place}: ${status}`)
      const moved = await movedWith(vault.tokenFile)
      expect(await failureOf(moved.revoke(referenceTo(reservation), patient))).toMatchObject({
        message: expect.stringContaining('permission denied'),
      })
      expect(ends()).toEqual([`revoke token in ${namespace}: 403`])
      expect(await openLogins(reservation)).toHaveLength(1)

      front.forget()
      const mayEverything = path.join(vault.folder, 'root-token')
      await writeFile(mayEverything, vault.rootToken)
      await expect((await movedWith(mayEverything)).revoke(referenceTo(reservation), patient)).resolves.toMatchObject({ by: 'provider' })
      expect(ends()).toEqual([`revoke token in ${namespace}: 204`, `revoke lease in ${namespace}: 204`])
      expect(await openLogins(reservation)).toEqual([])
    })

    describe('provider check', () => {
      let site: CheckSite
      beforeAll(async () => {
        site = await makeCheckSite('  ledger: { provider: vault, path: database/creds/ledger-read, policy: mayfly-task-ledger-read, max_ttl: 30m }\n')
      })
      afterAll(() => site?.remove())

      async function findings(own: object): Promise<readonly string[]> {
        const file = await site.configure({ address: front.address, namespace, ...own })
        const [checked] = await checkProviders(file, { only: 'vault', parameters: {} })
        return checked!.findings.map(({ level, subject, message }) => `${level}: ${subject}: ${message}`)
      }
      const withToken = () => ({ auth: { method: 'token', token_file: tokenFile } })

      test('finds no fault, and says what it cannot see from there', async () => {
        const found = await findings(withToken())
        expect(found.filter((one) => !/^(ok|unchecked): /.test(one))).toEqual([])
        expect(found).toContain('ok: grant ledger: made, revoked and gone (provider)')
        expect(found).toContainEqual(expect.stringMatching(new RegExp(`^unchecked: quotas: .* not seen from ${namespace}`)))
        expect(places()).toEqual([namespace])
      })

      test('finds a policy missing that there is outside', async () => {
        const at = `${namespace}/sys/policies/acl/mayfly-task-ledger-read`
        const { policy } = (await told('GET', at)).data
        await told('DELETE', at)
        try {
          expect(await findings(withToken())).toContainEqual(
            expect.stringMatching(/^fault: grant ledger: vault gave no task token: it has no policy mayfly-task-ledger-read/),
          )
        } finally {
          await told('POST', at, { policy })
        }
        expect((await vault.root('GET', 'sys/policies/acl/mayfly-task-ledger-read')).status).toBe(200)
      })

      test('says that there is no such namespace', async () => {
        expect(await findings({ ...withToken(), namespace: `${namespace}/nobody` })).toContainEqual(
          expect.stringMatching(/^fault: broker token: .*there is no such namespace/),
        )
      })
    })
  })
})
