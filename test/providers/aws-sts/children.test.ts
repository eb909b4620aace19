import { inspect } from 'node:util'
import { DeleteRolePolicyCommand, ListRolesCommand, PutRolePolicyCommand } from '@aws-sdk/client-iam'
import { AssumeRoleCommand, GetCallerIdentityCommand, GetScopedCredentialsCommand } from '@aws-sdk/client-sts'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Handle } from '../../../src/base/evidence.ts'
import { faultOf, noChildFor } from '../../../src/providers/aws-sts/answers.ts'
import { awsKind } from '../../../src/providers/aws-sts/aws-sts.ts'
import { type AwsGrant, awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import type { Minted, Provider, Reservation } from '../../../src/providers/provider.ts'
import { agentOf, readObject, statusOf } from '../../support/aws-agent.ts'
import type { AwsClients } from '../../support/aws/clients.ts'
import type { AwsPeer } from '../../support/aws/peer.ts'
import { type AwsSite, policyOf, startAwsSite, stillClock } from '../../support/aws/site.ts'
import { failureOf } from '../contract.ts'
import { reservationOf } from '../reservation.ts'

const patient = new AbortController().signal
/** How the peer's session tokens begin. */
const tokenOfThePeer = 'IQoJb3JpZ2lu'

describe('children of an AWS session', () => {
  let site: AwsSite
  let peer: AwsPeer
  let provider: Provider
  let noticed: object[]
  /** The broker's clock, in milliseconds ahead of AWS's. */
  let skew: number
  let journaled: Handle[]

  const grant = awsGrant.parse({
    role: 'mayfly/invoices',
    allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }],
  })

  beforeEach(async () => {
    site = await startAwsSite(stillClock())
    peer = site.peer
    for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
    noticed = []
    skew = 0
    journaled = []
    provider = await connect()
  })
  afterEach(async () => {
    await peer.stop()
    vi.unstubAllEnvs()
    expect(inspect(provider, { depth: 20, showHidden: true })).not.toContain(tokenOfThePeer)
  })

  const connect = (changes: object = {}): Promise<Provider> =>
    awsKind.connect(
      'aws',
      awsSettings.parse({ region: peer.region, account: peer.account, endpoint: peer.url, external_id: site.externalId, ...changes }),
      {
        publicUrl: 'https://broker.example.com',
        keys: '/nowhere',
        clock: () => peer.now() + skew,
        noticed: (_, level, event, detail) => void (event === 'mode' && noticed.push({ level, event, ...detail })),
      },
    )

  /** Of ten minutes from now on, by AWS's clock. */
  const reserve = (changes: Partial<Reservation> = {}, minutes = 10): Reservation =>
    reservationOf(grant, { issuedAt: new Date(peer.now()), expiresAt: new Date(peer.now() + minutes * 60_000), ...changes })
  /** The same lease, refreshed now. */
  const later = (reservation: Reservation, changes: Partial<Reservation> = {}): Reservation => reserve({ lease: reservation.lease, ...changes })
  const mint = (reservation: Reservation, by = provider): Promise<Minted> =>
    by.mint(reservation, async (handle) => void journaled.push(handle), patient)
  const refresh = (reservation: Reservation, by = provider): Promise<Minted> => by.refresh!({ ...reservation, handles: journaled }, patient)
  const revoke = ({ lease, task }: Reservation) => provider.revoke({ lease, task, age: 0, handles: journaled }, patient).catch(() => undefined)
  const use = (minted: Minted): AwsClients => agentOf(peer, minted)
  const asked = (action: string): number => peer.calls.filter((call) => call.action === action).length
  const nameOf = async ({ sts }: AwsClients): Promise<string | undefined> => (await sts.send(new GetCallerIdentityCommand({}))).Arn
  const narrow = ({ sts }: AwsClients): Promise<number> => statusOf(sts.send(new GetScopedCredentialsCommand({ DurationSeconds: 60 })))

  test('whose first answer is lost, and which is then throttled, may be there until its policy ends it', async () => {
    const reservation = reserve()
    await mint(reservation)
    peer.faults.next('GetScopedCredentials', 'loses the answer')
    peer.faults.next('GetScopedCredentials', 'throttles', 2)
    const error = await failureOf(refresh(later(reservation)))
    expect(error).toMatchObject({ fault: 'unavailable', minted: 'maybe' })
    expect(Math.abs(error.endsBy!.getTime() - peer.now() - 120_000)).toBeLessThan(15_000)
  })

  test('whose first answer is lost, and which STS then does not know how to make, may be there until its policy ends it', async () => {
    const reservation = reserve()
    await mint(reservation)
    peer.faults.next('GetScopedCredentials', 'loses the answer')
    const again = later(reservation)
    const refreshing = failureOf(refresh(again))
    while (asked('GetScopedCredentials') < 2) await new Promise((resolve) => setImmediate(resolve))
    peer.faults.unsupported.add('GetScopedCredentials')
    const error = await refreshing
    expect(error).toMatchObject({ fault: 'refused', minted: 'maybe' })
    expect(error.endsBy!.getTime() - again.issuedAt.getTime()).toBeLessThanOrEqual(120_000)
  })

  test('can do what the grant says for its parameters, and nothing else', async () => {
    const child = use(await mint(reserve()))
    expect(await readObject(child, 'acme/1'), 'in its scope').toBe(200)
    expect(await readObject(child, 'globex/1'), 'of another customer').toBe(403)
    expect(await narrow(child), 'a child of its own').toBe(403)
    const further = new AssumeRoleCommand({ RoleArn: `arn:aws:iam::${peer.account}:role/mayfly/invoices`, RoleSessionName: 'further' })
    expect(await statusOf(child.sts.send(further)), 'a further role').toBe(403)
    expect(await statusOf(child.iam.send(new ListRolesCommand({}))), 'IAM').toBe(403)
  })

  test('end long before their lease, which a fresh one outlives, of a parent that lives on', async () => {
    const reservation = reserve()
    const minted = await mint(reservation)
    expect(minted.expiresAt.getTime() - reservation.issuedAt.getTime()).toBeGreaterThan(118_000)
    expect(minted.expiresAt.getTime() - reservation.issuedAt.getTime()).toBeLessThanOrEqual(120_000)
    const first = use(minted)
    expect(await readObject(first, 'acme/1')).toBe(200)
    peer.advance(60_000)
    const second = use(await refresh(later(reservation)))
    peer.advance(61_000)
    expect(await readObject(first, 'acme/1')).not.toBe(200)
    expect(await readObject(second, 'acme/1')).toBe(200)
    expect(asked('AssumeRole')).toBe(1)
    expect(await nameOf(second)).toContain(journaled[0]!['session_name'])
  })

  test('end with their lease where that is sooner', async () => {
    const expiresAt = new Date(peer.now() + 30_500)
    const minted = await mint(reserve({ expiresAt }))
    expect(minted.expiresAt.getTime()).toBeLessThanOrEqual(expiresAt.getTime())
    const child = use(minted)
    peer.advance(31_000)
    expect(await readObject(child, 'acme/1')).not.toBe(200)
  })

  test('are over in the ledger no sooner than at AWS, by whose clock the store is ahead', async () => {
    const ahead = 600_000
    const reservation = reserve({ issuedAt: new Date(peer.now() + ahead), expiresAt: new Date(peer.now() + 2 * ahead) })
    const minted = await mint(reservation)
    expect(minted.expiresAt.getTime() - reservation.issuedAt.getTime()).toBeGreaterThan(118_000)
    peer.advance(121_000)
    expect(await readObject(use(minted), 'acme/1')).not.toBe(200)
  })

  test.each(['60s', '300s'])('live for %s where the settings say so', async (child_ttl) => {
    const reservation = reserve()
    const { expiresAt } = await mint(reservation, await connect({ child_ttl }))
    const seconds = (expiresAt.getTime() - reservation.issuedAt.getTime()) / 1_000
    expect(Number.parseInt(child_ttl, 10) - seconds).toBeGreaterThanOrEqual(0)
    expect(Number.parseInt(child_ttl, 10) - seconds).toBeLessThan(1.001)
  })

  test('are no more than 300 s long, and no less than 60', () => {
    for (const child_ttl of ['59s', '301s'])
      expect(awsSettings.safeParse({ region: 'eu-west-1', account: peer.account, child_ttl }).success).toBe(false)
  })

  describe('are not made any more', () => {
    test.each(['STS and IAM up', 'STS and IAM down'])('after the end was asked for, with %s: AWS is not asked again', async (how) => {
      const reservation = reserve()
      const child = use(await mint(reservation))
      if (how.endsWith('down')) for (const service of ['sts', 'iam'] as const) peer.faults.down(service)
      await revoke(reservation)
      const before = peer.calls.length
      expect(await failureOf(refresh(later(reservation)))).toMatchObject({ fault: 'refused', minted: 'no' })
      expect(peer.calls.length).toBe(before)
      peer.advance(121_000)
      expect(await readObject(child, 'acme/1')).not.toBe(200)
    })

    test('where the end is asked for while one is being made', async () => {
      const reservation = reserve()
      await mint(reservation)
      const again = later(reservation)
      const refreshing = failureOf(refresh(again))
      await revoke(reservation)
      const error = await refreshing
      expect(error, 'a child was made that nobody gets').toMatchObject({ fault: 'refused', minted: 'maybe' })
      expect(error.endsBy!.getTime() - again.issuedAt.getTime()).toBeLessThanOrEqual(120_000)
      const fresh = reserve()
      const minting = failureOf(mint(fresh))
      while (asked('AssumeRole') < 2) await new Promise((resolve) => setImmediate(resolve))
      await revoke(fresh)
      expect(await minting, 'or its parent').toMatchObject({ fault: 'refused', minted: 'maybe' })
    })

    test('of a role that the grant does not name any more, or of a lease without a session', async () => {
      const reservation = reserve()
      await mint(reservation)
      const elsewhere: AwsGrant = { ...grant, roles: ['mayfly/other'] }
      expect(await failureOf(refresh(later(reservation, { settings: elsewhere })))).toMatchObject({ fault: 'refused', minted: 'no' })
      expect(await failureOf(provider.refresh!(later(reservation), patient))).toMatchObject({ fault: 'refused', minted: 'no' })
    })
  })

  describe('of a parent that is not there', () => {
    test('are made under the same session name after a restart, and at another broker at the same moment', async () => {
      const reservation = reserve()
      const first = use(await mint(reservation))
      const restarted = await connect()
      const children = await Promise.all([refresh(later(reservation), restarted), refresh(later(reservation))])
      const agents = children.map(use)
      for (const agent of agents) {
        expect(await readObject(agent, 'acme/1')).toBe(200)
        expect(await nameOf(agent)).toBe(await nameOf(first))
        expect(await narrow(agent)).toBe(403)
      }
      expect(asked('AssumeRole')).toBe(2)
    })

    test('are made of another where it would end before them, whether by its policy or by STS', async () => {
      const reservation = reserve({}, 3)
      await mint(reservation)
      expect((await refresh(later(reservation))).expiresAt.getTime()).toBeGreaterThan(peer.now() + 118_000)
      expect(asked('AssumeRole')).toBe(1)
      peer.advance(61_500)
      expect(await readObject(use(await refresh(later(reservation))), 'acme/1')).toBe(200)
      expect(asked('AssumeRole'), 'the first would have ended with the lease as it was').toBe(2)
      peer.advance(901_000)
      expect(await readObject(use(await refresh(later(reservation))), 'acme/1')).toBe(200)
      expect(asked('AssumeRole')).toBe(3)
    })

    test('are made of another where the grant was changed meanwhile, and can do what it says now', async () => {
      const reservation = reserve()
      await mint(reservation)
      const changed = awsGrant.parse({
        role: 'mayfly/invoices',
        allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/globex/*'] }],
      })
      const child = use(await refresh(later(reservation, { settings: changed })))
      expect([await readObject(child, 'globex/1'), await readObject(child, 'acme/1')]).toEqual([200, 403])
    })

    test('carry a lease that is longer than any session of the role', async () => {
      const reservation = reserve({}, 180)
      await mint(reservation)
      peer.advance(3_599_000)
      expect(await readObject(use(await refresh(later(reservation))), 'acme/1')).toBe(200)
    })
  })

  describe('of a role that has none', () => {
    const denyNarrowing = () =>
      site.owner.iam.send(
        new PutRolePolicyCommand({
          RoleName: 'invoices',
          PolicyName: 'no-children',
          PolicyDocument: policyOf({ Effect: 'Deny', Action: 'sts:GetScopedCredentials', Resource: '*' }),
        }),
      )
    const withoutThem = {
      'because STS does not know the action': async () => void peer.faults.unsupported.add('GetScopedCredentials'),
      'because its policy denies them': denyNarrowing,
    }

    test.each(Object.entries(withoutThem))('give way to the session itself, %s, and it is said once', async (_, take) => {
      await take()
      const reservation = reserve()
      const minted = await mint(reservation)
      expect(minted.expiresAt.getTime()).toBe(Math.floor(reservation.expiresAt.getTime() / 1_000) * 1_000)
      const agent = use(minted)
      expect(await readObject(agent, 'acme/1')).toBe(200)
      expect(await readObject(agent, 'globex/1')).toBe(403)
      await mint(reserve())
      expect(asked('GetScopedCredentials')).toBe(1)
      expect(noticed).toEqual([{ level: 'info', event: 'mode', role: 'mayfly/invoices', mode: 'direct' }])
      // Under the name that is known, which is the only one there is.
      expect(await nameOf(agent)).toContain(journaled[0]!['session_name'])

      peer.faults.unsupported.clear()
      await site.owner.iam.send(new DeleteRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'no-children' })).catch(() => undefined)
      expect(await narrow(agent), 'the parent, which may be narrowed, is not what was handed out').toBe(403)
    })

    test('are known to be none by an STS that answers 501, which made nothing', () => {
      const answer = Object.assign(new Error('not implemented'), { $metadata: { httpStatusCode: 501 } })
      const error = faultOf('aws', 'GetScopedCredentials', answer)
      expect([error.minted, noChildFor(error)]).toEqual(['no', 'unsupported'])
    })

    test('are tried for again after an hour, and not before', async () => {
      peer.faults.unsupported.add('GetScopedCredentials')
      await mint(reserve())
      peer.faults.unsupported.clear()
      skew = 3_599_000
      await mint(reserve())
      expect(asked('GetScopedCredentials')).toBe(1)
      skew = 3_601_000
      const child = await mint(reserve())
      expect(child.expiresAt.getTime()).toBeLessThanOrEqual(peer.now() + 120_000)
      expect(noticed).toMatchObject([{ mode: 'direct' }, { mode: 'children' }])
    })

    test('are tried for again where the clock was ahead and is set back', async () => {
      peer.faults.unsupported.add('GetScopedCredentials')
      skew = 86_400_000
      await mint(reserve())
      skew = 0
      await mint(reserve())
      expect(asked('GetScopedCredentials')).toBe(2)
    })

    test('are refused, and what is missing is named, where the settings say children', async () => {
      const strict = await connect({ mode: 'children' })
      peer.faults.unsupported.add('GetScopedCredentials')
      const error = await failureOf(mint(reserve(), strict))
      expect(error).toMatchObject({ fault: 'refused', minted: 'maybe' })
      expect(error.message).toContain('GetScopedCredentials')
    })

    test('leave a lease that is longer than a session refused, and not as one for which nothing was made', async () => {
      peer.faults.unsupported.add('GetScopedCredentials')
      const long = reserve({}, 180)
      const error = await failureOf(mint(long))
      expect(error).toMatchObject({ fault: 'refused', minted: 'maybe' })
      expect(error.endsBy!.getTime() - long.issuedAt.getTime(), 'when the policy of the parent ends it').toBeGreaterThan(3_598_000)
      expect(error.endsBy!.getTime() - long.issuedAt.getTime()).toBeLessThanOrEqual(3_600_000)
      expect(asked('AssumeRole')).toBe(1)
      expect(await failureOf(mint(reserve({}, 180))), 'within the hour no parent is assumed').toMatchObject({ fault: 'refused', minted: 'no' })
      expect(asked('AssumeRole')).toBe(1)
    })

    test('are refused as one for which nothing was made where the role cannot be assumed', async () => {
      peer.faults.next('AssumeRole', 'throttles', 3)
      expect(await failureOf(mint(reserve()))).toMatchObject({ fault: 'unavailable', minted: 'no' })
    })

    test('are not asked for where the settings say direct, and a fresh session lives longer under the same name', async () => {
      const direct = await connect({ mode: 'direct' })
      const reservation = reserve()
      const first = use(await mint(reservation, direct))
      peer.advance(300_000)
      const fresh = await refresh(later(reservation), direct)
      expect(fresh.expiresAt.getTime()).toBeGreaterThan(reservation.expiresAt.getTime())
      const second = use(fresh)
      expect(await nameOf(second)).toBe(await nameOf(first))
      expect(asked('GetScopedCredentials')).toBe(0)
    })

    test('are not said to be none because one session is denied them', async () => {
      const reservation = reserve()
      await mint(reservation)
      await denyNarrowing()
      expect(await failureOf(refresh(later(reservation)))).toMatchObject({ fault: 'refused', minted: 'no' })
      expect(noticed).toMatchObject([{ mode: 'children' }])
    })
  })

  describe('when AWS fails', () => {
    test.each(['fails', 'throttles', 'resets', 'loses the answer'] as const)('once, are given all the same: it %s', async (fault) => {
      const reservation = reserve()
      peer.faults.next('GetScopedCredentials', fault)
      expect(await readObject(use(await mint(reservation)), 'acme/1')).toBe(200)
      peer.faults.next('GetScopedCredentials', fault)
      expect(await readObject(use(await refresh(later(reservation))), 'acme/1')).toBe(200)
    })

    test.each([
      ['fails', 'maybe'],
      ['throttles', 'no'],
      ['resets', 'maybe'],
      ['loses the answer', 'maybe'],
      ['pads the answer', 'maybe'],
    ] as const)('to the end, may have been made, and then end with a child: it %s, %s', async (fault, minted) => {
      const reservation = reserve()
      const child = use(await mint(reservation))
      const again = later(reservation)
      // Whoever was answered is not asked again.
      peer.faults.next('GetScopedCredentials', fault, fault === 'pads the answer' ? 1 : 3)
      const error = await failureOf(refresh(again))
      expect(error.minted).toBe(minted)
      if (minted === 'no') expect(error.endsBy).toBeUndefined()
      else expect(error.endsBy!.getTime() - again.issuedAt.getTime()).toBeLessThanOrEqual(120_000)
      expect(inspect(error, { depth: 20, showHidden: true })).not.toContain(tokenOfThePeer)
      expect(await readObject(child, 'acme/1'), 'the one before lives').toBe(200)
      expect(await readObject(use(await refresh(later(reservation))), 'acme/1'), 'and there is another afterwards').toBe(200)
      expect(asked('AssumeRole')).toBe(1)
    })

    test('at the first child, leave a parent, so that something may have been made: it is throttled', async () => {
      peer.faults.next('GetScopedCredentials', 'throttles', 3)
      expect(await failureOf(mint(reserve()))).toMatchObject({ fault: 'unavailable', minted: 'maybe' })
      expect(asked('AssumeRole')).toBe(1)
    })

    test('by being away, leave the child that there is, which ends by itself', async () => {
      const reservation = reserve()
      const child = use(await mint(reservation))
      peer.faults.down('sts')
      expect(await failureOf(refresh(later(reservation)))).toMatchObject({ fault: 'unavailable' })
      expect(await readObject(child, 'acme/1')).toBe(200)
      peer.advance(121_000)
      expect(await readObject(child, 'acme/1')).not.toBe(200)
    })
  })

  test('fit into a token whose two policies are as long as they may be', async () => {
    const long = (length: number) =>
      awsGrant.parse({
        role: 'mayfly/invoices',
        allow: [
          {
            actions: ['s3:GetObject'],
            resources: Array.from({ length }, (_, at) => `arn:aws:s3:::invoices/acme/${(at * 2_654_435_761).toString(36)}`),
          },
        ],
      })
    const fits = (length: number) => awsKind.grantFaults!(long(length), { standing: false, parameters: new Map() }).length === 0
    const most = Array.from({ length: 60 }, (_, at) => at + 1).findLast(fits)!
    await expect(mint(reserve({ settings: long(most) }))).resolves.toBeDefined()
  })

  test('are looked for by provider check, which says what each role has', async () => {
    const trial = { name: 'invoices-bucket', settings: grant, maxTtl: 7_200_000, parameters: { customer: 'acme' } }
    const modeFound = async (by: Provider) => (await by.examine!([trial])).find(({ subject }) => subject === 'mode of mayfly/invoices')
    expect(await modeFound(provider)).toMatchObject({ level: 'ok', message: expect.stringContaining('children') as unknown })
    expect(await modeFound(await connect({ mode: 'direct' }))).toMatchObject({ level: 'ok', message: expect.stringContaining('direct') as unknown })
    peer.faults.unsupported.add('GetScopedCredentials')
    expect(await modeFound(provider)).toMatchObject({ level: 'warning' })
    expect(await modeFound(await connect({ mode: 'children' }))).toMatchObject({ level: 'fault' })
  })
})
