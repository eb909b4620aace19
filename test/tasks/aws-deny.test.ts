import { GetObjectCommand } from '@aws-sdk/client-s3'
import type { Credentials } from '@aws-sdk/client-sts'
import { sql } from 'drizzle-orm'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { clientsOf } from '../support/aws/clients.ts'
import type { AwsSite } from '../support/aws/site.ts'
import { type AwsHouse, startAwsHouse } from '../support/aws-house.ts'
import type { Declared, House } from '../support/house.ts'
import { type OpenedStore, stores } from '../support/stores.ts'

/** Children once: what is denied is the name, which they have of their parent. */
const grounds = [...stores.map((store) => ({ ...store, mode: 'direct' })), { ...stores.at(-1)!, mode: 'children' }]

describe.each(grounds)('a task with an AWS session that can be denied, $mode, on $name', ({ open, mode }) => {
  let store: OpenedStore
  let aws: AwsHouse
  let house: House
  let site: AwsSite

  beforeEach(async () => {
    store = await open()
    aws = await startAwsHouse(store.settings, { mode })
    ;({ house, site } = aws)
  })
  afterEach(async () => {
    const findings = await house.audit()
    await aws.stop()
    await store.dispose()
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
      const [task, sibling] = [await house.declare(['bucket'], { duration: 1_200_000 }), await house.declare(['bucket'], { duration: 600_000 })]
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
    // A child is over by itself then, which S3 calls a bad request.
    expect([await reads(task), await reads(sibling)]).toEqual([mode === 'children' ? 400 : 403, 200])
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
