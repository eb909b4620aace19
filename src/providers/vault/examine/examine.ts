import { z } from 'zod'
import type { Clock } from '../../../base/time.ts'
import { section } from '../../examination.ts'
import { type Finding, ProviderError, type TrialGrant } from '../../provider.ts'
import { dataOf } from '../answers.ts'
import type { Ask, Question, VaultAnswer } from '../client.ts'
import type { Ending } from '../end.ts'
import type { VaultGrant } from '../grant.ts'
import { healthQuestion } from '../identity.ts'
import type { createMint } from '../mint.ts'
import type { VaultSettings } from '../settings.ts'
import { type BrokerToken, brokerToken, capabilities, excessesOf, judgeAuthority, judgeToken, needsOf, policiesOf } from './authority.ts'
import { examineGrant } from './grant.ts'
import { judgeNode, silence } from './node.ts'
import { judgeTaskPolicies, type TaskPolicy } from './policies.ts'
import { judgeQuotas, quota } from './quotas.ts'
import { judgeTokenRole, tokenRole } from './token-role.ts'

/** A Vault as an examination uses it. */
export interface Examined {
  readonly name: string
  /** With the time that each question, each mint and each end may take. */
  readonly settings: VaultSettings
  readonly clock: Clock
  /** As nobody. @throws NoAnswer */
  readonly askOpenly: Ask
  /** As the broker. @throws ProviderError */
  ask(question: Omit<Question, 'token'>): Promise<VaultAnswer>
  readonly mint: ReturnType<typeof createMint>
  readonly ending: Ending
}

/** Looks at everything, from the address to each grant. What stands in the way of all that follows ends it; nothing else does. */
export async function examine(vault: Examined, trials: readonly TrialGrant<VaultGrant>[]): Promise<readonly Finding[]> {
  const node = await examineNode(vault)
  if (node.some(({ level }) => level === 'fault')) return node
  const token = await lookUpToken(vault)
  if ('refusal' in token) return [...node, token.refusal]
  const grants = trials.map(({ settings }) => settings)
  const own = policiesOf(token)
  const findings = [
    ...node,
    ...judgeToken(vault.settings.auth, token),
    ...(await section('broker policy', () => examineAuthority(vault, grants, own))),
    ...(await section('token role', () => examineTokenRole(vault, trials, own))),
    ...(await section('quotas', () => examineQuotas(vault))),
  ]
  // One after the other: it is a check and not a storm.
  for (const trial of trials) findings.push(...(await section(`grant ${trial.name}`, () => examineGrant(vault, trial))))
  findings.push(...(await section('task policies', () => examineTaskPolicies(vault, grants))))
  return findings
}

async function examineNode({ settings, askOpenly, clock }: Examined): Promise<Finding[]> {
  try {
    const answer = await askOpenly(healthQuestion, AbortSignal.timeout(settings.timeout))
    return judgeNode(settings, answer, clock())
  } catch (error) {
    return [silence(settings.address, error)]
  }
}

async function lookUpToken({ ask, settings: { auth } }: Examined): Promise<BrokerToken | { readonly refusal: Finding }> {
  const from = auth.method === 'token' ? 'token_file' : `auth/${auth.mount}`
  const remedy = auth.method === 'token' ? 'put one that lives into token_file' : `look at role and login of auth/${auth.mount}`
  const refused = (reason: string): { readonly refusal: Finding } => ({
    refusal: { level: 'fault', subject: 'broker token', message: `the broker is not let in by ${from}: ${reason}: ${remedy}` },
  })
  try {
    const answer = await ask({ path: 'auth/token/lookup-self' })
    const token = dataOf(answer, brokerToken)
    return token ?? refused(`status ${answer.status} to auth/token/lookup-self, which its policy must let it read`)
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error
    return refused(error.message)
  }
}

async function examineAuthority({ ask, settings }: Examined, grants: readonly VaultGrant[], own: readonly string[]): Promise<Finding[]> {
  // All that can be said of it, and it was said.
  if (own.includes('root')) return []
  const needs = needsOf(settings, grants)
  const excesses = excessesOf(settings, grants, own)
  const paths = [...new Set([...needs, ...excesses].map(({ path }) => path))]
  const answer = await ask({ path: 'sys/capabilities-self', body: { paths } })
  const found = dataOf(answer, capabilities)
  if (found) return judgeAuthority(found, needs, excesses)
  return [{ level: 'unchecked', subject: 'broker policy', message: 'may not look at itself: let it update sys/capabilities-self while you check' }]
}

async function examineTokenRole({ ask, settings }: Examined, trials: readonly TrialGrant<VaultGrant>[], own: readonly string[]): Promise<Finding[]> {
  const name = settings.token_role
  const subject = `token role ${name}`
  const answer = await ask({ path: `auth/token/roles/${name}` })
  if (answer.status === 404) return [{ level: 'fault', subject, message: 'there is no such role: make it, as in deploy/vault/token-role.json' }]
  const role = dataOf(answer, tokenRole)
  if (!role)
    return [{ level: 'unchecked', subject, message: `may not be read by the broker: let its policy read auth/token/roles/${name} while you check` }]
  const longest = Math.max(0, ...trials.map(({ maxTtl }) => Math.floor(maxTtl / 1_000)))
  return judgeTokenRole(name, role, { policies: trials.map(({ settings: grant }) => grant.policy), own, longest })
}

async function examineQuotas({ ask, settings }: Examined): Promise<Finding[]> {
  const closed: Finding = {
    level: 'unchecked',
    subject: 'quotas',
    message: 'may not be read by the broker: let its policy list sys/quotas/rate-limit and read sys/quotas/rate-limit/+ while you check',
  }
  if (settings.namespace !== undefined)
    return [
      {
        ...closed,
        message: `those of the root namespace are not seen from ${settings.namespace}: see that none holds up what ends tokens and leases`,
      },
    ]
  const list = await ask({ path: 'sys/quotas/rate-limit?list=true' })
  const names = list.status === 404 ? [] : dataOf(list, z.looseObject({ keys: z.array(z.string()) }))?.keys
  if (!names) return [closed]
  const quotas = []
  for (const name of names) {
    const found = dataOf(await ask({ path: `sys/quotas/rate-limit/${encodeURIComponent(name)}` }), quota)
    if (!found) return [closed]
    quotas.push(found)
  }
  return judgeQuotas(quotas)
}

async function examineTaskPolicies({ ask }: Examined, grants: readonly VaultGrant[]): Promise<Finding[]> {
  const policies: TaskPolicy[] = []
  for (const name of new Set(grants.map(({ policy }) => policy))) {
    const answer = await ask({ path: `sys/policies/acl/${name}` })
    const text = answer.status === 404 ? null : dataOf(answer, z.looseObject({ policy: z.string() }))?.policy
    policies.push({ name, grants: grants.filter(({ policy }) => policy === name), text })
  }
  return judgeTaskPolicies(policies)
}
