import {
  CreatePolicyCommand,
  CreatePolicyVersionCommand,
  DeleteRolePermissionsBoundaryCommand,
  DeleteRolePolicyCommand,
  ListPolicyVersionsCommand,
  PutRolePermissionsBoundaryCommand,
  PutRolePolicyCommand,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam'
import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../../src/base/errors.ts'
import { type LeaseReference, type Provider, ProviderError, type Reservation } from '../../../src/providers/provider.ts'
import { boundaryPolicy, type DenySite, type GivenLease, startDenySite } from '../../support/aws/deny-site.ts'
import { policyOf } from '../../support/aws/site.ts'

const patient = new AbortController().signal
let site: DenySite
/** What went wrong in a test, to be searched for secrets. */
let errors: unknown[]

beforeEach(async () => {
  site = await startDenySite()
  errors = []
  for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
})
afterEach(async () => {
  await site.peer.stop()
  vi.unstubAllEnvs()
  const told = inspect([site.noticed, site.asked, errors.map((error) => (error as Error).message)], { depth: 9 })
  for (const secret of site.secrets) expect(told).not.toContain(secret)
  expect(told).not.toContain(site.peer.account)
})

const boundaryArn = () => `arn:aws:iam::${site.peer.account}:policy/${boundaryPolicy}`
/** But that the site's broker has a key that never ends, which is always told. */
const events = () => site.noticed.filter(({ event }) => event !== 'static_key').map(({ level, event }) => `${level} ${event}`)
const called = (action: string) => site.peer.calls.filter((call) => call.action === action).length

async function faultOf(call: Promise<unknown>): Promise<ProviderError> {
  const error: unknown = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  errors.push(error)
  if (!(error instanceof ProviderError)) throw new Error('it did not fail as a provider does', { cause: error })
  return error
}

/** Ends a lease, and gives up when the clock of AWS has moved by so much. */
function revokeWithin(provider: Provider, { reference }: GivenLease, milliseconds: number) {
  const patience = new AbortController()
  const until = site.peer.now() + milliseconds
  const before = site.moved
  site.moved = (now) => {
    before(now)
    if (now >= until) patience.abort()
  }
  return provider.revoke(reference, patience.signal).finally(() => (site.moved = before))
}

describe.each(['boundary', 'inline'] as const)('a session that is ended by the kill list in the %s', (carrier) => {
  let provider: Provider

  beforeEach(async () => {
    provider = await site.connect({ carrier })
  })

  test('is refused from then on, with evidence, while a sibling of the same role and names that look alike go on', async () => {
    expect(provider.revocation({})).toBe('deny')
    const [ended, sibling] = [await site.mint(provider), await site.mint(provider)]
    const name = site.store.sessions[0]!.name
    const strangers = await Promise.all([`${name}0`, `x${name}`, name.slice(0, -1), name.toUpperCase().replace(/0$/, 'Z')].map(site.stranger))
    expect([await ended.reads(), await sibling.reads()]).toEqual([200, 200])

    const evidence = await provider.revoke(ended.reference, patient)

    expect([await ended.reads(), await sibling.reads()]).toEqual([403, 200])
    for (const reads of strangers) expect(await reads()).toBe(200)
    const policy = carrier === 'boundary' ? `boundary ${boundaryPolicy}` : 'inline policy mayfly-kill-list'
    expect(evidence).toMatchObject({
      by: 'provider',
      statement: expect.stringContaining(`generation 1 of the kill list of mayfly/invoices (${policy})`),
    })
    expect(evidence.statement).toMatch(/written \d{4}-.*Z, seen in force \d{4}-.*Z$/)
  })

  test('is not called dead before AWS refuses it everywhere, and is once it does', async () => {
    site.peer.faults.propagation = 30_000
    const lease = await site.mint(provider)
    const { store, peer } = site
    let writtenAt = 0
    site.moved = (now) => {
      const [session] = store.sessions
      writtenAt ||= session!.writtenAt ?? 0
      if (writtenAt && now < writtenAt + 30_000) expect(session!.confirmedAt).toBeUndefined()
    }

    const fault = await faultOf(revokeWithin(provider, lease, 10_000))
    expect(fault).toMatchObject({
      fault: 'downstream',
      message: 'denied in generation 1 of the kill list of mayfly/invoices, not in force everywhere yet',
    })
    expect(await lease.reads()).toBe(200)

    await provider.revoke(lease.reference, patient)
    expect(await lease.reads()).toBe(403)
    const [{ confirmedAt }] = store.sessions as [(typeof store.sessions)[0]]
    expect(confirmedAt! - writtenAt).toBeGreaterThanOrEqual(30_000)
    expect(peer.now() - writtenAt, 'looked at every 5 s').toBeLessThanOrEqual(36_000)
  })

  test('goes on being ended for the others when one of them stops waiting', async () => {
    site.peer.faults.propagation = 20_000
    const [hurried, other] = [await site.mint(provider), await site.mint(provider)]
    const [fault, evidence] = await Promise.all([faultOf(revokeWithin(provider, hurried, 5_000)), provider.revoke(other.reference, patient)])
    expect(fault.fault).toBe('downstream')
    expect(evidence.by).toBe('provider')
    expect([await hurried.reads(), await other.reads()]).toEqual([403, 403])
    expect((await provider.revoke(hurried.reference, patient)).by, 'without another document').toBe('provider')
    expect(site.store.intents.length).toBeLessThanOrEqual(2)
  })

  test('is ended when IAM is back, an hour after it went down, and until then nobody says so', { timeout: 300_000 }, async () => {
    const lease = await site.mint(provider, 3 * 3_600_000)
    const down = site.peer.now()
    site.peer.faults.down('iam')
    const fault = await faultOf(revokeWithin(provider, lease, 10_000))
    expect(fault).toMatchObject({
      fault: 'downstream',
      message: expect.stringMatching(/^denied, and not written yet: aws did not answer \w+: status 503$/),
    })
    site.moved = (now) => now - down > 3_600_000 && site.peer.faults.up('iam')

    await provider.revoke(lease.reference, patient)

    expect(await lease.reads()).toBe(403)
    expect(site.peer.now() - down, 'asked again every 10 s at most').toBeLessThan(3_600_000 + 15_000)
    expect(called(carrier === 'boundary' ? 'CreatePolicyVersion' : 'ListRolePolicies')).toBeGreaterThan(360)
    expect(events()).toContain('warn kill_list_not_written')
  })

  test('is ended in the end where AWS throttles the broker, which takes its time', async () => {
    const lease = await site.mint(provider)
    site.peer.faults.next(carrier === 'boundary' ? 'CreatePolicyVersion' : 'PutRolePolicy', 'throttles', 6)
    expect((await provider.revoke(lease.reference, patient)).by).toBe('provider')
    expect(await lease.reads()).toBe(403)
  })

  test('whose edit by hand took it off the list is found within the hour, denied again, and told of', async () => {
    const lease = await site.mint(provider, 3 * 3_600_000)
    await provider.revoke(lease.reference, patient)
    site.peer.advance(1_200)
    await provider.upkeep!(patient)
    const everything = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
    const { iam } = site.owner
    if (carrier === 'boundary')
      await iam.send(new CreatePolicyVersionCommand({ PolicyArn: boundaryArn(), PolicyDocument: everything, SetAsDefault: true }))
    else await iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'mayfly-kill-list', PolicyDocument: everything }))
    expect(await lease.reads()).toBe(200)
    await provider.upkeep!(patient)
    expect(events(), 'nothing is due').not.toContain('error kill_list_drift')

    site.peer.advance(3_600_000)
    site.peer.faults.next(carrier === 'boundary' ? 'CreatePolicyVersion' : 'PutRolePolicy', 'resets')
    await provider.upkeep!(patient)

    expect(events()).toContain('error kill_list_drift')
    expect(await lease.reads(), 'at the second try').toBe(403)
    site.peer.advance(60_000)
    await provider.upkeep!(patient)
    expect(await site.store.due()).toEqual([])
  })

  test('is denied by another policy from the start of a broker on whose settings name that', async () => {
    const lease = await site.mint(provider, 3 * 3_600_000)
    await provider.revoke(lease.reference, patient)
    const { iam } = site.owner
    if (carrier === 'boundary') {
      const arn = boundaryArn().replace(boundaryPolicy, 'other-invoices')
      const everything = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
      await iam.send(new CreatePolicyCommand({ PolicyName: 'other-invoices', PolicyDocument: everything }))
      await iam.send(new PutRolePermissionsBoundaryCommand({ RoleName: 'invoices', PermissionsBoundary: arn }))
      const may = policyOf({ Effect: 'Allow', Action: 'iam:*', Resource: '*' })
      await iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'deny', PolicyDocument: may }))
    } else await iam.send(new DeleteRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'mayfly-kill-list' }))
    expect(await lease.reads()).toBe(200)

    site.peer.advance(1_200)
    const restarted = await site.connect({ carrier, policy: 'other-{role}' })
    await restarted.upkeep!(patient)

    expect(await lease.reads()).toBe(403)
    const before = site.peer.calls.length
    await restarted.upkeep!(patient)
    expect(site.peer.calls.length, 'once').toBe(before)
  })

  test('leaves the list, when it has ended by itself for two minutes, with the next comparison', async () => {
    await provider.revoke((await site.mint(provider)).reference, patient)
    expect(await site.document(carrier)).toContain('*:@1')
    site.peer.advance(3_600_000)
    await provider.upkeep!(patient)
    expect(await site.document(carrier)).toBe(carrier === 'boundary' ? policyOf({ Effect: 'Allow', Action: '*', Resource: '*' }) : undefined)
    expect(await site.store.due()).toEqual([])
    expect(events()).toEqual([])
  })

  test.each([10, -10])('is seen to be dead where the clock of AWS is %s minutes ahead', async (minutes) => {
    site.peer.faults.skew = minutes * 60_000
    const { reference } = await site.mint(provider)
    expect((await provider.revoke(reference, patient)).by).toBe('provider')
  })

  const asked = carrier === 'boundary' ? ['CreatePolicyVersion'] : ['ListRolePolicies', 'GetRolePolicy', 'PutRolePolicy']
  const pairs = [...asked, 'AssumeRole', 'DecodeAuthorizationMessage'].flatMap((action) =>
    (['resets', 'loses the answer', 'fails', 'conflicts'] as const).map((fault) => [action, fault] as const),
  )
  test.each(pairs)('is denied once and for all although %s %s', async (action, fault) => {
    const [ended, sibling] = [await site.mint(provider), await site.mint(provider)]
    site.peer.faults.next(action, fault, action === 'AssumeRole' ? 3 : 1)
    expect((await provider.revoke(ended.reference, patient)).by).toBe('provider')
    expect([await ended.reads(), await sibling.reads()]).toEqual([403, 200])
    expect(site.peer.faults.pending).toBe(0)
    site.peer.advance(60_000)
    await provider.upkeep!(patient)
    expect(await site.store.due()).toEqual([])
    expect(events()).not.toContain('error kill_list_drift')
  })

  const compared = carrier === 'boundary' ? ['GetRole', 'GetPolicy', 'GetPolicyVersion'] : ['GetRolePolicy']
  test.each(compared.flatMap((action) => (['resets', 'loses the answer', 'pads the answer'] as const).map((fault) => [action, fault] as const)))(
    'is compared a minute later where %s %s, and what is due is written all the same',
    async (action, fault) => {
      const [first, second] = [await site.mint(provider, 3 * 3_600_000), await site.mint(provider, 3 * 3_600_000)]
      await provider.revoke(first.reference, patient)
      site.peer.advance(3_600_000)
      site.peer.faults.next(action, fault)
      expect((await provider.revoke(second.reference, patient)).by).toBe('provider')
      expect(events()).toContain('warn kill_list_not_compared')
      site.peer.advance(60_000)
      await provider.upkeep!(patient)
      expect(await site.store.due()).toEqual([])
      expect([await first.reads(), await second.reads()]).toEqual([403, 403])
    },
  )
})

describe('a kill list in the boundary', () => {
  /** Ends so many leases, one a document. */
  async function endOneByOne(provider: Provider, count: number, before: (round: number) => void = () => {}): Promise<void> {
    const leases: GivenLease[] = []
    for (let round = 0; round < count; round += 1) {
      leases.push(await site.mint(provider))
      before(round)
      site.peer.advance(1_200)
      await provider.revoke(leases.at(-1)!.reference, patient)
    }
    for (const lease of leases) expect(await lease.reads()).toBe(403)
  }
  const versions = async () => (await site.owner.iam.send(new ListPolicyVersionsCommand({ PolicyArn: boundaryArn() }))).Versions!.length

  test('goes on past the five versions that a policy has, and no document is asked for twice, whatever is lost on the way', async () => {
    await endOneByOne(await site.connect(), 14, (round) => {
      if (round === 6) site.peer.faults.next('DeletePolicyVersion', 'loses the answer')
      if (round === 6) site.peer.faults.next('ListPolicyVersions', 'loses the answer')
      if (round === 12) site.peer.faults.next('DeletePolicyVersion', 'resets')
    })
    expect(called('CreatePolicyVersion')).toBe(14)
    await vi.waitFor(async () => expect(await versions()).toBeLessThanOrEqual(2), { timeout: 20_000 })
    expect(events()).not.toContain('warn kill_list_not_written')
  })

  test('is in force, and so is the next, while clearing up behind it hangs, which is told of', async () => {
    const provider = await site.connect()
    await endOneByOne(provider, 1)
    await vi.waitFor(async () => expect(await versions()).toBe(1), { timeout: 20_000 })
    site.peer.faults.next('DeletePolicyVersion', 'hangs')
    await endOneByOne(provider, 3)
    await vi.waitFor(() => expect(events()).toEqual(['warn kill_list_not_tidied']), { timeout: 10_000 })
    const [told] = site.noticed.filter(({ event }) => event === 'kill_list_not_tidied')
    expect(told!.detail).toEqual({ role: 'mayfly/invoices', why: 'aws did not answer DeletePolicyVersion: it gave no answer in time' })
    await endOneByOne(provider, 1)
    await vi.waitFor(async () => expect(await versions()).toBe(1), { timeout: 20_000 })
    expect(called('CreatePolicyVersion')).toBe(5)
  })

  test('is written however long AWS throttles what clears up, which is tried once behind each document and never by itself', async () => {
    const provider = await site.connect()
    await endOneByOne(provider, 1)
    await vi.waitFor(async () => expect(await versions()).toBe(1), { timeout: 20_000 })
    for (const action of ['DeletePolicyVersion', 'ListPolicyVersions']) site.peer.faults.limit(action, { burst: 0, perSecond: 0 })
    await endOneByOne(provider, 3)
    await vi.waitFor(() => expect(events()).toEqual(Array(3).fill('warn kill_list_not_tidied')), { timeout: 20_000 })
    await provider.upkeep!(patient)
    expect(events(), 'the lease is as revoked as any').toHaveLength(3)
    expect(called('CreatePolicyVersion')).toBe(4)
    for (const action of ['DeletePolicyVersion', 'ListPolicyVersions']) site.peer.faults.limit(action, undefined)
    await endOneByOne(provider, 1)
    await vi.waitFor(async () => expect(await versions()).toBe(1), { timeout: 20_000 })
    expect([called('CreatePolicyVersion'), events().length]).toEqual([5, 3])
  })

  test('that no role heeds confirms nothing, and is told of', async () => {
    const provider = await site.connect()
    const lease = await site.mint(provider, 3 * 3_600_000)
    await site.owner.iam.send(new DeleteRolePermissionsBoundaryCommand({ RoleName: 'invoices' }))
    const fault = await faultOf(revokeWithin(provider, lease, 60_000))
    expect(fault.message).toBe('denied in generation 1 of the kill list of mayfly/invoices, not in force everywhere yet')
    site.peer.advance(3_600_000)
    await faultOf(revokeWithin(provider, lease, 10_000))
    expect(events()).toContain('error kill_list_not_attached')
    expect(site.store.sessions[0]!.confirmedAt).toBeUndefined()
  })

  test('is seen in force by sessions of a role that may not even ask, because AWS says who denies it', async () => {
    const work = policyOf({ Effect: 'Allow', Action: 's3:*', Resource: '*' })
    await site.owner.iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'work', PolicyDocument: work }))
    site.peer.faults.propagation = 4_000
    const provider = await site.connect()
    const lease = await site.mint(provider)
    await provider.revoke(lease.reference, patient)
    expect(await lease.reads()).toBe(403)
    const [session] = site.store.sessions
    expect(session!.confirmedAt! - session!.writtenAt!).toBeGreaterThanOrEqual(4_000)
  })

  test('is not taken to be in force for the sake of what somebody else denies', async () => {
    const foreign = policyOf(
      { Effect: 'Allow', Action: '*', Resource: '*' },
      { Effect: 'Deny', Action: 'sts:DecodeAuthorizationMessage', Resource: '*' },
    )
    await site.owner.iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'work', PolicyDocument: foreign }))
    const provider = await site.connect()
    const lease = await site.mint(provider)
    expect((await faultOf(revokeWithin(provider, lease, 30_000))).message).toContain('not in force everywhere yet')
    expect(site.store.sessions[0]!.confirmedAt).toBeUndefined()
  })

  test('is read where the broker may not look at the role', async () => {
    const may = {
      Effect: 'Allow',
      Action: ['iam:GetPolicy*', 'iam:ListPolicyVersions', 'iam:CreatePolicyVersion', 'iam:DeletePolicyVersion'],
      Resource: boundaryArn(),
    }
    await site.owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'deny', PolicyDocument: policyOf(may) }))
    const provider = await site.connect()
    await provider.revoke((await site.mint(provider, 3 * 3_600_000)).reference, patient)
    site.peer.advance(3_600_000)
    await provider.upkeep!(patient)
    expect(await site.store.due()).toEqual([])
    expect(events()).toEqual([])
  })
})

describe('a kill list in an inline policy', () => {
  test('keeps to the room that the other policies of the role leave', async () => {
    const filler = policyOf({ Effect: 'Deny', Action: 's3:DeleteObject', Resource: `arn:aws:s3:::${'x'.repeat(9_600)}` })
    await site.owner.iam.send(new PutRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'filler', PolicyDocument: filler }))
    const provider = await site.connect({ carrier: 'inline' })
    const leases = await Promise.all(Array.from({ length: 20 }, () => site.mint(provider)))
    await Promise.all(leases.map(({ reference }) => provider.revoke(reference, patient)))
    for (const lease of leases) expect(await lease.reads()).toBe(403)
    expect((await site.document('inline'))!.length).toBeLessThan(10_240 - filler.length)
    expect(events()).not.toContain('warn kill_list_not_written')
  })

  test('whose neighbours may not be read is not written, unless its capacity is given', async () => {
    const may = {
      Effect: 'Allow',
      Action: ['iam:PutRolePolicy', 'iam:DeleteRolePolicy'],
      Resource: `arn:aws:iam::${site.peer.account}:role/${site.role}`,
    }
    await site.owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'deny', PolicyDocument: policyOf(may) }))
    const provider = await site.connect({ carrier: 'inline' })
    const lease = await site.mint(provider)
    expect((await faultOf(revokeWithin(provider, lease, 10_000))).message).toContain('kill_list.capacity')
    const given = await site.connect({ carrier: 'inline', capacity: 2_000 })
    expect((await given.revoke(lease.reference, patient)).by).toBe('provider')
    expect(await lease.reads()).toBe(403)
  })
})

describe('a lease of a role that has a kill list', () => {
  let provider: Provider

  beforeEach(async () => {
    provider = await site.connect()
  })
  const referenceOf = ({ lease, task }: Pick<LeaseReference, 'lease' | 'task'>): LeaseReference => ({ lease, task, age: 0, handles: [] })

  test('that ended by itself was ended by time, and nobody asks AWS', async () => {
    const lease = await site.mint(provider, 60_000)
    site.peer.advance(60_000)
    const before = site.peer.calls.length
    expect(await provider.revoke(lease.reference, patient)).toMatchObject({
      by: 'time',
      statement: expect.stringMatching(/ended by itself at \d{4}/),
    })
    expect(site.peer.calls.length).toBe(before)
  })

  test('that ends by itself within 10 s is left to it, and says for how long asking again is pointless', async () => {
    const lease = await site.mint(provider, 60_000)
    site.peer.advance(51_000)
    const fault = await faultOf(provider.revoke(lease.reference, patient))
    expect(fault).toMatchObject({ fault: 'downstream' })
    expect(fault.pointlessFor).toBeGreaterThan(8_000)
    expect(fault.pointlessFor).toBeLessThanOrEqual(9_000)
    expect(site.store.intents).toEqual([])
  })

  test('for which no session was ever asked has none, and gets none any more', async () => {
    const reservation = site.reserve()
    expect(await provider.recover(referenceOf(reservation), patient)).toEqual({ minted: false })
    expect(await provider.revoke(referenceOf(reservation), patient)).toMatchObject({ by: 'broker' })
    const late: unknown = await provider.mint(reservation, async () => {}, patient).catch((error: unknown) => error)
    expect(late).toBeInstanceOf(BrokerError)
    expect(late).toMatchObject({ code: 'conflict' })
    expect(called('AssumeRole')).toBe(0)
  })

  test('whose session was given in an answer that was lost is denied by name', async () => {
    const reservation = site.reserve()
    site.peer.faults.next('AssumeRole', 'loses the answer', 3)
    expect(await faultOf(provider.mint(reservation, async () => {}, patient))).toMatchObject({ minted: 'maybe' })
    const reads = await site.stranger(site.store.sessions[0]!.name)
    expect(await reads()).toBe(200)
    await provider.revoke(referenceOf(reservation), patient)
    expect(await reads()).toBe(403)
  })

  describe('whose session was named with its announcement', () => {
    async function named(): Promise<{ readonly reservation: Reservation; readonly name: string; readonly reference: LeaseReference }> {
      const reservation = site.reserve()
      const reserved = await site.store.reserve('aws', reservation.lease, provider.pool!(reservation.settings))
      if (reserved.outcome !== 'reserved') throw new Error(reserved.outcome)
      const { role, name } = reserved.session
      const handles = [{ kind: 'session', role, session_name: name }]
      return { reservation: { ...reservation, handles }, name, reference: { ...referenceOf(reservation), handles } }
    }

    test('is minted under that name, and the store is not asked for another', async () => {
      const { reservation, name } = await named()
      await provider.mint(reservation, async () => {}, patient)
      expect(site.peer.given().map((session) => session.name)).toEqual([name])
      expect(site.store.sessions).toHaveLength(1)
    })

    test('is denied by that name, however late it is minted', async () => {
      const { reservation, name, reference } = await named()
      expect(await provider.recover(reference, patient)).toEqual({ minted: true })
      expect(await provider.revoke(reference, patient)).toMatchObject({ by: 'provider' })
      await provider.mint(reservation, async () => {}, patient)
      const late = site.peer.given().find((session) => session.name === name)!
      expect(late.may('s3:GetObject', 'arn:aws:s3:::invoices/acme/1', site.peer.now())).toBe(false)
    })
  })

  test('is not issued where every role of its pool is full, which is no word against the provider', async () => {
    site.store.list(site.role).shut = true
    const fault = await faultOf(provider.mint(site.reserve(), async () => {}, patient))
    expect(fault).toMatchObject({ fault: 'downstream', minted: 'no', message: expect.stringContaining('mayfly/invoices takes no further session') })
    expect(called('AssumeRole')).toBe(0)
  })

  test('has proof from what another broker saw, without a document of its own', async () => {
    const lease = await site.mint(provider)
    await provider.revoke(lease.reference, patient)
    const before = site.peer.calls.length
    expect((await (await site.connect()).revoke(lease.reference, patient)).by).toBe('provider')
    expect(site.peer.calls.length).toBe(before)
  })

  test('is ended by the store alone where its broker died before it wrote, between two laps of another', async () => {
    const lease = await site.mint(provider)
    await site.store.deny('aws', lease.reference.lease)
    await (
      await site.connect()
    ).upkeep!(patient)
    expect(await lease.reads()).toBe(403)
    expect(await site.store.due()).toEqual([])
  })
})

test('without kill_list, or without a store, a session ends by time alone and IAM is never asked', async () => {
  const unkept = await site.connect({}, { sessions: undefined, killLists: undefined } as object)
  expect([unkept.revocation({}), unkept.upkeep, unkept.limits?.ends, unkept.pool]).toEqual(['expiry', undefined, undefined, undefined])
  expect(site.peer.calls.filter(({ service, key }) => service === 'iam' && key !== site.peer.root.accessKeyId)).toEqual([])
})
