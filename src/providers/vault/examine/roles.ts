import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import { leastAccountToken, mountOf, type VaultGrant } from '../grant.ts'
import { judgeDatabaseRole } from './database.ts'
import { type RoleOnTrial, seconds, tooShort } from './trial.ts'

/** Where the definition of the role lies that a path reads or writes; undefined where its engine has none that is understood here. */
export function definitionOf(path: string): { readonly mount: string; readonly path: string } | undefined {
  const parts = path.split('/')
  const [verb, role] = parts.slice(-2)
  const mount = mountOf(parts).join('/')
  return mount !== '' && ['creds', 'issue', 'sign'].includes(verb!) ? { mount, path: `${mount}/roles/${role}` } : undefined
}

const pkiRole = z.looseObject({ generate_lease: z.boolean().nullish(), no_store: z.boolean().nullish(), max_ttl: seconds })
const sshRole = z.looseObject({ max_ttl: seconds })
const kubernetesRole = z.looseObject({ service_account_name: z.string().nullish(), token_max_ttl: seconds })

/** A grant whose path leads to no role that is understood here. What lies there is then for whoever set it up to know. */
export function judgeUnknown(subject: string, { engine, endedBy }: VaultGrant): Finding[] {
  if (engine !== 'leased' || endedBy !== 'lease') return []
  const message =
    'whether what it makes dies with its lease is not known here: Vault may drop a lease whose secret lives on, as keys of aws/sts do. See to it yourself, or let the grant say ended_by: time'
  return [{ level: 'unchecked', subject, message }]
}

/** The role that makes a grant's secrets. @param data as Vault shows it */
export function judgeRole(trial: RoleOnTrial, data: unknown): Finding[] {
  switch (trial.grant.engine) {
    case 'leased':
      return judgeDatabaseRole(trial, data)
    case 'pki':
      return judgePkiRole(trial, pkiRole.safeParse(data).data)
    case 'ssh':
      return judgeSshRole(trial, sshRole.safeParse(data).data?.max_ttl ?? 0)
    case 'kubernetes':
      return judgeKubernetesRole(trial, kubernetesRole.safeParse(data).data)
    case 'kv':
      return []
  }
}

function judgePkiRole(trial: RoleOnTrial, role: z.output<typeof pkiRole> | undefined): Finding[] {
  const { subject, grant } = trial
  const findings = tooShort(trial, role?.max_ttl)
  if (grant.endedBy === 'lease' && role?.generate_lease !== true)
    findings.push({
      level: 'fault',
      subject,
      message: 'makes certificates without a lease, and the grant says ended_by: lease. Set generate_lease=true, or let it say serial or time',
    })
  if (grant.endedBy === 'serial' && role?.no_store === true)
    findings.push({
      level: 'fault',
      subject,
      message:
        'forgets its certificates (no_store), so none can be revoked, and the grant says ended_by: serial. Set no_store=false, or let it say time',
    })
  if (grant.endedBy === 'time' && role?.generate_lease === true)
    findings.push({
      level: 'warning',
      subject,
      message:
        'makes certificates with a lease, and the grant does not use it: let it say ended_by: lease, and they are revoked when their task ends',
    })
  return findings
}

/** Whoever asks it for too much gets nothing, where others give less (seen on OpenBao 2.7.2: 400). @param most seconds; 0: no limit of its own */
function judgeSshRole({ subject, longest }: RoleOnTrial, most: number): Finding[] {
  if (most === 0 || most >= longest) return []
  const message = `max_ttl: refuses whoever asks for more than ${most} s, and the grant promises ${longest} s: no longer task gets one. Raise it here, or lower max_ttl in the catalogue`
  return [{ level: 'fault', subject, message }]
}

function judgeKubernetesRole(trial: RoleOnTrial, role: z.output<typeof kubernetesRole> | undefined): Finding[] {
  const { subject, grant, longest } = trial
  const most = role?.token_max_ttl ?? 0
  const findings: Finding[] =
    most > 0 && most < leastAccountToken
      ? [
          {
            level: 'fault',
            subject,
            message: `token_max_ttl: asks for ${most} s at most, and Kubernetes makes no token for less than ${leastAccountToken} s. Raise it`,
          },
        ]
      : tooShort(trial, most)
  if (grant.endedBy === 'lease' && role?.service_account_name)
    findings.push({
      level: 'fault',
      subject,
      message:
        'lends a service account that stays, so the end of a lease ends nothing, and the grant says ended_by: lease. Let the role make the account, or the grant say time',
    })
  if (grant.endedBy === 'time' && role && !role.service_account_name)
    findings.push({
      level: 'warning',
      subject,
      message:
        'makes a service account for each lease, and the grant does not use it: let it say ended_by: lease, and it is deleted when its task ends',
    })
  if (longest <= leastAccountToken)
    findings.push({
      level: 'fault',
      subject,
      message: `makes tokens that live for ${leastAccountToken} s at least, and the grant promises ${longest} s: no task gets one. Raise max_ttl in the catalogue to some minutes more`,
    })
  return findings
}
