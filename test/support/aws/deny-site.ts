import {
  CreatePolicyCommand,
  GetPolicyCommand,
  GetPolicyVersionCommand,
  GetRolePolicyCommand,
  PutRolePermissionsBoundaryCommand,
  PutUserPolicyCommand,
  UpdateRoleCommand,
} from '@aws-sdk/client-iam'
import { GetObjectCommand } from '@aws-sdk/client-s3'
import { AssumeRoleCommand, type Credentials } from '@aws-sdk/client-sts'
import { connectAws } from '../../../src/providers/aws-sts/aws-sts.ts'
import { awsGrant } from '../../../src/providers/aws-sts/grant.ts'
import { awsSettings } from '../../../src/providers/aws-sts/settings.ts'
import type { LeaseReference, Provider, ProviderSurroundings, Reservation } from '../../../src/providers/provider.ts'
import { reservationOf } from '../../providers/reservation.ts'
import { clientsOf } from './clients.ts'
import { MemoryStore } from './memory-store.ts'
import { type AwsSite, policyOf, startAwsSite, stillClock } from './site.ts'

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
  /** A lease that was announced and nothing more. */
  reserve(life?: number): Reservation
  /** Another session of the role, under a name that no broker chose: what it gets. */
  stranger(name: string): Promise<() => Promise<number>>
  /** The document as AWS has it; undefined where it has none. */
  document(carrier: 'boundary' | 'inline'): Promise<string | undefined>
  /** The keys and tokens of every session that was given, and of the broker. */
  readonly secrets: string[]
}

export const boundaryPolicy = 'mayfly-kill-list-invoices'

/** Gives the role a boundary that the broker may write. @returns its ARN */
export async function bound({ peer, owner, role }: AwsSite): Promise<string> {
  const everything = policyOf({ Effect: 'Allow', Action: '*', Resource: '*' })
  const { Policy } = await owner.iam.send(new CreatePolicyCommand({ PolicyName: boundaryPolicy, PolicyDocument: everything }))
  const boundary = Policy!.Arn!
  await owner.iam.send(new PutRolePermissionsBoundaryCommand({ RoleName: 'invoices', PermissionsBoundary: boundary }))
  const may = { Effect: 'Allow', Action: 'iam:*', Resource: [boundary, `arn:aws:iam::${peer.account}:role/${role}`] }
  await owner.iam.send(new PutUserPolicyCommand({ UserName: 'mayfly', PolicyName: 'deny', PolicyDocument: policyOf(may) }))
  return boundary
}

export async function startDenySite(): Promise<DenySite> {
  const site = await startAwsSite(stillClock())
  const { peer, owner } = site
  const boundary = await bound(site)
  await owner.iam.send(new UpdateRoleCommand({ RoleName: 'invoices', MaxSessionDuration: 43_200 }))

  const store = new MemoryStore(() => peer.now())
  const grant = awsGrant.parse({ role: site.role, allow: [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/{customer}/*'] }] })
  const self: DenySite = {
    ...site,
    store,
    noticed: [],
    asked: [],
    secrets: [],
    moved: () => {},
    async connect(killList = {}, about = {}) {
      const settings = awsSettings.parse({
        region: peer.region,
        account: peer.account,
        endpoint: peer.url,
        iam_endpoint: peer.url,
        external_id: site.externalId,
        longest_session: '12h',
        mode: 'direct',
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
    reserve(life = 600_000) {
      const reservation = reservationOf(grant, { issuedAt: new Date(peer.now()), expiresAt: new Date(peer.now() + life) })
      store.announce(reservation.lease, reservation.expiresAt)
      return reservation
    },
    async mint(by, life) {
      const reservation = self.reserve(life)
      const { lease, task } = reservation
      const { credential } = await by.mint(reservation, async () => {}, new AbortController().signal)
      store.issued(lease)
      if (credential.type !== 'aws_session') throw new Error('not a session')
      const reads = reader({
        AccessKeyId: credential.access_key_id,
        SecretAccessKey: credential.secret_access_key.open(),
        SessionToken: credential.session_token.open(),
        Expiration: new Date(credential.expiration),
      })
      return { reference: { lease, task, age: 0, handles: [] }, reads }
    },
    async stranger(name) {
      const broker = clientsOf(peer, {
        accessKeyId: site.environment['AWS_ACCESS_KEY_ID']!,
        secretAccessKey: site.environment['AWS_SECRET_ACCESS_KEY']!,
      })
      const RoleArn = `arn:aws:iam::${peer.account}:role/${site.role}`
      const { Credentials } = await broker.sts.send(new AssumeRoleCommand({ RoleArn, RoleSessionName: name, ExternalId: site.externalId }))
      return reader(Credentials!)
    },
    async document(carrier) {
      try {
        if (carrier === 'inline') {
          const { PolicyDocument } = await owner.iam.send(new GetRolePolicyCommand({ RoleName: 'invoices', PolicyName: 'mayfly-kill-list' }))
          return decodeURIComponent(PolicyDocument!)
        }
        const { Policy: now } = await owner.iam.send(new GetPolicyCommand({ PolicyArn: boundary }))
        const { PolicyVersion } = await owner.iam.send(new GetPolicyVersionCommand({ PolicyArn: boundary, VersionId: now!.DefaultVersionId }))
        return decodeURIComponent(PolicyVersion!.Document!)
      } catch (error) {
        if ((error as Error).name === 'NoSuchEntityException') return undefined
        throw error
      }
    },
  }
  self.secrets.push(site.environment['AWS_SECRET_ACCESS_KEY']!)
  return self

  function reader(credentials: Credentials): () => Promise<number> {
    self.secrets.push(credentials.SecretAccessKey!, credentials.SessionToken!)
    const { s3 } = clientsOf(peer, credentials)
    return () => statusOf(s3.send(new GetObjectCommand({ Bucket: 'invoices', Key: 'acme/1' })))
  }
}

export const statusOf = (call: Promise<{ $metadata: { httpStatusCode?: number } }>): Promise<number> =>
  call.then(
    ({ $metadata }) => $metadata.httpStatusCode ?? 0,
    (error: { $metadata?: { httpStatusCode?: number } }) => error.$metadata?.httpStatusCode ?? 0,
  )
