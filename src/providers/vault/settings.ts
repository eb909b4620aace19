import { z } from 'zod'
import { addressFault } from '../connection.ts'
import type { GrantFault } from '../provider.ts'
import { callTimeout, path } from '../shapes.ts'

/** A path of Vault's API, such as a mount: segments that need no escaping and lead nowhere else. */
export const apiPath = z
  .string()
  .max(256)
  .regex(
    /^[A-Za-z0-9_][A-Za-z0-9._-]*(\/[A-Za-z0-9_][A-Za-z0-9._-]*)*$/,
    'must be segments of letters, digits, ".", "_" or "-" with "/" between them',
  )

/** What Vault calls a role, or a key. */
export const plainName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/, 'must be letters, digits, ".", "_" or "-", at most 128')

/** Where a platform leaves the token of a pod, `kubernetes` being the platform. */
const podToken = '/var/run/secrets/kubernetes.io/serviceaccount/token'

/** How the broker shows Vault who it is. All files are read again when they change. */
const auth = z.discriminatedUnion('method', [
  /** A token that somebody else made: for development. */
  z.strictObject({ method: z.literal('token'), token_file: path }),
  z.strictObject({ method: z.literal('approle'), mount: apiPath.default('approle'), role_id: z.string().min(1).max(256), secret_id_file: path }),
  z.strictObject({ method: z.literal('kubernetes'), mount: apiPath.default('kubernetes'), role: plainName, token_file: path.default(podToken) }),
  /** With `token_file` a token of the platform; without, the broker signs for itself: `audience` is then what Vault's role is bound to. */
  z.strictObject({
    method: z.literal('jwt'),
    mount: apiPath.default('jwt'),
    role: plainName,
    token_file: path.optional(),
    audience: z.string().min(1).max(1_024).default('vault'),
  }),
])

/** Its entry under `providers:`. */
export const vaultSettings = z
  .strictObject({
    address: z.string().max(2_048),
    /** Other nodes of the same cluster: the only addresses besides `address` to which a standby may redirect. */
    nodes: z.array(z.string().max(2_048)).max(16).default([]),
    namespace: apiPath.optional(),
    auth,
    /** The token role that makes the task tokens: orphans, of type service, without the policy `default`. */
    token_role: plainName,
    ca: path.optional(),
    mtls: z.strictObject({ cert: path, key: path }).optional(),
    /** For a whole mint, or a whole end. Longer than elsewhere: a database that is slow to drop a role is better waited for than asked again. */
    timeout: callTimeout.prefault('15s'),
    concurrency: z.int().min(2).max(256).default(16),
    allow_http: z.boolean().default(false),
  })
  .superRefine((settings, context) => {
    for (const [key, text] of [['address', settings.address] as const, ...settings.nodes.map((node, at) => [`nodes.${at}`, node] as const)]) {
      const message = nodeFault(text, settings.allow_http) ?? schemeFault(text, settings.address)
      if (message !== undefined) context.addIssue({ code: 'custom', path: key.split('.'), message })
    }
  })

export type VaultSettings = z.output<typeof vaultSettings>

/** The audience of what the broker signs to log in there; undefined where it shows what somebody else has made. */
export const signedFor = ({ auth }: VaultSettings): string | undefined =>
  auth.method === 'jwt' && auth.token_file === undefined ? auth.audience : undefined

/**
 * What is shown to one Vault must be of no use at another: for as long as it lives, whoever is asked could show it elsewhere, and would be the broker there. Several
 * entries of one Vault, as of its namespaces, may share.
 */
export function sharedAudience(settings: VaultSettings, above: readonly { readonly name: string; readonly settings: VaultSettings }[]): GrantFault[] {
  const audience = signedFor(settings)
  const other = above.find((one) => signedFor(one.settings) === audience && !isSameNode(one.settings.address, settings.address))
  if (audience === undefined || !other) return []
  const message = `must be another than that of ${other.name}: each of the two Vaults could log in at the other with what the broker shows it`
  return [{ path: ['auth', 'audience'], message }]
}

const isSameNode = (one: string, other: string): boolean => new URL(one).origin === new URL(other).origin

/** A node, whose paths are Vault's own. */
function nodeFault(text: string, allowHttp: boolean): string | undefined {
  const fault = addressFault(text, allowHttp)
  if (fault !== undefined) return fault
  const { origin, href } = new URL(text)
  return href === `${origin}/` ? undefined : 'must be a scheme, a host and a port, and nothing else'
}

/** A node that is reached by other means than the address would be found out when it leads. */
const schemeFault = (node: string, address: string): string | undefined =>
  !URL.canParse(address) || new URL(node).protocol === new URL(address).protocol ? undefined : 'must have the scheme of `address`'
