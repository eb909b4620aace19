import { type Fleet, startFleet } from './fleet.ts'
import { type RunningVault, startVault } from './vault.ts'
import { frontVault, type VaultFront } from './vault-front.ts'

/**
 * The entry of a Vault under `providers:`, as YAML.
 *
 * @param address where the broker finds it, if not where it is
 * @param more settings besides, such as `, timeout: 5s`
 */
export const vaultProvider = (
  { address: own, tokenFile }: Pick<RunningVault, 'address' | 'tokenFile'>,
  { name = 'vault', address = own, more = '' }: { readonly name?: string; readonly address?: string; readonly more?: string } = {},
): string =>
  `  - { name: ${name}, kind: vault, address: "${address}", auth: { method: token, token_file: "${tokenFile}" }, token_role: mayfly-task${more} }\n`

/** A catalogue for a site before a Vault: tokens of the broker's own, and logins of the database `ledger` over its two connections. */
export const vaultCatalogue = `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [api, db, db-2] }
grants:
  api: { provider: tokens, audience: "https://api.example.com", scope: "read", max_ttl: 10m }
  db: { provider: vault, path: database/creds/ledger-read, policy: mayfly-task-ledger-read, max_ttl: 20m }
  db-2: { provider: vault, path: database/creds/ledger-read-2, policy: mayfly-task-ledger-read-2, max_ttl: 20m }
`

/** Brokers before one OpenBao, with what goes wrong in between. */
export interface VaultFleet {
  readonly vault: RunningVault
  readonly front: VaultFront
  readonly fleet: Fleet
  stop(): Promise<void>
}

/** @param more settings of their provider, as `vaultProvider` takes them */
export async function startVaultFleet(brokers: number, more = ''): Promise<VaultFleet> {
  const vault = await startVault()
  const front = await frontVault(vault.address)
  const fleet = await startFleet(brokers, { providers: vaultProvider(vault, { address: front.address, more }), catalogue: vaultCatalogue })
  return {
    vault,
    front,
    fleet,
    async stop() {
      await fleet.stop()
      await front.stop()
      await vault.stop()
    },
  }
}
