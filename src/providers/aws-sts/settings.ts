import { z } from 'zod'
import { durationWithin } from '../../base/duration.ts'
import { addressFault } from '../connection.ts'
import { callTimeout } from '../shapes.ts'
import { identityFaults, identityShape } from './identity-settings.ts'

/** What a role is without its path: names of roles are unique in an account whatever their paths. */
export const bareName = (role: string): string => role.slice(role.lastIndexOf('/') + 1)

/**
 * How sessions are denied before their time. `boundary`: the default version of the managed policy that is the role's permissions boundary, with which a
 * writer can grant nothing. `inline`: a policy of the role itself, for where the boundary is taken.
 */
const killList = z
  .strictObject({
    carrier: z.enum(['boundary', 'inline']).default('boundary'),
    /** Its name, with its path where it is a managed one; `{role}` stands for the role's name without its path. */
    policy: z
      .string()
      .max(512)
      .regex(/^([\w+=,.@/-]|\{role\})*([\w+=,.@-]|\{role\})$/, 'must be the name of a policy, in which "{role}" stands for that of the role')
      .optional(),
    /** Characters that it may have, where that is less than what AWS takes. */
    capacity: z.int().min(256).max(10_240).optional(),
  })
  .superRefine(({ carrier, policy }, context) => {
    const issue = (message: string) => context.addIssue({ code: 'custom', path: ['policy'], message })
    if (policy === undefined) return
    // Two roles with one policy would write over each other's.
    if (carrier === 'boundary' && !policy.includes('{role}')) issue('must have "{role}": each role has a boundary of its own')
    if (carrier === 'inline' && policy.includes('/')) issue('must have no path: it is a policy of the role itself')
  })
  .transform(({ carrier, policy, capacity }) => ({
    carrier,
    policy: policy ?? (carrier === 'boundary' ? 'mayfly-kill-list-{role}' : 'mayfly-kill-list'),
    capacity,
  }))

export type KillListSettings = z.output<typeof killList>

/** The name of the policy that carries the kill list of a role, with its path where it is a managed one. */
export const listPolicyOf = ({ policy }: KillListSettings, role: string): string => policy.replaceAll('{role}', bareName(role))

/** Its entry under `providers:`. None of it is a secret. */
export const awsSettings = z
  .strictObject({
    /** Whose regional STS is asked; a deny and a session know no Region. */
    region: z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'must be a Region such as "eu-central-1"'),
    account: z.string().regex(/^\d{12}$/, 'must be the 12 digits of an account, in quotes'),
    partition: z.enum(['aws', 'aws-cn', 'aws-us-gov']).default('aws'),
    /** Another STS than that of the Region: a VPC endpoint, or a peer for development. */
    endpoint: z.string().max(2_048).optional(),
    /** What the trust policies of the roles expect, so that nobody else's broker can be talked into assuming them (confused deputy). */
    external_id: z
      .string()
      .regex(/^[\w+=,.@:/-]{2,1224}$/, 'must be 2 to 1224 letters, digits or "_+=,.@:/-"')
      .optional(),
    /**
     * The longest session that the roles give: their own maximum, and an hour for a broker that runs under a role itself (role chaining). A lease that
     * needs more is refused: STS would refuse it too, and a shorter one was not asked for.
     */
    longest_session: durationWithin(900_000, 43_200_000).prefault('1h'),
    /** Sessions say in tags whose they are. Off unless it is asked for: a role whose trust policy lacks `sts:TagSession` gives no session that has tags. */
    session_tags: z.boolean().default(false),
    /** Whether agents get short children of a session that the broker keeps, or the session itself; `auto`: children of each role that has them. */
    mode: z.enum(['auto', 'children', 'direct']).default('auto'),
    /** What a child lives: how long a task's session goes on after the task, and how often an agent has to ask. */
    child_ttl: durationWithin(60_000, 300_000).prefault('120s'),
    /** How sessions are ended before their time; where it is absent they are not, and IAM is never asked. */
    kill_list: killList.optional(),
    /** Another IAM than that of the partition. */
    iam_endpoint: z.string().max(2_048).optional(),
    ...identityShape,
    timeout: callTimeout.prefault('10s'),
    concurrency: z.int().min(2).max(50).default(16),
  })
  .superRefine((settings, context) => {
    for (const fault of identityFaults(settings)) context.addIssue({ code: 'custom', ...fault })
    for (const key of ['endpoint', 'iam_endpoint'] as const) {
      const message = settings[key] === undefined ? undefined : addressFault(settings[key], false)
      if (message !== undefined) context.addIssue({ code: 'custom', path: [key], message })
    }
  })

export type AwsSettings = z.output<typeof awsSettings>
