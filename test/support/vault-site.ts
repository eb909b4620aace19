import type { RunningVault } from './vault.ts'

/** The entry of a Vault under `providers:`, as YAML. @param address where the broker finds it, if not where it is. @param more settings besides, such as `, timeout: 5s` */
export const vaultProvider = ({ address: own, tokenFile }: Pick<RunningVault, 'address' | 'tokenFile'>, address = own, more = ''): string =>
  `  - { name: vault, kind: vault, address: "${address}", auth: { method: token, token_file: "${tokenFile}" }, token_role: mayfly-task${more} }\n`

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
