import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { Lab } from '../test/support/lab.ts'
import { deployAt, type DeployedAws, externalId, taskRole } from '../test/support/aws/deployed.ts'
import type { RunningAws } from '../test/support/aws/peers.ts'
import type { Site } from '../test/support/program.ts'
import { siteOf } from './stage.ts'

/** Our AWS in a process of its own: bench/aws-peer.mjs. */
export interface AwsProcess extends RunningAws {
  readonly process: ChildProcess
  /** How often each action was asked for since it started: `sts AssumeRole`, `iam CreatePolicyVersion`; of S3 all together. */
  calls(): Promise<Readonly<Record<string, number>>>
}

/** An account that was set up with the files of deploy/aws, where nothing takes time but the work itself. */
export type Account = DeployedAws<AwsProcess>

export const deployAccount = async (): Promise<Account> => await deployAt(await startPeer(), { carrier: 'boundary', identity: 'default' })

async function startPeer(): Promise<AwsProcess> {
  const child = fork(path.join(import.meta.dirname, 'aws-peer.mjs'), { execArgv: [] })
  const died = once(child, 'exit').then(() => Promise.reject(new Error('our AWS ended before it said where it is')))
  const [about] = (await Promise.race([once(child, 'message'), died])) as [Pick<RunningAws, 'url' | 'region' | 'account' | 'root'>]
  async function stop(): Promise<void> {
    const closed = once(child, 'close')
    child.kill()
    await closed
  }
  return {
    ...about,
    process: child,
    async calls() {
      const answer = once(child, 'message')
      child.send('calls')
      return ((await answer) as [Record<string, number>])[0]
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

/** What may be done with a session, as a catalogue and as a grant have it. */
export const allow = [{ actions: ['s3:GetObject'], resources: ['arn:aws:s3:::invoices/acme/*'] }]

/** Settings of a provider of this account. */
export const settingsOf = ({ peer }: Account, mode: 'direct' | 'children', more: object = {}): object => ({
  region: peer.region,
  account: peer.account,
  endpoint: peer.url,
  iam_endpoint: peer.url,
  external_id: externalId,
  minter: 'mayfly-minter',
  revoker: 'mayfly-revoker',
  mode,
  ...more,
})

/** Brokers with the grants `bucket`, whose sessions are denied when their task ends, and `plain` and `child`, whose are not. */
export function awsSiteOf(aws: Account, store: Parameters<typeof siteOf>[0], lab: Lab): Promise<Site> {
  const provider = (name: string, mode: 'direct' | 'children', more: object = {}): string =>
    `  - ${JSON.stringify({ name, kind: 'aws-sts', ...settingsOf(aws, mode, more) })}\n`
  const grant = (provider: string): string => `provider: ${provider}, role: ${taskRole}, allow: ${JSON.stringify(allow)}`
  return siteOf(
    store,
    { lab },
    {
      providers: provider('aws', 'direct', { kill_list: {} }) + provider('plain', 'direct') + provider('children', 'children'),
      grants: { bucket: grant('aws'), plain: grant('plain'), child: grant('children') },
    },
  )
}
