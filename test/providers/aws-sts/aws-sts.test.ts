import { ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import { PutRolePolicyCommand, PutUserPolicyCommand, UpdateAssumeRolePolicyCommand } from '@aws-sdk/client-iam'
import { AssumeRoleCommand, GetCallerIdentityCommand } from '@aws-sdk/client-sts'
import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { systemClock } from '../../../src/base/time.ts'
import { awsKind } from '../../../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import { type Minted, type Provider, ProviderError, type Reservation } from '../../../src/providers/provider.ts'
import { agentOf, readObject, statusOf } from '../../support/aws-agent.ts'
import type { AwsClients } from '../../support/aws/clients.ts'
import type { AwsPeer } from '../../support/aws/peer.ts'
import { type AwsSite, policyOf, startAwsSite } from '../../support/aws/site.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal

describe('an AWS session of a lease', () => {
  let site: AwsSite
  let peer: AwsPeer
  let provider: Provider
  /** What each lease left in the ledger. */
  let journaled: Handle[]

  const grant = awsGrant.parse({
    role: 'mayfly/invoices',
    allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }],
  })

  beforeEach(async () => {
    site = await startAwsSite()
    peer = site.peer
    for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
    provider = await connect()
    journaled = []
  })
  afterEach(async () => {
    await peer.stop()
    vi.unstubAllEnvs()
  })

  const connect = (changes: object = {}): Promise<Provider> =>
    awsKind.connect(
      'aws',
      awsSettings.parse({ region: peer.region, account: peer.account, endpoint: peer.url, external_id: site.externalId, mode: 'direct', ...changes }),
      { publicUrl: 'https://broker.example.com', keys: '/nowhere', clock: systemClock },
    )

  const mint = (reservation: Reservation = reservationOf(grant), by: Provider = provider): Promise<Minted> =>
    by.mint(reservation, async (handle) => void journaled.push(handle), patient)

  const use = (minted: Minted): AwsClients => agentOf(peer, minted)
  const read = readObject

  const faultOf = (call: Promise<unknown>): Promise<ProviderError> =>
    call.then(
      () => {
        throw new Error('it did not fail')
      },
      (error: unknown) => {
        if (error instanceof ProviderError) return error
        throw error
      },
    )

  test('can do what its grant says for its parameters, and nothing else', async () => {
    const session = use(await mint())
    expect(await read(session, 'acme/1'), 'in its scope').toBe(200)
    expect(await read(session, 'globex/1'), 'of another customer').toBe(403)
    expect(await statusOf(session.s3.send(new PutObjectCommand({ Bucket: 'invoices', Key: 'acme/2', Body: 'x' }))), 'another action').toBe(403)
    expect(await statusOf(session.s3.send(new ListObjectsV2Command({ Bucket: 'invoices' }))), 'the list of the bucket').toBe(403)
    const further = new AssumeRoleCommand({ RoleArn: `arn:aws:iam::${peer.account}:role/mayfly/invoices`, RoleSessionName: 'further' })
    expect(await statusOf(session.sts.send(further)), 'a further role').toBe(403)
  })

  test('ends with its lease and not with the 15 minutes that a session has at least, with the broker gone', async () => {
    const expiresAt = new Date(peer.now() + 60_000)
    const minted = await mint(reservationOf(grant, { issuedAt: new Date(peer.now()), expiresAt }))
    expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(expiresAt.getTime())
    const session = use(minted)
    expect(await read(session, 'acme/1')).toBe(200)
    peer.advance(61_000)
    expect(await read(session, 'acme/1')).toBe(403)
    expect(await statusOf(session.sts.send(new GetCallerIdentityCommand({}))), 'the session itself lives on').toBe(200)
  })

  test('is known by its name before AWS hears of it, and says nothing of agent, task or lease', async () => {
    const reservation = reservationOf(grant)
    let heard = -1
    const minted = await provider.mint(
      reservation,
      async (handle) => {
        heard = peer.calls.filter(({ action }) => action === 'AssumeRole').length
        journaled.push(handle)
      },
      patient,
    )
    expect(heard).toBe(0)
    expect(journaled).toEqual([{ kind: 'session', role: 'mayfly/invoices', session_name: expect.stringMatching(/^[0-9a-z]{8}$/) }])
    const { Arn } = await use(minted).sts.send(new GetCallerIdentityCommand({}))
    expect(Arn).toBe(`arn:aws:sts::${peer.account}:assumed-role/invoices/${journaled[0]!['session_name']}`)
  })

  test('is not asked for where the lease has ended when its name is journaled', async () => {
    const gone = new Error('the lease has ended')
    await expect(provider.mint(reservationOf(grant), () => Promise.reject(gone), patient)).rejects.toBe(gone)
    expect(peer.calls.filter(({ action }) => action === 'AssumeRole')).toEqual([])
  })

  test('is only ended by time, and says so: what was asked for may live, what never was does not', async () => {
    expect(provider.revocation(grant)).toBe('expiry')
    await mint()
    const reference = { lease: reservationOf(grant).lease, task: reservationOf(grant).task, age: 0 }
    expect(await provider.recover({ ...reference, handles: journaled }, patient)).toEqual({ minted: true })
    expect(await provider.recover({ ...reference, handles: [] }, patient)).toEqual({ minted: false })
    expect(await faultOf(provider.revoke({ ...reference, handles: journaled }, patient))).toMatchObject({ fault: 'refused' })
  })

  test('of a longer life than the roles give is refused, not cut', async () => {
    const long = reservationOf(grant, { expiresAt: new Date(Date.now() + 3_700_000) })
    expect(await faultOf(mint(long))).toMatchObject({ fault: 'refused', minted: 'no' })
    expect(peer.calls.filter(({ action }) => action === 'AssumeRole')).toEqual([])
  })

  test.each([
    ['fails once', 'fails', 1],
    ['is throttled once', 'throttles', 1],
    ['loses its answer once', 'loses the answer', 1],
  ] as const)('is given although STS %s', async (_, fault, times) => {
    peer.faults.next('AssumeRole', fault, times)
    expect(await read(use(await mint()), 'acme/1')).toBe(200)
  })

  test.each([
    ['fails', 'fails', { fault: 'unavailable', minted: 'maybe' }],
    ['is throttled', 'throttles', { fault: 'unavailable', minted: 'no' }],
    ['breaks the connection', 'resets', { minted: 'maybe' }],
    ['loses every answer', 'loses the answer', { minted: 'maybe' }],
    [
      'answers a megabyte',
      'pads the answer',
      { fault: 'garbage', minted: 'maybe', message: 'aws did not answer AssumeRole: its answer is too large' },
    ],
  ] as const)('is not given where STS %s, and the ledger is told what may exist', async (_, fault, known) => {
    peer.faults.next('AssumeRole', fault, 3)
    expect(await faultOf(mint())).toMatchObject(known)
  })

  test('is not given where STS loses its first answer and then throttles, and the ledger is told of the one that was made', async () => {
    peer.faults.next('AssumeRole', 'loses the answer')
    peer.faults.next('AssumeRole', 'throttles', 2)
    expect(await faultOf(mint())).toMatchObject({ fault: 'unavailable', message: expect.stringContaining('throttles'), minted: 'maybe' })
    expect(peer.faults.pending).toBe(0)
  })

  test('is refused for certain where the role does not trust the broker, and no error repeats what AWS said', async () => {
    const stranger = await connect({ external_id: 'somebody-else' })
    const error = await faultOf(mint(undefined, stranger))
    expect(error).toMatchObject({ fault: 'refused', minted: 'no' })
    expect(error.message).not.toContain(peer.account)
  })

  describe('with session_tags', () => {
    const keys = ['agent', 'grant', 'kind', 'lease', 'owner', 'task'].map((name) => `mayfly:${name}`)
    let tagging: Provider
    beforeEach(async () => {
      tagging = await connect({ session_tags: true })
    })

    /** Lets the broker tag sessions with keys that it is to have and no others, two of them transitive. */
    async function letTag(): Promise<void> {
      const broker = { AWS: `arn:aws:iam::${peer.account}:user/mayfly` }
      const only = { 'ForAllValues:StringEquals': { 'aws:TagKeys': keys, 'sts:TransitiveTagKeys': ['mayfly:lease', 'mayfly:task'] } }
      const each = { Null: Object.fromEntries(keys.map((key) => [`aws:RequestTag/${key}`, 'false'])) }
      const inherited = { 'ForAnyValue:StringEquals': { 'sts:TransitiveTagKeys': 'mayfly:lease' } }
      const trust = policyOf(
        { Effect: 'Allow', Principal: broker, Action: ['sts:AssumeRole', 'sts:SetSourceIdentity'] },
        { Effect: 'Allow', Principal: broker, Action: 'sts:TagSession', Condition: { ...only, ...each, ...inherited } },
      )
      await site.owner.iam.send(new UpdateAssumeRolePolicyCommand({ RoleName: 'invoices', PolicyDocument: trust }))
      const may = { Effect: 'Allow', Action: 'sts:TagSession', Resource: '*' }
      await site.owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'tag', PolicyDocument: policyOf(may) }))
    }

    test('is refused for certain where the role does not let the broker tag it, and the refusal says what is missing', async () => {
      const error = await faultOf(mint(undefined, tagging))
      expect(error).toMatchObject({ fault: 'refused', minted: 'no', message: expect.stringContaining('sts:TagSession') })
      expect(error.message).not.toContain(peer.account)
      expect(await read(use(await mint()), 'acme/1'), 'without tags').toBe(200)
      const stranger = await connect({ session_tags: true, external_id: 'somebody-else' })
      expect((await faultOf(mint(undefined, stranger))).message, 'another reason').not.toContain('TagSession')
    })

    test('says in AWS whose it is, so that a policy there can ask; whatever its task is given chooses no tag', async () => {
      await letTag()
      const reservation = reservationOf(grant, { parameters: { customer: 'acme', 'mayfly:agent': 'somebody', owner: 'somebody' } })
      const { lease, task, agent, owner, kind, grant: name } = reservation
      const asked = Object.entries({ lease, task, agent, owner, kind, grant: name })
      const Condition = { StringEquals: Object.fromEntries(asked.map(([fact, value]) => [`aws:PrincipalTag/mayfly:${fact}`, value])) }
      const work = policyOf({ Effect: 'Allow', Action: '*', Resource: '*', Condition })
      await site.owner.iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'work', PolicyDocument: work }))
      expect(await read(use(await mint(reservation, tagging)), 'acme/1')).toBe(200)
      expect(await read(use(await mint(reservationOf(grant), tagging)), 'acme/1'), 'of another lease').toBe(403)
      expect(await read(use(await mint(reservation)), 'acme/1'), 'without tags').toBe(403)
    })

    test('whose policy no longer fits beside its tags is refused, and told apart', async () => {
      await letTag()
      // Of 96 characters that a policy may have, so that there is little to pack.
      const customer = String.fromCharCode(...randomBytes(1_300).map((byte) => 0xa0 + (byte % 0x60)))
      const noise = () => randomBytes(45).toString('base64url')
      const who = { agent: noise(), kind: noise(), grant: noise(), owner: randomBytes(190).toString('base64url') }
      const reservation = reservationOf(grant, { ...who, parameters: { customer } })
      expect(await read(use(await mint(reservation)), 'acme/1'), 'without tags').toBe(403)
      expect(await faultOf(mint(reservation, tagging))).toMatchObject({
        fault: 'refused',
        minted: 'no',
        message: expect.stringContaining('too large once it is packed'),
      })
    })

    test('is checked with them', async () => {
      const trial = { name: 'invoices-bucket', settings: grant, maxTtl: 900_000, parameters: { customer: 'acme' } }
      const ofGrant = async () => (await tagging.examine!([trial])).filter(({ subject }) => subject.startsWith('grant '))
      expect(await ofGrant()).toMatchObject([{ level: 'fault', message: expect.stringContaining('sts:TagSession') }])
      await letTag()
      expect(await ofGrant()).toMatchObject([{ level: 'ok' }])
    })
  })

  describe('is checked for', () => {
    const trial = { name: 'invoices-bucket', settings: grant, maxTtl: 900_000, parameters: { customer: 'acme' } }

    test('with the account and each role, by what leaves nothing that works', async () => {
      const findings = await provider.examine!([trial])
      expect(findings).toContainEqual({ level: 'ok', subject: 'account', message: `is ${peer.account}, as configured` })
      const subject = 'grant invoices-bucket, role mayfly/invoices'
      expect(findings).toContainEqual({ level: 'ok', subject, message: 'can be assumed with the session policy of this grant' })
    })

    test.each([
      ['another account', { account: '999999999999' }, trial, 'account'],
      ['a role that does not know the external id', { external_id: 'another' }, trial, 'grant invoices-bucket, role mayfly/invoices'],
      ['a grant that lasts longer than a session', {}, { ...trial, maxTtl: 7_200_000 }, 'grant invoices-bucket, role mayfly/invoices'],
    ])('and names %s', async (_, settings, asked, subject) => {
      const findings = await (await connect(settings)).examine!([asked])
      expect(findings.filter(({ level }) => level === 'fault')).toMatchObject([{ subject }])
    })

    test('and says what outlives a session of the grant', async () => {
      const allow = [{ actions: ['rds-db:connect', 'ssm:StartSession'], resources: ['*'] }]
      const settings = awsGrant.parse({ role: site.role, allow, outlives_revocation: ['rds-db:connect', 'ssm:StartSession'] })
      const findings = await provider.examine!([{ ...trial, settings }])
      expect(findings.find(({ subject }) => subject.startsWith('grant '))).toMatchObject({
        level: 'ok',
        message: expect.stringMatching(/; outlives it: rds-db:connect, ssm:StartSession$/),
      })
    })

    test('and says what it could not look at', async () => {
      const findings = await provider.examine!([{ ...trial, parameters: undefined }])
      expect(findings).toContainEqual(expect.objectContaining({ level: 'unchecked', subject: 'grant invoices-bucket, role mayfly/invoices' }))
    })
  })
})
