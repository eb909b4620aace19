import {
  AttachRolePolicyCommand,
  CreatePolicyCommand,
  CreateRoleCommand,
  DeletePolicyCommand,
  DeletePolicyVersionCommand,
  DeleteRoleCommand,
  DeleteRolePermissionsBoundaryCommand,
  DeleteRolePolicyCommand,
  DetachRolePolicyCommand,
  IAMClient,
  ListAttachedRolePoliciesCommand,
  ListPoliciesCommand,
  ListPolicyVersionsCommand,
  ListRolePoliciesCommand,
  ListRolesCommand,
} from '@aws-sdk/client-iam'
import { AssumeRoleCommand, type AssumeRoleCommandInput, type Credentials, GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts'
import { setTimeout as pause } from 'node:timers/promises'
import { policyOf } from '../support/aws/site.ts'

/** Everything that is made in the account stands under this path, and whatever stands under it is removed. */
const home = '/mayfly-live/'

/** Attempts of what is no measurement: a question before it may have used up what AWS allows for a while. */
const patient = 8

export const everything = { Effect: 'Allow', Action: '*', Resource: '*' }

/** Who signs tokens that the account may be told to trust: its keys are where AWS can read them. */
export interface LiveIssuer {
  readonly url: string
  sign(claims: Readonly<Record<string, unknown>>): Promise<string>
}

export interface LiveSettings {
  /** Asked first is where what is not of a Region is measured. */
  readonly regions: readonly [string, ...string[]]
  /** How often what varies is measured. */
  readonly rounds: number
  readonly issuer: LiveIssuer | undefined
  /** Milliseconds between two looks at what AWS does by then. */
  readonly look: number
  /** A stand-in for AWS, with its credentials; undefined is AWS itself, with those of the default chain. */
  readonly standIn?: { readonly endpoint: string; readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string } }
}

export interface LiveRole {
  readonly name: string
  readonly arn: string
}

/** An account of AWS to measure in, as somebody who may do everything in it. Only what it makes itself is touched. */
export interface LiveAccount extends AsyncDisposable {
  readonly id: string
  readonly settings: LiveSettings
  readonly iam: IAMClient
  /** The same, which asks once: to see what AWS answers to many. */
  readonly hastyIam: IAMClient
  /**
   * @param credentials of a session; the owner's where there are none
   * @param attempts of each call
   */
  sts(credentials?: Credentials, region?: string, attempts?: number): STSClient
  /** A role that the account trusts, and that is ready to be assumed. @param boundary text of a policy */
  role(about?: { readonly may?: object; readonly boundary?: string }): Promise<LiveRole & { readonly boundary: string | undefined }>
  /** A role with a trust policy of its own, which may do nothing. */
  trusting(trust: string): Promise<LiveRole>
  assume(role: LiveRole, name: string, more?: Partial<AssumeRoleCommandInput>): Promise<Credentials>
}

/** @throws Error where the credentials are of another account than the one that is named: that it is meant must be said */
export async function openAccount(expected: string, settings: LiveSettings): Promise<LiveAccount> {
  const { standIn } = settings
  const iamOf = (maxAttempts: number) => new IAMClient({ ...standIn, maxAttempts, region: settings.regions[0] })
  const iam = iamOf(patient)
  const sts = (credentials?: Credentials, region: string = settings.regions[0], maxAttempts = patient): STSClient =>
    new STSClient({
      ...standIn,
      maxAttempts,
      region,
      ...(credentials && {
        credentials: {
          accessKeyId: credentials.AccessKeyId!,
          secretAccessKey: credentials.SecretAccessKey!,
          sessionToken: credentials.SessionToken!,
        },
      }),
    })
  const owner = sts()
  const { Account: id } = await owner.send(new GetCallerIdentityCommand({}))
  if (id !== expected) throw new Error(`these credentials are of account ${id}, and ${expected} is meant`)
  await sweep(iam)

  const run = Date.now().toString(36)
  let made = 0
  async function assume(role: LiveRole, RoleSessionName: string, more: Partial<AssumeRoleCommandInput> = {}): Promise<Credentials> {
    const answer = await owner.send(new AssumeRoleCommand({ RoleArn: role.arn, RoleSessionName, DurationSeconds: 900, ...more }))
    return answer.Credentials!
  }
  const nextName = () => `mayfly-live-${run}-${(made += 1)}`
  async function trusting(trust: string, name = nextName(), boundary?: string): Promise<LiveRole> {
    const about = { RoleName: name, Path: home, AssumeRolePolicyDocument: trust }
    const { Role: role } = await iam.send(new CreateRoleCommand({ ...about, ...(boundary !== undefined && { PermissionsBoundary: boundary }) }))
    return { name, arn: role!.Arn! }
  }
  return {
    id,
    settings,
    iam,
    hastyIam: iamOf(1),
    sts,
    assume,
    trusting: (trust) => trusting(trust),
    async role({ may = everything, boundary } = {}) {
      const name = nextName()
      const policy = async (what: string, PolicyDocument: string) =>
        (await iam.send(new CreatePolicyCommand({ PolicyName: `${name}-${what}`, Path: home, PolicyDocument }))).Policy!.Arn!
      const edge = boundary === undefined ? undefined : await policy('boundary', boundary)
      const trust = policyOf({ Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${id}:root` }, Action: 'sts:AssumeRole' })
      const role = await trusting(trust, name, edge)
      await iam.send(new AttachRolePolicyCommand({ RoleName: name, PolicyArn: await policy('may', policyOf(may)) }))
      await untilAssumable(() => assume(role, 'ready'), settings.look)
      return { ...role, boundary: edge }
    },
    async [Symbol.asyncDispose]() {
      await sweep(iam)
    },
  }
}

/** A role that was just made is refused for some seconds (IAM User Guide, "Changes that I make are not always immediately visible"). */
async function untilAssumable(assume: () => Promise<unknown>, look: number): Promise<void> {
  const until = Date.now() + 120_000
  for (;;) {
    try {
      await assume()
      return
    } catch (error) {
      if ((error as Error).name !== 'AccessDenied' || Date.now() > until) throw error
      await pause(look)
    }
  }
}

/** Removes whatever stands under the path, also of a run that was killed. */
async function sweep(iam: IAMClient): Promise<void> {
  const { Roles: roles = [] } = await iam.send(new ListRolesCommand({ PathPrefix: home, MaxItems: 1_000 }))
  for (const { RoleName } of roles) {
    const { PolicyNames: inline = [] } = await iam.send(new ListRolePoliciesCommand({ RoleName }))
    for (const PolicyName of inline) await iam.send(new DeleteRolePolicyCommand({ RoleName, PolicyName }))
    const { AttachedPolicies: attached = [] } = await iam.send(new ListAttachedRolePoliciesCommand({ RoleName }))
    for (const { PolicyArn } of attached) await iam.send(new DetachRolePolicyCommand({ RoleName, PolicyArn }))
    await iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName })).catch((error: Error) => {
      if (!error.name.startsWith('NoSuchEntity')) throw error
    })
    await iam.send(new DeleteRoleCommand({ RoleName }))
  }
  const { Policies: policies = [] } = await iam.send(new ListPoliciesCommand({ Scope: 'Local', PathPrefix: home, MaxItems: 1_000 }))
  for (const { Arn: PolicyArn } of policies) {
    const { Versions: versions = [] } = await iam.send(new ListPolicyVersionsCommand({ PolicyArn }))
    for (const { VersionId, IsDefaultVersion: current } of versions)
      if (current !== true) await iam.send(new DeletePolicyVersionCommand({ PolicyArn, VersionId }))
    await iam.send(new DeletePolicyCommand({ PolicyArn }))
  }
}
