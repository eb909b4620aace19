import type { Clock } from '../../../base/time.ts'
import { section } from '../../examination.ts'
import type { Finding, TrialGrant } from '../../provider.ts'
import type { Sts } from '../client.ts'
import type { AwsGrant } from '../grant.ts'
import type { CredentialSource } from '../refreshed.ts'
import type { AwsSettings } from '../settings.ts'
import { type ClockOfAws, judgeClock } from './clock.ts'
import type { IamView } from './iam.ts'
import { examineIdentities } from './identities.ts'
import { examineKillList } from './kill-list.ts'
import { examineMode, type ModeFound } from './mode.ts'
import { examineQuotas } from './quotas.ts'
import { examineRole } from './role.ts'
import { examineTrial } from './trial.ts'

/** An AWS account as an examination uses it. */
export interface Examined {
  readonly name: string
  readonly settings: AwsSettings
  readonly clock: Clock
  readonly publicUrl: string
  readonly minter: Sts & { readonly credentials: CredentialSource }
  readonly revoker: Pick<Sts, 'caller'>
  readonly awsClock: ClockOfAws
  /** As the revoker; undefined where there is nobody to ask as, because nothing is denied. */
  readonly iam: IamView | undefined
  readonly arnOf: (role: string) => string
  /** For one question. */
  within(): AbortSignal
}

/** Looks at everything, from whom the broker is to each grant. Without a minter there is nothing more to see; nothing else ends it. */
export async function examine(aws: Examined, grants: readonly TrialGrant<AwsGrant>[]): Promise<readonly Finding[]> {
  const identities = await examineIdentities(aws)
  if (identities.some(({ level, subject }) => level === 'fault' && subject === 'account')) return identities
  const findings = [...identities, ...(await section('clock', async () => judgeClock(await aws.awsClock(), aws.clock())))]
  // One after the other: it is a check and not a storm.
  const modes = new Map<string, ModeFound>()
  for (const role of rolesOf(grants)) modes.set(role, await examineMode(aws, role))
  for (const grant of grants) {
    for (const role of grant.settings.roles) findings.push(...(await examineTrial(aws, grant, role, modes.get(role)?.mode === 'direct')))
  }
  for (const [role, { findings: ofMode }] of modes) {
    findings.push(...ofMode)
    findings.push(...(await section(`role ${role}`, () => examineRole(aws, role))))
    findings.push(...(await section(`kill list of ${role}`, () => examineKillList(aws, role))))
  }
  return [...findings, ...(await section('quotas', () => examineQuotas(aws)))]
}

const rolesOf = (grants: readonly TrialGrant<AwsGrant>[]): readonly string[] => [...new Set(grants.flatMap(({ settings }) => settings.roles))]
