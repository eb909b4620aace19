import { ListRolesCommand } from '@aws-sdk/client-iam'
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListBucketsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from '@aws-sdk/client-s3'
import { AssumeRoleCommand, type Credentials, GetCallerIdentityCommand } from '@aws-sdk/client-sts'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compile } from '../../../src/providers/aws-sts/compile.ts'
import { type AwsGrant, awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { ProviderError } from '../../../src/providers/provider.ts'
import { type AwsClients, clientsOf } from '../../support/aws/clients.ts'
import { whyNot } from '../../support/aws/evaluate.ts'
import { awsPeers, statusOf } from '../../support/aws/peers.ts'
import { startAwsPeer } from '../../support/aws/peer.ts'
import { parsePolicy } from '../../support/aws/policy.ts'
import { type AwsSite, prepareSite } from '../../support/aws/site.ts'

const inAnHour = () => new Date(Math.ceil(Date.now() / 1_000) * 1_000 + 3_600_000)
const reads = awsGrant.parse({
  role: 'mayfly/invoices',
  allow: [
    { actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] },
    { actions: ['s3:ListBucket'], resources: ['arn:aws:s3:::invoices'], conditions: { StringLike: { 's3:prefix': ['{customer}/*'] } } },
  ],
})

/** Names that mean something to IAM, or begin or end like another. Each has an object of its own in the bucket, under the key `<name>/1`. */
const names = ['acme', 'acme2', 'acm', 'xacme', 'ACME', 'ac me', 'acme.', '*', '?cme', 'ac*', '**', '${aws', '${*}', '$', '{customer}', '"', 'é']

type Peer = Awaited<ReturnType<(typeof awsPeers)[number]['start']>>
const refused = async (call: Parameters<typeof statusOf>[0]) => expect(await statusOf(call)).toBe(403)
const allowed = async (call: Parameters<typeof statusOf>[0]) => expect(await statusOf(call)).toBe(200)

async function assume(site: AwsSite<Peer>, Policy: string): Promise<AwsClients> {
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = site.environment
  const { sts } = clientsOf(site.peer, { accessKeyId: accessKeyId!, secretAccessKey: secretAccessKey! })
  const about = { RoleArn: `arn:aws:iam::${site.peer.account}:role/${site.role}`, RoleSessionName: 'aaa00001', ExternalId: site.externalId }
  const { Credentials: given } = await sts.send(new AssumeRoleCommand({ ...about, Policy }))
  return clientsOf(site.peer, given as Credentials)
}

describe.each(awsPeers)('on $name, a session with a compiled policy', ({ faithful, start }) => {
  let site: AwsSite<Peer>
  let acme: AwsClients

  beforeAll(async () => {
    process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] = 'true'
    site = await prepareSite(await start())
    for (const name of names) await site.owner.s3.send(new PutObjectCommand({ Bucket: 'invoices', Key: `${name}/1`, Body: 'x' }))
    await site.owner.s3.send(new CreateBucketCommand({ Bucket: 'invoices2' }))
    await site.owner.s3.send(new PutObjectCommand({ Bucket: 'invoices2', Key: 'acme/1', Body: 'x' }))
    acme = await assume(site, compile(reads, { customer: 'acme' }, inAnHour()))
  })
  afterAll(() => site?.peer.stop())

  const get = ({ s3 }: AwsClients, Key: string, Bucket = 'invoices') => s3.send(new GetObjectCommand({ Bucket, Key }))
  const list = ({ s3 }: AwsClients, Prefix?: string) =>
    s3.send(new ListObjectsV2Command({ Bucket: 'invoices', ...(Prefix !== undefined && { Prefix }) }))

  test('does what its grant allows', async () => {
    await allowed(get(acme, 'acme/1'))
    if (faithful.prefix) await allowed(list(acme, 'acme/'))
  })

  test('reads nothing of another customer, under another prefix or in another bucket', async () => {
    for (const key of ['globex/1', '1', 'globex/acme/1', 'acme']) await refused(get(acme, key))
    await refused(get(acme, 'acme/1', 'invoices2'))
    for (const prefix of [undefined, 'globex/', 'acme', '']) await refused(list(acme, prefix))
  })

  test('does nothing but the actions of its grant, also where it may read', async () => {
    await refused(acme.s3.send(new PutObjectCommand({ Bucket: 'invoices', Key: 'acme/2', Body: 'x' })))
    await refused(acme.s3.send(new DeleteObjectCommand({ Bucket: 'invoices', Key: 'acme/1' })))
    await refused(acme.s3.send(new ListBucketsCommand({})))
    await refused(acme.iam.send(new ListRolesCommand({})))
    // It says who it is; no policy of AWS reaches that (STS API reference, GetCallerIdentity).
    await allowed(acme.sts.send(new GetCallerIdentityCommand({})))
  })

  test('becomes no other role, whatever that role trusts', async () => {
    const RoleArn = `arn:aws:iam::${site.peer.account}:role/${site.role}`
    await refused(acme.sts.send(new AssumeRoleCommand({ RoleArn, RoleSessionName: 'aaa00002', ExternalId: site.externalId })))
  })

  test.each(names)('for a customer called %j reads what is of that name, and of no other', async (customer) => {
    const session = await assume(site, compile(reads, { customer }, inAnHour()))
    if (faithful.literals || !/[*?$]/.test(customer)) await allowed(get(session, `${customer}/1`))
    if (faithful.prefix) await allowed(list(session, `${customer}/`))
    for (const other of names.filter((name) => name !== customer)) {
      await refused(get(session, `${other}/1`))
      await refused(list(session, `${other}/`))
    }
  })
})

describe('the end of a lease', () => {
  // Ours alone. LocalEmu lets a session go on: it has no aws:CurrentTime, which AWS says is in every request (IAM User Guide, "AWS global condition
  // context keys").
  test('is the end of what its session may do, by the clock of AWS and with the broker gone', async () => {
    await using site = await prepareSite(await startAwsPeer())
    const until = new Date(Math.ceil(site.peer.now() / 1_000) * 1_000 + 60_000)
    const { s3 } = await assume(site, compile(reads, { customer: 'acme' }, until))
    const get = () => s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' }))
    site.peer.advance(until.getTime() - site.peer.now() - 1_000)
    await allowed(get())
    site.peer.advance(2_000)
    await refused(get())
    await expect(get()).rejects.toThrow('with an explicit deny in a session policy')
  })
})

describe('whatever a catalogue and a task say', () => {
  const sign = fc.constantFrom('a', 'A', 'b', '*', '?', '$', '{', '}', '/', ':', '.', '-', ' ', '"', '\\', 'é', '${a:b}', '${*}', '{one}')
  const value = fc.array(sign, { minLength: 1, maxLength: 6 }).map((signs) => signs.join(''))
  /** What a template is made of, and what text of a request each piece stands for. */
  const piece = fc.oneof(
    fc.constantFrom('{one}', '{two}').map((text) => ({ text, kind: 'parameter' as const })),
    fc.constantFrom('*', '?').map((text) => ({ text, kind: 'wildcard' as const })),
    fc.constantFrom('a', 'ab', '-', '/', '/b/', '.').map((text) => ({ text, kind: 'text' as const })),
  )
  const template = fc.array(piece, { minLength: 1, maxLength: 7 })
  const textOf = (pieces: readonly { readonly text: string }[]) => pieces.map(({ text }) => text).join('')

  /** Undefined where the catalogue would not take it. */
  function grantOf(resource: string, prefix: string): AwsGrant | undefined {
    const allow = [{ actions: ['s3:GetObject'], resources: [resource], conditions: { StringLike: { 's3:prefix': [prefix] } } }]
    const parsed = awsGrant.safeParse({ role: 'r', allow })
    return parsed.success ? parsed.data : undefined
  }

  function compiled(grant: AwsGrant, parameters: Readonly<Record<string, string>>): string | undefined {
    try {
      return compile(grant, parameters, new Date('2030-01-01T00:00:00Z'))
    } catch (error) {
      expect(error).toBeInstanceOf(ProviderError)
      return undefined
    }
  }

  /** What the catalogue means: a parameter is its value and nothing else, and only the catalogue's own wildcards are any. */
  function meant(pieces: readonly { readonly text: string }[], parameters: Readonly<Record<string, string>>): RegExp {
    const literal = (text: string) => text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
    const expressions: Readonly<Record<string, string>> = {
      '*': '.*',
      '?': '.',
      '{one}': literal(parameters['one']!),
      '{two}': literal(parameters['two']!),
    }
    return new RegExp(`^${pieces.map(({ text }) => expressions[text] ?? literal(text)).join('')}$`, 's')
  }

  test('AWS lets through what they mean, and nothing that leaves the place of a parameter', () => {
    let [legal, passed, kept] = [0, 0, 0]
    fc.assert(
      fc.property(
        template,
        template,
        fc.record({ one: value, two: value }),
        // The request is the template itself, filled with these: with the values, with others, or with what a value would be as a pattern.
        fc.infiniteStream(fc.oneof(fc.constantFrom('one', 'two'), value)),
        (resource, prefix, parameters, fillings) => {
          const grant = grantOf(`arn:aws:s3:::x${textOf(resource)}`, textOf(prefix))
          const policy = grant && compiled(grant, parameters)
          if (policy === undefined) return
          legal += 1
          const fill = (pieces: typeof resource) =>
            pieces
              .map(({ text, kind }) => {
                if (kind === 'text') return text
                const next = fillings.next().value as string
                return kind === 'parameter' && (next === 'one' || next === 'two') ? parameters[text.slice(1, -1) as 'one' | 'two'] : next
              })
              .join('')
          const asked = { resource: fill(resource), prefix: fill(prefix) }
          const rights = { root: false, identity: [parsePolicy(everything, 'identity')], boundary: undefined, names: new Map() }
          const context = new Map([
            ['s3:prefix', [asked.prefix]],
            ['a:b', [asked.prefix]],
            ['aws:currenttime', ['2026-11-26T00:00:00Z']],
          ])
          const ask = { action: 's3:GetObject', resource: `arn:aws:s3:::x${asked.resource}`, context }
          const may = whyNot({ ...rights, session: [[parsePolicy(policy, 'identity')]] }, ask) === undefined
          if (may) passed += 1
          else kept += 1
          expect(may).toBe(meant(resource, parameters).test(asked.resource) && meant(prefix, parameters).test(asked.prefix))
        },
      ),
      { numRuns: 20_000 },
    )
    // Not vacuous: both answers were given often.
    expect(legal).toBeGreaterThan(1_000)
    expect(Math.min(passed, kept)).toBeGreaterThan(200)
  })
})

const everything = JSON.stringify({ Version: '2012-10-17', Statement: [{ Effect: 'Allow', Action: '*', Resource: '*' }] })
