import { z } from 'zod'
import { durationWithin } from '../../base/duration.ts'
import { roleName } from './grant.ts'

/** Milliseconds that the session of a role lasts at most which another role assumed (IAM User Guide, "Role chaining"). */
export const longestChained = 3_600_000

/** How the broker shows AWS who it is. No method takes a key from a file: whatever can be read there can be copied. */
const method = z.discriminatedUnion('method', [
  /** The SDK's default chain: the role of a pod, a task or an instance, or what the environment names. */
  z.strictObject({ method: z.literal('default') }),
  /** The broker is an OIDC provider that the account knows, and signs for itself. */
  z.strictObject({
    method: z.literal('web_identity'),
    /** One of the provider's client ids, which trust policies compare as `<issuer>:aud`. */
    audience: z.string().min(1).max(255).default('sts.amazonaws.com'),
    /** Of one token, which is for one call. */
    lifetime: durationWithin(60_000, 300_000).prefault('2m'),
  }),
])

/** Whom the broker is at AWS: two identities, so that what mints can write no policy, and what writes the kill list can assume nothing. */
export const identityShape = {
  identity: method.prefault({ method: 'default' }),
  /** The role that assumes the roles of tasks; with the default chain, what that yields where there is none. */
  minter: roleName.optional(),
  /** The role that writes the kill list; likewise. */
  revoker: roleName.optional(),
}

interface Given {
  readonly identity: z.output<typeof method>
  readonly minter?: string | undefined
  readonly revoker?: string | undefined
  readonly longest_session: number
  /** There once sessions are denied, and not only left to their end. */
  readonly kill_list?: unknown
}

/** What is wrong with them together. */
export function identityFaults({ identity, minter, revoker, longest_session, kill_list }: Given): { path: string[]; message: string }[] {
  const faults: { path: string[]; message: string }[] = []
  const signs = identity.method === 'web_identity'
  if (signs && minter === undefined)
    faults.push({ path: ['minter'], message: 'is missing: with web_identity it is the role that the broker takes to assume others' })
  if (signs && revoker === undefined && kill_list !== undefined)
    faults.push({ path: ['revoker'], message: 'is missing: with web_identity it is the role that the broker takes to write the kill list' })
  if (minter !== undefined && minter === revoker)
    faults.push({ path: ['revoker'], message: 'must be another role than minter: whoever took over one of them would have both' })
  if (minter !== undefined && longest_session > longestChained)
    faults.push({
      path: ['longest_session'],
      message: 'must be at most "1h": AWS gives no longer session where one role assumes another, as minter does',
    })
  return faults
}
