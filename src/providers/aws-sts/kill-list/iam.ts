import {
  CreatePolicyVersionCommand,
  DeletePolicyVersionCommand,
  DeleteRolePolicyCommand,
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  ListPolicyVersionsCommand,
  ListRolePoliciesCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam'
import { nameOf } from '../answers.ts'
import { iamClient } from '../iam-client.ts'
import { policyTextOf } from '../policy.ts'
import type { CredentialSource } from '../refreshed.ts'
import { asking, type Observe } from '../request.ts'
import type { AwsSettings } from '../settings.ts'

/**
 * What a kill list needs of IAM. Policies are given and read as their texts, roles by their names without a path. Every call is one request, or one a page,
 * and throws ProviderError and nothing else; its `minted` says whether something may have been done. Who retries is the writer.
 */
export interface Iam {
  /** The default version of a managed policy. */
  readPolicy(arn: string, signal: AbortSignal): Promise<string>
  /** Writes a managed policy. @returns the id of the version. @throws ProviderError that `nameOf` calls LimitExceeded where it has as many versions as it may */
  createVersion(arn: string, text: string, signal: AbortSignal): Promise<string | undefined>
  /** Deletes one version. Deleting what is gone is success; the default stays. */
  deleteVersion(arn: string, version: string, signal: AbortSignal): Promise<void>
  /** Deletes every version but the default. */
  deleteOldVersions(arn: string, signal: AbortSignal): Promise<void>
  /** The ARN of the role's permissions boundary. */
  boundaryOf(role: string, signal: AbortSignal): Promise<string | undefined>
  inlinePolicies(role: string, signal: AbortSignal): Promise<readonly string[]>
  readInline(role: string, policy: string, signal: AbortSignal): Promise<string | undefined>
  writeInline(role: string, policy: string, text: string, signal: AbortSignal): Promise<void>
  /** Deleting what is gone is success. */
  deleteInline(role: string, policy: string, signal: AbortSignal): Promise<void>
}

/** Pages of the policies of one role: more than its room holds. */
const mostPages = 20

/**
 * The SDK asks once: its own retries take an oversize for throttling, and know nothing of the pace of one document a second.
 * @param name of the provider
 */
export function createIam(name: string, settings: AwsSettings, observe: Observe, credentials?: CredentialSource): Iam {
  const client = iamClient(settings, credentials, 1)
  const ask = asking(name, observe)

  async function deleteVersion(PolicyArn: string, VersionId: string | undefined, abortSignal: AbortSignal): Promise<void> {
    const command = new DeletePolicyVersionCommand({ PolicyArn, VersionId })
    await ask('DeletePolicyVersion', () => client.send(command, { abortSignal })).catch(unlessNamed('NoSuchEntity', 'DeleteConflict'))
  }

  return {
    async readPolicy(PolicyArn, abortSignal) {
      const { Policy } = await ask('GetPolicy', () => client.send(new GetPolicyCommand({ PolicyArn }), { abortSignal }))
      const command = new GetPolicyVersionCommand({ PolicyArn, VersionId: Policy?.DefaultVersionId })
      const { PolicyVersion } = await ask('GetPolicyVersion', () => client.send(command, { abortSignal }))
      return policyTextOf(PolicyVersion?.Document)
    },

    async createVersion(PolicyArn, PolicyDocument, abortSignal) {
      const command = new CreatePolicyVersionCommand({ PolicyArn, PolicyDocument, SetAsDefault: true })
      const { PolicyVersion } = await ask('CreatePolicyVersion', () => client.send(command, { abortSignal }))
      return PolicyVersion?.VersionId
    },

    deleteVersion,

    async deleteOldVersions(PolicyArn, abortSignal) {
      const { Versions = [] } = await ask('ListPolicyVersions', () => client.send(new ListPolicyVersionsCommand({ PolicyArn }), { abortSignal }))
      for (const { VersionId, IsDefaultVersion } of Versions) {
        if (!IsDefaultVersion) await deleteVersion(PolicyArn, VersionId, abortSignal)
      }
    },

    async boundaryOf(RoleName, abortSignal) {
      const { Role } = await ask('GetRole', () => client.send(new GetRoleCommand({ RoleName }), { abortSignal }))
      return Role?.PermissionsBoundary?.PermissionsBoundaryArn
    },

    async inlinePolicies(RoleName, abortSignal) {
      const names: string[] = []
      let Marker: string | undefined
      for (let page = 0; page < mostPages; page += 1) {
        const command = new ListRolePoliciesCommand({ RoleName, Marker })
        const answer = await ask('ListRolePolicies', () => client.send(command, { abortSignal }))
        names.push(...(answer.PolicyNames ?? []))
        Marker = answer.Marker
        if (!answer.IsTruncated) break
      }
      return names
    },

    async readInline(RoleName, PolicyName, abortSignal) {
      const command = new GetRolePolicyCommand({ RoleName, PolicyName })
      const answer = await ask('GetRolePolicy', () => client.send(command, { abortSignal })).catch(unlessNamed('NoSuchEntity'))
      return answer && policyTextOf(answer.PolicyDocument)
    },

    async writeInline(RoleName, PolicyName, PolicyDocument, abortSignal) {
      await ask('PutRolePolicy', () => client.send(new PutRolePolicyCommand({ RoleName, PolicyName, PolicyDocument }), { abortSignal }))
    },

    async deleteInline(RoleName, PolicyName, abortSignal) {
      const command = new DeleteRolePolicyCommand({ RoleName, PolicyName })
      await ask('DeleteRolePolicy', () => client.send(command, { abortSignal })).catch(unlessNamed('NoSuchEntity'))
    },
  }
}

const unlessNamed =
  (...names: string[]) =>
  (error: unknown): undefined => {
    if (!names.includes(nameOf(error))) throw error
  }
