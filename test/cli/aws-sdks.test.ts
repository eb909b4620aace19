import { AssumeRoleCommand } from '@aws-sdk/client-sts'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { runWithTask } from '../../src/cli/exec.ts'
import { createClient } from '../../src/client/client.ts'
import { clientsOf } from '../support/aws/clients.ts'
import { awsPython } from '../support/aws/python.ts'
import { type AwsSite, policyOf, startAwsSite } from '../support/aws/site.ts'
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.ts'

const readsAcme = policyOf({ Effect: 'Allow', Action: 's3:GetObject', Resource: 'arn:aws:s3:::invoices/acme/*' })

describe('a command that knows nothing of Mayfly', () => {
  let site: AwsSite
  let broker: FakeBroker
  let scratch: string

  beforeEach(async () => {
    site = await startAwsSite()
    broker = await startFakeBroker()
    scratch = mkdtempSync(path.join(tmpdir(), 'mayfly-sdks-'))
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = site.environment
    const { sts } = clientsOf(site.peer, { accessKeyId: AWS_ACCESS_KEY_ID!, secretAccessKey: AWS_SECRET_ACCESS_KEY! })
    const { Credentials: session } = await sts.send(
      new AssumeRoleCommand({
        RoleArn: `arn:aws:iam::${site.peer.account}:role/${site.role}`,
        RoleSessionName: 'task-of-a-test',
        ExternalId: site.externalId,
        Policy: readsAcme,
      }),
    )
    broker.mint = () => ({
      type: 'aws_session',
      access_key_id: session!.AccessKeyId!,
      secret_access_key: session!.SecretAccessKey!,
      session_token: session!.SessionToken!,
      expiration: session!.Expiration!.toISOString(),
    })
  })
  afterEach(async () => {
    await broker.close()
    await site.peer.stop()
    rmSync(scratch, { recursive: true })
  })

  /** Runs it under a task, with keys of somebody else in the environment of whoever calls. @returns its exit status */
  const run = (command: readonly [string, ...string[]], more: Readonly<Record<string, string>> = {}): Promise<number> =>
    runWithTask(
      createClient({ url: broker.url, token: 'workload-token', patience: 50 }),
      {
        kind: 'sync',
        grants: [{ name: 's3-read', parameters: {} }],
        env: new Map(),
        command,
        environment: {
          PATH: process.env['PATH'],
          HOME: process.env['HOME'],
          XDG_RUNTIME_DIR: scratch,
          AWS_ACCESS_KEY_ID: 'AKIAOFSOMEBODYELSE',
          AWS_SECRET_ACCESS_KEY: 'of-somebody-else',
          AWS_REGION: site.peer.region,
          AWS_ENDPOINT_URL: site.peer.url,
          ...more,
        },
      },
      () => {},
      { look: 5_000, grace: 10_000, shortest: 20 },
    )

  /** What the command wrote of the object that it was let have, having been refused the other. */
  const read = (): string => readFileSync(path.join(scratch, 'read'), 'utf8')
  /** Whether the session of the task signed, and nothing else did. */
  const signers = (): Set<string | undefined> =>
    new Set(
      site.peer.calls
        .filter(({ service }) => service === 's3')
        .slice(-2)
        .map(({ key }) => key),
    )

  test('and uses the SDK for JavaScript reads what its task was given, and is refused the rest', async () => {
    const script = `
      const { S3Client, GetObjectCommand } = require('@aws-sdk/client-s3')
      const s3 = new S3Client({ forcePathStyle: true })
      const get = (Key) => s3.send(new GetObjectCommand({ Bucket: 'invoices', Key }))
      ;(async () => {
        const body = await (await get('acme/1')).Body.transformToString()
        await get('globex/1').then(() => process.exit(9), (error) => { if (error.name !== 'AccessDenied') process.exit(8) })
        require('fs').writeFileSync(${JSON.stringify(path.join(scratch, 'read'))}, body)
      })()`
    expect(await run([process.execPath, '-e', script])).toBe(0)
    expect(read()).toBe('acme/1')
    expect([...signers()]).toEqual([expect.stringMatching(/^ASIA/)])
  })

  test.runIf(awsPython)('and uses boto3 reads what its task was given, and is refused the rest', async () => {
    const script = `
import boto3, botocore
s3 = boto3.client('s3', config=botocore.config.Config(s3={'addressing_style': 'path'}))
body = s3.get_object(Bucket='invoices', Key='acme/1')['Body'].read().decode()
try:
    s3.get_object(Bucket='invoices', Key='globex/1')
    raise SystemExit(9)
except botocore.exceptions.ClientError as error:
    assert error.response['Error']['Code'] == 'AccessDenied', error
open(${JSON.stringify(path.join(scratch, 'read'))}, 'w').write(body)
`
    expect(await run(['python3', '-c', script], awsPython)).toBe(0)
    expect(read()).toBe('acme/1')
    expect([...signers()]).toEqual([expect.stringMatching(/^ASIA/)])
  })

  test.runIf(awsPython)('and uses the AWS CLI reads what its task was given, and is refused the rest', async () => {
    const get = (key: string) => `python3 -m awscli s3api get-object --bucket invoices --key ${key} "${path.join(scratch, 'read')}"`
    expect(await run(['sh', '-c', `${get('acme/1')} >/dev/null`], awsPython)).toBe(0)
    expect(read()).toBe('acme/1')
    expect(await run(['sh', '-c', `${get('globex/1')} 2>&1 | grep -q AccessDenied`], awsPython)).toBe(0)
    expect([...signers()]).toEqual([expect.stringMatching(/^ASIA/)])
  })
})
