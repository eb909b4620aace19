import { isSafeAddress } from '../base/address.ts'
import type { YamlFile } from '../base/yaml-file.ts'
import type { Issuer } from '../identity/issuer.ts'
import { Console } from './shapes.ts'

/** How people sign in to the console. */
export interface ConsoleSettings {
  /** Its name under `identity`, by which `operators` refer to it. */
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string | undefined
  readonly scopes: readonly string[]
  /** Milliseconds. */
  readonly session: number
}

/** @param names of issuers that may be referred to, also of entries that have faults of their own */
export function readConsole(yaml: YamlFile, value: unknown, identity: readonly Issuer[], names: ReadonlySet<unknown>): ConsoleSettings | undefined {
  if (value === undefined) return undefined
  const found = yaml.parse(Console, value, ['console'])
  if (!found) return undefined
  const { issuer, client_id: clientId, client_secret: clientSecret, scopes, session } = found
  const fault = (message: string): void => yaml.fault(['console', 'issuer'], message)
  if (!names.has(issuer)) fault('is not the name of an issuer under identity')
  const entry = identity.find(({ name }) => name === issuer)
  if (entry && entry.profile !== 'oidc') fault('must be an issuer of profile oidc: the others sign no people in')
  else if (entry && !isSafeAddress(entry.issuer ?? '', entry.allowHttp))
    fault('is the name of an issuer without an https address, where nobody could sign in')
  return { issuer, clientId, clientSecret, scopes, session }
}
