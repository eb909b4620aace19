import { type Account, identifier, type Role } from './account.ts'
import type { IamAction } from './iam.ts'
import { deleteInline, putInline, sizeOfPolicy } from './iam-inline.ts'
import { type Policy, parsePolicy } from './policy.ts'
import { type Form, under } from './query.ts'
import { absent, inUse, Refusal, taken, tooMany } from './refusal.ts'
import { Settled } from './settled.ts'

/** Roles, what they trust and what they may do. */
export const roleActions: Readonly<Record<string, IamAction>> = {
  CreateRole(account, form) {
    const name = form.text('RoleName')
    if (account.roles.has(name)) throw taken(`Role with name ${name}`)
    const path = form.optional('Path') ?? '/'
    const role: Role = {
      name,
      path,
      id: identifier('AROA'),
      arn: account.iamArn(`role${path}${name}`),
      createdAt: new Date(account.now()),
      maxDuration: form.number('MaxSessionDuration', 3600, 43_200) ?? 3600,
      trust: new Settled(readTrust(account, form.text('AssumeRolePolicyDocument'))),
      inline: new Settled<ReadonlyMap<string, Policy>>(new Map()),
      attached: new Settled<readonly string[]>([]),
      boundary: new Settled(knownPolicy(account, form.optional('PermissionsBoundary'))),
      tags: tagsOf(form),
    }
    account.roles.set(name, role)
    return { Role: shown(role) }
  },
  GetRole: (account, form) => ({ Role: shown(roleOf(account, form)) }),
  ListRoles: (account, form) => ({ Roles: under(form, account.roles.values()).map(shown), IsTruncated: false }),
  DeleteRole(account, form) {
    const role = roleOf(account, form)
    if (role.inline.latest.size > 0) throw inUse('Cannot delete entity, must delete policies first.')
    if (role.attached.latest.length > 0) throw inUse('Cannot delete entity, must detach all policies first.')
    account.roles.delete(role.name)
    return undefined
  },
  UpdateAssumeRolePolicy(account, form) {
    account.write(roleOf(account, form).trust, readTrust(account, form.text('PolicyDocument')))
    return undefined
  },
  UpdateRole(account, form) {
    const role = roleOf(account, form)
    role.maxDuration = form.number('MaxSessionDuration', 3600, 43_200) ?? role.maxDuration
    return {}
  },
  TagRole(account, form) {
    const role = roleOf(account, form)
    for (const [key, value] of tagsOf(form)) role.tags.set(key, value)
    return undefined
  },

  PutRolePolicy(account, form) {
    return putInline(account, form, roleOf(account, form), 'role', 10_240)
  },
  GetRolePolicy(account, form) {
    const role = roleOf(account, form)
    const name = form.text('PolicyName')
    const policy = role.inline.latest.get(name)
    if (!policy) throw absent(`role policy with name ${name}`)
    return { RoleName: role.name, PolicyName: name, PolicyDocument: encodeURIComponent(policy.text) }
  },
  ListRolePolicies: (account, form) => ({ PolicyNames: [...roleOf(account, form).inline.latest.keys()], IsTruncated: false }),
  DeleteRolePolicy(account, form) {
    return deleteInline(account, form, roleOf(account, form), 'role')
  },

  AttachRolePolicy(account, form) {
    const role = roleOf(account, form)
    const arn = knownPolicy(account, form.text('PolicyArn'))!
    if (role.attached.latest.includes(arn)) return undefined
    if (role.attached.latest.length === 10) throw tooMany('Cannot exceed quota for PoliciesPerRole: 10')
    account.write(role.attached, [...role.attached.latest, arn])
    return undefined
  },
  DetachRolePolicy(account, form) {
    const role = roleOf(account, form)
    const arn = form.text('PolicyArn')
    if (!role.attached.latest.includes(arn)) throw absent(`attachment of policy ${arn}`)
    const others = role.attached.latest.filter((other) => other !== arn)
    account.write(role.attached, others)
    return undefined
  },
  ListAttachedRolePolicies(account, form) {
    const attached = roleOf(account, form).attached.latest.map((arn) => ({ PolicyName: account.policies.get(arn)!.name, PolicyArn: arn }))
    return { AttachedPolicies: attached, IsTruncated: false }
  },
  PutRolePermissionsBoundary(account, form) {
    account.write(roleOf(account, form).boundary, knownPolicy(account, form.text('PermissionsBoundary')))
    return undefined
  },
  DeleteRolePermissionsBoundary(account, form) {
    account.write(roleOf(account, form).boundary, undefined)
    return undefined
  },
}

function roleOf(account: Account, form: Form): Role {
  const name = form.text('RoleName')
  const role = account.roles.get(name)
  if (!role) throw absent(`role with name ${name}`)
  return role
}

function knownPolicy(account: Account, arn: string | undefined): string | undefined {
  if (arn !== undefined && !account.policies.has(arn)) throw absent(`policy ${arn}`)
  return arn
}

/** @throws MalformedPolicyDocument also where it names a user or role that does not exist; LimitExceeded beyond 2,048 characters */
function readTrust(account: Account, text: string): Policy {
  if (sizeOfPolicy(text) > 2048) throw tooMany('Cannot exceed quota for ACLSizePerRole: 2048')
  const policy = parsePolicy(text, 'trust')
  const known = new Set(['*', account.id, account.iamArn('root'), ...[...account.users.values(), ...account.roles.values()].map(({ arn }) => arn)])
  for (const { kind, name } of policy.statements.flatMap((statement) => statement.principals ?? []))
    if (kind === 'AWS' && !known.has(name) && !name.startsWith(`arn:aws:sts::${account.id}:assumed-role/`))
      throw new Refusal('MalformedPolicyDocument', `Invalid principal in policy: "AWS":"${name}"`)
  return policy
}

const tagsOf = (form: Form) => new Map(form.list('Tags', 'Key').map((key, at) => [key, form.list('Tags', 'Value')[at] ?? '']))

const shown = (role: Role) => ({
  Path: role.path,
  RoleName: role.name,
  RoleId: role.id,
  Arn: role.arn,
  CreateDate: role.createdAt,
  AssumeRolePolicyDocument: encodeURIComponent(role.trust.latest.text),
  MaxSessionDuration: role.maxDuration,
  ...(role.boundary.latest && { PermissionsBoundary: { PermissionsBoundaryType: 'Policy', PermissionsBoundaryArn: role.boundary.latest } }),
  ...(role.tags.size > 0 && { Tags: [...role.tags].map(([Key, Value]) => ({ Key, Value })) }),
})
