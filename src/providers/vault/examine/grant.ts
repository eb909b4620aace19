import { z } from 'zod'
import type { Handle } from '../../../base/evidence.ts'
import { newId } from '../../../base/ids.ts'
import { stopwatch } from '../../../base/time.ts'
import { orFault } from '../../examination.ts'
import { type Finding, type LeaseReference, type Minted, ProviderError, type Reservation, type TrialGrant } from '../../provider.ts'
import { dataOf, says } from '../answers.ts'
import { leastAccountToken, revocationOf, secretPath, type VaultGrant } from '../grant.ts'
import { heldBy } from '../handles.ts'
import { isOfPostgres } from './database.ts'
import type { Examined } from './examine.ts'
import { definitionOf, judgeRole, judgeUnknown } from './roles.ts'

/** Milliseconds that a secret is asked for which is made for trial: short, for a check may be killed, and some secrets cannot be taken back. */
const trialLife = 60_000
/** The same for a token of a service account: for less there is none, and whole seconds take one of it. */
const accountTrialLife = (leastAccountToken + 5) * 1_000

/** Milliseconds for which a grant is tried. What is read and only time ends lives for as long as its role says, whatever is asked for. */
function trialLifeOf({ engine, endedBy }: VaultGrant, maxTtl: number): number {
  if (engine === 'leased' && endedBy === 'time') return maxTtl
  return Math.min(maxTtl, engine === 'kubernetes' ? accountTrialLife : trialLife)
}

/** A grant as an agent would have it: how it is set up, then made, ended, and looked for. */
export async function examineGrant(vault: Examined, trial: TrialGrant<VaultGrant>): Promise<Finding[]> {
  const subject = `grant ${trial.name}`
  const { settings: grant, parameters } = trial
  if (!parameters) {
    const untried: Finding = {
      level: 'unchecked',
      subject,
      message: 'was not tried, for it has parameters: give each a value with --param NAME=VALUE',
    }
    const named = grant.parts.some((part) => part.startsWith('{'))
    return [...(named ? [] : (await examineRole(vault, trial, grant.parts.join('/'))).findings), untried]
  }
  return await orFault(subject, async () => {
    const path = secretPath(grant, parameters)
    const role = await examineRole(vault, trial, path)
    return [...role.findings, ...(await tryGrant(vault, trial, path, role.ofPostgres))]
  })
}

/** What was found of a role, and whether it is known to make logins of Postgres. */
interface ExaminedRole {
  readonly findings: readonly Finding[]
  readonly ofPostgres: boolean
}

async function examineRole({ ask }: Examined, { name, settings: grant, maxTtl }: TrialGrant<VaultGrant>, path: string): Promise<ExaminedRole> {
  const unread = (...findings: readonly Finding[]): ExaminedRole => ({ findings, ofPostgres: false })
  const definition = grant.engine === 'kv' ? undefined : definitionOf(path)
  if (!definition) return unread(...judgeUnknown(`grant ${name}`, grant))
  const subject = `grant ${name}: ${definition.path}`
  const answer = await ask({ path: definition.path })
  if (answer.status === 404) return unread({ level: 'fault', subject, message: 'there is no such role: make it, or mend the path of the grant' })
  if (answer.status !== 200)
    return unread({
      level: 'unchecked',
      subject,
      message: `may not be read by the broker: let its policy read ${definition.mount}/roles/+ while you check`,
    })
  const data = dataOf(answer, z.unknown())
  return {
    findings: judgeRole({ subject, grant, longest: Math.floor(maxTtl / 1_000) }, data),
    ofPostgres: grant.engine === 'leased' && isOfPostgres(data),
  }
}

/** @param ofPostgres whether what it makes is a login that the sweep is to find */
async function tryGrant(vault: Examined, trial: TrialGrant<VaultGrant>, path: string, ofPostgres: boolean): Promise<Finding[]> {
  const subject = `grant ${trial.name}`
  const grant = trial.settings
  const { clock, mint } = vault
  const now = clock()
  const life = trialLifeOf(grant, trial.maxTtl)
  const handles: Handle[] = []
  const lease = { lease: newId('lease'), task: newId('task'), age: 0, handles }
  const nobody = { agent: 'provider-check', owner: 'provider-check', kind: 'provider-check', subject: 'provider-check', policyDigest: '' }
  const reservation: Reservation<VaultGrant> = {
    ...lease,
    ...nobody,
    grant: trial.name,
    settings: grant,
    parameters: trial.parameters!,
    issuedAt: new Date(now),
    elapsed: stopwatch(),
    expiresAt: new Date(now + life),
  }
  let made = false
  try {
    const minted = await mint(reservation, async (handle) => void handles.push(handle), AbortSignal.timeout(vault.settings.timeout))
    made = true
    const short = minted.expiresAt.getTime() < now + life - 2_000
    const findings: Finding[] = short
      ? [
          {
            level: 'warning',
            subject,
            message: `gave ${secondsBetween(now, minted.expiresAt)} s of the ${life / 1_000} s asked for: look at the limits of its mount and role`,
          },
        ]
      : []
    if (ofPostgres && !isNamedAfter(minted, lease)) findings.push(unnamed(subject))
    return [...findings, revocationOf(grant) === 'expiry' ? lasting(subject, grant) : await end(vault, subject, lease)]
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    const left = handles.length === 0 ? '' : await leftOf(vault, lease, grant, life)
    return [{ level: 'fault', subject, message: `${error.message}${left}: ${remedyOf(error, grant, path, stageOf(handles, made))}` }]
  }
}

/** Ends what was made for trial, and looks whether Vault still knows of it. @throws ProviderError */
async function end({ ask, ending, settings: { timeout } }: Examined, subject: string, lease: LeaseReference): Promise<Finding> {
  await ending.revoke(lease, AbortSignal.timeout(timeout))
  const held = heldBy(lease.handles)
  for (const { leaseId: lease_id, namespace } of held.leases) {
    const answer = await ask({ path: 'sys/leases/lookup', body: { lease_id }, namespace })
    if (answer.status === 200)
      return { level: 'fault', subject, message: 'Vault says that it has revoked the lease, and still has it: is another node behind `address`?' }
    if (!says(answer, 'invalid lease'))
      return { level: 'ok', subject, message: 'made and revoked (provider). Whether the lease is gone was not looked up: the broker may not' }
  }
  const how = held.certificates.length > 0 ? 'provider, by its serial number' : 'provider'
  return {
    level: 'ok',
    subject,
    message: `made, revoked and gone (${how}${held.listed ? ': relying parties have to read the revocation list' : ''})`,
  }
}

/** As the `username_template` of deploy/vault/database-config.json names a login. Vault writes `-` where the id of its lease has `_`. */
const isNamedAfter = ({ credential }: Minted, { lease }: LeaseReference): boolean =>
  credential.type === 'username_password' && new RegExp(`^mf-token-${lease.replace('_', '-')}-[A-Za-z0-9]{8}$`).test(credential.username)

const unnamed = (subject: string): Finding => ({
  level: 'warning',
  subject,
  message:
    'username_template: the name of the login does not tell its lease, so sweep.sql and `mayfly provider sweep` pass by what Vault has lost. Set it for the connection as in deploy/vault/database-config.json',
})

const lasting = (subject: string, { engine }: VaultGrant): Finding => ({
  level: 'ok',
  subject,
  message: engine === 'kv' ? 'read. It stands: nothing ends it (standing)' : 'made. Nothing but its time ends it (expiry)',
})

/**
 * What became of a secret that went wrong half way: what can be ended is.
 *
 * @param life milliseconds that it was asked for
 * @returns words for what may be left, to be said behind the error; empty for nothing
 */
async function leftOf({ ending, settings: { timeout } }: Examined, lease: LeaseReference, grant: VaultGrant, life: number): Promise<string> {
  const isEnded = await ending.revoke(lease, AbortSignal.timeout(timeout)).then(
    () => true,
    () => false,
  )
  const end = endOf(grant, life)
  return end === undefined || (isEnded && grant.endedBy !== 'time') ? '' : ` (what it may have made ends ${end})`
}

/** When a secret ends that nobody could end; undefined for one that was not made. An account of Kubernetes is asked for its whole life, whatever ends it. */
function endOf({ engine, endedBy }: VaultGrant, life: number): string | undefined {
  if (engine === 'kv') return undefined
  if (endedBy !== 'time' && engine !== 'kubernetes') return 'by itself within two minutes'
  return engine === 'leased' ? 'when its role says' : `by itself within ${life / 1_000} s`
}

/** How far a trial came before it failed. */
type Stage = 'token' | 'secret' | 'life' | 'end'

/** By what was journaled: the token of the task, perhaps of a second try, then what was read with it. */
function stageOf(handles: readonly Handle[], made: boolean): Stage {
  if (made) return 'end'
  const { tokens, leases, certificates } = heldBy(handles)
  if (tokens.length === 0) return 'token'
  return leases.length + certificates.length === 0 ? 'secret' : 'life'
}

function remedyOf({ fault }: ProviderError, { policy, writes, engine }: VaultGrant, path: string, stage: Stage): string {
  if (fault === 'unavailable' || fault === 'timed_out') return 'is it overloaded, or does what stands behind it not answer?'
  if (stage === 'token') return `look at what is said of the token role, and whether the policy ${policy} exists`
  if (fault === 'downstream' && stage === 'end')
    return 'its own log says why; look at revocation_statements, and at what its login of the database may do'
  if (fault === 'downstream')
    return engine === 'leased'
      ? 'does Vault reach what stands behind it, and does the connection list the role in allowed_roles?'
      : 'its own log says why'
  if (stage !== 'secret') return 'look at what is said of the broker policy'
  return `does the policy ${policy} let a task ${writes ? 'update' : 'read'} ${path}, is there something, and is all given that it asks for?`
}

const secondsBetween = (from: number, to: Date): number => Math.max(0, Math.floor((to.getTime() - from) / 1_000))
