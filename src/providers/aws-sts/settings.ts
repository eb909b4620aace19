import { z } from 'zod'
import { addressFault } from '../connection.ts'
import { durationWithin } from '../shapes.ts'
import { identityFaults, identityShape } from './identity-settings.ts'

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
    ...identityShape,
    timeout: durationWithin(1_000, 60_000).prefault('10s'),
    concurrency: z.int().min(2).max(50).default(16),
  })
  .superRefine((settings, context) => {
    const { endpoint } = settings
    for (const fault of identityFaults(settings)) context.addIssue({ code: 'custom', ...fault })
    const message = endpoint === undefined ? undefined : addressFault(endpoint, false)
    if (message !== undefined) context.addIssue({ code: 'custom', path: ['endpoint'], message })
  })

export type AwsSettings = z.output<typeof awsSettings>
