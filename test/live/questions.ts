import {
  CreateOpenIDConnectProviderCommand,
  CreatePolicyVersionCommand,
  DeleteOpenIDConnectProviderCommand,
  DeletePolicyVersionCommand,
  type IAMClient,
  ListPolicyVersionsCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam'
import {
  AssumeRoleCommand,
  AssumeRoleWithWebIdentityCommand,
  type AssumeRoleWithWebIdentityCommandOutput,
  type Credentials,
  DecodeAuthorizationMessageCommand,
  GetCallerIdentityCommand,
  GetScopedCredentialsCommand,
  type GetScopedCredentialsCommandInput,
  type STSClient,
} from '@aws-sdk/client-sts'
import { setTimeout as pause } from 'node:timers/promises'
import { render } from '../../src/providers/aws-sts/kill-list/document.ts'
import { policyOf } from '../support/aws/site.ts'
import { everything, type LiveAccount, type LiveRole } from './account.ts'

/** Something that AWS's pages leave open, and how it is measured. */
export interface Question {
  readonly asks: string
  /** In words, with numbers; undefined where the account was not given what it takes. */
  measure(account: LiveAccount): Promise<readonly string[] | undefined>
}

/** One session asks this; it is free, harmless, and refused in words that name the policy that refuses. */
const harmless = { Effect: 'Allow', Action: 'sts:DecodeAuthorizationMessage', Resource: '*' }
const denyWhen = (Condition: object) => ({ Effect: 'Deny', Action: '*', Resource: '*', Condition })

/** Undefined where it is allowed; else AWS's words. */
async function refusalOf(sts: STSClient): Promise<string | undefined> {
  try {
    await sts.send(new DecodeAuthorizationMessageCommand({ EncodedMessage: 'mayfly' }))
    return undefined
  } catch (error) {
    const { name, message } = error as Error
    if (name.startsWith('InvalidAuthorizationMessage')) return undefined
    if (name.startsWith('AccessDenied')) return message
    throw error
  }
}

/** Milliseconds until it is refused, or allowed again: five minutes at most. */
async function untilRefused(sts: STSClient, look: number, refused = true): Promise<number> {
  const from = performance.now()
  while (((await refusalOf(sts)) !== undefined) !== refused) {
    if (performance.now() - from > 300_000) throw new Error('five minutes have passed')
    await pause(look)
  }
  return performance.now() - from
}

/** What a role that was just made may do arrives as late as what it may not: refused until then, it would be taken for denied. */
const untilAllowed = (sts: STSClient, look: number): Promise<number> => untilRefused(sts, look, false)

const attempt = async (call: () => Promise<unknown>): Promise<string> => {
  try {
    await call()
    return 'accepted'
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`
  }
}

function spread(milliseconds: readonly number[]): string {
  const sorted = milliseconds.toSorted((a, b) => a - b)
  const at = (share: number) => `${Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!)} ms`
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)} of ${sorted.length}`
}

const writeInline = (iam: IAMClient, { name: RoleName }: LiveRole, PolicyDocument: string) =>
  iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: 'kill', PolicyDocument }))

async function writeBoundary(iam: IAMClient, PolicyArn: string, PolicyDocument: string): Promise<void> {
  const { Versions: versions = [] } = await iam.send(new ListPolicyVersionsCommand({ PolicyArn }))
  for (const { VersionId, IsDefaultVersion: current } of versions)
    if (current !== true) await iam.send(new DeletePolicyVersionCommand({ PolicyArn, VersionId }))
  await iam.send(new CreatePolicyVersionCommand({ PolicyArn, PolicyDocument, SetAsDefault: true }))
}

const names = (count: number): string[] => Array.from({ length: count }, (_, at) => `aaa${at.toString(36).padStart(5, '0')}`)
const listing = (denied: readonly string[], base: readonly object[] = []): string =>
  render({ cohorts: [], survivors: [], names: denied }, base as Parameters<typeof render>[1])!

async function child(
  account: LiveAccount,
  parent: Credentials,
  about: GetScopedCredentialsCommandInput = { DurationSeconds: 600 },
): Promise<Credentials> {
  return (await account.sts(parent).send(new GetScopedCredentialsCommand(about))).Credentials as Credentials
}

/** So many requests at once, until so many were sent: how many were throttled. */
async function burst(count: number, width: number, send: () => Promise<unknown>): Promise<{ throttled: number; perSecond: number }> {
  let [sent, throttled] = [0, 0]
  const from = performance.now()
  async function sender(): Promise<void> {
    while (sent < count) {
      sent += 1
      if (/^(Throttl|TooManyRequests|RequestLimit)/.test(await attempt(send))) throttled += 1
    }
  }
  await Promise.all(Array.from({ length: width }, sender))
  return { throttled, perSecond: Math.round((count / (performance.now() - from)) * 1_000) }
}

export const questions: readonly Question[] = [
  {
    asks: '(a) whether GetScopedCredentials needs a permission, and counts against the 600 requests of a second',
    async measure(account) {
      const role = await account.role({ may: harmless })
      const parent = await account.assume(role, 'aaa00000')
      const forbidding = policyOf(everything, { Effect: 'Deny', Action: 'sts:GetScopedCredentials', Resource: '*' })
      const forbidden = await account.assume(role, 'aaa00001', { Policy: forbidding })
      const without = await attempt(() => child(account, parent))
      const denied = await attempt(() => child(account, forbidden))
      const sts = account.sts(parent, undefined, 1)
      const { throttled, perSecond } = await burst(100 * account.settings.rounds, 64, () =>
        sts.send(new GetScopedCredentialsCommand({ DurationSeconds: 60 })),
      )
      const beside = await attempt(() =>
        account.sts(undefined, undefined, 1).send(new AssumeRoleCommand({ RoleArn: role.arn, RoleSessionName: 'aaa00002' })),
      )
      return [
        `without the permission: ${without}`,
        `denied in the session policy: ${denied}`,
        `${100 * account.settings.rounds} at ${perSecond}/s: ${throttled} throttled; AssumeRole right after: ${beside}`,
      ]
    },
  },
  {
    asks: '(b) what aws:TokenIssueTime a child has, and whether it is denied with its parent',
    async measure(account) {
      const { iam, settings } = account
      const { look } = settings
      const role = await account.role()
      const parent = await account.assume(role, 'aaa00000')
      const endless = await child(account, parent, { Policy: policyOf(everything) })
      await pause(2_000)
      const cutoff = new Date(Math.floor(Date.now() / 1_000) * 1_000).toISOString().replace('.000', '')
      await pause(2_000)
      const [ofParent, ofChild, witness] = [parent, await child(account, parent), await account.assume(role, 'aaa00001')].map((session) =>
        account.sts(session),
      )
      // The witness is as new as the child: when it is refused everywhere, so would the child be if it had a time of its own.
      await writeInline(iam, role, policyOf(denyWhen({ DateGreaterThan: { 'aws:TokenIssueTime': cutoff } })))
      await untilRefused(witness!, look)
      await pause(100 * look)
      const own = (await refusalOf(ofChild!)) !== undefined
      await writeInline(iam, role, policyOf(denyWhen({ DateLessThan: { 'aws:TokenIssueTime': cutoff } })))
      await untilRefused(ofParent!, look)
      await pause(100 * look)
      const follows = (await refusalOf(ofChild!)) !== undefined
      return [
        `aws:TokenIssueTime of a child is ${own ? 'its own' : 'that of its parent'}`,
        own
          ? `a child of a parent that is denied ${follows ? 'is denied too' : 'lives on'}`
          : `a deny of the parent by age meets the child: ${follows}`,
        // By documentation none lives longer, so that there is no child of an expired parent to ask about.
        `without a duration a child ends ${(endless.Expiration!.getTime() - parent.Expiration!.getTime()) / 1_000} s after its parent`,
      ]
    },
  },
  {
    asks: '(c) how long a deny by aws:userid takes to be heeded, in each Region',
    async measure(account) {
      const { settings, iam } = account
      const role = await account.role()
      const found = new Map<string, number[]>(settings.regions.map((region) => [region, []]))
      const denied = names(settings.rounds)
      const sessions: Credentials[] = []
      for (const name of denied) sessions.push(await account.assume(role, name))
      for (const region of settings.regions) await untilAllowed(account.sts(sessions[0], region), settings.look)
      for (const [at, session] of sessions.entries()) {
        await writeInline(iam, role, listing(denied.slice(0, at + 1)))
        const times = await Promise.all(settings.regions.map((region) => untilRefused(account.sts(session, region), settings.look)))
        for (const [index, region] of settings.regions.entries()) found.get(region)!.push(times[index]!)
      }
      return [...found].map(([region, times]) => `${region}: ${spread(times)}, looked at every ${settings.look} ms`)
    },
  },
  {
    asks: '(d) how often PutRolePolicy may be called',
    async measure(account) {
      const role = await account.role()
      const count = 10 * account.settings.rounds
      let generation = 0
      const { throttled, perSecond } = await burst(count, 4, () =>
        writeInline(account.hastyIam, role, listing([`aaa${String((generation += 1)).padStart(5, '0')}`])),
      )
      return [`${count} writes at ${perSecond}/s: ${throttled} throttled or in conflict`]
    },
  },
  {
    asks: '(e) whether AssumeRole takes a policy of more than 2,048 characters',
    async measure(account) {
      const role = await account.role()
      const sized = (size: number) => {
        const empty = policyOf({ ...harmless, Sid: '' }).length
        return policyOf({ ...harmless, Sid: 'a'.repeat(size - empty) })
      }
      const found = []
      for (const size of [2_048, 2_049, 4_096])
        found.push(`${size} characters: ${await attempt(() => account.assume(role, 'aaa00000', { Policy: sized(size) }))}`)
      return found
    },
  },
  {
    asks: '(f) whether a token that was signed with ES256 is taken',
    async measure(account) {
      const entered = await enter(account, {})
      return entered === undefined ? undefined : [typeof entered === 'string' ? entered : 'accepted']
    },
  },
  {
    asks: '(g) in which words a canary learns of a deny, in each carrier',
    async measure(account) {
      const { settings, iam } = account
      const base = [everything]
      const role = await account.role({ boundary: policyOf(...base) })
      const [inline, boundary] = [account.sts(await account.assume(role, '@1')), account.sts(await account.assume(role, '@2'))]
      await untilAllowed(inline, settings.look)
      await writeInline(iam, role, listing(['@1']))
      await untilRefused(inline, settings.look)
      await writeBoundary(iam, role.boundary!, listing(['@2'], base))
      await untilRefused(boundary, settings.look)
      const narrow = account.sts(await account.assume(role, '@3', { Policy: policyOf({ ...harmless, Action: 's3:ListAllMyBuckets' }) }))
      return [
        `inline: ${await refusalOf(inline)}`,
        `boundary: ${await refusalOf(boundary)}`,
        `not allowed by the session policy: ${await refusalOf(narrow)}`,
        `GetCallerIdentity of a denied session: ${await attempt(() => inline.send(new GetCallerIdentityCommand({})))}`,
      ]
    },
  },
  {
    asks: '(h) which carrier is faster, the boundary or an inline policy',
    async measure(account) {
      const { settings, iam } = account
      const base = [everything]
      const role = await account.role({ boundary: policyOf(...base) })
      const took: Record<'inline' | 'boundary', { write: number[]; heeded: number[] }> = {
        inline: { write: [], heeded: [] },
        boundary: { write: [], heeded: [] },
      }
      const denied = names(2 * settings.rounds)
      for (const [at, name] of denied.entries()) {
        const carrier = at % 2 === 0 ? 'inline' : 'boundary'
        const session = account.sts(await account.assume(role, name))
        const listed = denied.slice(0, at + 1).filter((_, index) => index % 2 === at % 2)
        await untilAllowed(session, settings.look)
        const from = performance.now()
        await (carrier === 'inline' ? writeInline(iam, role, listing(listed)) : writeBoundary(iam, role.boundary!, listing(listed, base)))
        took[carrier].write.push(performance.now() - from)
        took[carrier].heeded.push(await untilRefused(session, settings.look))
      }
      return Object.entries(took).map(([carrier, { write, heeded }]) => `${carrier}: written in ${spread(write)}; heeded after ${spread(heeded)}`)
    },
  },
  {
    asks: '(i) whether the claim https://aws.amazon.com/source_identity brings a source identity',
    async measure(account) {
      const entered = await enter(account, { 'https://aws.amazon.com/source_identity': 'agent-1' })
      return entered === undefined ? undefined : [typeof entered === 'string' ? entered : `SourceIdentity of the session: ${entered.SourceIdentity}`]
    },
  },
]

/** Comes with a token of the issuer, as nobody. @returns AWS's words where it does not take it; undefined where there is no issuer */
async function enter(account: LiveAccount, claims: object): Promise<AssumeRoleWithWebIdentityCommandOutput | string | undefined> {
  const { iam, settings } = account
  const { issuer, look } = settings
  if (!issuer) return undefined
  const [aud, sub] = ['mayfly-live', 'mayfly-live']
  const { OpenIDConnectProviderArn: provider } = await iam.send(new CreateOpenIDConnectProviderCommand({ Url: issuer.url, ClientIDList: [aud] }))
  try {
    const Action = ['sts:AssumeRoleWithWebIdentity', 'sts:SetSourceIdentity']
    const trust = policyOf({ Effect: 'Allow', Principal: { Federated: provider }, Action })
    const role = await account.trusting(trust)
    return await settling(async () => {
      const iat = Math.floor(Date.now() / 1_000)
      const WebIdentityToken = await issuer.sign({ iss: issuer.url, aud, sub, iat, exp: iat + 300, ...claims })
      return await account.sts().send(new AssumeRoleWithWebIdentityCommand({ RoleArn: role.arn, RoleSessionName: 'aaa00000', WebIdentityToken }))
    }, look)
  } finally {
    await iam.send(new DeleteOpenIDConnectProviderCommand({ OpenIDConnectProviderArn: provider }))
  }
}

/** What a new role answers once it is known everywhere, or AWS's words after a minute of no. */
async function settling<Answer>(call: () => Promise<Answer>, look: number): Promise<Answer | string> {
  const until = Date.now() + 60_000
  for (;;) {
    try {
      return await call()
    } catch (error) {
      const { name, message } = error as Error
      if (name !== 'AccessDenied' || Date.now() > until) return `${name}: ${message}`
      await pause(look)
    }
  }
}
