import {
  AttachRolePolicyCommand,
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  CreateRoleCommand,
  DeletePolicyVersionCommand,
  DeleteRolePolicyCommand,
  ListPolicyVersionsCommand,
  PutRolePolicyCommand,
} from '@aws-sdk/client-iam'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { AssumeRoleCommand, type Credentials, GetCallerIdentityCommand } from '@aws-sdk/client-sts'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { render } from '../../../src/providers/aws-sts/kill-list/document.ts'
import { killList, type Session, type World } from '../../../src/providers/aws-sts/kill-list/ladder.ts'
import { type AwsClients, clientsOf } from '../../support/aws/clients.ts'
import { awsPeers, type RunningAws, statusOf } from '../../support/aws/peers.ts'
import { type AwsSite, policyOf, prepareSite } from '../../support/aws/site.ts'

const everything = { Effect: 'Allow', Action: '*', Resource: '*' }
/** `full` is how many names fit one by one. */
const carriers = [
  { carrier: 'the boundary', base: [everything], capacity: 6_144, full: 459 },
  { carrier: 'an inline policy', base: [], capacity: 10_240, full: 777 },
] as const

const nobody = { denied: [], living: [], canaries: [], killed: [], open: 'zzz' }
const named = (cohort: string, count: number, from = 0): Session[] =>
  Array.from({ length: count }, (_, at) => ({ name: cohort + (from + at).toString(36).padStart(5, '0'), earliest: new Date(0) }))

describe.each(awsPeers)('on $name', ({ faithful, start }) => {
  let site: AwsSite<RunningAws>
  /** What the roles may do. Not inline, where it would take room from the list. */
  let work: string
  let roles = 0
  beforeAll(async () => {
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true'
    site = await prepareSite(await start())
    const { Policy: policy } = await site.owner.iam.send(new CreatePolicyCommand({ PolicyName: 'work', PolicyDocument: policyOf(everything) }))
    work = policy!.Arn!
  })
  afterAll(() => site?.peer.stop())

  describe.each(carriers)('a kill list in $carrier', ({ carrier, base, capacity, full }) => {
    let role: string
    let boundary: string
    const listOf = (world: Partial<World>) => killList({ ...nobody, base, capacity, ...world })

    beforeEach(async () => {
      role = `pool-${(roles += 1)}`
      const { iam } = site.owner
      const edge = await iam.send(new CreatePolicyCommand({ PolicyName: `edge-${role}`, PolicyDocument: policyOf(everything) }))
      boundary = edge.Policy!.Arn!
      const trust = policyOf({ Effect: 'Allow', Principal: { AWS: `arn:aws:iam::${site.peer.account}:user/mayfly` }, Action: 'sts:AssumeRole' })
      const about = { RoleName: role, Path: '/mayfly/', AssumeRolePolicyDocument: trust }
      await iam.send(new CreateRoleCommand({ ...about, ...(carrier === 'the boundary' && { PermissionsBoundary: boundary }) }))
      await iam.send(new AttachRolePolicyCommand({ RoleName: role, PolicyArn: work }))
    })

    async function open(...names: readonly string[]): Promise<Map<string, AwsClients>> {
      const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = site.environment
      const { sts } = clientsOf(site.peer, { accessKeyId: accessKeyId!, secretAccessKey: secretAccessKey! })
      const RoleArn = `arn:aws:iam::${site.peer.account}:role/mayfly/${role}`
      const opened = new Map<string, AwsClients>()
      for (const RoleSessionName of names) {
        const { Credentials: given } = await sts.send(new AssumeRoleCommand({ RoleArn, RoleSessionName }))
        opened.set(RoleSessionName, clientsOf(site.peer, given as Credentials))
      }
      return opened
    }

    /** Undefined: nobody is denied. */
    async function write(document: string | undefined): Promise<void> {
      const { iam } = site.owner
      if (carrier === 'an inline policy') {
        const about = { RoleName: role, PolicyName: 'kill' }
        if (document === undefined) await iam.send(new DeleteRolePolicyCommand(about))
        else await iam.send(new PutRolePolicyCommand({ ...about, PolicyDocument: document }))
        return
      }
      const about = { PolicyArn: boundary }
      const { Versions: versions = [] } = await iam.send(new ListPolicyVersionsCommand(about))
      for (const { VersionId } of versions.filter(({ IsDefaultVersion: current }) => current !== true))
        await iam.send(new DeletePolicyVersionCommand({ ...about, VersionId }))
      await iam.send(new CreatePolicyVersionCommand({ ...about, SetAsDefault: true, PolicyDocument: document! }))
    }

    /** What each of them is answered by S3. */
    async function answers(sessions: ReadonlyMap<string, AwsClients>): Promise<Record<string, number | string>> {
      const found: Record<string, number | string> = {}
      for (const [name, { s3 }] of sessions) found[name] = await statusOf(s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' })))
      return found
    }

    test('ends a session and no other, also none whose name looks like it, until it is taken back', async () => {
      const alike = ['aaa00002', 'aaa000011', 'xaaa00001', 'AAA00001', 'aaa0000', '@aaa00001', 'a=aaa00001', 'aab00001']
      const sessions = await open('aaa00001', ...alike)
      await write(listOf({ denied: named('aaa', 1, 1) }).document)
      expect(await answers(sessions)).toEqual({ aaa00001: 403, ...Object.fromEntries(alike.map((name) => [name, 200])) })
      expect(await statusOf(sessions.get('aaa00001')!.iam.send(new ListPolicyVersionsCommand({ PolicyArn: boundary })))).toBe(403)
      // No policy reaches who it is (STS API reference, GetCallerIdentity).
      expect(await statusOf(sessions.get('aaa00001')!.sts.send(new GetCallerIdentityCommand({})))).toBe(200)

      await write(listOf({}).document)
      expect(await answers(sessions)).toEqual(Object.fromEntries(['aaa00001', ...alike].map((name) => [name, 200])))
    })

    test('ends a cohort but for its survivors, and also who is of it and was heard of by nobody', async () => {
      const sessions = await open('aaa00001', 'aaa00002', 'aaa0zzzz', 'aab00001', 'aaa000001', '1aaa0000')
      const { document } = listOf({ denied: named('aaa', 20, 2), living: named('aaa', 1, 1) })
      expect(document).toContain('*:aaa?????')
      await write(document)
      expect(await answers(sessions)).toEqual({ aaa00001: 200, aaa00002: 403, aaa0zzzz: 403, aab00001: 200, aaa000001: 200, '1aaa0000': 200 })

      // The survivor ends, and another cohort begins to end.
      await write(listOf({ denied: [...named('aaa', 21, 1), ...named('aab', 1, 1)] }).document)
      expect(await answers(sessions)).toEqual({ aaa00001: 403, aaa00002: 403, aaa0zzzz: 403, aab00001: 403, aaa000001: 200, '1aaa0000': 200 })
    })

    test('that is full is written as it stands, and so is every step of the ladder beyond it', async () => {
      const last = named('zzz', 1, full - 1)[0]!.name
      const sessions = await open('zzz00000', last, 'zzz0zzzz', 'aaa00001')
      const living = [...named('aaa', 1, 1), { name: 'zzz0zzzz', earliest: new Date(0) }]
      const steps = []
      for (const world of [
        { denied: named('zzz', full), living },
        { denied: named('zzz', full + 1), living },
        { denied: named('zzz', full + 1), living: [...living, ...named('zzz', full, 2_000)] },
      ]) {
        const list = listOf(world)
        await write(list.document)
        steps.push({ rung: list.rung, answers: await answers(sessions), sacrificed: list.sacrificed.includes('zzz0zzzz') })
      }
      const ended = { zzz00000: 403, [last]: 403 }
      expect(steps).toEqual([
        { rung: 1, answers: { ...ended, zzz0zzzz: 200, aaa00001: 200 }, sacrificed: false },
        { rung: 2, answers: { ...ended, zzz0zzzz: 200, aaa00001: 200 }, sacrificed: false },
        { rung: 4, answers: { ...ended, zzz0zzzz: 403, aaa00001: 200 }, sacrificed: true },
      ])
    })

    // Ours alone: LocalEmu takes what AWS refuses (IAM User Guide, "IAM and AWS STS quotas").
    if (faithful.sizes)
      test('has as much room as the ladder believes, and not one name more', async () => {
        const names = named('zzz', full + 1).map(({ name }) => name)
        await write(render({ cohorts: [], survivors: [], names: names.slice(1) }, base))
        await expect(write(render({ cohorts: [], survivors: [], names }, base))).rejects.toMatchObject({ name: 'LimitExceededException' })
      })

    test('cuts a role off from what was issued before a moment, and shuts it, and each is taken back', async () => {
      const sessions = await open('aaa00000')
      // The next whole second of AWS, which is the machine's here: a cutoff spares what is issued from then on.
      const cutoff = new Date((Math.floor(Date.now() / 1_000) + 1) * 1_000)
      await pause(cutoff.getTime() - Date.now() + 50)
      for (const [name, session] of await open('aaa00001')) sessions.set(name, session)
      const spread = Array.from({ length: 40 }, (_, at) => named(at.toString(36).padStart(3, '0'), 1)[0]!)
      const aged = spread.map((session) => ({ ...session, latest: new Date(cutoff.getTime() - 1) }))

      const cut = listOf({ denied: aged, capacity: 400 })
      expect(cut).toMatchObject({ rung: 5, cutoff })
      await write(cut.document)
      expect(await answers(sessions)).toEqual({ aaa00000: 403, aaa00001: 200 })

      const shut = listOf({ denied: spread, capacity: 400 })
      expect(shut).toMatchObject({ rung: 6 })
      await write(shut.document)
      expect(await answers(sessions)).toEqual({ aaa00000: 403, aaa00001: 403 })

      await write(listOf({}).document)
      expect(await answers(sessions)).toEqual({ aaa00000: 200, aaa00001: 200 })
    })

    test('ends its canary, and no canary whose name goes on', async () => {
      const sessions = await open('@1', '@10', 'aaa00001')
      await write(render({ cohorts: ['aaa'], survivors: ['aaa00001'], names: ['@1'] }, base))
      expect(await answers(sessions)).toEqual({ '@1': 403, '@10': 200, aaa00001: 200 })
    })
  })
})
