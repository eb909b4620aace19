import type { Account } from './account.ts'
import { authorize, type Caller, isExplicit, rightsOfRole } from './caller.ts'
import { whyNot } from './evaluate.ts'
import { policyActions } from './iam-policies.ts'
import { roleActions } from './iam-roles.ts'
import { userActions } from './iam-users.ts'
import type { Form } from './query.ts'
import { absent, Refusal, taken } from './refusal.ts'
import type { Xml } from './xml.ts'

export type IamAction = (account: Account, form: Form) => Xml

const actions: Readonly<Record<string, IamAction>> = {
  ...userActions,
  ...roleActions,
  ...policyActions,

  CreateOpenIDConnectProvider(account, form) {
    const url = form.text('Url')
    const arn = account.iamArn(`oidc-provider/${url.replace(/^https?:\/\//, '')}`)
    if (account.issuers.has(arn)) throw taken(`Provider with url ${url}`)
    account.issuers.set(arn, { arn, url, audiences: form.list('ClientIDList') })
    return { OpenIDConnectProviderArn: arn }
  },

  DeleteOpenIDConnectProvider(account, form) {
    const arn = form.text('OpenIDConnectProviderArn')
    if (!account.issuers.delete(arn)) throw absent(`OpenIDConnect Provider ${arn}`)
    return undefined
  },

  GetAccountSummary(account) {
    const summary = {
      Users: account.users.size,
      Roles: account.roles.size,
      Policies: account.policies.size,
      UserPolicySizeQuota: 2048,
      RolePolicySizeQuota: 10_240,
      AssumeRolePolicySizeQuota: 2048,
      PolicySizeQuota: 6144,
      VersionsPerPolicyQuota: 5,
      AccessKeysPerUserQuota: 2,
      AttachedPoliciesPerRoleQuota: 10,
    }
    return { SummaryMap: { entry: Object.entries(summary).map(([key, value]) => ({ key, value })) } }
  },

  SimulatePrincipalPolicy(account, form) {
    const arn = form.text('PolicySourceArn')
    const role = [...account.roles.values()].find((role) => role.arn === arn)
    if (!role) throw absent(`principal ${arn}`)
    const resources = form.list('ResourceArns')
    const rights = { root: false, ...rightsOfRole(account, role), session: [], names: new Map() }
    const results = form.list('ActionNames').flatMap((action) =>
      (resources.length > 0 ? resources : ['*']).map((resource) => {
        const why = whyNot(rights, { action, resource, context: new Map() })
        const decision = why === undefined ? 'allowed' : isExplicit(why) ? 'explicitDeny' : 'implicitDeny'
        return { EvalActionName: action, EvalResourceName: resource, EvalDecision: decision }
      }),
    )
    return { EvaluationResults: results, IsTruncated: false }
  },
}

/** @throws Refusal InvalidAction for what this peer does not have */
export function callIam(account: Account, caller: Caller, form: Form): Xml {
  const action = actions[form.action]
  if (!action) throw new Refusal('InvalidAction', `Could not find operation ${form.action} for version 2010-05-08`)
  authorize(account, caller, { action: `iam:${form.action}`, resource: resourceOf(account, form), about: aboutRole(account, form) })
  return action(account, form)
}

/** The boundary that a request would set or, where it sets none, that the role has (Service Authorization Reference, IAM). */
function aboutRole(account: Account, form: Form): Record<string, string | undefined> {
  const role = account.roles.get(form.optional('RoleName') ?? '')
  return { 'iam:PermissionsBoundary': form.optional('PermissionsBoundary') ?? role?.boundary.latest }
}

function resourceOf(account: Account, form: Form): string {
  const [role, user] = [form.optional('RoleName'), form.optional('UserName')]
  if (role !== undefined) return account.roles.get(role)?.arn ?? account.iamArn(`role${form.optional('Path') ?? '/'}${role}`)
  if (user !== undefined) return account.iamArn(`user/${user}`)
  if (form.action === 'CreatePolicy') return account.iamArn(`policy${form.optional('Path') ?? '/'}${form.text('PolicyName')}`)
  return form.optional('PolicyArn') ?? form.optional('PolicySourceArn') ?? '*'
}
