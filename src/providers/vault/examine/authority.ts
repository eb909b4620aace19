import { z } from 'zod'
import type { Finding } from '../../provider.ts'
import { texts } from '../answers.ts'
import { secretPath, type VaultGrant } from '../grant.ts'
import type { VaultSettings } from '../settings.ts'
import { definitionOf } from './roles.ts'
import { seconds } from './trial.ts'

/** `data` of auth/token/lookup-self. */
export const brokerToken = z.object({
  policies: texts,
  identity_policies: texts,
  ttl: seconds,
  period: seconds,
  renewable: z.boolean().nullish(),
})
export type BrokerToken = z.output<typeof brokerToken>

export const policiesOf = ({ policies, identity_policies: ofIdentity }: BrokerToken): string[] => [...new Set([...policies, ...ofIdentity])]

/** The token with which the broker came in. */
export function judgeToken(auth: VaultSettings['auth'], token: BrokerToken): Finding[] {
  const findings: Finding[] = []
  const subject = 'broker token'
  const policies = policiesOf(token)
  const where =
    auth.method === 'token'
      ? 'a token with the policy of deploy/vault/mayfly-broker.hcl alone'
      : `the role of auth/${auth.mount} give that policy alone`
  if (policies.includes('root'))
    findings.push({
      level: 'fault',
      subject,
      message: `is a root token, so whoever takes over the broker has all of Vault: ${auth.method === 'token' ? 'make it' : 'let'} ${where}`,
    })
  if (policies.includes('default')) {
    const remedy =
      auth.method === 'token' ? 'make the token with -no-default-policy' : `set token_no_default_policy=true on the role of auth/${auth.mount}`
    findings.push({ level: 'fault', subject, message: `has the policy default, and with it whatever that is given for everybody: ${remedy}` })
  }
  if (auth.method === 'token' && token.ttl > 0 && token.renewable !== true)
    findings.push({
      level: 'warning',
      subject,
      message: `ends in ${token.ttl} s and cannot be renewed: until then another has to be in token_file. Make it with a period`,
    })
  return findings.length > 0 ? findings : [{ level: 'ok', subject, message: `has the policies ${policies.join(', ')}` }]
}

/** Something that the broker must be able to do, and what does not work where it cannot. */
export interface Need {
  readonly path: string
  readonly capability: 'read' | 'update'
  readonly without: string
  readonly level: 'fault' | 'warning'
}

/** Something that it must not be able to do, and what that would let it do. */
export interface Excess {
  readonly path: string
  readonly capabilities: readonly string[]
  readonly lets: string
}

/** What a broker needs of Vault for these grants, as in deploy/vault/mayfly-broker.hcl. */
export function needsOf({ token_role: role, auth }: VaultSettings, grants: readonly VaultGrant[]): Need[] {
  const update = (path: string, without: string): Need => ({ path, capability: 'update', without, level: 'fault' })
  const serials = grants.flatMap(({ endedBy, authority }) => (endedBy === 'serial' ? [authority!] : []))
  return [
    update(`auth/token/create/${role}`, 'no secret can be had'),
    update('auth/token/renew-accessor', 'no task outlives its first 45 s'),
    update('auth/token/revoke-accessor', 'no task can be ended'),
    update('sys/leases/renew', 'no lease outlives its first minute'),
    update('sys/leases/revoke', 'no end can be proven'),
    ...[...new Set(serials)].map((mount) => update(`${mount}/revoke`, 'no certificate can be revoked')),
    { path: 'auth/token/lookup-self', capability: 'read', without: 'the broker cannot tell whether it is let in', level: 'fault' },
    {
      path: 'auth/token/renew-self',
      capability: 'update',
      without: auth.method === 'token' ? 'its token ends and nobody makes another' : 'it logs in anew each time its token is over',
      level: auth.method === 'token' ? 'fault' : 'warning',
    },
  ]
}

const writes = ['create', 'update', 'patch', 'delete'] as const

/**
 * What would make a broker more than a broker: each is looked for by its path. Where a path has a name in it that a policy may leave open, some name or
 * one of the grants' stands for it.
 */
export function excessesOf({ token_role: role }: VaultSettings, grants: readonly VaultGrant[], own: readonly string[]): Excess[] {
  const secrets = grants.map((grant) => secretPath(grant, anything(grant)))
  const definitions = secrets.flatMap((path) => definitionOf(path)?.path ?? [])
  const policies = [...own, ...grants.map(({ policy }) => policy)]
  const excesses: Excess[] = [
    { path: 'auth/token/create', capabilities: writes, lets: 'it makes tokens with its own rights, that no token role limits' },
    { path: 'auth/token/create-orphan', capabilities: writes, lets: 'it makes tokens that outlive it, that no token role limits' },
    { path: 'auth/token/create/mayfly-check', capabilities: writes, lets: 'it makes tokens by roles that are not its own' },
    { path: `auth/token/roles/${role}`, capabilities: writes, lets: 'it changes what its own tokens may be' },
    { path: 'auth/token/accessors/', capabilities: ['list'], lets: 'it ends whatever token there is' },
    // `sys/policy` is what `sys/policies/acl` was called before, and opens as much.
    ...policies.flatMap((policy) =>
      ['sys/policies/acl', 'sys/policy'].map((at) => ({ path: `${at}/${policy}`, capabilities: writes, lets: 'it changes what a policy opens' })),
    ),
    ...secrets.flatMap((path) => [
      { path, capabilities: ['read', ...writes], lets: 'it reads secrets itself, outside any lease' },
      { path: `sys/leases/lookup/${path}/`, capabilities: ['list'], lets: "it ends whatever lease there is, others' too" },
      { path: `sys/leases/revoke-prefix/${path}`, capabilities: writes, lets: 'it ends the leases of others' },
      { path: `sys/leases/revoke-force/${path}`, capabilities: writes, lets: 'it has leases forgotten whose secrets live on' },
    ]),
    ...definitions.map((path) => ({ path, capabilities: writes, lets: 'it changes what secrets are made, and how they end' })),
  ]
  return [...new Map(excesses.map((excess) => [excess.path, excess])).values()]
}

/** Some value for every parameter: a policy that opens a whole mount opens this as well. */
const anything = (grant: VaultGrant): Record<string, string> =>
  Object.fromEntries(grant.parts.flatMap((part) => (part.startsWith('{') ? [[part.slice(1, -1), 'mayfly-check']] : [])))

/** `data` of sys/capabilities-self, for each path that was asked about. */
export const capabilities = z.record(z.string(), texts)

/** Too little, and too much. @param found what the broker's token may do, by path */
export function judgeAuthority(found: Readonly<Record<string, readonly string[]>>, needs: readonly Need[], excesses: readonly Excess[]): Finding[] {
  const findings: Finding[] = []
  const subject = 'broker policy'
  for (const { path, capability, without, level } of needs) {
    const may = found[path] ?? []
    if (!may.includes(capability)) findings.push({ level, subject, message: `does not let it ${capability} ${path}, so ${without}: add the line` })
    if (may.includes('sudo')) findings.push({ level: 'fault', subject, message: `gives sudo on ${path}, which it does not need: take it away` })
  }
  for (const { path, capabilities: wanted, lets } of excesses) {
    const may = (found[path] ?? []).filter((capability) => capability === 'sudo' || wanted.includes(capability))
    if (may.length > 0) findings.push({ level: 'fault', subject, message: `lets it ${may.join(', ')} ${path}, so ${lets}: take the line away` })
  }
  return findings.length > 0
    ? findings
    : [{ level: 'ok', subject, message: `opens the ${needs.length} paths that it needs, and none of ${excesses.length} that it must not` }]
}
