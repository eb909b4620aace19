import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import { texts } from '../answers.ts'
import { seconds } from './trial.ts'

/** `data` of auth/token/roles/:name. Each limit stands there under two names, an old one and a new one. */
export const tokenRole = z.looseObject({
  allowed_policies: texts,
  allowed_policies_glob: texts,
  disallowed_policies: texts,
  disallowed_policies_glob: texts,
  orphan: z.boolean(),
  renewable: z.boolean(),
  token_type: z.string(),
  token_explicit_max_ttl: seconds,
  explicit_max_ttl: seconds,
  token_period: seconds,
  period: seconds,
  token_num_uses: seconds,
})
export type TokenRole = z.output<typeof tokenRole>

/** What a token role has to fit. */
export interface Fitting {
  /** Policies that the grants name. */
  readonly policies: readonly string[]
  /** Those of the broker itself. */
  readonly own: readonly string[]
  /** Seconds: the longest that a grant may last. */
  readonly longest: number
}

/** The role that makes the tokens of tasks. */
export function judgeTokenRole(name: string, role: TokenRole, { policies, own, longest }: Fitting): Finding[] {
  const findings: Finding[] = []
  const subject = `token role ${name}`
  const fault = (message: string): void => void findings.push({ level: 'fault', subject, message })
  const warning = (message: string): void => void findings.push({ level: 'warning', subject, message })

  if (role.token_type !== 'service')
    fault(
      `makes tokens of type ${role.token_type || 'default-service'}, and so batch tokens for whoever asks, which nothing can revoke: set token_type=service`,
    )
  if (!role.orphan) fault("its tokens die with the broker's own, and every running task with them: set orphan=true")
  if (!role.renewable) fault('its tokens cannot be renewed, so no task outlives its first 45 s: set renewable=true')
  if (Math.max(role.token_period, role.period) > 0) fault('gives its tokens a period, which outlasts the deadline of a task: set token_period=0')
  if (role.token_num_uses > 0) fault('limits how often its tokens are used, and the last use can read no secret with a lease: set token_num_uses=0')

  const most = [role.token_explicit_max_ttl, role.explicit_max_ttl].filter((limit) => limit > 0)
  if (most.length === 0) warning('sets no end that renewals cannot pass: set token_explicit_max_ttl to what the longest task may last')
  else if (Math.min(...most) < longest)
    warning(
      `ends its tokens after ${Math.min(...most)} s, and a grant may last ${longest} s: such leases will be shorter. Raise token_explicit_max_ttl`,
    )

  const globs = role.allowed_policies_glob
  if (role.allowed_policies.length === 0 && globs.length === 0)
    fault("names no policies, so it gives any that the broker's own token has: set allowed_policies_glob, such as mayfly-task-*")
  if (globs.some((glob) => /^\*+$/.test(glob))) fault('allows every policy: let allowed_policies_glob name those of tasks, such as mayfly-task-*')
  for (const policy of new Set(['default', ...own])) {
    if (policy !== 'root' && gives(role, policy))
      fault(`could give a task the policy ${policy}: name it in disallowed_policies, or narrow allowed_policies_glob`)
  }
  for (const policy of new Set(policies)) {
    if (!gives(role, policy))
      fault(`does not give the policy ${policy}, which a grant names: add it to allowed_policies, or to allowed_policies_glob`)
  }
  return findings.length > 0
    ? findings
    : [{ level: 'ok', subject, message: 'makes orphans of type service that end, with the policies of the grants and no others' }]
}

const gives = (role: TokenRole, policy: string): boolean =>
  (role.allowed_policies.includes(policy) || role.allowed_policies_glob.some((glob) => matches(glob, policy))) &&
  !role.disallowed_policies.includes(policy) &&
  !role.disallowed_policies_glob.some((glob) => matches(glob, policy))

/** As Vault matches policies (ryanuber/go-glob): each `*`, wherever it stands, for anything, and nothing else means more than itself. */
function matches(glob: string, policy: string): boolean {
  const texts = glob.split(/\*+/).map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'))
  return new RegExp(`^${texts.join('[^]*')}$`).test(policy)
}
