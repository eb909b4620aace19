import { GetObjectCommand } from '@aws-sdk/client-s3'
import type { Credentials } from '@aws-sdk/client-sts'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { bound } from '../support/aws/deny-site.ts'
import { clientsOf } from '../support/aws/clients.ts'
import { type AwsSite, startAwsSite } from '../support/aws/site.ts'
import { type Declared, type House, startHouse } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

describe.each(stores)('a task with an AWS session that can be denied, on $name', ({ open }) => {
  let site: AwsSite
  let store: OpenedStore
  let house: House

  beforeEach(async () => {
    site = await startAwsSite()
    await bound(site)
    for (const [name, value] of Object.entries(site.environment)) vi.stubEnv(name, value)
    store = await open()
    house = await startHouse(store.settings, {
      kind: 'aws-sts',
      name: 'aws',
      settings: {
        region: site.peer.region,
        account: site.peer.account,
        endpoint: site.peer.url,
        iam_endpoint: site.peer.url,
        external_id: site.externalId,
        kill_list: {},
        timeout: '2s',
      },
      grants: { bucket: `role: ${site.role}, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }]` },
    })
  })
  afterEach(async () => {
    const findings = await house.audit()
    await house.stop()
    await site.peer.stop()
    await store.dispose()
    vi.unstubAllEnvs()
    expect(findings).toEqual([])
  })

  /** What the agent of a task gets for an object: 200 or 403. */
  async function reads({ opened, boxes: [box] }: Declared, key = 'acme/1'): Promise<number> {
    const { credential } = opened.leases[0]!
    if (credential.type !== 'aws_session') throw new Error('no session of AWS')
    const { access_key_id: AccessKeyId } = credential
    const { s3 } = clientsOf(site.peer, { AccessKeyId, SecretAccessKey: box!.secret_access_key, SessionToken: box!.session_token } as Credentials)
    return await s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: key })).then(
      () => 200,
      (error: { $metadata: { httpStatusCode?: number } }) => error.$metadata.httpStatusCode ?? 0,
    )
  }

  const written = () => site.peer.calls.filter(({ action }) => action === 'CreatePolicyVersion').length

  describe.each([
    ['is completed', 'completed', (task: Declared) => task.complete()],
    ['is revoked', 'revoked', (task: Declared) => task.revoke()],
  ] as const)('that %s', (_, cause, end) => {
    test('is refused by AWS once it says revoked, with evidence, while a sibling of the same role goes on', async () => {
      const [task, sibling] = [await house.declare(['bucket'], { duration: 1_200_000 }), await house.declare(['bucket'])]
      expect([await reads(task), await reads(task, 'globex/1'), await reads(sibling)]).toEqual([200, 403, 200])

      const { leases } = await end(task)

      expect(leases).toMatchObject([
        { revocation: 'deny', state: 'revoked', cause, evidence: { by: 'provider', statement: expect.stringContaining('generation 1 ') } },
      ])
      expect([await reads(task), await reads(sibling)]).toEqual([403, 200])
      expect(written()).toBe(1)
    })
  })

  test('that passes its deadline is refused by the policy of its session, and expired with the time as evidence: IAM is not asked', async () => {
    const [task, sibling] = [await house.declare(['bucket']), await house.declare(['bucket'], { duration: 1_200_000 })]
    await house.backdate(task.id, '62 seconds')
    site.peer.advance(62_000)
    await house.reap()
    expect((await task.complete(0)).leases).toMatchObject([{ state: 'expired', cause: 'deadline', evidence: { by: 'time' } }])
    expect([await reads(task), await reads(sibling)]).toEqual([403, 200])
    expect(written()).toBe(0)
  })

  test('says revoking, and why, while AWS has not heeded the document everywhere, and revoked only afterwards', async () => {
    const task = await house.declare(['bucket'])
    site.peer.faults.propagation = 30_000
    const early = await task.complete(0)
    expect(early.leases).toMatchObject([{ state: 'revoking', evidence: null }])
    while (written() === 0) await task.complete(0)
    expect((await task.complete(0)).leases).toMatchObject([{ state: 'revoking' }])
    expect(await reads(task)).toBe(200)
    site.peer.advance(31_000)
    await house.reap()
    expect((await task.complete()).leases).toMatchObject([{ state: 'revoked' }])
    expect(await reads(task)).toBe(403)
  })

  test('whose mint was never answered is denied by its name, which was journaled first', async () => {
    site.peer.faults.next('AssumeRole', 'loses the answer', 3)
    await expect(house.declare(['bucket'])).rejects.toMatchObject({ code: 'provider_unavailable' })
    await house.reap()
    const leases = await house.ledger.run(sql`select state, evidence->>'by' as by from leases`)
    expect(leases).toEqual([{ state: 'revoked', by: 'provider' }])
  })

  test('that ends while IAM is down says revoking until it ends by itself, and then expired, never revoked', async () => {
    const task = await house.declare(['bucket'])
    site.peer.faults.down('iam')
    expect((await task.complete(0)).leases).toMatchObject([{ state: 'revoking' }])
    await house.backdate(task.id, '40 minutes')
    await house.reap()
    expect((await task.complete(0)).leases).toMatchObject([{ state: 'expired' }])
  })
})
