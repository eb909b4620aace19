import { Refusal } from './fault.ts'
import type { KeyRules } from './jwk.ts'
import { importKeys, type KeySet, type VerificationKey } from './keyset.ts'
import { withinSignal } from './wait.ts'

/** Where the keys of one issuer come from. */
export interface KeySource {
  /** The set that may be used now, without waiting. What was verified with another one is not verified any more. */
  current(): KeySet | undefined
  /** The key of this name. @throws Refusal `keys_unavailable`, `unknown_key`; BrokerError `timed_out` when the signal fires */
  find(kid: string | undefined, signal: AbortSignal): Promise<VerificationKey>
  /** What a probe is told. */
  state(): { readonly ok: boolean; readonly detail: string }
  close(): void
}

/** Keys that stand in the configuration. */
export function pinnedKeys(jwks: object, rules: KeyRules): KeySource {
  let set: KeySet | undefined
  const importing = importKeys(jwks, rules).then(
    (imported) => (set = imported),
    () => undefined,
  )
  return {
    current: () => set,
    async find(kid, signal) {
      if (!set) await withinSignal(importing, signal)
      if (!set) throw new Refusal('keys_unavailable')
      return keyOf(set, kid)
    },
    state: () => ({ ok: set !== undefined && set.keys.size > 0, detail: set ? `${set.keys.size} pinned keys` : 'no pinned key can be used' }),
    close: () => {},
  }
}

/** By its name within one set. @throws Refusal `unknown_key` */
export function keyOf(set: KeySet, kid: string | undefined): VerificationKey {
  const key = kid === undefined ? undefined : set.keys.get(kid)
  if (!key) throw new Refusal('unknown_key')
  return key
}
