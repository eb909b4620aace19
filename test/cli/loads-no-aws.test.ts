import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.ts'
import { awsModules, modulesOf } from '../support/loaded-modules.ts'
import { freePort } from '../support/port.ts'
import { makeSite, type Site } from '../support/program.ts'

/** One that has a provider of AWS, at which nobody answers. */
async function siteWithAws(): Promise<Site> {
  const nobody = `http://127.0.0.1:${await freePort()}`
  const aws = { name: 'aws', kind: 'aws-sts', region: 'us-east-1', account: '123456789012', endpoint: nobody, iam_endpoint: nobody, kill_list: {} }
  const site = await makeSite({ store: { embedded: './never-opened' }, providers: `  - ${JSON.stringify(aws)}\n` })
  await site.write(
    'catalogue.yaml',
    `
agents:
  bot: { issuer: local, match: { sub: "agent:bot" }, owner: owner@example.com, groups: [robots] }
kinds:
  work: { owner: owner@example.com, max_duration: 30m, grants: [bucket] }
grants:
  bucket: { provider: aws, role: invoices, max_ttl: 20m, allow: [{ actions: [s3:GetObject], resources: ["arn:aws:s3:::invoices/acme/*"] }] }
`,
  )
  await site.write('policies/cases.yaml', 'cases: []\n')
  return site
}

describe('the SDK of AWS', () => {
  let site: Site
  let broker: FakeBroker
  let environment: Record<string, string>

  beforeEach(async () => {
    ;[site, broker] = await Promise.all([siteWithAws(), startFakeBroker()])
    environment = { MAYFLY_URL: broker.url, MAYFLY_TOKEN: 'workload-token', AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'example' }
    broker.mint = () => ({
      type: 'aws_session',
      access_key_id: 'ASIAEXAMPLE',
      secret_access_key: 'example',
      session_token: 'example',
      expiration: new Date(Date.now() + 60_000).toISOString(),
    })
  })
  afterEach(async () => {
    await broker.close()
    await site.remove()
  })

  const asked = ['--kind', 'sync', '--grant', 's3-read']

  test.each([
    ['help', () => ['task', 'list', '--help']],
    ['what asks the broker', () => ['task', 'open', ...asked]],
    ['what delivers a session to one program', () => ['aws', 'process', ...asked]],
    ['what delivers it to a command that it runs', () => ['exec', ...asked, '--', process.execPath, '-e', '0']],
    ['what checks a catalogue with grants of AWS', () => ['policy', 'check', '--config', site.config()]],
  ])('is not loaded by %s', async (_, args) => {
    const { status, stderr, modules } = await modulesOf(args(), environment)
    expect(status, stderr).toBe(0)
    expect(modules).not.toEqual([])
    expect(awsModules(modules)).toEqual([])
  })

  test('is loaded by what asks AWS', async () => {
    const { modules } = await modulesOf(['provider', 'check', 'aws', '--config', site.config()], environment)
    expect(awsModules(modules)).toEqual(expect.arrayContaining([expect.stringContaining('@aws-sdk/client-sts')]))
  })
})
