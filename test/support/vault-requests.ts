/** What a broker asks of Vault, by name. A secret is read at its path: `read database/creds/ledger-read`. */
export type VaultRequest = (typeof names)[number]['name'] | `read ${string}`

const names = [
  { name: 'create token', is: /^auth\/token\/create(-orphan)?(\/|$)/ },
  { name: 'renew token', is: /^auth\/token\/renew-accessor$/ },
  { name: 'revoke token', is: /^auth\/token\/revoke-accessor$/ },
  { name: 'look up token', is: /^auth\/token\/lookup-accessor$/ },
  { name: 'renew lease', is: /^sys\/leases\/renew(\/|$)/ },
  { name: 'revoke lease', is: /^sys\/leases\/revoke(\/|$)/ },
  { name: 'look up lease', is: /^sys\/leases\/lookup(\/|$)/ },
  { name: 'log in', is: /^auth\/.*\blogin$/ },
  { name: 'check', look: true, is: /^sys\/(health|seal-status|capabilities-self)$/ },
  { name: 'look up own token', look: true, is: /^auth\/token\/lookup-self$/ },
  { name: 'renew own token', look: true, is: /^auth\/token\/renew-self$/ },
  { name: 'revoke own token', look: true, is: /^auth\/token\/revoke-self$/ },
  { name: 'look at a role', look: true, is: /^[\w-]+(\/token)?\/roles\// },
] as const satisfies readonly { readonly name: string; readonly look?: true; readonly is: RegExp }[]

/** @param path with `/v1/` and whatever is asked of it */
export function nameOfVaultRequest(_method: string, path: string): VaultRequest {
  const at = path.replace(/^\/v1\//, '').replace(/\?.*$/, '')
  return names.find(({ is }) => is.test(at))?.name ?? `read ${at}`
}

export const isVaultRequest = (name: string): boolean => /^read ./.test(name) || names.some((known) => known.name === name)

/** Whether it comes whenever it likes, and no task waits for it. */
export const isVaultLook = (name: string): boolean => names.some((known) => known.name === name && 'look' in known)
