import { awsKind } from './aws-sts/aws-sts.ts'
import { httpKind } from './http/http.ts'
import { jwtKind } from './jwt/jwt.ts'
import type { ProviderKind } from './provider.ts'
import { vaultKind } from './vault/vault.ts'

/** Every kind of provider that a configuration may name. A new one is a folder beside these and a line here. */
export const providerKinds: ReadonlyMap<string, ProviderKind> = new Map<string, ProviderKind>([
  [jwtKind.kind, jwtKind],
  [httpKind.kind, httpKind],
  [vaultKind.kind, vaultKind],
  [awsKind.kind, awsKind],
])
