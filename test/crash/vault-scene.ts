import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { wireHttp } from '../support/tripwire.ts'
import { deployed, type RunningVault, startVault } from '../support/vault.ts'
import { frontVault, type VaultFront } from '../support/vault-front.ts'
import { nameOfVaultRequest } from '../support/vault-requests.ts'
import { vaultCatalogue, vaultProvider } from '../support/vault-site.ts'
import type { Held, HeldLease } from './held.ts'
import { setStage, type Stage } from './stage.ts'

/** A stage before a real OpenBao with its database. What the broker asks crosses the tripwire first, then the front. */
export interface VaultScene extends Stage {
  readonly vault: RunningVault
  readonly front: VaultFront
  /** Whether the database lets the login of a lease in. */
  worked(lease: HeldLease): Promise<boolean>
  /** Logins that the database would let in, and whose lease is not active: by the lease and its state. */
  strangers(): Promise<readonly string[]>
  /** Runs deploy/vault/sweep.sql, as an operator would who comes when the last of these logins has been over for a while. */
  sweep(): Promise<void>
}

/** What the database makes of the name of a lease: deploy/vault/database-config.json. */
const loginName = /^mf-token-lease-([0-9a-z]{26})-/

/** A token of OpenBao's or of HashiCorp's Vault, whatever it may do. */
const anyToken = /\b(hv)?[sb]\.[\w-]{24}/

export const db = ({ leases }: Held): HeldLease => leases.find(({ grant }) => grant === 'db')!

/** The credential of a lease, as the answer has it. */
export const loginOf = ({ credential }: HeldLease) => credential as unknown as { readonly username: string; readonly password: string }

export async function openVaultScene(): Promise<VaultScene> {
  const vault = await startVault()
  const front = await frontVault(vault.address)
  const { superuser, url } = vault.database
  const open = async () => (await vault.database.logins()).filter((login) => login.open).map(({ name }) => leaseNamed(name))
  const token = (await readFile(vault.tokenFile, 'utf8')).trim()
  if (!anyToken.test(token)) throw new Error('tokens look otherwise')

  const stage = await setStage(async (tripwire) => {
    const wire = await wireHttp(front.address, tripwire, nameOfVaultRequest)
    return {
      // A death in each cell of a deed leaves a mint that hangs at one database, all at once.
      site: { extra: vaultProvider(vault, { address: wire.url, more: ', concurrency: 32' }) },
      catalogue: vaultCatalogue,
      alive: open,
      lingers: `coalesce(error, '') like '%ends by itself%'`,
      secrets: [token, anyToken],
      clear: () => front.clear(),
      async stop() {
        await Promise.all([wire.stop(), front.stop()])
        await vault.stop()
      },
    }
  })

  return {
    ...stage,
    vault,
    front,
    worked(lease) {
      const { username, password } = loginOf(lease)
      return vault.database.letsIn(username, password)
    },
    async strangers() {
      const living = await open()
      const leases = await stage.owner<{ id: string; state: string }[]>`select id, state from leases where id in ${stage.owner(['', ...living])}`
      const states = new Map(leases.map(({ id, state }) => [id, state]))
      return living.filter((lease) => states.get(lease) !== 'active').map((lease) => `${lease} ${states.get(lease) ?? 'unknown'}`)
    },
    async sweep() {
      const over = (await vault.database.logins()).filter((login) => !login.open)
      for (const { name } of over) await superuser`alter role ${superuser(name)} valid until '2020-01-01'`
      await promisify(execFile)('psql', ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', url, '-f', path.join(deployed, 'sweep.sql')])
    },
  }
}

function leaseNamed(login: string): string {
  const id = loginName.exec(login)?.[1]
  if (id === undefined) throw new Error(`a login that names no lease: ${login}`)
  return `lease_${id}`
}
