import { CreatePolicyCommand, PutRolePermissionsBoundaryCommand, PutUserPolicyCommand, UpdateRoleCommand } from '@aws-sdk/client-iam'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { newId } from '../../../src/base/ids.ts'
import { connectAws } from '../../../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import type { LeaseReference, Minted, Provider, ProviderSurroundings } from '../../../src/providers/provider.ts'
import { reservationOf } from '../../providers/reservation.ts'
import { type AwsClients, clientsOf } from './clients.ts'
import { MemoryStore } from './memory-store.ts'
import { type AwsSite, policyOf, startAwsSite } from './site.ts'

/** A minted session, as the ledger and as its agent know it. */
export interface GivenLease {
  readonly reference: LeaseReference
  /** What the agent gets for an object of its customer: 200 or 403. */
  reads(): Promise<number>
}

/** An account with a role whose sessions can be denied, a store in memory, and a clock that only moves where somebody waits. */
export interface DenySite extends AwsSite {
  readonly store: MemoryStore
  /** What operators were told. */
  readonly noticed: { readonly level: string; readonly event: string; readonly detail: object }[]
  /** What was told of requests. */
  readonly asked: string[]
  /** Called whenever the clock was moved. */
  moved: (now: number) => void
  connect(killList?: object, about?: Partial<ProviderSurroundings>): Promise<Provider>
  mint(by: Provider, life?: number): Promise<GivenLease>
}

export const boundaryPolicy = 'mayfly-kill-list-invoices'

export async function startDenySite(): Promise<DenySite> {
  const site = await startAwsSite()
  const { peer, owner } = site
  const everything = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
  const { Policy } = await owner.iam.send(new CreatePolicyCommand({ PolicyName: boundaryPolicy, PolicyDocument: everything }))
  await owner.iam.send(new PutRolePermissionsBoundaryCommand({ RoleName: 'invoices', PermissionsBoundary: Policy!.Arn! }))
  await owner.iam.send(new UpdateRoleCommand({ RoleName: 'invoices', MaxSessionDuration: 43_200 }))
  const may = { Effect: 'Allow', Action: 'iam:*', Resource: [Policy!.Arn!, `arn:aws:iam::${peer.account}:role/${site.role}`] }
  await owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'deny', PolicyDocument: policyOf(may) }))

  const store = new MemoryStore(() => peer.now())
  const grant = awsGrant.parse({ role: site.role, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }] })
  const self: DenySite = {
    ...site,
    store,
    noticed: [],
    asked: [],
    moved: () => {},
    async connect(killList = {}, about = {}) {
      const settings = awsSettings.parse({
        region: peer.region,
        account: peer.account,
        endpoint: peer.url,
        iam_endpoint: peer.url,
        external_id: site.externalId,
        longest_session: '12h',
        kill_list: killList,
      })
      return await connectAws(
        'aws',
        settings,
        {
          publicUrl: 'https://broker.example.com',
          keys: '/nowhere',
          clock: () => peer.now(),
          sessions: store,
          killLists: store,
          asked: (_, request, outcome) => void self.asked.push(`${request} ${outcome}`),
          noticed: (_, level, event, detail) => void self.noticed.push({ level, event, detail }),
          ...about,
        },
        async (milliseconds) => {
          peer.advance(milliseconds)
          self.moved(peer.now())
          await new Promise((resolve) => setImmediate(resolve))
        },
      )
    },
    async mint(by, life = 600_000) {
      const lease = newId('lease')
      const reservation = reservationOf(grant, { lease, issuedAt: new Date(peer.now()), expiresAt: new Date(peer.now() + life) })
      store.announce(lease, reservation.expiresAt)
      const minted = await by.mint(reservation, async () => {}, new AbortController().signal)
      store.issued(lease)
      const clients = use(minted)
      const reads = () => statusOf(clients.s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' })))
      return { reference: { lease, task: reservation.task, age: 0, handles: [] }, reads }
    },
  }
  return self

  function use({ credential }: Minted): AwsClients {
    if (credential.type !== 'aws_session') throw new Error('not a session')
    return clientsOf(peer, {
      AccessKeyId: credential.access_key_id,
      SecretAccessKey: credential.secret_access_key.open(),
      SessionToken: credential.session_token.open(),
      Expiration: new Date(credential.expiration),
    })
  }
}

export const statusOf = (call: Promise<{ $metadata: { httpStatusCode?: number } }>): Promise<number> =>
  call.then(
    ({ $metadata }) => $metadata.httpStatusCode ?? 0,
    (error: { $metadata?: { httpStatusCode?: number } }) => error.$metadata?.httpStatusCode ?? 0,
  )
