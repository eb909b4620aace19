import { type Account, identifier, type ManagedPolicy, type PolicyVersion } from './account.ts'
import type { IamAction } from './iam.ts'
import { sizeOfPolicy } from './iam-inline.ts'
import { type Policy, parsePolicy } from './policy.ts'
import { type Form, under } from './query.ts'
import { absent, inUse, taken, tooMany } from './refusal.ts'
import { Settled } from './settled.ts'

/** Managed policies, of which each keeps up to five versions. */
export const policyActions: Readonly<Record<string, IamAction>> = {
  CreatePolicy(account, form) {
    const name = form.text('PolicyName')
    const path = form.optional('Path') ?? '/'
    const arn = account.iamArn(`policy${path}${name}`)
    if (account.policies.has(arn)) throw taken(`A policy called ${name}`)
    const version: PolicyVersion = { id: 'v1', policy: readManaged(form), createdAt: new Date(account.now()) }
    const policy: ManagedPolicy = { name, path, arn, id: identifier('ANPA'), versions: [version], current: new Settled(version), made: 1 }
    account.policies.set(arn, policy)
    return { Policy: shown(policy) }
  },
  GetPolicy(account, form) {
    const policy = policyOf(account, form)
    const roles = [...account.roles.values()]
    const attached = roles.filter((role) => role.attached.latest.includes(policy.arn)).length
    const bounding = roles.filter((role) => role.boundary.latest === policy.arn).length
    return { Policy: { ...shown(policy), AttachmentCount: attached, PermissionsBoundaryUsageCount: bounding } }
  },
  ListPolicies: (account, form) => ({ Policies: under(form, account.policies.values()).map(shown), IsTruncated: false }),
  DeletePolicy(account, form) {
    const policy = policyOf(account, form)
    const used = [...account.roles.values()].some((role) => role.boundary.latest === policy.arn || role.attached.latest.includes(policy.arn))
    if (used) throw inUse('Cannot delete a policy attached to entities.')
    if (policy.versions.length > 1) throw inUse('This policy has more than one version.')
    account.policies.delete(policy.arn)
    return undefined
  },
  CreatePolicyVersion(account, form) {
    const policy = policyOf(account, form)
    const document = readManaged(form)
    if (policy.versions.length === 5)
      throw tooMany('A managed policy can have up to 5 versions. Before you create a new version, delete an existing one.')
    policy.made += 1
    const version = { id: `v${policy.made}`, policy: document, createdAt: new Date(account.now()) }
    policy.versions = [...policy.versions, version]
    if (form.flag('SetAsDefault')) account.write(policy.current, version)
    return { PolicyVersion: shownVersion(policy, version) }
  },
  GetPolicyVersion(account, form) {
    const policy = policyOf(account, form)
    const version = versionOf(policy, form)
    return { PolicyVersion: { ...shownVersion(policy, version), Document: encodeURIComponent(version.policy.text) } }
  },
  ListPolicyVersions(account, form) {
    const policy = policyOf(account, form)
    return { Versions: policy.versions.toReversed().map((version) => shownVersion(policy, version)), IsTruncated: false }
  },
  SetDefaultPolicyVersion(account, form) {
    const policy = policyOf(account, form)
    account.write(policy.current, versionOf(policy, form))
    return undefined
  },
  DeletePolicyVersion(account, form) {
    const policy = policyOf(account, form)
    const version = versionOf(policy, form)
    if (version === policy.current.latest) throw inUse('Cannot delete the default version of a policy.')
    policy.versions = policy.versions.filter((other) => other !== version)
    return undefined
  },
}

/** @throws LimitExceeded beyond 6,144 characters that are not white space */
function readManaged(form: Form): Policy {
  const text = form.text('PolicyDocument')
  if (sizeOfPolicy(text) > 6144) throw tooMany('Cannot exceed quota for PolicySize: 6144')
  return parsePolicy(text, 'identity')
}

function policyOf(account: Account, form: Form): ManagedPolicy {
  const arn = form.text('PolicyArn')
  const policy = account.policies.get(arn)
  if (!policy) throw absent(`policy ${arn}`)
  return policy
}

function versionOf(policy: ManagedPolicy, form: Form): PolicyVersion {
  const id = form.text('VersionId')
  const version = policy.versions.find((other) => other.id === id)
  if (!version) throw absent(`version ${id} of policy ${policy.arn}`)
  return version
}

const shown = (policy: ManagedPolicy) => ({
  PolicyName: policy.name,
  PolicyId: policy.id,
  Arn: policy.arn,
  Path: policy.path,
  DefaultVersionId: policy.current.latest.id,
  IsAttachable: true,
  CreateDate: policy.versions[0]!.createdAt,
})

const shownVersion = (policy: ManagedPolicy, version: PolicyVersion) => ({
  VersionId: version.id,
  IsDefaultVersion: version === policy.current.latest,
  CreateDate: version.createdAt,
})
