import {
  GetAccountSummaryCommand,
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRoleCommand,
  GetRolePolicyCommand,
  ListPolicyVersionsCommand,
  ListRolePoliciesCommand,
} from '@aws-sdk/client-iam'
import { z } from 'zod'
import { type Json, parseJson } from '../../../base/json.ts'
import { type IamAction, nameOf } from '../answers.ts'
import { iamClient } from '../iam-client.ts'
import { policyTextOf, sizeOf } from '../policy.ts'
import type { CredentialSource } from '../refreshed.ts'
import { asking, type Observe } from '../request.ts'
import type { AwsSettings } from '../settings.ts'

/** What was there; or that nothing is, or that it may not be looked at. */
export type Looked<T> = T | 'absent' | 'forbidden'

/** Whether something was seen. */
export const seen = <T extends object>(looked: Looked<T>): looked is T => typeof looked === 'object'

/** A role as an examination needs it. */
export interface SeenRole {
  readonly arn: string
  /** Milliseconds. */
  readonly longest: number
  /** ARN of its permissions boundary. */
  readonly boundary: string | undefined
  readonly trust: Json | undefined
}

/** A managed policy. */
export interface SeenPolicy {
  readonly versions: number
  /** To how many it is attached as what they may do, besides those that it bounds. */
  readonly attachments: number
  /** Its default version. */
  readonly document: Json | undefined
}

/** IAM as an examination asks it: as the revoker, and only to look. Roles by their names without a path. @throws ProviderError where IAM does not answer */
export interface IamView {
  role(name: string): Promise<Looked<SeenRole>>
  policy(arn: string): Promise<Looked<SeenPolicy>>
  /** Names of its inline policies, with the characters of each, white space not counted. */
  inline(role: string): Promise<Looked<ReadonlyMap<string, number>>>
  /** By the names that IAM has for them. */
  quotas(): Promise<Looked<Readonly<Record<string, number>>>>
}

export function viewIam(name: string, settings: AwsSettings, observe: Observe, credentials: CredentialSource): IamView {
  const { timeout } = settings
  const client = iamClient(settings, credentials)
  const ask = asking(name, observe)
  const within = () => ({ abortSignal: AbortSignal.timeout(timeout) })

  async function look<T>(action: IamAction, call: () => Promise<T>): Promise<Looked<T>> {
    try {
      return await ask(action, call)
    } catch (error) {
      const known = nameOf(error)
      if (known === 'AccessDenied') return 'forbidden'
      if (known === 'NoSuchEntity') return 'absent'
      throw error
    }
  }

  return {
    async role(RoleName) {
      const answer = await look('GetRole', () => client.send(new GetRoleCommand({ RoleName }), within()))
      if (!seen(answer)) return answer
      const { Arn: arn = '', MaxSessionDuration: seconds = 3_600, PermissionsBoundary: boundary, AssumeRolePolicyDocument: trust } = answer.Role ?? {}
      return { arn, longest: seconds * 1_000, boundary: boundary?.PermissionsBoundaryArn, trust: documentOf(trust) }
    },

    async policy(PolicyArn) {
      const answer = await look('GetPolicy', () => client.send(new GetPolicyCommand({ PolicyArn }), within()))
      if (!seen(answer)) return answer
      const { DefaultVersionId: VersionId, AttachmentCount: attachments = 0 } = answer.Policy ?? {}
      const version = await look('GetPolicyVersion', () => client.send(new GetPolicyVersionCommand({ PolicyArn, VersionId }), within()))
      if (!seen(version)) return version
      const list = await look('ListPolicyVersions', () => client.send(new ListPolicyVersionsCommand({ PolicyArn }), within()))
      if (!seen(list)) return list
      return { versions: list.Versions?.length ?? 0, attachments, document: documentOf(version.PolicyVersion?.Document) }
    },

    async inline(RoleName) {
      const list = await look('ListRolePolicies', () => client.send(new ListRolePoliciesCommand({ RoleName }), within()))
      if (!seen(list)) return list
      const sizes = new Map<string, number>()
      for (const PolicyName of list.PolicyNames ?? []) {
        const answer = await look('GetRolePolicy', () => client.send(new GetRolePolicyCommand({ RoleName, PolicyName }), within()))
        if (answer === 'forbidden') return answer
        if (answer !== 'absent') sizes.set(PolicyName, sizeOf(policyTextOf(answer.PolicyDocument)))
      }
      return sizes
    },

    async quotas() {
      const answer = await look('GetAccountSummary', () => client.send(new GetAccountSummaryCommand({}), within()))
      return seen(answer) ? z.record(z.string(), z.number()).parse(answer.SummaryMap ?? {}) : answer
    },
  }
}

/** Undefined where it is no JSON. */
function documentOf(text: string | undefined): Json | undefined {
  try {
    return parseJson(policyTextOf(text))
  } catch {
    return undefined
  }
}
